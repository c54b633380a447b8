package crl

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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
	return nil, fmt.Errorf("a %T cannot sign CRLs here: use an ECDSA, RSA or Ed25519 key", pub)
}

// algorithmOf finds the algorithm by its AlgorithmIdentifier.
func algorithmOf(id []byte) x509.SignatureAlgorithm {
	for i := range algorithms {
		if bytes.Equal(algorithms[i].id, id) {
			return algorithms[i].x509
		}
	}
	return x509.UnknownSignatureAlgorithm
}

// sign signs what feed writes, and checks the signature: keys in tokens fail
// too. Ed25519 needs the message as a whole, so it alone holds the list in memory.
func (a *algorithm) sign(key crypto.Signer, feed func(io.Writer) error) ([]byte, error) {
	var input []byte
	if a.hash == 0 {
		var message bytes.Buffer
		if err := feed(&message); err != nil {
			return nil, err
		}
		input = message.Bytes()
	} else {
		h := a.hash.New()
		if err := feed(h); err != nil {
			return nil, err
		}
		input = h.Sum(nil)
	}
	signature, err := key.Sign(rand.Reader, input, a.hash)
	if err != nil {
		return nil, err
	}
	var good bool
	switch pub := key.Public().(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(pub, input, signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(pub, a.hash, input, signature) == nil
	case ed25519.PublicKey:
		good = ed25519.Verify(pub, input, signature)
	}
	if !good {
		return nil, errors.New("the CA's key made a wrong signature over a CRL; nothing was published")
	}
	return signature, nil
}
