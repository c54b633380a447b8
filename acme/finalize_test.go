package acme_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

func onNetworks(o *acme.Options) {
	o.Validators = map[string]acme.Validator{"http-01": met{}, "dns-01": met{}, "tls-alpn-01": met{}}
}

// What is wrong with a CSR leaves the order ready (RFC 8555 §7.4).
func TestBadCSR(t *testing.T) {
	e := newEnv(t, onNetworks)
	e.run()
	a := e.device("gw-1")
	o := a.ordered(pid("gw-1"), dns("gw-1.local"), ip("10.0.0.1"))
	key := newKey(t)
	all := []acme.Identifier{pid("gw-1"), dns("gw-1.local"), ip("10.0.0.1")}
	a.finalize(o, csr(t, key, "", all...)).problem(403, "orderNotReady")
	a.meet(o, "http-01")
	if o.Profile != "gateway" {
		t.Errorf("the profile is %s", o.Profile)
	}
	broken := csr(t, key, "", all...)
	broken[len(broken)-1] ^= 1
	p521 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	for name, c := range map[string]struct {
		payload any
		kind    string
	}{
		"none":                   {map[string]any{}, "malformed"},
		"not base64url":          {map[string]any{"csr": "+/"}, "malformed"},
		"PEM":                    {map[string]any{"csr": "-----BEGIN CERTIFICATE REQUEST-----"}, "malformed"},
		"no DER":                 {map[string]any{"csr": "AAAA"}, "badCSR"},
		"a bad signature":        {map[string]any{"csr": b64(broken)}, "badCSR"},
		"trailing octets":        {map[string]any{"csr": b64(append(csr(t, key, "", all...), 0))}, "badCSR"},
		"a name too few":         {map[string]any{"csr": b64(csr(t, key, "", pid("gw-1"), dns("gw-1.local")))}, "badCSR"},
		"no names":               {map[string]any{"csr": b64(csr(t, key, "gw-1"))}, "badCSR"},
		"a name too many":        {map[string]any{"csr": b64(csr(t, key, "", append(all, dns("gw-1.lan"))...))}, "badCSR"},
		"a URI":                  {map[string]any{"csr": b64(csr(t, key, "", append(all, acme.Identifier{Type: "uri", Value: "urn:dev:gw-1"})...))}, "badCSR"},
		"a device in other case": {map[string]any{"csr": b64(csr(t, key, "", pid("GW-1"), dns("gw-1.local"), ip("10.0.0.1")))}, "badCSR"},
		"another common name":    {map[string]any{"csr": b64(csr(t, key, "gw-2", all...))}, "badCSR"},
		"a DNS name elsewhere":   {map[string]any{"csr": b64(csr(t, key, "gw-1.lan", all...))}, "badCSR"},
		"the account's key":      {map[string]any{"csr": b64(csr(t, a.key, "", all...))}, "badCSR"},
		"P-521":                  {map[string]any{"csr": b64(csr(t, p521, "", all...))}, "badPublicKey"},
	} {
		a.post(o.Finalize, c.payload).problem(400, c.kind)
		if got := a.fetchOrder(o.url).Status; got != "ready" {
			t.Fatalf("%s: the order is %s", name, got)
		}
	}
	done := readOrder(a.finalize(o, csr(t, key, "GW-1.local", pid("gw-1"), ip("10.0.0.1"))).want(200))
	leaf := a.chain(done.Certificate)[0]
	if leaf.Subject.CommonName != "gw-1" || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != "gw-1.local" || len(leaf.IPAddresses) != 1 {
		t.Errorf("certificate of %s, %v %v", leaf.Subject, leaf.DNSNames, leaf.IPAddresses)
	}
	if err := leaf.VerifyHostname("gw-1.local"); err != nil {
		t.Error(err)
	}
}

