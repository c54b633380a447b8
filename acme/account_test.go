package acme_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func (e *env) uses(reference string) int {
	e.t.Helper()
	return must[*device.Credential](e.t)(e.store.Credential(e.t.Context(), reference)).Used
}

// RFC 8555 §7.3, §7.3.1, §7.3.2, §7.3.6.
func TestAccount(t *testing.T) {
	e := newEnv(t)
	g := e.register("lamp-1", "software", 2)
	a := e.account(g)
	bound := map[string]any{"externalAccountBinding": binding(t, g, e.url("/new-account"), a.key)}
	for name, payload := range map[string]any{"the same key": bound, "the same key, unbound": map[string]any{}, "only existing": map[string]any{"onlyReturnExisting": true}} {
		if r := a.create(payload).want(200); r.header.Get("Location") != a.kid {
			t.Errorf("%s: another account, %s", name, r.header.Get("Location"))
		}
	}
	if n := e.uses(g.Reference); n != 1 {
		t.Errorf("%d uses were spent, want 1", n)
	}
	// The binding is shown as it was sent (RFC 8555 §7.3.4), for as long as the account lives.
	e.restart()
	var shown struct{ ExternalAccountBinding map[string]string }
	var sent map[string]string
	again := a.create(map[string]any{"onlyReturnExisting": true}).want(200)
	for _, r := range []*answer{again, a.post(a.kid, nil).want(200)} {
		if r.json(&shown); json.Unmarshal(a.bound, &sent) != nil || !maps.Equal(shown.ExternalAccountBinding, sent) || len(sent) != 3 {
			t.Errorf("externalAccountBinding is %v, want %v", shown.ExternalAccountBinding, sent)
		}
	}

	stranger := &account{env: e, key: newKey(t)}
	stranger.create(map[string]any{"onlyReturnExisting": true}).problem(400, "accountDoesNotExist")
	stranger.create(map[string]any{"onlyReturnExisting": 1}).problem(400, "malformed")

	var seen struct {
		Status, Orders string
		Contact        []string
	}
	a.post(a.kid, nil).want(200).json(&seen)
	if seen.Status != "valid" || seen.Orders != a.kid+"/orders" || len(seen.Contact) != 1 {
		t.Errorf("account %+v", seen)
	}
	a.post(a.kid, map[string]any{"contact": []string{"mailto:a@example.com", "MAILTO:b@example.com"}, "orders": "ignored"}).want(200).json(&seen)
	a.post(a.kid, nil).want(200).json(&seen)
	if len(seen.Contact) != 2 || seen.Contact[1] != "mailto:b@example.com" {
		t.Errorf("contacts %v", seen.Contact)
	}
	encoded := []string{"mailto:a%2Bb@example.com", "mailto:%61@example.com"}
	a.post(a.kid, map[string]any{"contact": encoded}).want(200)
	a.post(a.kid, map[string]any{"contact": nil}).want(200) // as if it were not there
	if a.post(a.kid, nil).want(200).json(&seen); !slices.Equal(seen.Contact, encoded) {
		t.Errorf("contacts %v, want %v", seen.Contact, encoded)
	}
	many := make([]string, 9)
	for i := range many {
		many[i] = "mailto:a@example.com"
	}
	for name, c := range map[string]struct {
		contact any
		kind    string
	}{
		"telephone":        {[]string{"tel:+1"}, "unsupportedContact"},
		"no address":       {[]string{"mailto:nobody"}, "invalidContact"},
		"two addresses":    {[]string{"mailto:a@example.com,b@example.com"}, "invalidContact"},
		"header fields":    {[]string{"mailto:a@example.com?subject=x"}, "invalidContact"},
		"an encoded list":  {[]string{"mailto:a%40example.com%2Cb@example.com"}, "invalidContact"},
		"an encoded line":  {[]string{"mailto:a%0A@example.com"}, "invalidContact"},
		"half an octet":    {[]string{"mailto:a%2@example.com"}, "invalidContact"},
		"a fragment":       {[]string{"mailto:a@example.com#b"}, "invalidContact"},
		"a long encoding":  {[]string{"mailto:" + strings.Repeat("%61", 250) + "@example.com"}, "invalidContact"},
		"with a name":      {[]string{"mailto:A <a@example.com>"}, "invalidContact"},
		"a long one":       {[]string{"mailto:" + strings.Repeat("a", 300) + "@example.com"}, "invalidContact"},
		"too many":         {many, "invalidContact"},
		"no list":          {"mailto:a@example.com", "malformed"},
		"numbers":          {[]int{1}, "malformed"},
		"no mailto at all": {[]string{""}, "unsupportedContact"},
	} {
		if a.post(a.kid, map[string]any{"contact": c.contact}).problem(400, c.kind); t.Failed() {
			t.Fatal(name)
		}
	}
	a.post(a.kid, map[string]any{"status": "revoked"}).problem(400, "malformed")

	o := a.ordered(pid("lamp-1"))
	a.post(a.kid, map[string]any{"status": "deactivated"}).want(200).json(&seen)
	if seen.Status != "deactivated" {
		t.Errorf("status %s", seen.Status)
	}
	a.post(o.url, nil).problem(401, "unauthorized")
	a.newOrder(nil, pid("lamp-1")).problem(401, "unauthorized")
	a.create(bound).problem(403, "unauthorized")
	if n := e.recorded("lamp-1"); n != 0 {
		t.Errorf("%d certificates", n)
	}
}

