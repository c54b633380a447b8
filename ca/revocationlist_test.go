package ca_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// list makes a list of the factory's, or of the root's, good from an hour before
// now for a day.
func (m *maker) list(by *x509.Certificate, number int64, now time.Time, edit func(*x509.RevocationList), revoked ...*x509.Certificate) []byte {
	m.t.Helper()
	key := m.key
	if by == m.root {
		key = m.rootKey
	}
	return signList(m.t, by, key, number, now, edit, revoked...)
}

func signList(t testing.TB, by *x509.Certificate, key crypto.Signer, number int64, now time.Time, edit func(*x509.RevocationList), revoked ...*x509.Certificate) []byte {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(23 * time.Hour)}
	for _, c := range revoked {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: now.Add(-2 * time.Hour)})
	}
	if edit != nil {
		edit(l)
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, by, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// listsPEM puts lists (DER) and certificates one after the other.
func listsPEM(objects ...any) []byte {
	var b bytes.Buffer
	for _, o := range objects {
		switch o := o.(type) {
		case []byte:
			pem.Encode(&b, &pem.Block{Type: "X509 CRL", Bytes: o})
		case *x509.Certificate:
			pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: o.Raw})
		}
	}
	return b.Bytes()
}

func (a *authority) giveLists(name string, objects ...any) *ca.Manufacturer {
	a.t.Helper()
	return a.giveListsFor(name, "", objects...)
}

