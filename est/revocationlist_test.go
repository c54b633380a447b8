package est_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// makerList makes a revocation list, PEM, that is good for ten minutes.
func makerList(t *testing.T, by *x509.Certificate, key *ecdsa.PrivateKey, number int64, revoked ...int64) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(10 * time.Minute)}
	for _, serial := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: l.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// TestRevokedIDevID turns devices away whose maker revoked their certificate, or
// the CA above it, and all of them while the list is out of date.
func TestRevokedIDevID(t *testing.T) {
	s := newService(t, behind(nil, here))
	root, rootKey := makerCA(t, "Root", nil, nil)
	factory, factoryKey := makerCA(t, "Factory", root, rootKey)
	if _, err := s.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "acme", Level: "software", Anchors: [][]byte{root.Raw}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	idevid := func(id string, serial int64) []byte {
		c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{SerialNumber: id}, KeyUsage: x509.KeyUsageDigitalSignature,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}
		der, err := x509.CreateCertificate(rand.Reader, c, factory, newKey(t).Public(), factoryKey)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	a1, a2 := idevid("A1", 101), idevid("A2", 102)
	enrol := func(id string, leaf []byte) result {
		return s.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), id)), header: clientCert(leaf, factory.Raw)})
	}
	give := func(list []byte) error {
		_, err := s.core.ReplaceRevocationLists(t.Context(), "acme", "idevid", list, "admin:test")
		return err
	}
	enrol("A1", a1).wantStatus(t, 200)

	between := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: factory.Raw})
	if err := give(append(between, makerList(t, factory, factoryKey, 2, 101)...)); err != nil {
		t.Fatal(err)
	}
	enrol("A1", a1).wantRefusal(t, 401, "was revoked by its issuer, CN=Factory")
	enrol("A2", a2).wantStatus(t, 200)
	stranger, strangerKey := makerCA(t, "Factory", nil, nil)
	for name, list := range map[string][]byte{"older": makerList(t, factory, factoryKey, 1), "a stranger's": makerList(t, stranger, strangerKey, 3)} {
		if err := give(list); err == nil {
			t.Errorf("%s list was taken", name)
		}
	}
	enrol("A1", a1).wantRefusal(t, 401, "was revoked")

	s.late.Store(int64(20 * time.Minute))
	enrol("A2", a2).wantRefusal(t, 401, "fetch the manufacturer's new one")
	s.late.Store(0)
	enrol("A2", a2).wantStatus(t, 200)

	if err := give(makerList(t, root, rootKey, 1, factory.SerialNumber.Int64())); err != nil {
		t.Fatal(err)
	}
	enrol("A2", a2).wantRefusal(t, 401, "was revoked by its issuer, CN=Root")
}
