package ca_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// factory puts another CA between the maker's root and its devices.
func (m *maker) factory(key crypto.Signer, edit func(*x509.Certificate)) *maker {
	m.t.Helper()
	other := *m
	m.serial++
	c := &x509.Certificate{SerialNumber: big.NewInt(m.serial), Subject: pkix.Name{CommonName: "Factory 2"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: m.root.NotBefore, NotAfter: never}
	edit(c)
	other.between, other.key = sign(m.t, c, m.root, key.Public(), m.rootKey), key
	return &other
}

// SHA-1, and RSA below 2048 bits, prove nothing of a manufacturer either.
func TestWeakManufacturer(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	strong, weak := rsaKey(t, 2048), rsaKey(t, 1024)
	acme.rootKey = strong
	acme.root = sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme RSA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: acme.root.NotBefore, NotAfter: never}, nil, strong.Public(), strong)
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	plain := acme.factory(rsaKey(t, 2048), func(*x509.Certificate) {})
	a.byChain(plain.device("A1", nil))

	a.notBy(acme.factory(weak, func(*x509.Certificate) {}).device("A2", nil), "CN=Factory 2 is not used: its key is RSA of 1024 bits: 2048 to 8192 are accepted")
	a.notBy(acme.factory(ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }).device("A3", nil),
		"CN=Factory 2 is not used: it is signed with SHA1-RSA: SHA-256 or better is due")
	a.notBy(plain.device("A4", func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }), "signed with SHA1-RSA")

	now := a.clock.Now()
	for name, list := range map[string][]byte{
		"root's":    acme.list(acme.root, 1, now, func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.SHA1WithRSA }),
		"factory's": plain.list(plain.between, 1, now, func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.SHA1WithRSA }),
	} {
		_, err := a.ReplaceRevocationLists(t.Context(), "acme", "", listsPEM(plain.between, list), "admin:test")
		if ca.KindOf(err) != ca.Malformed || !contains(err.Error(), "signed with SHA1-RSA: SHA-256 or better is due") {
			t.Errorf("%s list with SHA-1: %v", name, err)
		}
	}
	small := sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Small"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: acme.root.NotBefore, NotAfter: never}, nil, weak.Public(), weak)
	_, err := a.AddManufacturer(t.Context(), ca.Manufacturer{Name: "small", Level: "software", Anchors: [][]byte{small.Raw}}, "admin:test")
	if ca.KindOf(err) != ca.Malformed || !contains(err.Error(), "anchor 1: its key is RSA of 1024 bits") {
		t.Errorf("weak anchor: %v", err)
	}
}

// A manufacturer's CA may be confined to names, critical or not (RFC 5280 §4.2.1.10).
func TestIDevIDNameConstraints(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	subtree := func(list int, critical bool, organization string) func(*x509.Certificate) {
		name, err := asn1.Marshal(pkix.Name{Organization: []string{organization}}.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		tagged := func(tag int, in []byte) []byte {
			out, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: in})
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		sequence := func(in []byte) []byte { return append([]byte{0x30, byte(len(in))}, in...) }
		value := sequence(tagged(list, sequence(tagged(4, name))))
		return func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: critical, Value: value}}
		}
	}
	for _, c := range []struct {
		name    string
		edit    func(*x509.Certificate)
		refused string
	}{
		{"permitted", subtree(0, true, "Maker"), ""},
		{"permitted, in another case", subtree(0, true, "MAKER"), ""},
		{"not permitted", subtree(0, true, "Other"), "breaks the name constraints of CN=Factory 2"},
		{"not permitted, not critical", subtree(0, false, "Other"), "is not permitted"},
		{"excluded", subtree(1, true, "Maker"), "is excluded"},
		{"excluded, not critical", subtree(1, false, "Maker"), "is excluded"},
		{"another excluded", subtree(1, true, "Other"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &authority{Service: a.Service, t: t}
			chain := acme.factory(ecKey(t, elliptic.P256()), c.edit).device("A1", nil)
			if c.refused == "" {
				a.byChain(chain)
			} else {
				a.notBy(chain, c.refused)
			}
		})
	}
}
