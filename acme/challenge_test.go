package acme_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"crypto/rand"

	"github.com/fxamacker/cbor/v2"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// A challenge that fails makes its authorization invalid, and the order with it (RFC 8555 §7.1.6, §8.2).
func TestFailedChallenge(t *testing.T) {
	v := &validator{say: refuseAll}
	e := newEnv(t, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v, "dns-01": met{}} })
	e.run()
	a := e.device("gw-1")
	o := a.ordered(dns("gw-1.local"), dns("gw-1.lan"))
	if o.Status != "pending" {
		t.Fatalf("order %+v", o)
	}
	before := a.authorization(o.Authorizations[0])
	if before.Status != "pending" || len(before.Challenges) != 2 || before.challenge("http-01").Token == before.challenge("dns-01").Token {
		t.Fatalf("authorization %+v", before)
	}
	c := before.challenge("http-01")
	if r := a.post(c.URL, nil).want(200); !slices.Contains(r.header.Values("Link"), "<"+o.Authorizations[0]+`>;rel="up"`) {
		t.Errorf("links %v", r.header.Values("Link"))
	}
	a.post(c.URL, map[string]any{"ignored": true}).want(200)
	eventually(t, "the failure", func() bool { return a.authorization(o.Authorizations[0]).Status == "invalid" })
	after := a.authorization(o.Authorizations[0])
	if got := after.challenge("http-01"); len(after.Challenges) != 1 || got.Status != "invalid" || got.Error == nil || got.Error.Type != "urn:ietf:params:acme:error:connection" || got.Error.Detail != "nobody answers" {
		t.Errorf("authorization %+v", after)
	}
	got := a.fetchOrder(o.url)
	if got.Status != "invalid" || got.Error == nil || len(got.Error.Subproblems) != 1 || got.Error.Subproblems[0].Identifier == nil ||
		got.Error.Subproblems[0].Type != "urn:ietf:params:acme:error:connection" {
		t.Errorf("order %+v", got)
	}
	var seen challengeDoc
	a.post(c.URL, map[string]any{}).want(200).json(&seen) // said again: it is as it is
	if seen.Status != "invalid" || v.times() != 1 {
		t.Errorf("challenge %+v, looked %d times", seen, v.times())
	}
	a.post(before.challenge("dns-01").URL, map[string]any{}).problem(400, "malformed")
	a.finalize(o, csr(t, newKey(t), "", dns("gw-1.local"), dns("gw-1.lan"))).problem(403, "orderNotReady")
	a.post(strings.Replace(c.URL, "http-01", "tls-alpn-01", 1), map[string]any{}).problem(404, "malformed")
}

// RFC 8555 §7.5.2. An authorization that is deactivated while it is validated stays so.
func TestDeactivateAuthorization(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	v := &validator{say: func(context.Context, acme.ValidationRequest) error { close(begun); <-end; return nil }}
	e := newEnv(t, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v} })
	e.run()
	a := e.device("gw-1")
	o := a.ordered(dns("gw-1.local"))
	url := o.Authorizations[0]
	a.post(a.authorization(url).challenge("http-01").URL, map[string]any{}).want(200)
	<-begun
	for _, bad := range []any{map[string]any{}, map[string]any{"status": "valid"}, map[string]any{"status": 1}} {
		a.post(url, bad).problem(400, "malformed")
	}
	a.post(url, map[string]any{"status": "deactivated"}).want(200)
	close(end)
	time.Sleep(50 * time.Millisecond)
	if got := a.authorization(url); got.Status != "deactivated" {
		t.Errorf("authorization %+v", got)
	}
	if got := a.fetchOrder(o.url); got.Status != "invalid" {
		t.Errorf("order %+v", got)
	}
	ready := a.ordered(pid("gw-1"))
	a.post(ready.Authorizations[0], map[string]any{"status": "deactivated"}).want(200)
	a.finalize(ready, csr(t, newKey(t), "")).problem(403, "orderNotReady")
}

