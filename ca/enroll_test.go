package ca_test

import (
	"context"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

var localhost = netip.MustParseAddr("127.0.0.1")

func contains(s, part string) bool { return strings.Contains(s, part) }

func named(cn string) x509.CertificateRequest {
	return x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
}

func TestEnrollWithCredential(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("Lamp-1", "software", 1)
	issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	cert := parse(t, issued.Certificate.DER)

	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.root)
	for _, der := range issued.Chain {
		inter.AddCert(parse(t, der))
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: a.clock.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if cert.Subject.CommonName != "Lamp-1" {
		t.Errorf("the subject is %s; the inventory's spelling is Lamp-1", cert.Subject)
	}
	serial, ok := ca.SerialFromBig(cert.SerialNumber)
	if !ok || serial != issued.Certificate.Serial {
		t.Errorf("serial %x", cert.SerialNumber)
	}
	if life := cert.NotAfter.Sub(a.clock.Now()); life != 24*time.Hour {
		t.Errorf("it lives %s, want the level's 24h", life)
	}
	if len(cert.OCSPServer) != 1 || len(cert.CRLDistributionPoints) != 1 || len(cert.IssuingCertificateURL) != 1 {
		t.Errorf("pointers: %v %v %v", cert.OCSPServer, cert.CRLDistributionPoints, cert.IssuingCertificateURL)
	}
	stored, err := a.store.CertificateBySerial(t.Context(), serial)
	if err != nil || string(stored.DER) != string(cert.Raw) {
		t.Errorf("the ledger does not hold it: %v", err)
	}
	if d, err := a.store.Device(t.Context(), "LAMP-1"); err != nil || d.State != device.Active {
		t.Errorf("the device is %+v, %v; want it active", d, err)
	}
}

// A use is one durable issuance: errors spend none, and the same request
// within the hour gives the same certificate back.
func TestCredentialUses(t *testing.T) {
	a := newAuthority(t, nil)
	r, g := a.grant("lamp-1", "software", 1)
	csr := newCSR(t, newKey(t), named("lamp-1"))

	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-2"))), ca.Denied, "subject")
	first := a.enroll(a.request(a.bySecret(g), csr))
	again := a.enroll(a.request(a.bySecret(g), csr))
	if !again.Again || again.Certificate.Serial != first.Certificate.Serial {
		t.Errorf("the repeated request got %s, want %s again", again.Certificate.Serial, first.Certificate.Serial)
	}
	a.refused(a.request(a.bySecret(g), newCSR(t, newKey(t), named("lamp-1"))), ca.Unauthenticated, "no uses left")
	a.clock.Add(61 * time.Minute)
	a.refused(a.request(a.bySecret(g), csr), ca.Unauthenticated, "no uses left")
	a.clock.Add(24 * time.Hour)
	if _, err := a.AuthenticateSecret(t.Context(), g.Reference, g.Secret, localhost); ca.KindOf(err) != ca.Unauthenticated || !contains(err.Error(), "expired") {
		t.Errorf("an expired credential: %v", err)
	}
}

// Thirty-two connections with the same last use: one certificate, and everybody
// with the same request gets it.
func TestCredentialRace(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	request := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	var wg sync.WaitGroup
	serials := make([]ca.Serial, 32)
	for i := range serials {
		wg.Go(func() {
			issued, err := a.Enroll(context.Background(), request)
			if err != nil {
				t.Error(err)
				return
			}
			serials[i] = issued.Certificate.Serial
		})
	}
	wg.Wait()
	for _, s := range serials {
		if s != serials[0] {
			t.Fatalf("two certificates for one use: %s and %s", serials[0], s)
		}
	}
}

func TestRenewal(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	key := newKey(t)
	asked := x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}, DNSNames: []string{"lamp-1"}}
	first := a.enroll(a.request(r, newCSR(t, key, asked)))
	self := a.byCertificate(first.Certificate.DER)
	if self.Kind != policy.ByCertificate || self.Device != "lamp-1" {
		t.Fatalf("the certificate's requester is %+v", self)
	}
	renew := func(csr []byte) ca.Request {
		q := a.request(self, csr)
		q.Renew = true
		return q
	}
	second := a.enroll(renew(newCSR(t, key, asked))) // the same device may reuse its key
	if second.Certificate.Replaces != first.Certificate.Serial {
		t.Error("the record does not say what it replaces")
	}
	a.enroll(renew(newCSR(t, newKey(t), asked)))
	a.refused(renew(newCSR(t, newKey(t), named("lamp-2"))), ca.Denied, "keeps the subject")
	a.refused(renew(newCSR(t, newKey(t), named("lamp-1"))), ca.Denied, "keeps the subjectAltName")

	// Without Renew (simpleenroll, cr) it is a renewal of the same device all the same.
	a.refused(a.request(self, newCSR(t, newKey(t), named("lamp-2"))), ca.Denied, "")
	a.enroll(a.request(self, newCSR(t, newKey(t), named("lamp-1"))))
	// The old one still works: renewal never revokes.
	a.byCertificate(first.Certificate.DER)
}

