package ca_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// maker is a manufacturer: a root, a CA below it, and the devices they issue to.
type maker struct {
	t       testing.TB
	root    *x509.Certificate
	rootKey crypto.Signer
	between *x509.Certificate
	key     crypto.Signer // of between
	serial  int64
}

// never is the notAfter of certificates that do not end (RFC 5280 §4.1.2.5).
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func newMaker(t testing.TB, name string) *maker {
	t.Helper()
	m := &maker{t: t, key: ecKey(t, elliptic.P256())}
	m.rootKey = ecKey(t, elliptic.P256())
	authority := func(cn string, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		m.serial++
		return sign(t, &x509.Certificate{SerialNumber: big.NewInt(m.serial), Subject: pkix.Name{CommonName: name + " " + cn}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: never}, parent, pub, by)
	}
	m.root = authority("Root", nil, m.rootKey.Public(), m.rootKey)
	m.between = authority("Factory", m.root, m.key.Public(), m.rootKey)
	return m
}

// sign makes a certificate; a nil parent makes it self-signed.
func sign(t testing.TB, c, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

// device makes an IDevID as IEEE 802.1AR has them: a serial number in the
// subject, no end, no extended key usage. edit changes it first.
func (m *maker) device(serial string, edit func(*x509.Certificate)) []*x509.Certificate {
	m.t.Helper()
	m.serial++
	c := &x509.Certificate{SerialNumber: big.NewInt(m.serial), Subject: pkix.Name{Organization: []string{"Maker"}, OrganizationalUnit: []string{"RT-100"}, SerialNumber: serial},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: never}
	if edit != nil {
		edit(c)
	}
	return []*x509.Certificate{sign(m.t, c, m.between, ecKey(m.t, elliptic.P256()).Public(), m.key), m.between}
}

// hardware is a subjectAltName with one hardwareModuleName (RFC 4108 §5).
func hardware(t testing.TB, kind asn1.ObjectIdentifier, serial string, critical bool) pkix.Extension {
	t.Helper()
	type module struct {
		Type   asn1.ObjectIdentifier
		Serial []byte
	}
	type other struct {
		ID    asn1.ObjectIdentifier
		Value module `asn1:"tag:0,explicit"`
	}
	der, err := asn1.Marshal(struct {
		Name other `asn1:"tag:0"`
	}{other{asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4}, module{kind, []byte(serial)}}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: critical, Value: der}
}

func (a *authority) addMaker(m *maker, name, level string, c ca.Constraints) {
	a.t.Helper()
	if _, err := a.AddManufacturer(a.t.Context(), ca.Manufacturer{Name: name, Level: level, Anchors: [][]byte{m.root.Raw}, Constraints: c}, "admin:test"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) withdraw(name string) {
	a.t.Helper()
	if err := a.WithdrawManufacturer(a.t.Context(), name, "", "admin:test"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) byChain(chain []*x509.Certificate) ca.Requester {
	a.t.Helper()
	r, err := a.AuthenticateCertificate(a.t.Context(), chain)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

// notBy fails unless the chain is refused as nobody's, with part in the reason.
func (a *authority) notBy(chain []*x509.Certificate, part string) {
	a.t.Helper()
	r, err := a.AuthenticateCertificate(a.t.Context(), chain)
	if err == nil {
		a.t.Fatalf("authenticated as %s", r.Actor())
	}
	if e := ca.AsError(err); e.Kind != ca.Unauthenticated || !contains(e.Reason, part) {
		a.t.Errorf("got %v, want unauthenticated with %q", err, part)
	}
}