// RFC 8555 §7.3.4.
func TestBinding(t *testing.T) {
	e := newEnv(t)
	g := e.register("lamp-1", "software", 1)
	spent, revoked, expired := e.register("lamp-2", "software", 1), e.register("lamp-3", "software", 1), e.register("lamp-4", "software", 1)
	e.account(spent)
	if err := e.core.RevokeCredential(t.Context(), revoked.Reference, "admin:test"); err != nil {
		t.Fatal(err)
	}
	url := e.url("/new-account")
	key := newKey(t)
	mac := must[[]byte](t)(base64.RawURLEncoding.DecodeString(g.ACME.HMACKey))
	with := func(change func(header)) json.RawMessage {
		h := header{"alg": "HS256", "kid": g.ACME.KID, "url": url}
		change(h)
		return macced(t, mac, h, jwk(key))
	}
	var wrong []string
	for name, c := range map[string]struct {
		eab    any
		status int
		kind   string
	}{
		"none":              {nil, 403, "externalAccountRequired"},
		"no JWS":            {"x", 400, "malformed"},
		"a wrong MAC":       {macced(t, make([]byte, 32), header{"alg": "HS256", "kid": g.ACME.KID, "url": url}, jwk(key)), 403, "unauthorized"},
		"unknown reference": {with(func(h header) { h["kid"] = "nobody" }), 403, "unauthorized"},
		"HS512":             {with(func(h header) { h["alg"] = "HS512" }), 400, "badSignatureAlgorithm"},
		"none as algorithm": {with(func(h header) { h["alg"] = "none" }), 400, "badSignatureAlgorithm"},
		"a nonce":           {with(func(h header) { h["nonce"] = "x" }), 400, "malformed"},
		"another URL":       {with(func(h header) { h["url"] = e.url("/new-order") }), 400, "malformed"},
		"a key for kid":     {with(func(h header) { delete(h, "kid"); h["jwk"] = jwk(key) }), 400, "malformed"},
		"another key":       {macced(t, mac, header{"alg": "HS256", "kid": g.ACME.KID, "url": url}, jwk(newKey(t))), 400, "malformed"},
		"no key":            {macced(t, mac, header{"alg": "HS256", "kid": g.ACME.KID, "url": url}, []byte("x")), 400, "malformed"},
		"a long one":        {macced(t, mac, header{"alg": "HS256", "kid": g.ACME.KID, "url": url, "x": strings.Repeat("x", 4096)}, jwk(key)), 400, "malformed"},
		"spent":             {binding(t, spent, url, key), 403, "unauthorized"},
		"revoked":           {binding(t, revoked, url, key), 403, "unauthorized"},
	} {
		a := &account{env: e, key: key}
		p := a.create(map[string]any{"externalAccountBinding": c.eab}).problem(c.status, c.kind)
		if name == "a wrong MAC" || name == "unknown reference" {
			wrong = append(wrong, p.Detail)
		}
	}
	if len(wrong) != 2 || wrong[0] != wrong[1] {
		t.Errorf("whether a credential exists can be told: %q", wrong)
	}
	if n := e.uses(g.Reference); n != 0 {
		t.Errorf("%d uses were spent on errors", n)
	}

	// Wrong secrets beyond the limit.
	limited := false
	for range 12 {
		r := (&account{env: e, key: key}).create(map[string]any{"externalAccountBinding": macced(t, make([]byte, 32), header{"alg": "HS256", "kid": g.ACME.KID, "url": url}, jwk(key))})
		if r.status == 429 {
			limited = r.problem(429, "rateLimited").Detail != "" && r.header.Get("Retry-After") != ""
			break
		}
	}
	if !limited {
		t.Error("guessing was not limited")
	}
	// A right one passes all the same.
	(&account{env: e, key: key}).create(map[string]any{"externalAccountBinding": binding(t, g, url, key)}).want(201)

	e.later(25 * time.Hour)
	key = newKey(t)
	(&account{env: e, key: key}).create(map[string]any{"externalAccountBinding": binding(t, expired, url, key)}).problem(403, "unauthorized")
}

