package der_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"math/big"
	"testing"

	"github.com/deviceca/deviceca/internal/der"
)

// Each algorithm's identifier is the one that crypto/x509 writes, and what one
// key signs verifies under that key alone.
func TestSignatures(t *testing.T) {
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": ec(elliptic.P256()), "P-384": ec(elliptic.P384()), "P-521": ec(elliptic.P521()), "RSA": rsaKey, "Ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			s, err := der.SignatureFor(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), SignatureAlgorithm: s.X509}
			raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			var cert struct {
				TBS, Algorithm asn1.RawValue
				Signature      asn1.BitString
			}
			if _, err := asn1.Unmarshal(raw, &cert); err != nil {
				t.Fatal(err)
			}
			if string(cert.Algorithm.FullBytes) != string(s.ID) {
				t.Errorf("crypto/x509 writes %x, not %x", cert.Algorithm.FullBytes, s.ID)
			}
			if der.SignatureOf(s.ID) != s.X509 {
				t.Errorf("%x is not read as %v", s.ID, s.X509)
			}
			message := []byte("what is signed")
			digest, err := s.DigestOf(func(w io.Writer) error { _, err := w.Write(message); return err })
			if err != nil || string(digest) != string(s.Digest(message)) {
				t.Fatalf("two digests of one message: %v", err)
			}
			signature, err := s.Sign(key, digest)
			if err != nil || !verifies(key.Public(), s.Hash, digest, signature) {
				t.Fatalf("its own signature does not verify: %v", err)
			}
			signature[len(signature)-1] ^= 1
			if verifies(key.Public(), s.Hash, digest, signature) {
				t.Error("a changed signature verifies")
			}
		})
	}
	if _, err := der.SignatureFor("no key"); err == nil {
		t.Error("a string is a key")
	}
	withoutNULL := []byte("\x30\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b")
	if der.SignatureOf(withoutNULL) != x509.SHA256WithRSA {
		t.Error("RSA without parameters is not read")
	}
	for _, bad := range []string{"", "0", "\x31\x0b\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "\x30\x0c\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02\x05\x00"} {
		if got := der.SignatureOf([]byte(bad)); got != x509.UnknownSignatureAlgorithm {
			t.Errorf("%x is read as %v", bad, got)
		}
	}
}

func verifies(pub crypto.PublicKey, hash crypto.Hash, digest, signature []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, hash, digest, signature) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, signature)
	}
	return false
}
