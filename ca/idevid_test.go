package ca_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

var modelA, modelB = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 4128, 7}, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 9999, 1}

func TestIDevID(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	idevid := func(edit func(*x509.Certificate)) []*x509.Certificate { return acme.device("A1000", edit) }
	with := func(e pkix.Extension) []*x509.Certificate {
		return idevid(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, e) })
	}
	// A forger knows every name and octet of the factory's certificate, not its key.
	forged, lookalike := *acme, *acme.between
	forged.key = ecKey(t, elliptic.P256())
	lookalike.PublicKey = forged.key.Public()
	forged.between = &lookalike
	serial := func(v string) []pkix.AttributeTypeAndValue {
		return []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: v}}
	}
	for _, c := range []struct {
		name        string
		chain       []*x509.Certificate
		constraints ca.Constraints
		id          string // what it authenticates, or
		refused     string // why not
	}{
		{name: "plain", chain: idevid(nil), id: "A1000"},
		{name: "the root sent along", chain: append(idevid(nil), acme.root), id: "A1000"},
		{name: "clientAuth listed", chain: idevid(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), id: "A1000"},
		{name: "hardwareModuleName", chain: with(hardware(t, modelA, "A1000", false)), id: "A1000"},
		{name: "hardwareModuleName in another case", chain: with(hardware(t, modelA, "a1000", false)), id: "A1000"},
		{name: "critical hardwareModuleName", chain: with(hardware(t, modelA, "A1000", true)), id: "A1000"},

		{name: "no intermediate", chain: idevid(nil)[:1], refused: "not issued by"},
		{name: "foreign chain", chain: newMaker(t, "Other").device("A1000", nil), refused: "not issued by"},
		{name: "same names, other keys", chain: newMaker(t, "Acme").device("A1000", nil), refused: "not issued by"},
		{name: "forged signature", chain: []*x509.Certificate{forged.device("A1000", nil)[0], acme.between}, refused: "not issued by"},
		{name: "too long a chain", chain: append(idevid(nil), repeated(acme.root, 9)...), refused: "not issued by"},
		{name: "the anchor itself", chain: []*x509.Certificate{acme.root}, refused: "no serialNumber"},
		{name: "the CA between", chain: []*x509.Certificate{acme.between}, refused: "no serialNumber"},
		{name: "a CA with a serial number", chain: idevid(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), refused: "it is a CA's"},
		{name: "expired", chain: idevid(func(c *x509.Certificate) { c.NotAfter = time.Date(2022, 1, 1, 0, 0, 0, 0, time.UTC) }), refused: "not valid at this time"},
		{name: "not yet valid", chain: idevid(func(c *x509.Certificate) { c.NotBefore = never }), refused: "not valid at this time"},
		{name: "key for encryption", chain: idevid(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), refused: "digitalSignature"},
		{name: "the maker's web server", chain: idevid(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), refused: "clientAuth"},
		{name: "unknown critical extension", chain: with(pkix.Extension{Id: modelB, Critical: true, Value: []byte{5, 0}}), refused: "not issued by"},
		{name: "unknown extension", chain: with(pkix.Extension{Id: modelB, Value: []byte{5, 0}}), id: "A1000"},
		{name: "no serial number", chain: idevid(func(c *x509.Certificate) { c.Subject.SerialNumber = "" }), refused: "no serialNumber"},
		{name: "two serial numbers", chain: idevid(func(c *x509.Certificate) {
			c.RawSubject, _ = asn1.Marshal(pkix.RDNSequence{serial("A1000"), serial("A1001")})
		}), refused: "more than one serialNumber"},
		{name: "serial number that is no device ID", chain: acme.device("A 1000", nil), refused: "no device ID"},
		{name: "hardwareModuleName of another", chain: with(hardware(t, modelA, "A1001", false)), refused: "hardwareModuleName is of"},
		{name: "subjectAltName that is not one", chain: with(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 4, 0xa0, 2, 6, 0}}), refused: "names cannot be read"},

		{name: "model by hardware type", chain: with(hardware(t, modelA, "A1000", false)), constraints: ca.Constraints{Models: []string{"1.2.3", "1.3.6.1.4.1.4128.*"}}, id: "A1000"},
		{name: "other hardware type", chain: with(hardware(t, modelB, "A1000", false)), constraints: ca.Constraints{Models: []string{"1.3.6.1.4.1.4128.*"}}, refused: "model"},
		{name: "no hardware type", chain: idevid(nil), constraints: ca.Constraints{Models: []string{"*"}}, refused: "model"},
		{name: "model by attribute", chain: idevid(nil), constraints: ca.Constraints{Models: []string{"OU=rt-*"}}, id: "A1000"},
		{name: "other attribute", chain: idevid(nil), constraints: ca.Constraints{Models: []string{"ou=GW-*"}}, refused: "model"},
		{name: "serial by glob", chain: idevid(nil), constraints: ca.Constraints{Serials: []string{"B*", "a10??"}}, id: "A1000"},
		{name: "serial in range", chain: idevid(nil), constraints: ca.Constraints{Serials: []string{"a0500..A1000"}}, id: "A1000"},
		{name: "serial above range", chain: idevid(nil), constraints: ca.Constraints{Serials: []string{"A0500..A0999"}}, refused: "serial number A1000"},
		{name: "serial longer than range", chain: idevid(nil), constraints: ca.Constraints{Serials: []string{"A0..Z9"}}, refused: "serial number A1000"},
		{name: "until later", chain: idevid(nil), constraints: ca.Constraints{NotAfter: time.Date(2026, 7, 2, 0, 0, 0, 0, time.UTC)}, id: "A1000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &authority{Service: a.Service, t: t}
			a.notBy(c.chain, "not issued by") // nobody is registered
			a.addMaker(acme, "acme", "software", c.constraints)
			defer func() { a.withdraw("acme"); a.notBy(c.chain, "not issued by") }()
			if c.refused != "" {
				a.notBy(c.chain, c.refused)
				return
			}
			r := a.byChain(c.chain)
			if r.Kind != policy.ByIDevID || r.Device != c.id || r.Manufacturer.Name != "acme" {
				t.Errorf("requester %+v", r)
			}
		})
	}
}