// A device whose renewal was answered, and that could not keep the answer (it was lost, its disk is full), asks again
// with the certificate and the key that it has, and gets the certificate that is there, for an hour.
func TestRenewalRepeated(t *testing.T) {
	a := newAuthority(t, nil)
	enrolled := func(id string) ca.Requester {
		r, _ := a.grant(id, "software", 1)
		return a.byCertificate(a.enroll(a.request(r, newCSR(t, newKey(t), named(id)))).Certificate.DER)
	}
	acme := newMaker(t, "Acme")
	a.addMaker(acme, "acme", "software", ca.Constraints{})
	for _, c := range []struct {
		id   string
		by   ca.Requester
		then func(first *ca.Issued, r *ca.Request) // what happens before the request is repeated
		same bool
	}{
		{id: "lost", by: enrolled("lost"), same: true},
		{id: "slow", by: enrolled("slow"), then: func(*ca.Issued, *ca.Request) { a.clock.Add(59 * time.Minute) }, same: true},
		{id: "late", by: enrolled("late"), then: func(*ca.Issued, *ca.Request) { a.clock.Add(time.Hour) }},
		{id: "idevid", by: a.byChain(acme.device("idevid", nil)), same: true},
		{id: "newkey", by: enrolled("newkey"), then: func(_ *ca.Issued, r *ca.Request) {
			*r = a.request(r.Requester, newCSR(t, newKey(t), named("newkey")))
		}},
		{id: "goes-on", by: enrolled("goes-on"), then: func(first *ca.Issued, r *ca.Request) { r.Requester = a.byCertificate(first.Certificate.DER) }},
		{id: "shorter", by: enrolled("shorter"), then: func(_ *ca.Issued, r *ca.Request) { r.NotAfter = a.clock.Now().Add(time.Hour) }},
		{id: "longer", by: enrolled("longer"), then: func(_ *ca.Issued, r *ca.Request) { r.NotAfter = a.clock.Now().Add(1000 * time.Hour) }, same: true},
		{id: "more", by: enrolled("more"), then: func(_ *ca.Issued, r *ca.Request) {
			r.Names.SANs = append(r.Names.SANs, ca.SAN{Form: "dns", Value: "more"})
		}},
		{id: "revoked", by: enrolled("revoked"), then: func(first *ca.Issued, _ *ca.Request) {
			if _, err := a.Revoke(t.Context(), first.Certificate.Serial, 4, nil, "admin:test"); err != nil {
				t.Fatal(err)
			}
		}},
		{id: "policy", by: enrolled("policy"), then: func(*ca.Issued, *ca.Request) {
			a.apply(func(p string) string { // renewals are set apart from now on
				return strings.Replace(p, "outcomes:\n", "outcomes:\n  - name: set-apart\n    when: request.operation == 'renew'\n    then: quarantine\n    profile: remediation\n", 1)
			})
		}},
	} {
		r := a.request(c.by, newCSR(t, newKey(t), named(c.id)))
		first, before := a.enroll(r), len(a.events(ca.EventIssued))
		if c.then != nil {
			c.then(first, &r)
		}
		second := a.enroll(r)
		if same := second.Certificate.Serial == first.Certificate.Serial; same != c.same || second.Again != c.same || (len(a.events(ca.EventIssued)) == before) != c.same {
			t.Errorf("%s: the same certificate: %v (again: %v), %d more; want %v", c.id, same, second.Again, len(a.events(ca.EventIssued))-before, c.same)
		}
	}
}