// Which challenges are offered for which names.
func TestOffered(t *testing.T) {
	wild := edit("      dns:\n        - \"{device.id}\"\n", "      dns:\n        - \"\\\\*.{device.id}.local\"\n        - \"{device.id}\"\n")
	e := newEnv(t, onNetworks, wild)
	e.run()
	a := e.device("gw-1")
	for _, c := range []struct {
		id   acme.Identifier
		want string
	}{
		{dns("gw-1.local"), "dns-01 http-01 tls-alpn-01"},
		{dns("*.gw-1.local"), "dns-01"},
		{ip("10.0.0.1"), "http-01 tls-alpn-01"},
		{ip("fe80::1"), "http-01 tls-alpn-01"},
		{pid("gw-1"), ""},
	} {
		o := a.ordered(c.id)
		got := a.authorization(o.Authorizations[0])
		var types []string
		for _, ch := range got.Challenges {
			types = append(types, ch.Type)
		}
		slices.Sort(types)
		if strings.Join(types, " ") != c.want || got.Wildcard != (c.want == "dns-01") || strings.HasPrefix(got.Identifier.Value, "*") {
			t.Errorf("%s: %+v", c.id.Value, got)
		}
		if got.Wildcard {
			a.meet(o, "dns-01")
			leaf := a.chain(readOrder(a.finalize(o, csr(t, newKey(t), "", dns("*.gw-1.local"))).want(200)).Certificate)[0]
			if leaf.DNSNames[0] != "*.gw-1.local" {
				t.Errorf("certificate for %v", leaf.DNSNames)
			}
		}
	}
	e = newEnv(t) // that can validate nothing
	a = e.device("gw-1")
	a.newOrder(nil, dns("gw-1.local")).problem(403, "rejectedIdentifier")
}

// An authorization serves again for as long as policy says.
func TestReuse(t *testing.T) {
	e := newEnv(t, onNetworks, level("software", "status_unknown: allow", "status_unknown: allow\n    acme: {reuse: 1h, authorize: {permanent-identifier: [credential]}}"))
	e.run()
	a := e.device("gw-1")
	first := a.ordered(dns("gw-1.local"))
	a.meet(first, "http-01")
	again := a.ordered(dns("gw-1.local"), dns("gw-1.lan"))
	if again.Status != "pending" || again.Authorizations[0] != first.Authorizations[0] || again.Authorizations[1] == first.Authorizations[0] {
		t.Errorf("order %+v", again)
	}
	e.later(30 * time.Minute)
	if o := a.ordered(dns("gw-1.local")); o.Status != "ready" {
		t.Errorf("order %+v", o)
	}
	e.later(31 * time.Minute)
	if o := a.ordered(dns("gw-1.local")); o.Status != "pending" || o.Authorizations[0] == first.Authorizations[0] {
		t.Errorf("an hour later: %+v", o)
	}
}

// evidence is a verifier that believes what statements say.
type evidence struct {
	mu   sync.Mutex
	last attest.Statement
}

// claim is what a statement says.
type claim struct {
	SPKI        []byte              `cbor:"spki"`
	Challenge   []byte              `cbor:"challenge"`
	Identifiers []attest.Identifier `cbor:"identifiers"`
	Maker       string              `cbor:"maker"`
}

func (*evidence) Format() string { return "tpm" }

func (v *evidence) Verify(s attest.Statement) (*attest.Result, error) {
	v.mu.Lock()
	v.last = s
	v.mu.Unlock()
	var c claim
	if err := cbor.Unmarshal(s.Raw, &c); err != nil {
		return nil, attest.ErrEvidence
	}
	if string(c.Challenge) != string(s.Challenge) {
		return nil, attest.ErrEvidence
	}
	i := slices.IndexFunc(s.Anchors, func(a attest.Anchor) bool { return a.Manufacturer == c.Maker })
	if i < 0 {
		return nil, attest.ErrEvidence
	}
	// As if the anchor had signed itself: what the lists say of it is refused as of any certificate.
	anchor := s.Anchors[i].Certificates[0]
	checked, err := s.Anchors[i].Revoked(anchor, anchor, s.Now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", attest.ErrEvidence, err)
	}
	facts := map[string]any{"ek_chain": true, "key_certified": true, "revocation_checked": checked}
	if s.Quote != nil {
		facts["quote_age"] = time.Duration(0)
	}
	return &attest.Result{Manufacturer: c.Maker, Attester: s.Anchors[i].Certificates[0], SPKI: c.SPKI, Identifiers: c.Identifiers,
		Evidence: policy.Evidence{Kind: "tpm", Facts: facts, Vector: policy.Vector{"hardware": 2}}}, nil
}