// One use, sixteen connections with keys of their own, and one key on sixteen connections.
func TestBindingRace(t *testing.T) {
	e := newEnv(t)
	g := e.register("lamp-1", "software", 1)
	count := func(key func() *account) (created, found int) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 16 {
			wg.Go(func() {
				a := key()
				r := a.create(map[string]any{"externalAccountBinding": binding(t, g, e.url("/new-account"), a.key)})
				mu.Lock()
				defer mu.Unlock()
				switch r.status {
				case 201:
					created++
				case 200:
					found++
				}
			})
		}
		wg.Wait()
		return created, found
	}
	if created, _ := count(func() *account { return &account{env: e, key: newKey(t)} }); created != 1 {
		t.Errorf("one use made %d accounts", created)
	}
	g = e.register("lamp-2", "software", 5)
	same := &account{env: e, key: newKey(t)}
	if created, found := count(func() *account { return same }); created != 1 || found != 15 || e.uses(g.Reference) != 1 {
		t.Errorf("one key made %d accounts, found %d times, with %d uses", created, found, e.uses(g.Reference))
	}
}

// An account outlives its credential's expiry, and ends with its revocation.
func TestAccountAndCredential(t *testing.T) {
	e := newEnv(t)
	g := e.register("lamp-1", "software", 1)
	a := e.account(g)
	a.enrolled()
	e.later(48 * 60 * 60 * 1e9)
	a.enrolled()
	o, cert := a.ordered(pid("lamp-1")), e.newest("lamp-1")
	if err := e.core.RevokeCredential(t.Context(), g.Reference, "admin:test"); err != nil {
		t.Fatal(err)
	}
	a.newOrder(nil, pid("lamp-1")).problem(403, "unauthorized")
	a.finalize(o, csr(t, newKey(t), "")).problem(403, "unauthorized")
	a.post("/revoke-cert", map[string]any{"certificate": b64(cert.DER)}).problem(403, "unauthorized")
	if e.newest("lamp-1").Revocation != nil {
		t.Error("the account revoked after its end")
	}
	if n := e.recorded("lamp-1"); n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
	c := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))[0]
	if c.Protocol != "acme" || c.Requester != "credential" || !strings.HasPrefix(c.Actor, "account:") {
		t.Errorf("recorded as %s by %s, %s", c.Protocol, c.Requester, c.Actor)
	}
}

// newest is the newest certificate of a device.
func (e *env) newest(id string) ca.Certificate {
	e.t.Helper()
	all := must[[]ca.Certificate](e.t)(e.store.Certificates(e.t.Context(), ca.CertificateFilter{Device: id}, 0, 100))
	return all[len(all)-1]
}

// A challenge of an account whose credential was revoked is not looked at.
func TestNothingIsValidatedAfterTheEnd(t *testing.T) {
	v := &validator{}
	e := newEnv(t, onNetworks, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v} })
	e.run()
	g := e.register("gw-1", "software", 9)
	a := e.account(g)
	o := a.ordered(dns("gw-1.local"))
	if err := e.core.RevokeCredential(t.Context(), g.Reference, "admin:test"); err != nil {
		t.Fatal(err)
	}
	for _, url := range o.Authorizations {
		for _, c := range a.authorization(url).Challenges {
			a.post(c.URL, map[string]any{}).problem(403, "unauthorized")
		}
	}
	if n := v.times(); n != 0 {
		t.Errorf("%d challenges were looked at", n)
	}
}

