package acme

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// Nonces are good once, however many ask.
func TestNonces(t *testing.T) {
	for name, account := range map[string]bool{"accounts": true, "strangers": false} {
		t.Run(name, func(t *testing.T) { testNonces(t, account) })
	}
}

// However many strangers ask for, the nonces of accounts stay good, and the other way round.
func TestNoncesOfOthers(t *testing.T) {
	for _, account := range []bool{true, false} {
		n := newNonces(64)
		first := n.Make(account)
		for range 1000 {
			n.Redeem(n.Make(!account))
		}
		if !n.Redeem(first) || n.Redeem(first) {
			t.Errorf("of accounts %t: others' nonces pushed it out, or it was good twice", account)
		}
	}
}

func testNonces(t *testing.T, account bool) {
	n := newNonces(2048)
	seen := map[string]bool{}
	for range 1000 {
		nonce := n.Make(account)
		if seen[nonce] {
			t.Fatal("made twice")
		}
		seen[nonce] = true
	}
	for nonce := range seen {
		var won atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if n.Redeem(nonce) {
					won.Add(1)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("redeemed %d times", won.Load())
		}
	}
	other := NewNonces().Make(account)
	bad := []byte(n.Make(account))
	bad[31] ^= 1
	for _, s := range []string{other, string(bad), "", strings.Repeat("A", 32), strings.Repeat("é", 16)} {
		if n.Redeem(s) {
			t.Errorf("%q was accepted", s)
		}
	}
	// One that so many were made after, that it has left the window, spent or not; the last within it is good.
	old, spent, last := n.Make(account), n.Make(account), ""
	n.Redeem(spent)
	for i := range 2048 {
		if nonce := n.Make(account); i == 0 {
			last = nonce
		}
	}
	if n.Redeem(old) || n.Redeem(spent) {
		t.Error("one that has left the window was accepted")
	}
	if !n.Redeem(last) || n.Redeem(last) {
		t.Error("the oldest within the window was refused, or accepted twice")
	}
}