func repeated(c *x509.Certificate, n int) (all []*x509.Certificate) {
	for range n {
		all = append(all, c)
	}
	return all
}

// A registration ends by itself.
func TestManufacturerUntil(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{NotAfter: a.clock.Now().Add(time.Hour)})
	chain := acme.device("A1", nil)
	a.byChain(chain)
	a.clock.Add(time.Hour)
	a.notBy(chain, "not issued by")
}

// One factory, two entries: the constraints tell which level a model has.
func TestManufacturerByModel(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	a.addMaker(acme, "acme-rt", "hsm", ca.Constraints{Models: []string{"ou=RT-*"}})
	a.addMaker(acme, "acme-gw", "software", ca.Constraints{Models: []string{"ou=GW-*"}})
	if r := a.byChain(acme.device("A1", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"GW-7"} })); r.Manufacturer.Name != "acme-gw" || r.Manufacturer.Level != "software" {
		t.Errorf("it is %s", r.Manufacturer.Name)
	}
	a.notBy(acme.device("A2", func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"XX"} }), "model")
}

func TestIDevIDEnrols(t *testing.T) {
	a := newAuthority(t, nil)
	acme, bolt := newMaker(t, "Acme"), newMaker(t, "Bolt")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	a.addMaker(bolt, "bolt", "software", ca.Constraints{})
	ask := func(r ca.Requester, cn string) ca.Request { return a.request(r, newCSR(t, newKey(t), named(cn))) }
	state := func(id string, want device.State, mark string) {
		t.Helper()
		d, err := a.store.Device(t.Context(), id)
		if err != nil || d.State != want || d.Credential != mark {
			t.Errorf("device %s: %+v, %v; want %s by %q", id, d, err, want, mark)
		}
	}

	// A device that nobody knows enters at its maker's level.
	chain := acme.device("A1000", nil)
	r := a.byChain(chain)
	a.refused(ask(r, "A1001"), ca.Denied, "subject")
	first := a.enroll(ask(r, "a1000"))
	state("A1000", device.Active, "manufacturer:acme")
	if c := first.Certificate; c.Actor != "manufacturer:acme" || c.Requester != "idevid" || c.Device != "A1000" || c.Level != "software" {
		t.Errorf("the record says %+v", c)
	}
	a.enroll(ask(a.byCertificate(first.Certificate.DER), "A1000"))
	again := a.enroll(ask(r, "A1000")) // by its IDevID once more
	if again.Certificate.Serial == first.Certificate.Serial {
		t.Error("the IDevID was given the same certificate for another key")
	}
	a.refused(ask(a.byChain(bolt.device("A1000", nil)), "A1000"), ca.Denied, "manufacturer bolt has no say")

	// One that an administrator registered belongs to the first that vouches.
	own, grant := a.grant("B1", "software", 2)
	a.enroll(ask(own, "B1"))
	a.enroll(ask(a.byChain(bolt.device("B1", nil)), "B1"))
	state("B1", device.Active, "manufacturer:bolt")
	a.refused(ask(a.byChain(acme.device("B1", nil)), "B1"), ca.Denied, "manufacturer acme has no say")
	a.enroll(ask(a.bySecret(grant), "B1"))

	// A maker's word is good for its level.
	a.grant("C1", "brownfield", 1)
	a.refused(ask(a.byChain(acme.device("C1", nil)), "C1"), ca.Denied, "level brownfield")

	// No certificate before the claim, nor after the end.
	if _, err := a.ImportDevices(t.Context(), []device.Device{{ID: "D1", Level: "software", State: device.Manufactured}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	d := a.byChain(acme.device("D1", nil))
	a.refused(ask(d, "D1"), ca.Denied, "not yet claimed")
	move := func(id string, to device.State) {
		t.Helper()
		if _, err := a.MoveDevice(t.Context(), id, to, 0, "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	move("D1", device.Claimed)
	a.enroll(ask(d, "D1"))
	state("D1", device.Active, "manufacturer:acme")
	move("D1", device.Suspended)
	a.refused(ask(d, "D1"), ca.Denied, "suspended")

	// Withdrawn between authentication and record: nothing is issued, and our
	// own certificates go on.
	a.withdraw("acme")
	a.refused(ask(r, "A1000"), ca.Unauthenticated, "no longer registered")
	a.refused(ask(a.anonymousLike(r, "E1"), "E1"), ca.Unauthenticated, "no longer registered")
	a.enroll(ask(a.byCertificate(first.Certificate.DER), "A1000"))
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	a.enroll(ask(a.byChain(chain), "A1000"))
}

// anonymousLike is r for another device.
func (a *authority) anonymousLike(r ca.Requester, id string) ca.Requester {
	r.Device = id
	return r
}

// A level may leave manufacturers out.
func TestIDevIDByPolicy(t *testing.T) {
	a := newAuthority(t, func(p string) string {
		return strings.ReplaceAll(p, "requesters: [credential, certificate, quarantine, idevid, ra]", "requesters: [credential, certificate]")
	})
	acme := newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	a.refused(a.request(a.byChain(acme.device("A1", nil)), newCSR(t, newKey(t), named("A1"))), ca.Denied, "manufacturer's certificate")
}

func TestAddManufacturer(t *testing.T) {
	a, acme := newAuthority(t, nil), newMaker(t, "Acme")
	old := sign(t, &x509.Certificate{SerialNumber: acme.root.SerialNumber, Subject: acme.root.Subject, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC)}, nil, acme.key.Public(), acme.key)
	own, _ := a.CACert("issuing")
	good := func() ca.Manufacturer {
		return ca.Manufacturer{Name: "acme", Level: "hsm", Anchors: [][]byte{acme.root.Raw}}
	}
	past := a.clock.Now().Add(-time.Hour)
	for _, c := range []struct {
		name string
		edit func(*ca.Manufacturer)
		part string
	}{
		{"bad name", func(m *ca.Manufacturer) { m.Name = "a b" }, "cannot be the name"},
		{"name of dots", func(m *ca.Manufacturer) { m.Name = ".." }, "without . or - at its beginning"},
		{"unknown format", func(m *ca.Manufacturer) { m.Format = "passport" }, "use idevid, tpm"},
		{"unknown level", func(m *ca.Manufacturer) { m.Level = "gold" }, "no level"},
		{"no anchor", func(m *ca.Manufacturer) { m.Anchors = nil }, "1 to 16 anchors"},
		{"not a certificate", func(m *ca.Manufacturer) { m.Anchors = [][]byte{{0x30, 0}} }, "cannot be read"},
		{"a device's certificate", func(m *ca.Manufacturer) { m.Anchors = [][]byte{acme.device("A1", nil)[0].Raw} }, "not a CA's"},
		{"an expired CA", func(m *ca.Manufacturer) { m.Anchors = [][]byte{old.Raw} }, "expired"},
		{"our own CA", func(m *ca.Manufacturer) { m.Anchors = [][]byte{acme.root.Raw, own} }, "anchor 2: it has the key of this CA's own issuing-1"},
		{"model attribute", func(m *ca.Manufacturer) { m.Constraints.Models = []string{"color=red"} }, "not a subject attribute"},
		{"model pattern", func(m *ca.Manufacturer) { m.Constraints.Models = []string{"ou=["} }, "not a model"},
		{"serial pattern", func(m *ca.Manufacturer) { m.Constraints.Serials = []string{""} }, "not a serial"},
		{"serial range of two lengths", func(m *ca.Manufacturer) { m.Constraints.Serials = []string{"A9..A10"} }, "one length"},
		{"serial range backwards", func(m *ca.Manufacturer) { m.Constraints.Serials = []string{"A2..A1"} }, "one length"},
		{"past", func(m *ca.Manufacturer) { m.Constraints.NotAfter = past }, "has passed"},
	} {
		m := good()
		c.edit(&m)
		if _, err := a.AddManufacturer(t.Context(), m, "admin:test"); ca.KindOf(err) != ca.Malformed || !contains(err.Error(), c.part) {
			t.Errorf("%s: %v, want malformed with %q", c.name, err, c.part)
		}
	}
	if m, err := a.AddManufacturer(t.Context(), good(), "admin:test"); err != nil || m.Format != "idevid" || !m.Created.Equal(a.clock.Now()) {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := a.AddManufacturer(t.Context(), good(), "admin:test"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("twice: %v", err)
	}
	tpm := good()
	tpm.Format = "tpm"
	if _, err := a.AddManufacturer(t.Context(), tpm, "admin:test"); err != nil {
		t.Errorf("another format: %v", err)
	}
	if err := a.WithdrawManufacturer(t.Context(), "nobody", "", "admin:test"); ca.KindOf(err) != ca.NotFound {
		t.Errorf("withdraw nobody: %v", err)
	}
	// Anchors of evidence do not authenticate.
	if err := a.WithdrawManufacturer(t.Context(), "acme", "idevid", "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.notBy(acme.device("A1", nil), "not issued by")
}