// manufacturer registers one whose anchors are for format tpm.
func (e *env) manufacturer(name, level string, c ca.Constraints) {
	e.t.Helper()
	key := newKey(e.t)
	spec := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"RT-7"}}, NotBefore: e.now().Add(-time.Hour), NotAfter: e.now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der := must[[]byte](e.t)(x509.CreateCertificate(rand.Reader, spec, spec, key.Public(), key))
	e.makers[name] = maker{must[*x509.Certificate](e.t)(x509.ParseCertificate(der)), key}
	if _, err := e.core.AddManufacturer(e.t.Context(), ca.Manufacturer{Name: name, Format: "tpm", Level: level, Anchors: [][]byte{der}, Constraints: c}, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
}

// maker is who is registered, with its key.
type maker struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// revoke gives the manufacturer a list of serial numbers, good for an hour.
func (e *env) revoke(name string, number int64, serials ...int64) {
	e.t.Helper()
	m, list := e.makers[name], &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: e.now(), NextUpdate: e.now().Add(time.Hour)}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: e.now()})
	}
	der := must[[]byte](e.t)(x509.CreateRevocationList(rand.Reader, list, m.cert, m.key))
	if _, err := e.core.ReplaceRevocationLists(e.t.Context(), name, "tpm", der, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
}

// Evidence is looked up on the manufacturer's lists, which take effect at once.
func TestRevokedAttestation(t *testing.T) {
	e, _ := attestEnv(t)
	e.manufacturer("acme-tpm", "tpm", ca.Constraints{})
	a := e.account(e.register("lamp-1", "tpm", 9))
	try := func() *answer {
		o := a.ordered(pid("lamp-1"))
		return a.attested(a.authorization(o.Authorizations[0]).Challenges[0], newKey(t), nil)
	}
	checked := func(want bool) {
		t.Helper()
		o, key := a.ordered(pid("lamp-1")), newKey(t)
		a.attested(a.authorization(o.Authorizations[0]).Challenges[0], key, nil).want(200)
		a.finalize(o, csr(t, key, "", pid("lamp-1"))).want(200)
		all := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))
		if got := strings.Contains(string(all[len(all)-1].Input), `"revocation_checked":true`); got != want {
			t.Errorf("decided on %s, want checked: %t", all[len(all)-1].Input, want)
		}
	}
	checked(false)
	e.revoke("acme-tpm", 1, 2, 3)
	checked(true)
	e.revoke("acme-tpm", 2, 1)
	if p := try().problem(403, "badAttestationStatement"); !strings.Contains(p.Detail, "was revoked by its issuer") {
		t.Errorf("refused with %q", p.Detail)
	}
	e.revoke("acme-tpm", 3)
	try().want(200)
	e.later(2 * time.Hour)
	if p := try().problem(403, "badAttestationStatement"); !strings.Contains(p.Detail, "fetch the manufacturer's new one") {
		t.Errorf("refused with %q", p.Detail)
	}
}

