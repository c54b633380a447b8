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
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/dertest"
)

// oddDevice makes an IDevID of the factory's that crypto/x509 refuses.
func (m *maker) oddDevice(edit func(*dertest.Certificate), key crypto.PublicKey) []*x509.Certificate {
	m.t.Helper()
	c := dertest.Device(m.between, "A1000", key)
	c.Begin, c.End = time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2045, 1, 1, 0, 0, 0, 0, time.UTC)
	edit(c)
	leaf, err := der.Certificate(c.Sign(m.t, m.key))
	if err != nil {
		m.t.Fatal(err)
	}
	return []*x509.Certificate{leaf, m.between}
}

func TestOddIDevID(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "hsm", ca.Constraints{})
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forger := *acme
	forger.key = ecKey(t, elliptic.P256())
	for _, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			key := ecKey(t, elliptic.P256()).Public()
			if o.RSA {
				key = strong.Public()
			}
			if r := a.byChain(acme.oddDevice(o.Edit, key)); r.Device != "A1000" || r.Manufacturer.Name != "acme" {
				t.Errorf("authenticated %q of %v", r.Device, r.Manufacturer)
			}
			a.notBy(forger.oddDevice(o.Edit, key), "not issued by")
			a.notBy(acme.oddDevice(func(c *dertest.Certificate) {
				o.Edit(c)
				c.Add(dertest.Value{Type: dertest.SerialNumber, Content: "A1001", Tag: cbasn1.IA5String})
			}, key), "more than one serialNumber")
		})
	}
	key := ecKey(t, elliptic.P256()).Public()
	a.notBy(acme.oddDevice(func(c *dertest.Certificate) {
		c.Subject = dertest.DN([]dertest.Value{{Type: dertest.SerialNumber, Content: "\x00A1000", Tag: cbasn1.BIT_STRING}})
	}, key), "no serialNumber")
	a.notBy(acme.oddDevice(func(c *dertest.Certificate) { c.Serial = "\xff"; c.MakeCA() }, key), "it is a CA's")
}

// A serial number below zero can be revoked, and its neighbours are not.
func TestOddIDevIDRevoked(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "hsm", ca.Constraints{})
	serial := func(content string) []*x509.Certificate {
		return acme.oddDevice(func(c *dertest.Certificate) { c.Serial = content }, ecKey(t, elliptic.P256()).Public())
	}
	bad, good, plain := serial("\xfe\x01"), serial("\xfe\x02"), serial("\x00\xfe\x01")
	for _, chain := range [][]*x509.Certificate{bad, good, plain} {
		a.byChain(chain)
	}
	// CreateRevocationList does write them.
	a.giveLists("acme", acme.between, acme.list(acme.between, 1, a.clock.Now(), nil, bad[0]))
	a.notBy(bad, "was revoked by its issuer")
	a.byChain(good)
	a.byChain(plain)
	if _, err := a.ReplaceRevocationLists(t.Context(), "acme", "", listsPEM(acme.list(acme.between, 2, a.clock.Now(), func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: new(big.Int).Neg(acme.tooLong()), RevocationTime: a.clock.Now()}}
	})), "admin:test"); ca.AsError(err).Kind != ca.Malformed {
		t.Errorf("a serial number of 21 octets: %v", err)
	}
}

// A list counts for its CA, in whichever dress the names come: that of the list, of its CA, and of the devices.
func TestRevocationListInOtherDress(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "hsm", ca.Constraints{})
	bad, good := acme.device("A1000", nil), acme.device("A1001", nil)
	dressed := *acme.between
	raw, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("ACME  factory")}}}})
	if err != nil {
		t.Fatal(err)
	}
	dressed.RawSubject = raw
	acme.serial++
	// The same CA, certified under another spelling of its name, signs the list, and devices come by either.
	twin := sign(t, &x509.Certificate{SerialNumber: big.NewInt(acme.serial), RawSubject: raw, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: acme.between.NotBefore, NotAfter: never}, acme.root, acme.key.Public(), acme.rootKey)
	twin.SubjectKeyId = acme.between.SubjectKeyId
	a.giveLists("acme", acme.between, acme.list(&dressed, 1, a.clock.Now(), nil, bad[0]))
	a.notBy(bad, "was revoked by its issuer")
	a.notBy([]*x509.Certificate{bad[0], twin}, "was revoked by its issuer")
	a.byChain([]*x509.Certificate{good[0], twin})
	a.byChain(good)
}