// The subject of a CSR counts for nothing but its common name, which may be any name of the order: acme.sh writes its own
// name where the first identifier is an address.
func TestSubjectOfCSR(t *testing.T) {
	e := newEnv(t, onNetworks)
	e.run()
	a := e.device("gw-1")
	for name, subject := range map[string]pkix.Name{
		"acme.sh's":     {Organization: []string{"acme.sh"}},
		"an address":    {CommonName: "10.0.0.1"},
		"a full one":    {CommonName: "gw-1", Country: []string{"DE"}, OrganizationalUnit: []string{"x"}, SerialNumber: "7"},
		"another's":     {CommonName: "10.0.0.2"},
		"another's too": {CommonName: "gw-2", Organization: []string{"acme.sh"}},
	} {
		o := a.ordered(ip("10.0.0.1"))
		a.meet(o, "http-01")
		request := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, newKey(t)))
		r := a.finalize(o, request)
		if strings.HasPrefix(name, "another's") {
			r.problem(400, "badCSR")
			continue
		}
		leaf := a.chain(readOrder(r.want(200)).Certificate)[0]
		if got := leaf.Subject.String(); got != "CN=gw-1" || len(leaf.IPAddresses) != 1 {
			t.Errorf("%s: certificate of %s, %v", name, got, leaf.IPAddresses)
		}
	}
}

// The device's own identifier may be left out of the certificate (draft-ietf-acme-device-attest §3.2).
func TestPrivacy(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	done := readOrder(a.finalize(a.ordered(pid("lamp-1")), csr(t, newKey(t), "")).want(200))
	for _, x := range a.chain(done.Certificate)[0].Extensions {
		if x.Id.String() == "2.5.29.17" {
			t.Error("the certificate has a subjectAltName that was not asked for")
		}
	}
}