// attested answers a device-attest-01 challenge with a claim. more are members of the response and what they hold; nil leaves one out.
func (a *account) attested(c challengeDoc, key crypto.Signer, change func(*claim), more ...any) *answer {
	a.t.Helper()
	said := claim{SPKI: publicKey(a.t, key), Challenge: []byte(c.Token + "." + thumbprint(a.key)), Identifiers: []attest.Identifier{{Type: "permanent-identifier", Value: a.id}}, Maker: "acme-tpm"}
	if change != nil {
		change(&said)
	}
	object := must[[]byte](a.t)(cbor.Marshal(map[string]any{"fmt": "tpm", "attStmt": said}))
	payload := map[string]any{"attObj": b64(object), "quote": b64([]byte("quote")), "unknown": 1}
	for i := 0; i < len(more); i += 2 {
		payload[more[i].(string)] = more[i+1]
		if more[i+1] == nil {
			delete(payload, more[i].(string))
		}
	}
	return a.post(c.URL, payload)
}

func attestEnv(t *testing.T) (*env, *evidence) {
	v := &evidence{}
	e := newEnv(t, func(o *acme.Options) { o.Verifiers = []attest.Verifier{v}; o.Limits.FailuresPerAccount = 1000 })
	return e, v
}

// draft-ietf-acme-device-attest §5.
func TestAttestation(t *testing.T) {
	e, v := attestEnv(t)
	g := e.register("lamp-1", "tpm", 9)
	a := e.account(g)
	a.newOrder(nil, pid("lamp-1")).problem(403, "rejectedIdentifier") // no anchors, no format
	e.manufacturer("acme-tpm", "tpm", ca.Constraints{})
	o, key := a.ordered(pid("lamp-1")), newKey(t)
	authz := a.authorization(o.Authorizations[0])
	if o.Status != "pending" || len(authz.Challenges) != 1 || authz.Challenges[0].Type != "device-attest-01" {
		t.Fatalf("%+v %+v", o, authz)
	}
	c := authz.Challenges[0]
	var seen challengeDoc
	if a.attested(c, key, nil).want(200).json(&seen); seen.Status != "valid" {
		t.Fatalf("challenge %+v", seen)
	}
	if string(v.last.Quote) != "quote" || v.last.AuthData != nil || len(v.last.Anchors) != 1 {
		t.Errorf("the verifier was given %+v", v.last)
	}
	a.finalize(o, csr(t, newKey(t), "", pid("lamp-1"))).problem(400, "badCSR") // another key
	if got := a.fetchOrder(o.url).Status; got != "ready" {
		t.Errorf("the order is %s", got)
	}
	e.restart()
	done := readOrder(a.finalize(o, csr(t, key, "", pid("lamp-1"))).want(200))
	a.chain(done.Certificate)
	c1 := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))[0]
	if c1.Decision.Outcome != policy.Issue || c1.Profile != "device" || !strings.Contains(string(c1.Input), `"tpm"`) {
		t.Errorf("recorded %+v with input %s", c1.Decision, c1.Input)
	}

	// A quote that is too old at finalize earns quarantine, as policy says.
	o = a.ordered(pid("lamp-1"))
	key = newKey(t)
	a.attested(a.authorization(o.Authorizations[0]).Challenges[0], key, nil).want(200)
	e.later(10 * time.Minute)
	r := a.finalize(o, csr(t, key, "", pid("lamp-1"))).want(200)
	if r.header.Get(acme.OutcomeHeader) != "quarantine" || len(r.header.Values(acme.ReasonHeader)) != 2 {
		t.Errorf("headers %v", r.header)
	}
	done = readOrder(r)
	all := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))
	decided := all[len(all)-1].Decision
	if decided.Outcome != policy.Quarantine {
		t.Errorf("an old quote earned %s", decided.Outcome)
	}
	if told := a.post(done.Certificate, nil).want(200).header; told.Get(acme.OutcomeHeader) != "quarantine" || !slices.Equal(told.Values(acme.ReasonHeader), decided.Reasons) || len(decided.Reasons) == 0 {
		t.Errorf("the client is told %v of %q", told, decided.Reasons)
	}

	// Clients of others send no quote; one that is empty was sent.
	for _, tt := range []struct {
		quote any
		none  bool
	}{{nil, true}, {"", false}} {
		a.attested(a.authorization(a.ordered(pid("lamp-1")).Authorizations[0]).Challenges[0], newKey(t), nil, "quote", tt.quote).want(200)
		if none := v.last.Quote == nil; none != tt.none || len(v.last.Quote) != 0 {
			t.Errorf("of the quote %#v, the verifier was given %#v", tt.quote, v.last.Quote)
		}
	}
}