// A credential that is revoked between the look at it and the record.
func TestRevokedMeanwhile(t *testing.T) {
	e := newEnv(t)
	g := e.register("lamp-1", "software", 1)
	a := e.account(g)
	o := a.ordered(pid("lamp-1"))
	e.ledger.onRecord(func(_ *ca.Issuance, record func() error) error {
		if err := e.core.RevokeCredential(t.Context(), g.Reference, "admin:test"); err != nil {
			t.Error(err)
		}
		return record()
	})
	a.finalize(o, csr(t, newKey(t), "")).problem(403, "unauthorized")
	if n := e.recorded("lamp-1"); n != 0 {
		t.Errorf("%d certificates", n)
	}
}

// Every algorithm of account keys.
func TestAccountKeys(t *testing.T) {
	e := newEnv(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := e.device("lamp-1")
	for _, key := range []crypto.Signer{must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)), ed} {
		a.rollover(key).want(200)
		a.enrolled()
	}
}

// RFC 8555 §7.3.5.
func TestKeyChange(t *testing.T) {
	e := newEnv(t)
	a, other := e.device("lamp-1"), e.device("lamp-2")
	o := a.ordered(pid("lamp-1"))
	next, url := newKey(t), e.url("/key-change")
	payload := func() map[string]any { return map[string]any{"account": a.kid, "oldKey": jwk(a.key)} }
	inner := func(change func(header, map[string]any)) []byte {
		h, p := header{"alg": "ES256", "jwk": jwk(next), "url": url}, payload()
		change(h, p)
		return message(t, next, h, p)
	}
	nothing := func(header, map[string]any) {}
	for name, c := range map[string]struct {
		inner  []byte
		status int
		kind   string
	}{
		"no JWS":              {[]byte(`{}`), 400, "malformed"},
		"kid instead of key":  {inner(func(h header, _ map[string]any) { delete(h, "jwk"); h["kid"] = a.kid }), 400, "malformed"},
		"no key":              {inner(func(h header, _ map[string]any) { delete(h, "jwk") }), 400, "malformed"},
		"a nonce":             {inner(func(h header, _ map[string]any) { h["nonce"] = "x" }), 400, "malformed"},
		"another URL":         {inner(func(h header, _ map[string]any) { h["url"] = e.url("/new-order") }), 400, "malformed"},
		"signed by another":   {message(t, other.key, header{"alg": "ES256", "jwk": jwk(next), "url": url}, payload()), 400, "malformed"},
		"no payload":          {message(t, next, header{"alg": "ES256", "jwk": jwk(next), "url": url}, "x"), 400, "malformed"},
		"no account":          {inner(func(_ header, p map[string]any) { delete(p, "account") }), 400, "malformed"},
		"another account":     {inner(func(_ header, p map[string]any) { p["account"] = other.kid }), 400, "malformed"},
		"no old key":          {inner(func(_ header, p map[string]any) { delete(p, "oldKey") }), 400, "malformed"},
		"another old key":     {inner(func(_ header, p map[string]any) { p["oldKey"] = jwk(other.key) }), 400, "malformed"},
		"the same key":        {message(t, a.key, header{"alg": "ES256", "jwk": jwk(a.key), "url": url}, payload()), 409, "malformed"},
		"a key that is taken": {message(t, other.key, header{"alg": "ES256", "jwk": jwk(other.key), "url": url}, payload()), 409, "malformed"},
		"none as algorithm":   {inner(func(h header, _ map[string]any) { h["alg"] = "none" }), 400, "badSignatureAlgorithm"},
	} {
		r := a.post("/key-change", c.inner)
		if r.problem(c.status, c.kind); name == "a key that is taken" && r.header.Get("Location") != other.kid {
			t.Errorf("%s: Location %q", name, r.header.Get("Location"))
		}
	}
	other.post("/key-change", inner(nothing)).problem(400, "malformed") // a stolen inner message
	old := a.key
	a.rollover(next).want(200)
	a.post(o.url, nil).want(200) // nothing else has changed
	(&account{env: e, key: old, kid: a.kid}).post(a.kid, nil).problem(400, "malformed")
	a.enrolled()
}

func (a *account) rollover(next crypto.Signer) *answer {
	a.t.Helper()
	url := a.env.url("/key-change")
	r := a.post("/key-change", message(a.t, next, header{"alg": algorithm(next), "jwk": jwk(next), "url": url}, map[string]any{"account": a.kid, "oldKey": jwk(a.key)}))
	if r.status == 200 {
		a.key = next
	}
	return r
}

