package keystest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that are signed
	_ "crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/keys"
)

// signAll signs a certificate by every algorithm that the key has in
// crypto/x509, and digests beside it, and verifies them all.
func signAll(t *testing.T, k keys.Key) {
	t.Helper()
	var algorithms []x509.SignatureAlgorithm
	switch k.Public().(type) {
	case *ecdsa.PublicKey:
		algorithms = []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512}
	case *rsa.PublicKey:
		algorithms = []x509.SignatureAlgorithm{
			x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
			x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		}
	case ed25519.PublicKey:
		algorithms = []x509.SignatureAlgorithm{x509.PureEd25519}
	default:
		t.Fatalf("a public key of type %T", k.Public())
	}
	for _, algorithm := range algorithms {
		signCertificate(t, k, algorithm)
	}
	for _, message := range [][]byte{[]byte("message"), bytes.Repeat([]byte{7}, 5000)} {
		signMessage(t, k, message)
	}
}

func signCertificate(t *testing.T, k keys.Key, algorithm x509.SignatureAlgorithm) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, SignatureAlgorithm: algorithm,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1, 0), IsCA: true, BasicConstraintsValid: true,
	}
	// It verifies the signature itself.
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatalf("%v: %v", algorithm, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		t.Fatalf("%v: %v", algorithm, err)
	}
}

func signMessage(t *testing.T, k keys.Key, message []byte) {
	t.Helper()
	if pub, ok := k.Public().(ed25519.PublicKey); ok {
		sig, err := k.Sign(nil, message, crypto.Hash(0))
		if err != nil || !ed25519.Verify(pub, message, sig) {
			t.Fatalf("Ed25519: %v", err)
		}
		return
	}
	for _, hash := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		h := hash.New()
		h.Write(message)
		digest := h.Sum(nil)
		sig, err := k.Sign(nil, digest, hash)
		if err != nil {
			t.Fatalf("%v: %v", hash, err)
		}
		switch pub := k.Public().(type) {
		case *ecdsa.PublicKey:
			if !ecdsa.VerifyASN1(pub, digest, sig) {
				t.Fatalf("%v: ECDSA signature does not verify", hash)
			}
		case *rsa.PublicKey:
			if err := rsa.VerifyPKCS1v15(pub, hash, digest, sig); err != nil {
				t.Fatalf("%v: %v", hash, err)
			}
			signPSS(t, k, pub, hash, digest)
		}
	}
}

func signPSS(t *testing.T, k keys.Key, pub *rsa.PublicKey, hash crypto.Hash, digest []byte) {
	t.Helper()
	for _, salt := range []int{rsa.PSSSaltLengthAuto, rsa.PSSSaltLengthEqualsHash, 20} {
		opts := &rsa.PSSOptions{SaltLength: salt, Hash: hash}
		sig, err := k.Sign(nil, digest, opts)
		if err != nil {
			t.Fatalf("PSS %v, salt %d: %v", hash, salt, err)
		}
		if err := rsa.VerifyPSS(pub, hash, digest, sig, opts); err != nil {
			t.Fatalf("PSS %v, salt %d: %v", hash, salt, err)
		}
	}
}