func TestBadAttestation(t *testing.T) {
	e, _ := attestEnv(t)
	e.manufacturer("acme-tpm", "tpm", ca.Constraints{})
	e.manufacturer("narrow", "tpm", ca.Constraints{Serials: []string{"gw-*"}})
	e.manufacturer("models", "tpm", ca.Constraints{Models: []string{"ou=XX-*"}})
	e.manufacturer("good-models", "tpm", ca.Constraints{Models: []string{"ou=RT-*"}, Serials: []string{"lamp-*"}})
	e.manufacturer("brown", "brownfield", ca.Constraints{})
	a := e.account(e.register("lamp-1", "tpm", 9))
	b := e.account(e.register("lamp-2", "tpm", 9))
	fresh := func() (orderDoc, challengeDoc) {
		o := a.ordered(pid("lamp-1"))
		return o, a.authorization(o.Authorizations[0]).Challenges[0]
	}
	elsewhere := func() challengeDoc {
		o := b.ordered(pid("lamp-2"))
		return b.authorization(o.Authorizations[0]).Challenges[0]
	}()
	_, before := fresh()
	bomb := append([]byte{0xa2, 0x63, 'f', 'm', 't', 0x63, 't', 'p', 'm', 0x67, 'a', 't', 't', 'S', 't', 'm', 't'}, slices.Repeat([]byte{0x81}, 1000)...)
	huge := []byte{0xa2, 0x63, 'f', 'm', 't', 0x63, 't', 'p', 'm', 0x67, 'a', 't', 't', 'S', 't', 'm', 't', 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	twice := must[[]byte](t)(cbor.Marshal(map[string]any{"fmt": "tpm", "attStmt": map[string]any{}}))
	twice = append([]byte{0xa3, 0x63, 'f', 'm', 't', 0x61, 'x'}, twice[1:]...)
	for name, c := range map[string]struct {
		change func(*claim)
		more   []any
		says   string
	}{
		"replayed from another account": {func(c *claim) { c.Challenge = []byte(elsewhere.Token + "." + thumbprint(b.key)) }, nil, ""},
		"replayed from another order":   {func(c *claim) { c.Challenge = []byte(before.Token + "." + thumbprint(a.key)) }, nil, ""},
		"of another device":             {func(c *claim) { c.Identifiers[0].Value = "lamp-2" }, nil, "another device"},
		"of the device in another case": {func(c *claim) { c.Identifiers[0].Value = "LAMP-1" }, nil, "another device"},
		"of a module":                   {func(c *claim) { c.Identifiers[0].Type = "hardware-module" }, nil, "another device"},
		"of no device":                  {func(c *claim) { c.Identifiers = nil }, nil, "whose device"},
		"of no key":                     {func(c *claim) { c.SPKI = nil }, nil, "no key"},
		"by a stranger":                 {func(c *claim) { c.Maker = "stranger" }, nil, ""},
		"by a maker of other serials":   {func(c *claim) { c.Maker = "narrow" }, nil, "serial number"},
		"by a maker of other models":    {func(c *claim) { c.Maker = "models" }, nil, "model"},
		"by a maker of another level":   {func(c *claim) { c.Maker = "brown" }, nil, "level"},
		"no CBOR":                       {nil, []any{"attObj", b64([]byte("x"))}, ""},
		"a nested bomb":                 {nil, []any{"attObj", b64(bomb)}, ""},
		"a bomb of lengths":             {nil, []any{"attObj", b64(huge)}, ""},
		"a field twice":                 {nil, []any{"attObj", b64(twice)}, ""},
		"another format":                {nil, []any{"attObj", b64(must[[]byte](t)(cbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}})))}, "not accepted"},
		"a statement that is no map":    {nil, []any{"attObj", b64(must[[]byte](t)(cbor.Marshal(map[string]any{"fmt": "tpm", "attStmt": 1})))}, ""},
		"trailing octets":               {nil, []any{"attObj", b64(append(must[[]byte](t)(cbor.Marshal(map[string]any{"fmt": "tpm", "attStmt": map[string]any{}})), 0))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o, ch := fresh()
			if p := a.attested(ch, newKey(t), c.change, c.more...).problem(403, "badAttestationStatement"); !strings.Contains(p.Detail, c.says) {
				t.Errorf("told %q", p.Detail)
			}
			got := a.authorization(o.Authorizations[0])
			if got.Status != "invalid" || got.Challenges[0].Status != "invalid" || got.Challenges[0].Error == nil || got.Challenges[0].Error.Type != "urn:ietf:params:acme:error:badAttestationStatement" {
				t.Errorf("authorization %+v", got)
			}
			if got := a.fetchOrder(o.url).Status; got != "invalid" {
				t.Errorf("the order is %s", got)
			}
		})
	}
	for name, more := range map[string][]any{
		"no object":              {"attObj", ""},
		"an object that is text": {"attObj", "no base64url!"},
		"an object of numbers":   {"attObj", 7},
		"a quote that is text":   {"quote", "no base64url!"},
	} {
		_, ch := fresh()
		a.attested(ch, newKey(t), nil, more...).problem(400, "malformed")
		if got := a.attested(ch, newKey(t), func(c *claim) { c.Maker = "good-models" }); got.status != 200 { // nothing was decided
			t.Errorf("%s: then %s", name, got.raw)
		}
	}

	// Withdrawn, and ended by itself.
	_, ch := fresh()
	if err := e.core.WithdrawManufacturer(t.Context(), "acme-tpm", "tpm", "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.attested(ch, newKey(t), nil).problem(403, "badAttestationStatement")
}