// The same finalize twice, with another CSR, on 16 connections at once: one certificate.
func TestFinalizeOnce(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	o, key := a.ordered(pid("lamp-1")), newKey(t)
	request := csr(t, key, "", pid("lamp-1"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]bool{}
	for range 16 {
		wg.Go(func() {
			done := readOrder(a.finalize(o, request).want(200))
			mu.Lock()
			seen[done.Certificate] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(seen) != 1 || e.recorded("lamp-1") != 1 {
		t.Errorf("%d certificates recorded, handed out %v", e.recorded("lamp-1"), seen)
	}
	again := readOrder(a.finalize(o, csr(t, key, "", pid("lamp-1"))).want(200)) // another signature, the same key
	if !seen[again.Certificate] {
		t.Errorf("another certificate: %s", again.Certificate)
	}
	a.finalize(o, csr(t, newKey(t), "", pid("lamp-1"))).problem(403, "orderNotReady")
	e.restart()
	if after := readOrder(a.finalize(o, request).want(200)); !seen[after.Certificate] {
		t.Errorf("after a restart, another certificate: %s", after.Certificate)
	}
	events := must[int64](t)(e.store.NewestEvent(t.Context()))
	a.finalize(o, request).want(200)
	if now := must[int64](t)(e.store.NewestEvent(t.Context())); now != events {
		t.Error("a repetition is on the audit log")
	}
}

// Two finalizes of one order with different keys at once: one gets its certificate, the other is told that it did not.
func TestFinalizeWithTwoKeys(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	o := a.ordered(pid("lamp-1"))
	var both sync.WaitGroup // both have been signed when the first is recorded
	both.Add(2)
	e.ledger.onRecord(func(_ *ca.Issuance, record func() error) error {
		both.Done()
		both.Wait()
		return record()
	})
	keys := []crypto.Signer{newKey(t), newKey(t)}
	answers := make([]*answer, 2)
	var wg sync.WaitGroup
	for i, key := range keys {
		request := csr(t, key, "", pid("lamp-1"))
		wg.Go(func() { answers[i] = a.finalize(o, request) })
	}
	wg.Wait()
	won := 0
	if answers[0].status != 200 {
		won = 1
	}
	done := readOrder(answers[won].want(200))
	answers[1-won].problem(403, "orderNotReady")
	if leaf := a.chain(done.Certificate)[0]; !bytes.Equal(leaf.RawSubjectPublicKeyInfo, publicKey(t, keys[won])) {
		t.Error("the certificate is for the key of the one that was refused")
	}
	if n := e.recorded("lamp-1"); n != 1 {
		t.Errorf("%d certificates", n)
	}
}

// The same while an order comes to wait for an administrator.
func TestHeldWithTwoKeys(t *testing.T) {
	e := newEnv(t, edit("    key_usage: [digitalSignature]\n", "    key_usage: [digitalSignature]\n    approval: true\n"))
	a := e.device("lamp-1")
	o := a.ordered(pid("lamp-1"))
	answers := make([]*answer, 3)
	var wg sync.WaitGroup
	for i := range answers {
		request := csr(t, newKey(t), "", pid("lamp-1"))
		wg.Go(func() { answers[i] = a.finalize(o, request) })
	}
	wg.Wait()
	held := 0
	for _, r := range answers {
		if r.status == 200 {
			held++
			continue
		}
		r.problem(403, "orderNotReady")
	}
	if held != 1 {
		t.Errorf("%d of 3 keys were told that their order is processing, want 1", held)
	}
}

// A ledger that fails before the record, and one that fails after it: never two certificates, and none that is not recorded.
func TestFailingLedger(t *testing.T) {
	for name, persisted := range map[string]bool{"nothing was stored": false, "it was stored": true} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			a := e.device("lamp-1")
			o, request := a.ordered(pid("lamp-1")), csr(t, newKey(t), "", pid("lamp-1"))
			e.ledger.onRecord(func(_ *ca.Issuance, record func() error) error {
				if persisted {
					if err := record(); err != nil {
						t.Error(err)
					}
				}
				return ca.Away("the database", errors.New("cut off"))
			})
			if r := a.finalize(o, request); r.problem(503, "serverInternal").Detail == "" || r.header.Get("Retry-After") == "" {
				t.Errorf("headers %v", r.header)
			}
			want := "ready"
			if persisted {
				want = "valid"
			}
			if got := a.fetchOrder(o.url).Status; got != want {
				t.Errorf("the order is %s, want %s", got, want)
			}
			e.restart()
			done := readOrder(a.finalize(o, request).want(200))
			a.chain(done.Certificate)
			if n := e.recorded("lamp-1"); n != 1 {
				t.Errorf("%d certificates", n)
			}
		})
	}
}

// A restart between all steps changes nothing but nonces.
func TestRestart(t *testing.T) {
	v := &validator{}
	e := newEnv(t, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v} })
	a := e.device("gw-1")
	nonce := e.takeNonce()
	e.restart()
	a.env.post(a.kid, message(t, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": nonce, "url": a.kid}, nil)).problem(400, "badNonce")
	o := a.ordered(dns("gw-1.local"))
	e.restart()
	c := a.authorization(o.Authorizations[0]).challenge("http-01")
	r := a.post(c.URL, map[string]any{}).want(200)
	var seen challengeDoc
	if r.json(&seen); seen.Status != "processing" || r.header.Get("Retry-After") == "" {
		t.Errorf("challenge %+v, headers %v", seen, r.header)
	}
	e.restart() // nobody had looked yet
	stop := e.run()
	eventually(t, "the validation", func() bool { return a.authorization(o.Authorizations[0]).Status == "valid" })
	if r := v.asked[0]; v.times() != 1 || r.KeyAuthorization != c.Token+"."+thumbprint(a.key) || r.Identifier != dns("gw-1.local") || r.Type != "http-01" {
		t.Errorf("asked %+v", v.asked)
	}
	stop()
	e.restart()
	key := newKey(t)
	done := readOrder(a.finalize(o, csr(t, key, "", dns("gw-1.local"))).want(200))
	e.restart()
	a.chain(done.Certificate)
	if got := a.fetchOrder(o.url).Status; got != "valid" {
		t.Errorf("the order is %s", got)
	}
}

func TestPeriod(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	begin, end := e.now().Add(-time.Minute).UTC().Truncate(time.Second), e.now().Add(time.Hour).UTC().Truncate(time.Second)
	o := readOrder(a.newOrder(map[string]any{"notBefore": begin, "notAfter": end}, pid("lamp-1")).want(201))
	if o.NotBefore == nil || !o.NotBefore.Equal(begin) || o.NotAfter == nil || !o.NotAfter.Equal(end) {
		t.Errorf("order %+v", o)
	}
	leaf := a.chain(readOrder(a.finalize(o, csr(t, newKey(t), "")).want(200)).Certificate)[0]
	if !leaf.NotBefore.Equal(begin) || !leaf.NotAfter.Equal(end) {
		t.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	// Nothing, as smallstep's client writes it.
	o = readOrder(a.newOrder(map[string]any{"notBefore": time.Time{}, "notAfter": time.Time{}}, pid("lamp-1")).want(201))
	if o.NotBefore != nil || o.NotAfter != nil {
		t.Errorf("order %+v", o)
	}
}

// What cannot be had exactly is refused: at newOrder if that can be known, else at finalize (RFC 8555 §7.4).
func TestOtherPeriod(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	order := func(end time.Time) *answer { return a.newOrder(map[string]any{"notAfter": end}, pid("lamp-1")) }
	longest := 24 * time.Hour
	order(e.now().Add(longest+time.Minute)).problem(400, "malformed")
	order(e.now().Add(-time.Minute)).problem(400, "malformed")

	// A fraction of a second cannot be had, and the order says what can.
	end := e.now().Add(time.Hour).UTC().Truncate(time.Second)
	o := readOrder(order(end.Add(time.Second / 2)).want(201))
	if o.NotAfter == nil || !o.NotAfter.Equal(end) {
		t.Errorf("notAfter is %v, want %v", o.NotAfter, end)
	}
	if leaf := a.chain(readOrder(a.finalize(o, csr(t, newKey(t), "")).want(200)).Certificate)[0]; !leaf.NotAfter.Equal(end) {
		t.Errorf("valid until %s, want %s", leaf.NotAfter, end)
	}

	// Policy has become stricter, and the time has passed: no certificate, and the order says why.
	refused := func(o orderDoc, text string) {
		t.Helper()
		before := e.recorded("lamp-1")
		if p := a.finalize(o, csr(t, newKey(t), "")).problem(400, "malformed"); !strings.Contains(p.Detail, text) {
			t.Errorf("told %q, want %q", p.Detail, text)
		}
		if got := a.fetchOrder(o.url); got.Status != "invalid" || got.Error == nil || !strings.Contains(got.Error.Detail, text) {
			t.Errorf("the order is %+v", got)
		}
		if n := e.recorded("lamp-1"); n != before {
			t.Errorf("%d certificates more", n-before)
		}
	}
	short := readOrder(order(e.now().Add(time.Hour)).want(201))
	long := readOrder(order(e.now().Add(20 * time.Hour)).want(201))
	e.later(2 * time.Hour)
	refused(short, "has passed")
	source := edit("outcomes:\n", "outcomes:\n  - name: briefly\n    when: device.id == \"lamp-1\"\n    then: issue\n    validity: 10m\n")(append(e.core.Policy().Source(), "\n"...))
	if err := e.core.Apply(t.Context(), must[*policy.Policy](t)(policy.Parse("p", source)), "admin:test"); err != nil {
		t.Fatal(err)
	}
	refused(long, "briefly")
}

// An order for longer than the issuing CA lasts is refused.
func TestBeyondTheCA(t *testing.T) {
	e := newEnv(t, edit("validity: 24h\n", "validity: 87600h\n"))
	a := e.device("lamp-1")
	i := slices.IndexFunc(e.core.Issuers(), func(r ca.IssuerRecord) bool { return r.Role == "issuing" })
	end := must[*x509.Certificate](t)(x509.ParseCertificate(e.core.Issuers()[i].Cert)).NotAfter
	a.newOrder(map[string]any{"notAfter": end.Add(time.Second)}, pid("lamp-1")).problem(400, "malformed")
	o := readOrder(a.newOrder(map[string]any{"notAfter": end}, pid("lamp-1")).want(201))
	if leaf := a.chain(readOrder(a.finalize(o, csr(t, newKey(t), "")).want(200)).Certificate)[0]; !leaf.NotAfter.Equal(end) {
		t.Errorf("valid until %s, want %s", leaf.NotAfter, end)
	}
}

// An order that an administrator must approve is processing until then (and keeps its CSR).
func TestApproval(t *testing.T) {
	e := newEnv(t, edit("    key_usage: [digitalSignature]\n", "    key_usage: [digitalSignature]\n    approval: true\n"))
	a := e.device("lamp-1")
	waiting := func() (orderDoc, []byte) {
		o, request := a.ordered(pid("lamp-1")), csr(t, newKey(t), "", pid("lamp-1"))
		r := a.finalize(o, request).want(200)
		if got := readOrder(r); got.Status != "processing" || r.header.Get("Retry-After") != "60" {
			t.Fatalf("%s: %s", r.header, r.raw)
		}
		return o, request
	}
	decide := func(approve bool) {
		p := must[[]ca.PendingRequest](t)(e.store.Pendings(t.Context(), ca.PendingFilter{State: ca.PendingWaiting}, 0, 10))
		if len(p) != 1 || p[0].Protocol != "acme" {
			t.Fatalf("requests %+v", p)
		}
		if _, err := e.core.DecideRequest(t.Context(), p[0].ID, approve, "because of the test", "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	o, request := waiting()
	a.finalize(o, csr(t, newKey(t), "")).problem(403, "orderNotReady")
	if got := readOrder(a.finalize(o, request).want(200)); got.Status != "processing" {
		t.Errorf("asked again: %+v", got)
	}
	e.restart()
	e.later(48 * time.Hour) // the credential has expired, which is nothing to the account
	if got := a.fetchOrder(o.url); got.Status != "processing" || got.Certificate != "" {
		t.Errorf("after a restart: %+v", got)
	}
	decide(true)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if got := a.fetchOrder(o.url); got.Status != "valid" {
				t.Errorf("once approved: %+v", got)
			}
		})
	}
	wg.Wait()
	a.chain(a.fetchOrder(o.url).Certificate)
	if n := e.recorded("lamp-1"); n != 1 {
		t.Errorf("%d certificates", n)
	}

	o, _ = waiting()
	decide(false)
	got := a.fetchOrder(o.url)
	if got.Status != "invalid" || got.Error == nil || !strings.Contains(got.Error.Detail, "because of the test") {
		t.Errorf("once denied: %+v", got)
	}
	a.finalize(o, request).problem(403, "orderNotReady")
}

// What policy denies makes the order invalid; what another CSR would put right does not.
func TestDenied(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	o := a.ordered(pid("lamp-1"))
	source := append(e.core.Policy().Source(), "\n"...)
	source = edit("outcomes:\n", "outcomes:\n  - name: never\n    when: device.id == \"lamp-1\"\n    then: deny\n    reason: Not this one.\n")(source)
	if err := e.core.Apply(t.Context(), must[*policy.Policy](t)(policy.Parse("p", source)), "admin:test"); err != nil {
		t.Fatal(err)
	}
	if p := a.finalize(o, csr(t, newKey(t), "")).problem(403, "unauthorized"); !strings.Contains(p.Detail, "Not this one") {
		t.Errorf("told %q", p.Detail)
	}
	if got := a.fetchOrder(o.url); got.Status != "invalid" || got.Error == nil {
		t.Errorf("the order is %+v", got)
	}
	b := e.device("lamp-2")
	o = b.ordered(pid("lamp-2"))
	taken := newKey(t)
	b.finalize(b.ordered(pid("lamp-2")), csr(t, taken, "")).want(200)
	c := e.device("lamp-3")
	other := c.ordered(pid("lamp-3"))
	c.finalize(other, csr(t, taken, "")).problem(400, "badPublicKey")
	c.finalize(other, csr(t, newKey(t), "")).want(200)
	if _, err := e.core.MoveDevice(t.Context(), "lamp-2", "suspended", 0, "admin:test"); err != nil {
		t.Fatal(err)
	}
	b.newOrder(nil, pid("lamp-2")).problem(403, "unauthorized")
	b.finalize(o, csr(t, newKey(t), "")).problem(403, "unauthorized")
}

// Orders and authorizations end, and are forgotten a day later.
func TestExpiry(t *testing.T) {
	e := newEnv(t, onNetworks)
	a := e.device("gw-1")
	o := a.ordered(pid("gw-1"), dns("gw-1.local"))
	kept := readOrder(a.finalize(a.ordered(pid("gw-1")), csr(t, newKey(t), "")).want(200))
	e.later(7*24*time.Hour + time.Minute)
	if got := a.fetchOrder(o.url); got.Status != "invalid" || got.Error == nil || !strings.Contains(got.Error.Detail, "expired") {
		t.Errorf("%+v", got)
	}
	if got := a.authorization(o.Authorizations[1]); got.Status != "expired" && got.Status != "invalid" {
		t.Errorf("%+v", got)
	}
	a.finalize(o, csr(t, newKey(t), "")).problem(403, "orderNotReady")
	if n := must[int64](t)(e.store.PruneACME(t.Context(), e.now().Add(-24*time.Hour))); n != 0 {
		t.Errorf("%d were forgotten at once", n)
	}
	e.later(24 * time.Hour)
	if n := must[int64](t)(e.store.PruneACME(t.Context(), e.now().Add(-24*time.Hour))); n != 5 {
		t.Errorf("%d were forgotten, want two orders and three authorizations", n)
	}
	a.post(o.url, nil).problem(404, "malformed")
	if next := a.ordered(pid("gw-1")); next.url == o.url || next.url == kept.url {
		t.Error("an ID was given twice")
	}
}

func TestLimits(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) {
		o.Limits = acme.Limits{OrdersPerAccount: 3, OrdersPerDevice: 5, OrdersPerAddress: 7, AccountsPerAddress: 4, FailuresPerAccount: 1}
		o.Validators = map[string]acme.Validator{"http-01": &validator{say: refuseAll}}
	})
	e.run()
	limited := func(r *answer) {
		t.Helper()
		if r.problem(429, "rateLimited"); r.header.Get("Retry-After") == "" {
			t.Errorf("headers %v", r.header)
		}
	}
	g := e.register("lamp-1", "software", 9)
	a := e.account(g)
	for range 3 {
		a.ordered(pid("lamp-1"))
	}
	limited(a.newOrder(nil, pid("lamp-1")))
	b := e.account(g)
	b.ordered(pid("lamp-1"))
	b.ordered(pid("lamp-1"))
	limited(b.newOrder(nil, pid("lamp-1"))) // of the device
	e.later(time.Minute)
	a.ordered(pid("lamp-1"))

	c := e.device("gw-1")
	o := c.ordered(dns("gw-1.local"), dns("gw-1.lan"))
	try := func(i int) *answer {
		return c.post(c.authorization(o.Authorizations[i]).challenge("http-01").URL, map[string]any{})
	}
	try(0).want(200)
	eventually(t, "the failure", func() bool { return c.authorization(o.Authorizations[0]).Status == "invalid" })
	limited(try(1))
	e.account(g)
	e.account(g)
	e.account(g)
	limited((&account{env: e, key: newKey(t)}).create(map[string]any{}))
}

func TestRequestsAreLogged(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	e := newEnv(t, func(o *acme.Options) {
		o.Observe = func(operation, outcome string, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen[operation] = outcome
		}
	})
	a := e.device("lamp-1")
	a.enrolled()
	a.newOrder(nil, pid("lamp-2")).problem(403, "rejectedIdentifier")
	mu.Lock()
	defer mu.Unlock()
	for operation, want := range map[string]string{"newNonce": "ok", "newAccount": "ok", "newOrder": "rejectedIdentifier", "finalize": "issue", "certificate": "ok"} {
		if seen[operation] != want {
			t.Errorf("%s: %q, want %q", operation, seen[operation], want)
		}
	}
}