func (a *authority) giveListsFor(name, format string, objects ...any) *ca.Manufacturer {
	a.t.Helper()
	m, err := a.ReplaceRevocationLists(a.t.Context(), name, format, listsPEM(objects...), "admin:test")
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

func TestRevocationLists(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	now := a.clock.Now()
	good, bad, late := acme.device("A1", nil), acme.device("A2", nil), acme.device("A3", nil)
	a.byChain(bad) // nothing is known of it yet

	m := a.giveLists("acme", acme.between, acme.list(acme.between, 1, now, nil, acme.root, bad[0]))
	if l := m.Lists[0]; len(m.Lists) != 1 || l.Number != "1" || l.Entries != 2 || !l.NextUpdate.Equal(now.Add(23*time.Hour)) || !bytes.Equal(l.Issuer, acme.between.Raw) {
		t.Errorf("stored %+v", m.Lists)
	}
	a.byChain(good)
	a.notBy(bad, "was revoked by its issuer, CN=Acme Factory, at 20")

	// Newer ones take effect at once; the CA is known by now. DER alone does as well.
	newer := acme.list(acme.between, 2, now, nil, bad[0], late[0])
	if _, err := a.ReplaceRevocationLists(t.Context(), "acme", "idevid", newer, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.byChain(good)
	a.notBy(bad, "was revoked")
	a.notBy(late, "was revoked")
	if m := a.giveLists("acme", newer); m.Version != 2 {
		t.Errorf("the same list again made version %d", m.Version)
	}
	// One that ends a hold, say.
	a.giveLists("acme", acme.list(acme.between, 3, now, nil, bad[0]))
	a.byChain(late)

	// The root revokes the factory; the factory's list stays.
	a.giveLists("acme", acme.list(acme.root, 7, now, nil))
	a.byChain(good)
	a.notBy(bad, "was revoked")
	a.giveLists("acme", acme.list(acme.root, 8, now, nil, acme.between))
	a.notBy(good, "was revoked by its issuer, CN=Acme Root")

	// Withdrawn and registered again, there are no lists any more.
	a.withdraw("acme")
	a.notBy(good, "not issued by")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	a.byChain(bad)
}

// A list that is out of date says that one is to be fetched, and one by a newer
// clock does as well.
func TestRevocationListAge(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	lists := listsPEM(acme.list(acme.root, 1, a.clock.Now(), nil))
	if _, err := a.AddManufacturerWithLists(t.Context(), ca.Manufacturer{Name: "acme", Level: "software", Anchors: [][]byte{acme.root.Raw}}, lists, "admin:test"); err != nil {
		t.Fatal(err)
	}
	chain := acme.device("A1", nil)
	a.clock.Add(23 * time.Hour)
	a.byChain(chain)
	a.clock.Add(time.Second)
	a.notBy(chain, "has to fetch the manufacturer's new one")
	a.giveLists("acme", acme.list(acme.root, 2, a.clock.Now(), nil))
	a.byChain(chain)
	a.clock.Add(-2 * time.Hour)
	a.notBy(chain, "was good from")
}

// What a CA revoked counts under every manufacturer that it is below.
func TestRevocationListOfAnother(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	bolt := newMaker(t, "Acme") // the same names and serial numbers, by other keys
	a.addMaker(acme, "acme-gw", "software", ca.Constraints{Models: []string{"ou=GW-*"}})
	a.addMaker(acme, "acme-rt", "software", ca.Constraints{Models: []string{"ou=RT-*"}})
	a.addMaker(bolt, "bolt", "software", ca.Constraints{})
	revoked, namesake := acme.device("A1", nil), bolt.device("A1", nil)
	now := a.clock.Now()
	a.giveLists("acme-gw", acme.between, acme.list(acme.between, 1, now, nil, revoked[0]))
	a.notBy(revoked, "was revoked") // it is of acme-rt, which has no list
	a.byChain(namesake)

	// One entry's list is old, another's is not: the CA has spoken.
	a.clock.Add(24 * time.Hour)
	fine := acme.device("A2", nil)
	a.notBy(fine, "fetch")
	a.giveLists("acme-rt", acme.between, acme.list(acme.between, 2, a.clock.Now(), nil))
	a.byChain(fine)
	a.notBy(revoked, "was revoked") // no CA takes that back
}

// A CA that was certified twice, and revoked once, is good by the other certificate.
func TestRevokedCrossCertificate(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	again := *acme.between
	again.SerialNumber, again.Raw = big.NewInt(4711), nil
	second := sign(t, &again, acme.root, acme.key.Public(), acme.rootKey)
	chain := acme.device("A1", nil)
	a.giveLists("acme", acme.list(acme.root, 1, a.clock.Now(), nil, acme.between))
	a.notBy(chain, "was revoked")
	a.byChain([]*x509.Certificate{chain[0], second})
	a.byChain(append(chain, second))
}

func TestRevocationListRefused(t *testing.T) {
	a, acme, other := newAuthority(t, nil), newMaker(t, "Acme"), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	now := a.clock.Now()
	bad := acme.device("A2", nil)
	a.giveLists("acme", acme.between, acme.list(acme.between, 10, now, nil, bad[0]))
	list := func(edit func(*x509.RevocationList)) []byte { return acme.list(acme.between, 11, now, edit) }
	extension := func(arc int, critical bool, value ...byte) []byte {
		return list(func(l *x509.RevocationList) {
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Critical: critical, Value: value}}
		})
	}
	forged := list(nil)
	forged[len(forged)-1] ^= 1
	silent := sign(t, &x509.Certificate{SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "Silent"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: acme.root.NotBefore, NotAfter: never}, acme.root, acme.key.Public(), acme.rootKey)
	mute := *silent
	mute.KeyUsage = x509.KeyUsageCRLSign // or x509 would not sign
	new := newMaker(t, "New")
	for _, c := range []struct {
		name string
		give []byte
		kind ca.Kind
		part string
	}{
		{"older by number", listsPEM(acme.list(acme.between, 9, now, nil)), ca.Conflict, `number is "9"`},
		{"fewer digits", listsPEM(acme.list(acme.between, 2, now, nil)), ca.Conflict, `number is "2"`},
		{"older by time", listsPEM(acme.list(acme.between, 11, now.Add(-time.Minute), nil)), ca.Conflict, "which is newer"},
		{"expired", listsPEM(acme.list(acme.between, 11, now.Add(-24*time.Hour), nil)), ca.Malformed, "fetch a new one"},
		{"of tomorrow", listsPEM(acme.list(acme.between, 11, now.Add(24*time.Hour), nil)), ca.Malformed, "begins in the future"},
		{"forged", listsPEM(forged), ca.Malformed, "signature is wrong"},
		{"of a namesake", listsPEM(other.list(other.between, 11, now, nil)), ca.Malformed, "another key"},
		{"of a namesake, given along", listsPEM(other.between, other.list(other.between, 11, now, nil)), ca.Malformed, "no CA below the anchors"},
		{"of a stranger", listsPEM(new.list(new.root, 1, now, nil)), ca.Malformed, "CN=New Root, is neither an anchor"},
		{"a device's certificate along", listsPEM(bad[0], list(nil)), ca.Malformed, "no CA below"},
		{"by a CA that signs no lists", listsPEM(silent, signList(t, &mute, acme.key, 1, now, nil)), ca.Malformed, "may not sign CRLs"},
		{"delta", listsPEM(extension(27, true, 2, 1, 5)), ca.Malformed, "give the complete list"},
		{"indirect", listsPEM(extension(28, true, 0x30, 3, 0x84, 1, 0xff)), ca.Malformed, "issuingDistributionPoint"},
		{"devices only", listsPEM(extension(28, true, 0x30, 3, 0x81, 1, 0xff)), ca.Malformed, "issuingDistributionPoint"},
		{"critical extension", listsPEM(extension(99, true, 5, 0)), ca.Malformed, "unknown critical extension"},
		{"entry of another CA", listsPEM(list(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(5), RevocationTime: now,
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
		})), ca.Malformed, "unknown critical extension"},
		{"long serial number", listsPEM(list(func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: new.tooLong(), RevocationTime: now}}
		})), ca.Malformed, "which no certificate has"},
		{"twice", listsPEM(list(nil), list(nil)), ca.Malformed, "list 2: another list of the same CA"},
		{"one good and one not", listsPEM(list(nil), forged), ca.Malformed, "list 2"},
		{"trailing octet", append(list(nil), 0), ca.Malformed, "CertificateList"},
		{"nothing", nil, ca.Malformed, "no revocation list"},
		{"certificates only", listsPEM(acme.between), ca.Malformed, "no revocation list"},
		{"a web page", []byte("<html>404</html>"), ca.Malformed, "in PEM or DER"},
		{"damaged, before a good one", append([]byte("-----BEGIN X509 CRL-----\n*\n-----END X509 CRL-----\n"), listsPEM(list(nil))...), ca.Malformed, "1 of 2 PEM blocks"},
		{"a key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), ca.Malformed, `"PRIVATE KEY"`},
		{"too many", bytes.Repeat(listsPEM([]byte{0x30, 0}), 65), ca.Malformed, "more than 64"},
		{"too large", append([]byte{0x30}, make([]byte, ca.MaxRevocationLists)...), ca.Malformed, "more than"},
	} {
		_, err := a.ReplaceRevocationLists(t.Context(), "acme", "", c.give, "admin:test")
		if ca.KindOf(err) != c.kind || !contains(err.Error(), c.part) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want %s with %q", c.name, err, c.kind, c.part)
		}
		a.notBy(bad, "was revoked") // and nothing changed
	}
	if _, err := a.ReplaceRevocationLists(t.Context(), "nobody", "", listsPEM(list(nil)), "admin:test"); ca.KindOf(err) != ca.NotFound {
		t.Errorf("of nobody: %v", err)
	}
	if _, err := a.AddManufacturer(t.Context(), ca.Manufacturer{Name: "acme", Format: "tpm", Level: "tpm", Anchors: [][]byte{acme.root.Raw}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.ReplaceRevocationLists(t.Context(), "acme", "", listsPEM(list(nil)), "admin:test"); ca.KindOf(err) != ca.Malformed || !contains(err.Error(), "idevid, tpm") {
		t.Errorf("two formats: %v", err)
	}
	if _, err := a.ReplaceRevocationLists(t.Context(), "acme", "dice", listsPEM(list(nil)), "admin:test"); ca.KindOf(err) != ca.NotFound {
		t.Errorf("no such format: %v", err)
	}
	if _, err := a.AddManufacturerWithLists(t.Context(), ca.Manufacturer{Name: "new", Level: "software", Anchors: [][]byte{new.root.Raw}}, listsPEM(forged), "admin:test"); ca.KindOf(err) != ca.Malformed {
		t.Errorf("registered with another's list: %v", err)
	}
	a.notBy(new.device("N1", nil), "not issued by")
}

// tooLong is a serial number of 21 octets.
func (m *maker) tooLong() *big.Int { return new(big.Int).Lsh(big.NewInt(1), 160) }

// Evidence is looked up as well, by format.
func TestAttestingRevoked(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	now := a.clock.Now()
	bad, long := acme.device("A1", nil)[0], acme.device("A2", func(c *x509.Certificate) { c.SerialNumber = acme.tooLong() })[0]
	lists := listsPEM(acme.between, acme.list(acme.between, 1, now, nil, bad))
	if _, err := a.AddManufacturerWithLists(t.Context(), ca.Manufacturer{Name: "acme", Format: "tpm", Level: "tpm", Anchors: [][]byte{acme.root.Raw}}, lists, "admin:test"); err != nil {
		t.Fatal(err)
	}
	vouching, err := a.Attesting(t.Context(), "tpm")
	if err != nil || len(vouching) != 1 {
		t.Fatal(vouching, err)
	}
	for _, c := range []struct {
		name         string
		cert, issuer *x509.Certificate
		at           time.Time
		checked      bool
		says         string
	}{
		{"good", acme.device("A3", nil)[0], acme.between, now, true, ""},
		{"revoked", bad, acme.between, now, false, "was revoked"},
		{"revoked, and the list is old", bad, acme.between, now.AddDate(1, 0, 0), false, "was revoked"},
		{"old list", acme.device("A4", nil)[0], acme.between, now.AddDate(1, 0, 0), false, "fetch"},
		{"serial number on no list", long, acme.between, now, false, "serial number"},
		{"CA without a list", acme.between, acme.root, now, false, ""},
	} {
		checked, err := vouching[0].Revoked(c.cert, c.issuer, c.at)
		if checked != c.checked || (err == nil) != (c.says == "") || err != nil && !contains(err.Error(), c.says) {
			t.Errorf("%s: %t, %v", c.name, checked, err)
		}
	}
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	if m := a.giveListsFor("acme", "idevid", acme.between, acme.list(acme.between, 1, now, nil)); len(m.Lists) != 1 {
		t.Errorf("%d lists", len(m.Lists))
	}
	if checked, err := vouching[0].Revoked(bad, acme.between, now); err == nil {
		t.Errorf("another format's list took it back: %t", checked)
	}
}

// Whatever is given as lists is taken, or refused with a reason.
func FuzzRevocationLists(f *testing.F) {
	a, acme := newAuthority(f, nil), newMaker(f, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	bad := acme.device("A1", nil)[0]
	list := acme.list(acme.between, 1, a.clock.Now(), nil, bad)
	for _, seed := range [][]byte{nil, list, listsPEM(list), listsPEM(acme.between, list), listsPEM(acme.list(acme.root, 1, a.clock.Now(), nil), bad),
		listsPEM([]byte{0x30, 0}), []byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----"), []byte("<html>")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := a.ReplaceRevocationLists(t.Context(), "acme", "", in, "admin:test")
		switch kind := ca.KindOf(err); {
		case err == nil && len(m.Lists) == 0:
			t.Error("taken, and not there")
		case err != nil && (kind != ca.Malformed && kind != ca.Conflict || ca.AsError(err).Reason == ""):
			t.Errorf("%v", err)
		}
	})
}

// BenchmarkRevocationList is what a list of a million costs: to take it in and
// compile it, and then for each request.
func BenchmarkRevocationList(b *testing.B) {
	a, acme := newAuthority(b, nil), newMaker(b, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	key, now := ecKey(b, elliptic.P256()), a.clock.Now()
	issuer := sign(b, &x509.Certificate{SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "Large"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: acme.root.NotBefore, NotAfter: never}, acme.root, key.Public(), acme.rootKey)
	raw := signList(b, issuer, key, 1, now, func(l *x509.RevocationList) {
		for i := range 1_000_000 {
			var serial [20]byte
			rand.Read(serial[:])
			serial[0] = byte(i)>>2 | 1
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: new(big.Int).SetBytes(serial[:]), RevocationTime: now, ReasonCode: 1})
		}
	})
	acme.between, acme.key = issuer, key
	chain := acme.device("A1", nil)
	a.byChain(chain) // as a server that is in use
	start := time.Now()
	a.giveLists("acme", issuer, raw)
	given := time.Now()
	a.byChain(chain)
	b.Logf("%d octets: taken in %s, first request %s", len(raw), given.Sub(start), time.Since(given))
	b.ReportAllocs()
	for b.Loop() {
		a.byChain(chain)
	}
}