// The CSR's key is compared with that of every attestation of the order.
func TestEveryAttestedKey(t *testing.T) {
	e, _ := attestEnv(t)
	e.manufacturer("acme-tpm", "tpm", ca.Constraints{})
	names := edit("    san: [dns, uri, permanent-identifier, hardware-module]", "    names: {hardware-module: [\"{device.id}/1.2.3\"]}\n    san: [dns, uri, permanent-identifier, hardware-module]")
	if err := e.core.Apply(t.Context(), must[*policy.Policy](t)(policy.Parse("p", names(e.core.Policy().Source()))), "admin:test"); err != nil {
		t.Fatal(err)
	}
	a := e.account(e.register("lamp-1", "tpm", 1))
	module := acme.Identifier{Type: "hardware-module", Value: "lamp-1/1.2.3"}
	o := a.ordered(pid("lamp-1"), module)
	one, two := newKey(t), newKey(t)
	for i, key := range []crypto.Signer{one, two} {
		ch := a.authorization(o.Authorizations[i]).Challenges[0]
		a.attested(ch, key, func(c *claim) { c.Identifiers = append(c.Identifiers, attest.Identifier(module)) }).want(200)
	}
	a.finalize(o, csr(t, one, "")).problem(400, "badCSR")
	a.finalize(o, csr(t, two, "")).problem(400, "badCSR")
}

// A group's device has its level from the credential; the evidence must be of that level.
func TestAttestedGroup(t *testing.T) {
	e, _ := attestEnv(t)
	e.manufacturer("acme-tpm", "tpm", ca.Constraints{})
	g := must[*ca.Grant](t)(e.core.AddCredential(t.Context(), device.Credential{Group: "lamps", Names: []string{"lamp-*"}, Level: "tpm", Uses: 1}, 0, "admin:test"))
	a := e.account(g)
	a.id = "lamp-7"
	o, key := a.ordered(pid("lamp-7")), newKey(t)
	a.attested(a.authorization(o.Authorizations[0]).Challenges[0], key, nil).want(200)
	a.chain(readOrder(a.finalize(o, csr(t, key, "", pid("lamp-7"))).want(200)).Certificate)
}
