package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/deviceca/deviceca/ca"
)

// sealed is a JWS as go-jose makes it.
func sealed(t *testing.T, alg jose.SignatureAlgorithm, key any) []byte {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("url", "u").WithHeader("nonce", "n"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(signed.FullSerialize())
}

// What go-jose signs verifies here, by each algorithm and with the account's key as the ledger has it; a signature
// that is changed, cut, lengthened or in another form does not.
func TestVerify(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for alg, key := range map[jose.SignatureAlgorithm]crypto.Signer{jose.ES256: p256, jose.ES384: p384, jose.EdDSA: ed, jose.RS256: rsa2048} {
		t.Run(string(alg), func(t *testing.T) {
			vetted, err := newPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			spki, err := x509.MarshalPKIXPublicKey(key.Public())
			if err != nil {
				t.Fatal(err)
			}
			k, err := accountKey(&ca.Account{Key: spki, Thumbprint: vetted.thumbprint})
			if err != nil || k.alg != vetted.alg || !slices.Equal(k.spki, vetted.spki) {
				t.Fatalf("%+v, %v; want %+v", k, err, vetted)
			}
			m, err := parseJWS(sealed(t, alg, key))
			if err != nil {
				t.Fatal(err)
			}
			if err := m.verify(k); err != nil {
				t.Fatal(err)
			}
			good := m.signature
			der, err := asn1.Marshal([]*big.Int{new(big.Int).SetBytes(good[:len(good)/2]), new(big.Int).SetBytes(good[len(good)/2:])})
			if err != nil {
				t.Fatal(err)
			}
			for name, bad := range map[string][]byte{"empty": {}, "zeros": make([]byte, len(good)), "cut": good[1:], "longer": append([]byte{0}, good...),
				"in DER": der, "changed": append([]byte{good[0] ^ 1}, good[1:]...), "of half zeros": append(make([]byte, len(good)/2), good[len(good)/2:]...)} {
				if m.signature = bad; m.verify(k) == nil {
					t.Errorf("a signature that is %s verifies", name)
				}
			}
			m.signature = good
			if m.input += "A"; m.verify(k) == nil {
				t.Error("another payload verifies")
			}
		})
	}
}

func TestVerifyMAC(t *testing.T) {
	secret := []byte("0123456789abcdef0123456789abcdef")
	m, err := parseJWS(sealed(t, jose.HS256, secret))
	if err != nil {
		t.Fatal(err)
	}
	if !m.verifyMAC(secret) || m.verifyMAC(secret[1:]) {
		t.Error("the MAC does not depend on the key")
	}
	if m.signature = m.signature[:16]; m.verifyMAC(secret) {
		t.Error("half a MAC verifies")
	}
}