// However many keys one account or address makes up, others are served, and are bounded as before.
func TestLimiterForgets(t *testing.T) {
	l, now := newLimiter(Limits{FailuresPerAccount: 1}), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	from := netip.MustParseAddr("192.0.2.1")
	l.failed(1, now)
	for i := range int64(120_000) {
		stranger := netip.AddrFrom16([16]byte{0x20, 1, byte(i >> 16), byte(i >> 8), byte(i)})
		if err := l.newOrder(i+2, fmt.Sprint("device-", i), stranger, now); err != nil {
			t.Fatalf("order %d of as many accounts: %v", i, err)
		}
		if err := l.nonce(stranger, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.newAccount(from, now); err != nil {
		t.Errorf("an honest account: %v", err)
	}
	if l.mayTry(1, now) == nil {
		t.Error("keys of another kind made a bound forgotten")
	}
	for _, b := range []*budget{l.orders, l.deviceOrders, l.addressOrders, l.nonces} {
		if n := b.buckets.Len(); n != bucketKeys {
			t.Errorf("%s: %d keys are remembered, want %d", b.what, n, bucketKeys)
		}
	}
}

// Every kind of error has its problem, and says nothing of our insides.
func TestProblems(t *testing.T) {
	for _, kind := range ca.Kinds() {
		to, ok := mapped[kind]
		if !ok {
			t.Errorf("%s is not mapped", kind)
		}
		if _, ok := statuses[to.problem]; !ok {
			t.Errorf("%s: no problem %s", kind, to.problem)
		}
		p := refuse(fmt.Errorf("around it: %w", &ca.Error{Kind: kind, Reason: "the reason", Rule: "a.rule", Err: errors.New("the inside")}))
		if p.Type != to.problem || p.Status != to.status || strings.Contains(p.Detail, "inside") {
			t.Errorf("%s: %+v", kind, p)
		}
		if internal := kind == ca.Internal; internal == strings.Contains(p.Detail, "the reason (rule a.rule)") {
			t.Errorf("%s says %q", kind, p.Detail)
		}
		if wait := kind == ca.RateLimited || kind == ca.Unavailable; wait != (p.retryAfter > 0) {
			t.Errorf("%s: Retry-After %s", kind, p.retryAfter)
		}
	}
	if p := refuse(errors.New("a secret path")); p.Type != serverInternal || strings.Contains(p.Detail, "secret") {
		t.Errorf("no error of ours: %+v", p)
	}
	if p := refuse(ca.Errorf(ca.Denied, "%s", strings.Repeat("a\nb", 10_000))); len(p.Detail) > maxText || strings.Contains(p.Detail, "\n") {
		t.Errorf("%d octets of text", len(p.Detail))
	}
	d := (&Problem{Type: malformed, Subproblems: []Problem{{Type: "dns"}}}).document()
	if d.Type != "urn:ietf:params:acme:error:malformed" || d.Subproblems[0].Type != "urn:ietf:params:acme:error:dns" {
		t.Errorf("%+v", d)
	}
}

// Evidence that waits grows older.
func TestAged(t *testing.T) {
	e := policy.Evidence{Kind: "tpm", Facts: map[string]any{"quote_age": time.Minute, "age": time.Minute, "boot_age": "old", "ek_chain": true}}
	got := aged(e, time.Hour)
	if got.Facts["quote_age"] != time.Hour+time.Minute || got.Facts["age"] != time.Minute || got.Facts["boot_age"] != "old" || got.Facts["ek_chain"] != true {
		t.Errorf("%v", got.Facts)
	}
	if e.Facts["quote_age"] != time.Minute {
		t.Error("what was stored has changed")
	}
	if aged(e, -time.Hour).Facts["quote_age"] != time.Minute {
		t.Error("a clock that went back made evidence younger")
	}
}

// The window is where docs/acme.md says that it is.
func TestRenewalWindow(t *testing.T) {
	issued := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	life := 1000 * time.Hour
	issuers := []ca.IssuerRecord{{Name: "issuing-1", Role: "issuing", Generation: 1, Created: issued.AddDate(-1, 0, 0)}}
	cert := func(n byte) *ca.Certificate {
		return &ca.Certificate{Serial: ca.NewSerial(uint64(n), [12]byte{n}), Issuer: "issuing-1", IssuedAt: issued, NotBefore: issued.Add(-time.Hour), NotAfter: issued.Add(life)}
	}
	middles := map[time.Time]bool{}
	var first, last time.Time
	for n := range byte(200) {
		w := renewalWindow(cert(n), 0.5, issuers)
		if again := renewalWindow(cert(n), 0.5, issuers); again != w {
			t.Fatal("the window moves by itself")
		}
		if w.End.Sub(w.Start) != life/20 {
			t.Fatalf("the window is %s wide", w.End.Sub(w.Start))
		}
		middle := w.Start.Add(life / 40)
		if off := middle.Sub(issued.Add(life / 2)); off.Abs() > life/20+time.Second {
			t.Fatalf("the middle is %s off", off)
		}
		middles[middle] = true
		if first.IsZero() || middle.Before(first) {
			first = middle
		}
		if middle.After(last) {
			last = middle
		}
	}
	if len(middles) < 190 || last.Sub(first) < life/12 {
		t.Errorf("%d windows of 200, spread over %s", len(middles), last.Sub(first))
	}

	revoked := cert(1)
	revoked.Revocation = &ca.Revocation{Time: issued.Add(time.Hour)}
	if w := renewalWindow(revoked, 0.5, issuers); w.End.After(issued.Add(time.Hour)) || !w.Start.Before(w.End) {
		t.Errorf("revoked: %v", w)
	}
	gone := []ca.IssuerRecord{issuers[0]}
	gone[0].Revoked = &ca.Revocation{Time: issued.Add(2 * time.Hour)}
	if w := renewalWindow(cert(1), 0.5, gone); w.End.After(issued.Add(2 * time.Hour)) {
		t.Errorf("its CA revoked: %v", w)
	}
	rotated := append(issuers, ca.IssuerRecord{Name: "issuing-2", Role: "issuing", Generation: 2, Created: issued.Add(100 * time.Hour)},
		ca.IssuerRecord{Name: "quarantine-2", Role: "quarantine", Generation: 2, Created: issued})
	spread := map[time.Time]bool{}
	for n := range byte(200) {
		w := renewalWindow(cert(n), 0.5, rotated)
		if after := w.Start.Sub(issued.Add(100 * time.Hour)); after < -time.Second || after > life/10 {
			t.Fatalf("rotated: begins %s after", after)
		}
		spread[w.Start] = true
	}
	if len(spread) < 190 {
		t.Errorf("after a rotation %d windows of 200", len(spread))
	}
	published := []ca.IssuerRecord{issuers[0], {Name: "issuing-2", Role: "issuing", Generation: 2, Created: issued.Add(100 * time.Hour), Activates: issued.Add(200 * time.Hour)}}
	if after := renewalWindow(cert(1), 0.5, published).Start.Sub(issued.Add(200 * time.Hour)); after < -time.Second || after > life/10 {
		t.Errorf("published first: the window begins %s after it issues", after)
	}
	late := []ca.IssuerRecord{issuers[0], {Name: "issuing-2", Role: "issuing", Generation: 2, Created: issued.Add(900 * time.Hour)}}
	if w, plain := renewalWindow(cert(1), 0.5, late), renewalWindow(cert(1), 0.5, issuers); w != plain {
		t.Errorf("a late rotation put it off: %v, was %v", w, plain)
	}
	short := cert(1)
	short.NotAfter = issued.Add(time.Second)
	if w := renewalWindow(short, 0.5, issuers); !w.Start.Before(w.End) {
		t.Errorf("short-lived: %v", w)
	}
}

func FuzzJWS(f *testing.F) {
	for _, seed := range []string{
		`{"protected":"eyJhbGciOiJFUzI1NiJ9","payload":"","signature":"AAAA"}`,
		`{"protected":"eyJhbGciOiJFUzI1NiIsImp3ayI6eyJrdHkiOiJFQyIsImNydiI6IlAtMjU2IiwieCI6IkFBIiwieSI6IkFBIn0sIm5vbmNlIjoiYSIsInVybCI6ImIifQ","payload":"e30","signature":""}`,
		`{"payload":"","payload":""}`, `{"header":{}}`, `{"signatures":[]}`, `[]`, `{`, "", `{"protected":"e30","payload":"\u0065","signature":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseJWS(data)
		if err != nil {
			if p := refuse(err); p.Status != 400 || p.Detail == "" {
				t.Fatalf("%+v", p)
			}
			return
		}
		if m.jwk != nil && m.kid != "" {
			t.Fatal("two keys")
		}
		if m.jwk == nil {
			return
		}
		if k, err := parseJWK(m.jwk); err == nil {
			if err := m.verify(k); err == nil && m.alg != k.alg {
				t.Fatal("another algorithm")
			}
			if again, err := newPublicKey(k.key); err != nil || again.thumbprint != k.thumbprint {
				t.Fatalf("the key does not stay: %v", err)
			}
		}
	})
}

func FuzzPayload(f *testing.F) {
	for _, seed := range []string{
		`{"identifiers":[{"type":"dns","value":"a.b"},{"type":"ip","value":"::1"},{"type":"permanent-identifier","value":"a/1.2"}],"notAfter":"2030-01-01T00:00:00Z"}`,
		`{"contact":["mailto:a@b.c"],"termsOfServiceAgreed":true}`, `{"csr":"AAAA"}`, `{"attObj":"o2NmbXRj"}`, `{"a":[[[[[[[[[1]]]]]]]]]}`,
		`{"a":-0.1e+5,"b":"\ud800","c":null}`, `{"":{"":""}}`, `{"a" : [ ] , "b":{ }}`, `{"status":"deactivated"}`, `{"reason":null}`, `{"reason":"1"}`, `{"reason":-1e0}`, `{"contact":["mailto:a%2Bb@example.com","mailto:%"]}`, `{"a":1,}`, "{\"a\":\"\x01\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseObject(data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, name := range o.names {
			if seen[name] {
				t.Fatalf("%q twice", name)
			}
			seen[name] = true
			for _, err := range []error{second(o.text(name)), second(o.truth(name)), second(o.octets(name)), second(o.moment(name)), second(o.number(name))} {
				_ = err
			}
			items, _, _ := o.list(name)
			for _, raw := range items {
				if to, ok := unquote(raw); ok && isMailbox(to) && (len(to) > 3*maxContact || strings.ContainsAny(to, ", \n\r?#")) {
					t.Fatalf("%q is accepted as one plain address", to)
				}
				id, p, err := readIdentifier(raw)
				if err == nil && p == nil && (id.Type == "dns") != (id.Type == "dns" && isHostName(strings.TrimPrefix(id.Value, "*."))) {
					t.Fatalf("accepted %+v", id)
				}
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

func FuzzCertID(f *testing.F) {
	for _, seed := range []string{"aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", ".", "AA.AA", "AA.AQAAAAAAAAAAAAAAAAAAAAAAAA", "=.=", "AA\n.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		authority, serial, err := parseCertID(name)
		if err == nil && base64url.EncodeToString(authority)+"."+base64url.EncodeToString(serial[:]) != name {
			t.Fatalf("%q is not the one name", name)
		}
	})
}

// Whatever host a request names, the base is of a configured one.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"ca.example:8443", "CA.example:8443", "[2001:DB8::1]:8443", "ca.example", "evil.example:8443", "[::ffff:192.0.2.1]:8443", "a:b:c", "[", "]:8443", ":8443", "ca.example:8443/x", "ca.example:8443:8443"} {
		f.Add(seed)
	}
	allowed := []string{"https://ca.example:8443/acme", "https://[2001:db8::1]:8443/acme"}
	s := New(Options{Hosts: []string{"ca.example", "2001:db8::1"}})
	local := context.WithValue(f.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 8443})
	f.Fuzz(func(t *testing.T, host string) {
		x := &exchange{Server: s, r: (&http.Request{Host: host}).WithContext(local)}
		if err := x.findBase(); err == nil != slices.Contains(allowed, x.base) || err != nil && refuse(err).Status != http.StatusMisdirectedRequest {
			t.Fatalf("%q: base %q, %v", host, x.base, err)
		}
	})
}