// Many connections with one renewal: one certificate.
func TestRenewalRace(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	request := a.request(a.byCertificate(a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1")))).Certificate.DER), newCSR(t, newKey(t), named("lamp-1")))
	before := len(a.events(ca.EventIssued))
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := a.Enroll(context.Background(), request); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(a.events(ca.EventIssued)) - before; n != 1 {
		t.Errorf("%d certificates, want 1", n)
	}
}

func TestKeyOfAnotherDevice(t *testing.T) {
	a := newAuthority(t, nil)
	key := newKey(t)
	one, _ := a.grant("lamp-1", "software", 1)
	two, _ := a.grant("lamp-2", "software", 1)
	a.enroll(a.request(one, newCSR(t, key, named("lamp-1"))))
	a.refused(a.request(two, newCSR(t, key, named("lamp-2"))), ca.BadKey, "another device")
}

func TestGroupCredential(t *testing.T) {
	a := newAuthority(t, nil)
	g, err := a.AddCredential(t.Context(), device.Credential{Group: "hall", Names: []string{"lamp-*"}, Level: "software", Uses: 10}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	a.grant("lamp-own", "software", 1)
	enroll := func(cn string) ca.Request { return a.request(a.bySecret(g), newCSR(t, newKey(t), named(cn))) }
	a.enroll(enroll("lamp-7"))
	a.enroll(enroll("LAMP-7")) // it first enrolled it, so it may again
	d, err := a.store.Device(t.Context(), "lamp-7")
	if err != nil || d.Group != "hall" || d.State != device.Active {
		t.Errorf("the inventory says %+v, %v", d, err)
	}
	a.refused(enroll("gate-1"), ca.Denied, "not for device")
	a.refused(enroll("lamp-own"), ca.Denied, "not first enrolled")
	a.refused(a.request(a.bySecret(g), newCSR(t, newKey(t), x509.CertificateRequest{})), ca.Denied, "names no device")
	a.refused(enroll("lamp/7"), ca.Denied, "device ID")
}

func TestLapsedCertificate(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	key := newKey(t)
	first := a.enroll(a.request(r, newCSR(t, key, named("lamp-1"))))
	profile, _ := a.Policy().Profile("device")
	if profile.RenewExpired == 0 {
		t.Fatal("the default profile lets nobody come back")
	}
	a.clock.Add(25 * time.Hour)
	self := a.byCertificate(first.Certificate.DER)
	if self.Lapsed != time.Hour {
		t.Errorf("lapsed %s", self.Lapsed)
	}
	a.refused(a.request(self, newCSR(t, newKey(t), named("lamp-1"))), ca.Unauthenticated, "same key")
	a.enroll(a.request(self, newCSR(t, key, named("lamp-1"))))
	a.clock.Add(profile.RenewExpired)
	self = a.byCertificate(first.Certificate.DER)
	a.refused(a.request(self, newCSR(t, key, named("lamp-1"))), ca.Unauthenticated, "enrol with a credential")
}

func TestCertificatesThatDoNotAuthenticate(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 5)
	key := newKey(t)
	issued := a.enroll(a.request(r, newCSR(t, key, named("lamp-1"))))
	revoked := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	if _, err := a.Revoke(t.Context(), revoked.Certificate.Serial, ca.ReasonKeyCompromise, nil, "admin:test"); err != nil {
		t.Fatal(err)
	}
	server, err := a.IssueBuiltin(t.Context(), ca.BuiltinServer, "issuing", newKey(t).Public(), []ca.SAN{{Form: "dns", Value: "localhost"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// The same serial and names under another CA's signature.
	other := newAuthority(t, nil)
	forged := parse(t, issued.Certificate.DER)
	forgedDER, err := x509.CreateCertificate(rand.Reader, forged, other.root, newKey(t).Public(), other.rootKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, der := range map[string][]byte{
		"revoked": revoked.Certificate.DER, "forged": forgedDER, "our server's own": server.Certificate.DER, "the root": a.root.Raw,
	} {
		if _, err := a.AuthenticateCertificate(t.Context(), []*x509.Certificate{parse(t, der)}); ca.KindOf(err) != ca.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.AuthenticateCertificate(t.Context(), nil); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("none: %v", err)
	}
}

func TestDeviceStates(t *testing.T) {
	a := newAuthority(t, nil)
	ctx := t.Context()
	r, g := a.grant("lamp-1", "software", 5)
	issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	self := a.byCertificate(issued.Certificate.DER)
	move := func(to device.State) ca.Revoked {
		certs, err := a.MoveDevice(ctx, "LAMP-1", to, ca.ReasonCessationOfOperation, "admin:test")
		if err != nil {
			t.Fatal(err)
		}
		return certs
	}
	move(device.Suspended)
	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-1"))), ca.Denied, "suspended")
	a.refused(a.request(self, newCSR(t, newKey(t), named("lamp-1"))), ca.Denied, "suspended") // authenticated before
	a.refused(a.request(a.byCertificate(issued.Certificate.DER), newCSR(t, newKey(t), named("lamp-1"))), ca.Denied, "suspended")
	move(device.Active)
	a.enroll(a.request(self, newCSR(t, newKey(t), named("lamp-1"))))
	if revoked := move(device.Retired); revoked.Count != 2 || len(revoked.First) != 2 {
		t.Errorf("retiring revoked %d certificates, want 2", revoked.Count)
	}
	a.refused(a.request(self, newCSR(t, newKey(t), named("lamp-1"))), ca.Denied, "retired")
	if _, err := a.AuthenticateCertificate(ctx, []*x509.Certificate{parse(t, issued.Certificate.DER)}); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("a retired device's certificate: %v", err)
	}
	if _, err := a.AuthenticateSecret(ctx, g.Reference, g.Secret, localhost); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("a retired device's credential: %v", err)
	}
	if _, err := a.MoveDevice(ctx, "lamp-1", device.Active, 0, "admin:test"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("a retired device came back: %v", err)
	}
	if _, err := a.ImportDevices(ctx, []device.Device{{ID: "raw-1", Level: "software", State: device.Manufactured}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	raw, err := a.AddCredential(ctx, device.Credential{Device: "raw-1"}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	a.refused(a.request(a.bySecret(raw), newCSR(t, newKey(t), named("raw-1"))), ca.Denied, "manufactured")
}

func TestPolicyRefusals(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 5)
	tpm, _ := a.grant("box-1", "tpm", 5)
	for _, c := range []struct {
		name string
		r    ca.Requester
		csr  x509.CertificateRequest
		part string
	}{
		{"foreign subject", r, named("lamp-2"), "subject"},
		{"organisation not in the profile", r, x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1", Organization: []string{"Else"}}}, "attribute o"},
		{"foreign DNS name", r, x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}, DNSNames: []string{"bank.example"}}, "bank.example"},
		{"IP address where the profile has none", r, x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}, IPAddresses: []net.IP{{10, 0, 0, 1}}}, "ip"},
		{"evidence that cannot be verified", tpm, named("box-1"), "cannot verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.refused(a.request(c.r, newCSR(t, newKey(t), c.csr)), ca.Denied, c.part)
		})
	}
	q := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	q.Profile = "remediation"
	a.refused(q, ca.Denied, "remediation")
	q.Profile = "gateway"
	if cert := parse(t, a.enroll(q).Certificate.DER); len(cert.ExtKeyUsage) != 2 {
		t.Errorf("profile gateway has key usages %v", cert.ExtKeyUsage)
	}
	p384 := ecKey(t, elliptic.P384())
	a.enroll(a.request(r, newCSR(t, p384, named("lamp-1"))))
}

// A quarantined device's certificate comes from the quarantine CA, and ordinary
// relying parties refuse it by path validation alone.
func TestQuarantine(t *testing.T) {
	a := newAuthority(t, func(source string) string {
		at := strings.Index(source, "\noutcomes:")
		end := strings.Index(source[at+1:], "\n") + at + 1
		return source[:end] + "\n  - name: under suspicion\n    when: device.id == \"lamp-1\"\n    then: quarantine\n    profile: remediation\n    validity: 4h\n" + source[end:]
	})
	r, _ := a.grant("lamp-1", "software", 2)
	issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	if issued.Outcome != policy.Quarantine || issued.Certificate.Issuer != "quarantine-1" {
		t.Fatalf("%s from %s", issued.Outcome, issued.Certificate.Issuer)
	}
	cert := parse(t, issued.Certificate.DER)
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(a.root)
	inter.AddCert(parse(t, issued.Chain[0]))
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageAny} { // any: as software that ignores a CA's usages
		opts := x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: a.clock.Now(), KeyUsages: []x509.ExtKeyUsage{use}}
		if _, err := cert.Verify(opts); err == nil {
			t.Errorf("a relying party accepts a quarantined device for use %v", use)
		}
	}
	if self := a.byCertificate(issued.Certificate.DER); self.Kind != policy.ByQuarantine {
		t.Errorf("it authenticates as %s", self.Kind)
	}
}

