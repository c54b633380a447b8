package ocsp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
)

// algorithm is a signature algorithm with its AlgorithmIdentifier in DER.
type algorithm struct {
	id   []byte
	hash crypto.Hash // 0 signs the message itself
	x509 x509.SignatureAlgorithm
}

// RSA carries NULL parameters (RFC 4055 §5), ECDSA and Ed25519 none (RFC 5758 §3.2, RFC 8410 §3).
var algorithms = []algorithm{
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"), crypto.SHA256, x509.ECDSAWithSHA256},
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03"), crypto.SHA384, x509.ECDSAWithSHA384},
	{[]byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04"), crypto.SHA512, x509.ECDSAWithSHA512},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00"), crypto.SHA256, x509.SHA256WithRSA},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00"), crypto.SHA384, x509.SHA384WithRSA},
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00"), crypto.SHA512, x509.SHA512WithRSA},
	{[]byte("\x30\x05\x06\x03\x2b\x65\x70"), 0, x509.PureEd25519},
	// Read, never written; Verify refuses it.
	{[]byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00"), crypto.SHA1, x509.SHA1WithRSA},
}

// algorithmFor chooses how a key signs: ECDSA with the hash of its curve's
// size, RSA PKCS #1 v1.5 with SHA-256, Ed25519.
func algorithmFor(pub crypto.PublicKey) (*algorithm, error) {
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
	}
	for i := range algorithms {
		if algorithms[i].x509 == want && want != 0 {
			return &algorithms[i], nil
		}
	}
	return nil, fmt.Errorf("a %T cannot sign OCSP responses here: use an ECDSA, RSA or Ed25519 key", pub)
}

// algorithmOf finds the algorithm by its AlgorithmIdentifier. Of RSA's the NULL
// may be missing (RFC 4055 §5).
func algorithmOf(id []byte) x509.SignatureAlgorithm {
	for i := range algorithms {
		full := algorithms[i].id
		bare, hasNULL := bytes.CutSuffix(full[2:], []byte{5, 0})
		if bytes.Equal(full, id) || hasNULL && len(id) == 2+len(bare) && bytes.Equal(bare, id[2:]) {
			return algorithms[i].x509
		}
	}
	return x509.UnknownSignatureAlgorithm
}

func (a *algorithm) sign(key crypto.Signer, message []byte) ([]byte, error) {
	if a.hash == 0 {
		return key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	h := a.hash.New()
	h.Write(message)
	return key.Sign(rand.Reader, h.Sum(nil), a.hash)
}