// Accounts without binding are let in only where the configuration says so, and get only what levels give them.
func TestOpenAccounts(t *testing.T) {
	opened := func(o *acme.Options) {
		o.OpenAccounts = true
		o.Validators = map[string]acme.Validator{"http-01": met{}}
		o.Terms = "https://ca.test/terms"
	}
	e := newEnv(t, opened)
	e.register("gw-1", "software", 1)
	a := &account{env: e, key: newKey(t), id: "gw-1"}
	r := a.create(map[string]any{})
	if r.problem(403, "userActionRequired"); !strings.Contains(strings.Join(r.header.Values("Link"), " "), `<https://ca.test/terms>;rel="terms-of-service"`) {
		t.Errorf("links %v", r.header.Values("Link"))
	}
	a.kid = a.create(map[string]any{"termsOfServiceAgreed": true}).want(201).header.Get("Location")
	known, unknown := a.newOrder(nil, pid("gw-1")).problem(403, "unauthorized"), a.newOrder(nil, pid("gw-2")).problem(403, "unauthorized")
	if known.Detail != unknown.Detail {
		t.Errorf("which devices there are can be told: %q, %q", known.Detail, unknown.Detail)
	}

	e = newEnv(t, opened, level("software", "requesters: [credential,", "requesters: [account, credential,"))
	e.register("gw-1", "software", 1)
	e.run()
	a = &account{env: e, key: newKey(t), id: "gw-1"}
	a.kid = a.create(map[string]any{"termsOfServiceAgreed": true}).want(201).header.Get("Location")
	a.newOrder(nil, pid("gw-1")).problem(403, "rejectedIdentifier") // nothing vouches for that
	a.newOrder(nil, pid("gw-2")).problem(403, "unauthorized")       // no such device
	o := a.ordered(dns("gw-1"))
	a.meet(o, "http-01")
	done := readOrder(a.finalize(o, csr(t, newKey(t), "gw-1", dns("gw-1"))).want(200))
	a.chain(done.Certificate)
	if c := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "gw-1"}, 0, 10)); len(c) != 1 || c[0].Requester != "account" {
		t.Errorf("recorded %+v", c)
	}
}

// A group's account brings its devices in, and no others.
func TestGroup(t *testing.T) {
	e := newEnv(t)
	g := must[*ca.Grant](t)(e.core.AddCredential(t.Context(), device.Credential{Group: "lamps", Names: []string{"lamp-*"}, Level: "software", Uses: 1}, 0, "admin:test"))
	e.register("lamp-9", "software", 1) // not the group's
	a := e.account(g)
	for _, id := range []string{"lamp-1", "lamp-2"} {
		a.id = id
		a.enrolled()
		a.enrolled()
	}
	if d := must[*device.Device](t)(e.store.Device(t.Context(), "lamp-2")); d.Group != "lamps" || d.Credential != g.Reference {
		t.Errorf("device %+v", d)
	}
	a.newOrder(nil, pid("gw-1")).problem(403, "unauthorized")
	a.newOrder(nil, pid("lamp-9")).problem(403, "unauthorized")
	a.newOrder(nil, pid("lamp-1"), pid("lamp-2")).problem(403, "rejectedIdentifier")
	a.newOrder(nil, ip("10.0.0.1")).problem(403, "unauthorized")
	if n := e.uses(g.Reference); n != 1 {
		t.Errorf("%d uses were spent", n)
	}
}

func TestOrdersList(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) { o.Limits.OrdersPerAccount, o.Limits.OrdersPerDevice = 1000, 1000 })
	a := e.device("lamp-1")
	want := map[string]bool{}
	for range 105 {
		want[a.ordered(pid("lamp-1")).url] = true
	}
	pages := 0
	for url := a.kid + "/orders"; url != ""; pages++ {
		r := a.post(url, nil).want(200)
		var list struct{ Orders []string }
		r.json(&list)
		for _, o := range list.Orders {
			delete(want, o)
		}
		url = ""
		for _, l := range r.header.Values("Link") {
			if next, ok := strings.CutSuffix(l, `>;rel="next"`); ok {
				url = next[1:]
			}
		}
	}
	if len(want) != 0 || pages != 2 {
		t.Errorf("%d orders are missing from %d pages", len(want), pages)
	}
	a.post(a.kid+"/orders?after=x", nil).problem(400, "malformed")
}
