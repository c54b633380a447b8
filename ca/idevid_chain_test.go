package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// No signature is verified with the key of a stranger: what a search from the leaf up would go
// through, a hundred ways, is left out before.
func TestStrangersKeysVerifyNothing(t *testing.T) {
	newKey := func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	serial := int64(0)
	issue := func(subject, issuer string, isCA bool, key, by crypto.Signer) *x509.Certificate {
		serial++
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: subject}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<35, 0)}
		der, err := x509.CreateCertificate(rand.Reader, c, &x509.Certificate{Subject: pkix.Name{CommonName: issuer}}, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	root, factory, stranger := newKey(), newKey(), newKey()
	m := &compiledManufacturer{anchors: []*x509.Certificate{issue("Root", "Root", true, root, root)}}
	genuine, line := issue("Factory", "Root", true, factory, root), newKey()
	genuineLine := issue("Line", "Factory", true, line, factory)
	device := issue("device", "Line", false, newKey(), line)

	mesh := []*x509.Certificate{issue("Factory", "Root", true, stranger, stranger)} // says it is of the root
	for range maxPeerChain - 2 {
		mesh = append(mesh, issue("Factory", "Factory", true, stranger, stranger))
	}
	forged := append([]*x509.Certificate{issue("device", "Factory", false, newKey(), stranger)}, mesh...)
	for _, c := range []struct {
		name    string
		chain   []*x509.Certificate
		between []*x509.Certificate
		ok      bool
	}{
		{"genuine", []*x509.Certificate{device, genuineLine, genuine}, []*x509.Certificate{genuineLine, genuine}, true},
		{"genuine among others", append([]*x509.Certificate{device, genuine, genuineLine}, mesh...), []*x509.Certificate{genuineLine, genuine}, true},
		{"a gap", []*x509.Certificate{device, genuineLine}, nil, false},
		{"a mesh", forged, nil, false},
		{"a mesh below a genuine CA", append(forged[:len(forged)-1:len(forged)-1], genuine), []*x509.Certificate{genuine}, false},
	} {
		want := x509.NewCertPool()
		for _, b := range c.between {
			want.AddCert(b)
		}
		between, ok := m.issued(c.chain)
		if ok != c.ok || !between.Equal(want) {
			t.Errorf("%s: ok %v, want %v; the certificates between are those that the anchors lead to: %v", c.name, ok, c.ok, between.Equal(want))
		}
	}
}
