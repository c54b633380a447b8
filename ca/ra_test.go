package ca_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// raCert makes a self-signed certificate of a registration authority, good for a day.
func raCert(a *authority, key crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	a.t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "line-1"}, KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}, NotBefore: a.clock.Now().Add(-time.Hour), NotAfter: a.clock.Now().Add(24 * time.Hour)}
	if edit != nil {
		edit(c)
	}
	return sign(a.t, c, nil, key.Public(), key)
}

func (a *authority) addRA(name string, cert *x509.Certificate, names []string, levels ...string) {
	a.t.Helper()
	if _, err := a.AddRA(a.t.Context(), ca.RA{Name: name, Cert: cert.Raw, Names: names, Levels: levels}, "admin:test"); err != nil {
		a.t.Fatal(err)
	}
}

func TestRAEnrols(t *testing.T) {
	a := newAuthority(t, nil)
	key := ecKey(t, elliptic.P256())
	cert := raCert(a, key, nil)
	chain := []*x509.Certificate{cert}
	a.notBy(chain, "not issued by")
	a.addRA("line-1", cert, []string{"lamp-*", "bulb-?"}, "software", "brownfield")
	r := a.byChain(chain)
	if r.Kind != policy.ByRA || r.RA.Name != "line-1" || r.Device != "" || r.Actor() != "ra:line-1" {
		t.Fatalf("requester %+v", r)
	}
	a.grant("lamp-old", "brownfield", 1)
	a.grant("lamp-hsm", "hsm", 1)
	grouped, err := a.AddCredential(t.Context(), device.Credential{Group: "lamps", Names: []string{"lamp-*"}, Level: "software"}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	a.enroll(a.request(a.bySecret(grouped), newCSR(t, newKey(t), named("lamp-grouped"))))
	for _, c := range []struct {
		id, level, refused string
	}{
		{"lamp-1", "software", ""},
		{"LAMP-1", "software", ""}, // again
		{"bulb-1", "software", ""},
		{"lamp-old", "brownfield", ""},
		{"lamp-grouped", "software", ""}, // an RA's bounds are the administrator's word
		{"lamp-hsm", "", "devices of level hsm"},
		{"bulb-10", "", "names are others"},
		{"gw-1", "", "names are others"},
		{"line-1", "", "names are others"}, // itself
		{"", "", "names no device"},
		{"lamp 1", "", "device ID"},
	} {
		request := a.request(r, newCSR(t, newKey(t), named(c.id)))
		if c.refused != "" {
			a.refused(request, ca.Denied, c.refused)
			continue
		}
		issued := a.enroll(request).Certificate
		if issued.Actor != "ra:line-1" || issued.Requester != "ra" || issued.Level != c.level || !strings.EqualFold(issued.Device, c.id) {
			t.Errorf("%s: the record says %+v", c.id, issued)
		}
	}
	if d, err := a.store.Device(t.Context(), "bulb-1"); err != nil || d.Credential != "ra:line-1" || d.Level != "software" {
		t.Errorf("bulb-1: %+v, %v", d, err)
	}

	// Removed: at once, also between authentication and record.
	if err := a.RemoveRA(t.Context(), "line-1", "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-1"))), ca.Unauthenticated, "no longer registered")
	a.notBy(chain, "not issued by")
	if err := a.RemoveRA(t.Context(), "line-1", "admin:test"); ca.KindOf(err) != ca.NotFound {
		t.Errorf("removed twice: %v", err)
	}
}

func TestRAAuthentication(t *testing.T) {
	a := newAuthority(t, nil)
	key := ecKey(t, elliptic.P256())
	cert := raCert(a, key, nil)
	a.addRA("line-1", cert, []string{"*"}, "software")
	a.notBy([]*x509.Certificate{raCert(a, key, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(8) })}, "not issued by") // its key, another certificate
	a.notBy([]*x509.Certificate{raCert(a, ecKey(t, elliptic.P256()), nil)}, "not issued by")                                    // its name, another key
	a.byChain([]*x509.Certificate{cert})
	a.clock.Add(25 * time.Hour)
	a.notBy([]*x509.Certificate{cert}, "registration authority line-1 is valid from")
}