// When the signer fails, nothing is recorded and nothing leaves. That it returns no
// wrong signature is the contract of Options.Key, which internal/keys is tested for.
func TestSignerAway(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	q := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	a.signer.set(func([]byte, error) ([]byte, error) { return nil, errors.New("device removed") })
	if _, err := a.Enroll(t.Context(), q); ca.KindOf(err) != ca.Unavailable {
		t.Errorf("%v, want %v", err, ca.Unavailable)
	}
	a.signer.set(nil)
	if list, err := a.store.Certificates(t.Context(), ca.CertificateFilter{}, 0, 10); err != nil || len(list) != 0 {
		t.Errorf("%d certificates were recorded, %v", len(list), err)
	}
	a.enroll(q) // and no use was spent
}

func TestSerialsAcrossRestarts(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 100)
	seen, last := map[ca.Serial]bool{}, uint64(0)
	for range 3 {
		for range 5 {
			s := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1")))).Certificate.Serial
			if seen[s] || len(seen) > 0 && s.Index() <= last {
				t.Fatalf("serial %s: index %d after %d", s, s.Index(), last)
			}
			seen[s], last = true, s.Index()
		}
		a.reopen()
	}
}

func TestWrongSecrets(t *testing.T) {
	a := newAuthority(t, nil)
	_, g := a.grant("lamp-1", "software", 1)
	ctx := t.Context()
	var limited int
	for range 20 {
		_, err := a.AuthenticateSecret(ctx, g.Reference, "guess", localhost)
		if ca.KindOf(err) == ca.RateLimited {
			limited++
			if ca.AsError(err).RetryAfter <= 0 {
				t.Error("no Retry-After")
			}
		} else if ca.KindOf(err) != ca.Unauthenticated {
			t.Fatal(err)
		}
	}
	if limited != 10 {
		t.Errorf("%d of 20 guesses were limited, want 10", limited)
	}
	// An honest device is not locked out by somebody's guessing.
	if _, err := a.AuthenticateSecret(ctx, g.Reference, g.Secret, localhost); err != nil {
		t.Errorf("the right secret: %v", err)
	}
	_, unknown := a.AuthenticateSecret(ctx, "nobody", "guess", netip.MustParseAddr("192.0.2.1"))
	a.clock.Add(time.Minute)
	_, wrong := a.AuthenticateSecret(ctx, g.Reference, "guess", netip.MustParseAddr("192.0.2.2"))
	if unknown.Error() != wrong.Error() {
		t.Errorf("an unknown reference answers %q, a wrong secret %q", unknown, wrong)
	}
}

func TestApply(t *testing.T) {
	a := newAuthority(t, nil)
	before := a.Policy().Version()
	edited := parsePolicy(t, func(s string) string { return s + "\n# another version\n" })
	if err := a.Apply(t.Context(), edited, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if a.Policy().Version() == before {
		t.Error("the policy is the old one")
	}
	// A policy whose event cannot be recorded is not put in force.
	third := parsePolicy(t, func(s string) string { return s + "\n# a third version\n" })
	a.store.Close()
	if err := a.Apply(t.Context(), third, "admin:test"); ca.KindOf(err) != ca.Unavailable {
		t.Errorf("with the ledger away: %v", err)
	}
	if a.Policy() != edited {
		t.Error("a policy is in force that the audit log does not know")
	}
}
