package der

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
)

// Signature is a way to sign certificates, CRLs and status answers.
type Signature struct {
	ID   []byte      // AlgorithmIdentifier
	Hash crypto.Hash // 0: the message itself is signed (Ed25519)
	X509 x509.SignatureAlgorithm
}

// RSA carries NULL parameters (RFC 4055 §5), ECDSA and Ed25519 none (RFC 5758 §3.2, RFC 8410 §3).
var signatures = []Signature{
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"), crypto.SHA256, x509.ECDSAWithSHA256},
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"), crypto.SHA384, x509.ECDSAWithSHA384},
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"), crypto.SHA512, x509.ECDSAWithSHA512},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"), crypto.SHA256, x509.SHA256WithRSA},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00"), crypto.SHA384, x509.SHA384WithRSA},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00"), crypto.SHA512, x509.SHA512WithRSA},
	{[]byte("\x30\x05\x06\x03\x2b\x65\x70"), 0, x509.PureEd25519},
	// Known, so that it can be refused by name; SignatureFor never gives it.
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00"), crypto.SHA1, x509.SHA1WithRSA},
}

// SignatureFor chooses how a key signs: ECDSA with the hash of its curve's size,
// RSA PKCS #1 v1.5 with SHA-256, Ed25519.
func SignatureFor(pub crypto.PublicKey) (*Signature, error) {
	var want x509.SignatureAlgorithm
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch bits := pub.Curve.Params().BitSize; {
		case bits <= 256:
			want = x509.ECDSAWithSHA256
		case bits <= 384:
			want = x509.ECDSAWithSHA384
		default:
			want = x509.ECDSAWithSHA512
		}
	case *rsa.PublicKey:
		want = x509.SHA256WithRSA
	case ed25519.PublicKey:
		want = x509.PureEd25519
	default:
		return nil, fmt.Errorf("a %T cannot sign here: use an ECDSA, RSA or Ed25519 key", pub)
	}
	for i := range signatures {
		if signatures[i].X509 == want {
			return &signatures[i], nil
		}
	}
	panic("no AlgorithmIdentifier of " + want.String())
}

// SignatureOf finds the algorithm of an AlgorithmIdentifier;
// x509.UnknownSignatureAlgorithm for any other. RSA's NULL may be missing (RFC 4055 §5).
func SignatureOf(id []byte) x509.SignatureAlgorithm {
	for i := range signatures {
		full := signatures[i].ID
		bare, hasNULL := bytes.CutSuffix(full[2:], []byte{5, 0})
		if bytes.Equal(full, id) || hasNULL && len(id) == 2+len(bare) && id[0] == full[0] && int(id[1]) == len(bare) && bytes.Equal(bare, id[2:]) {
			return signatures[i].X509
		}
	}
	return x509.UnknownSignatureAlgorithm
}

// Digest is what a key signs of a message: its hash, or the message itself.
func (s *Signature) Digest(message []byte) []byte {
	if s.Hash == 0 {
		return message
	}
	h := s.Hash.New()
	h.Write(message)
	return h.Sum(nil)
}

// DigestOf is Digest of what feed writes. Ed25519 needs the message as a whole, so
// that it alone holds it in memory.
func (s *Signature) DigestOf(feed func(io.Writer) error) ([]byte, error) {
	if s.Hash == 0 {
		var message bytes.Buffer
		err := feed(&message)
		return message.Bytes(), err
	}
	h := s.Hash.New()
	err := feed(h)
	return h.Sum(nil), err
}

// Sign signs a digest.
func (s *Signature) Sign(key crypto.Signer, digest []byte) ([]byte, error) {
	return key.Sign(rand.Reader, digest, s.Hash)
}
