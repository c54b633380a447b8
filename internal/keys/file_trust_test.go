package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"testing"
)

// liar signs something else.
type liar struct{ crypto.Signer }

func (l liar) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	other := append([]byte{}, digest...)
	other[0] ^= 1
	return l.Signer.Sign(r, other, opts)
}

// Whatever a key in a file makes that is no signature by it, Sign gives nothing: nobody verifies after it.
func TestFileKeyWrongSignature(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("something"))
	for name, c := range map[string]struct {
		key  crypto.Signer
		opts crypto.SignerOpts
	}{
		"ECDSA": {ec, crypto.SHA256}, "Ed25519": {ed, crypto.Hash(0)}, "RSA": {rs, crypto.SHA256},
		"RSA-PSS": {rs, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := (&fileKey{&fileProvider{}, "k", c.key}).Sign(nil, digest[:], c.opts); err != nil {
				t.Errorf("honest: %v", err)
			}
			if sig, err := (&fileKey{&fileProvider{}, "k", liar{c.key}}).Sign(nil, digest[:], c.opts); sig != nil || !errors.Is(err, errWrongSignature) || !errors.Is(err, ErrUnavailable) {
				t.Errorf("a wrong signature: %x, %v", sig, err)
			}
		})
	}
}