// A registration authority's certificate may be in the ledger as a device's. It
// is then the RA and no device, until it is removed or its certificate revoked.
func TestRAOfOurs(t *testing.T) {
	a := newAuthority(t, nil)
	own, _ := a.grant("station-1", "software", 1)
	a.enroll(a.request(own, newCSR(t, newKey(t), named("station-1"))))
	index, err := a.store.ReserveIndexes(t.Context(), "issuing-1", 1)
	if err != nil {
		t.Fatal(err)
	}
	serial := ca.NewSerial(index, [12]byte{1})
	cert := raCert(a, ecKey(t, elliptic.P256()), func(c *x509.Certificate) { c.SerialNumber = serial.Big() })
	if err := a.store.Record(t.Context(), &ca.Issuance{Certificate: &ca.Certificate{Serial: serial, Issuer: "issuing-1", Device: "station-1",
		IssuedAt: a.clock.Now(), NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, DER: cert.Raw}, Event: ca.Event{Kind: ca.EventIssued, Time: a.clock.Now()}}); err != nil {
		t.Fatal(err)
	}
	if r := a.byCertificate(cert.Raw); r.Kind != policy.ByCertificate || r.Device != "station-1" {
		t.Fatalf("unregistered, it is %+v", r)
	}
	a.addRA("line-1", cert, []string{"lamp-*"}, "software")
	r := a.byCertificate(cert.Raw)
	if r.Kind != policy.ByRA || r.Device != "" {
		t.Fatalf("registered, it is %+v", r)
	}
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	if _, err := a.Revoke(t.Context(), serial, ca.ReasonKeyCompromise, nil, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.notBy([]*x509.Certificate{cert}, "revoked")
}

func TestAddRA(t *testing.T) {
	a := newAuthority(t, nil)
	key := ecKey(t, elliptic.P256())
	der := func(edit func(*x509.Certificate)) []byte { return raCert(a, key, edit).Raw }
	good := ca.RA{Name: "line-1", Cert: der(nil), Names: []string{"lamp-*"}, Levels: []string{"software"}}
	for _, c := range []struct {
		name string
		edit func(*ca.RA)
		part string
	}{
		{"bad name", func(r *ca.RA) { r.Name = "" }, "cannot be the name"},
		{"name of dots", func(r *ca.RA) { r.Name = ".." }, "without . or - at its beginning"},
		{"not a certificate", func(r *ca.RA) { r.Cert = []byte("x") }, "cannot be read"},
		{"without the use", func(r *ca.RA) {
			r.Cert = der(func(c *x509.Certificate) {
				c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			})
		}, "id-kp-cmcRA"},
		{"a CA", func(r *ca.RA) {
			r.Cert = der(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
		}, "a CA's certificate"},
		{"key for encryption", func(r *ca.RA) {
			r.Cert = der(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
		}, "digitalSignature"},
		{"expired", func(r *ca.RA) {
			r.Cert = der(func(c *x509.Certificate) { c.NotAfter = a.clock.Now().Add(-time.Minute) })
		}, "expired"},
		{"short key", func(r *ca.RA) { r.Cert = raCert(a, rsaKey(t, 1024), nil).Raw }, "RSA of 1024 bits"},
		{"no names", func(r *ca.RA) { r.Names = nil }, "name patterns"},
		{"bad pattern", func(r *ca.RA) { r.Names = []string{"["} }, "not a name pattern"},
		{"no levels", func(r *ca.RA) { r.Levels = nil }, "levels"},
		{"unknown level", func(r *ca.RA) { r.Levels = []string{"gold"} }, "no level"},
	} {
		ra := good
		c.edit(&ra)
		if _, err := a.AddRA(t.Context(), ra, "admin:test"); ca.KindOf(err) != ca.Malformed || !contains(err.Error(), c.part) {
			t.Errorf("%s: %v, want malformed with %q", c.name, err, c.part)
		}
	}
	if _, err := a.AddRA(t.Context(), good, "admin:test"); err != nil {
		t.Error(err)
	}
	good.Name = "line-2"
	if _, err := a.AddRA(t.Context(), good, "admin:test"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("the same key twice: %v", err)
	}
}

// Who approves of a device's own request adds nothing, and must be free to act for
// the device; what an RA hands on must be for the device that sent it.
func TestRAApproves(t *testing.T) {
	a := newAuthority(t, nil)
	lamps, gates := &ca.RA{Name: "lamps", Names: []string{"lamp-*"}, Levels: []string{"software"}}, &ca.RA{Name: "gates", Names: []string{"gw-*"}, Levels: []string{"software"}}
	hsms := &ca.RA{Name: "hsms", Names: []string{"*"}, Levels: []string{"hsm"}}
	r, _ := a.grant("lamp-1", "software", 9)
	request := func(edit func(*ca.Request)) ca.Request {
		q := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
		edit(&q)
		return q
	}
	for _, c := range []struct {
		approvers []*ca.RA
		refused   string
	}{
		{[]*ca.RA{lamps}, ""},
		{[]*ca.RA{gates}, "may not approve for device lamp-1"},
		{[]*ca.RA{lamps, gates}, "may not approve for device lamp-1"},
		{[]*ca.RA{hsms}, "devices of level software"},
	} {
		q := request(func(q *ca.Request) { q.Approvers = c.approvers })
		if c.refused != "" {
			a.refused(q, ca.Denied, c.refused)
			continue
		}
		if issued := a.enroll(q).Certificate; issued.Actor != r.Actor() {
			t.Errorf("the actor is %s", issued.Actor)
		}
	}
	cert := raCert(a, ecKey(t, elliptic.P256()), nil)
	a.addRA("line-1", cert, []string{"lamp-*"}, "software")
	r = a.byChain([]*x509.Certificate{cert})
	a.enroll(request(func(q *ca.Request) { q.Forwarded = "LAMP-1" }))
	a.refused(request(func(q *ca.Request) { q.Forwarded = "lamp-2" }), ca.Denied, "was sent by lamp-2")
}

// A device that enters the inventory gets an ID that harms nothing; one that is there keeps its own, and renews.
func TestNewDevicesIDs(t *testing.T) {
	a := newAuthority(t, nil)
	cert := raCert(a, ecKey(t, elliptic.P256()), nil)
	a.addRA("line-1", cert, []string{"*"}, "software")
	grouped, err := a.AddCredential(t.Context(), device.Credential{Group: "all", Names: []string{"*"}, Level: "software", Uses: 100}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	ra, group := a.byChain([]*x509.Certificate{cert}), a.bySecret(grouped)
	for id, part := range map[string]string{"..": "begins with", ".": "begins with", "-x": "begins with", "lamp-1.": "ends with"} {
		for _, r := range []ca.Requester{ra, group} {
			a.refused(a.request(r, newCSR(t, newKey(t), named(id))), ca.Denied, part)
		}
		if _, err := a.AddDevice(t.Context(), device.Device{ID: id, Level: "software"}, 1, 0, "admin:test"); ca.KindOf(err) != ca.Malformed || !strings.Contains(err.Error(), part) {
			t.Errorf("device add %s: %v", id, err)
		}
	}
	now := a.clock.Now()
	old := device.Device{ID: "lamp-1.", Level: "software", State: device.Active, Credential: ra.RA.Mark(), Created: now, Updated: now}
	if errs, err := a.store.AddDevices(t.Context(), []device.Device{old}, ca.Event{Kind: ca.EventDeviceAdded, Time: now}); err != nil || errs[0] != nil {
		t.Fatal(err, errs)
	}
	key := newKey(t)
	issued := a.enroll(a.request(ra, newCSR(t, key, named(old.ID))))
	a.enroll(a.request(a.byCertificate(issued.Certificate.DER), newCSR(t, key, named(old.ID))))
}
