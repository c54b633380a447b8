package acme_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
)

// An account has a bounded number of orders without a certificate: the oldest makes room, of this account alone.
func TestOpenOrders(t *testing.T) {
	e := newEnv(t, onNetworks, func(o *acme.Options) { o.Limits.OpenOrders = 3 })
	a, b := e.device("gw-1"), e.device("gw-2")
	other := b.ordered(dns("gw-2.local"))
	fulfilled := readOrder(a.finalize(a.ordered(pid("gw-1")), csr(t, newKey(t), "")).want(200))
	var orders []orderDoc
	for range 5 {
		orders = append(orders, a.ordered(dns("gw-1.local")))
	}
	for i, o := range orders {
		want := 200
		if i < 2 {
			want = 404
		}
		a.post(o.url, nil).want(want)
		a.post(o.Authorizations[0], nil).want(want)
	}
	b.post(other.url, nil).want(200)
	a.chain(fulfilled.Certificate)
}

// A newOrder that is refused leaves the credential good for another account, when the client has lost its key.
func TestRefusedOrderSpendsNothing(t *testing.T) {
	e := newEnv(t, onNetworks)
	g := e.register("gw-1", "software", 1)
	try := func() (*account, *answer) {
		a := &account{env: e, key: newKey(t), id: "gw-1"}
		r := a.create(map[string]any{"externalAccountBinding": binding(t, g, e.url("/new-account"), a.key)})
		a.kid = r.header.Get("Location")
		return a, r
	}
	first, r := try()
	r.want(201)
	first.newOrder(nil, dns("gw-2.example")).problem(403, "rejectedIdentifier")
	_, r = try()
	r.problem(403, "unauthorized") // the first may be about to order something else
	e.later(acme.IdleAccount + time.Second)
	second, r := try()
	r.want(201)
	first.post(first.kid, nil).problem(400, "accountDoesNotExist")

	// While an order is open, its account keeps the use.
	second.ordered(dns("gw-1.local"))
	e.later(acme.IdleAccount + time.Second)
	_, r = try()
	r.problem(403, "unauthorized")
	second.enrolled()
	e.later(9 * time.Hour)
	_, r = try()
	r.problem(403, "unauthorized")
	if n := e.uses(g.Reference); n != 1 {
		t.Errorf("%d uses were spent, want 1", n)
	}
	if all := must[[]ca.Account](t)(e.store.Accounts(t.Context(), ca.AccountFilter{}, 0, 10)); len(all) != 1 {
		t.Errorf("accounts %+v, want one", all)
	}
}

// Whoever shows no account gets so many nonces and no more; accounts go on with those of their own answers.
func TestNoncesPerAddress(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) { o.Limits.NoncesPerAddress, o.Limits.RenewalInfoPerAddress = 20, 3 })
	a := e.device("lamp-1")
	nonce := e.takeNonce()
	for i := 0; ; i++ {
		r := e.get("/new-nonce")
		if r.status == 429 {
			if r.problem(429, "rateLimited"); r.header.Get("Replay-Nonce") != "" || r.header.Get("Retry-After") == "" {
				t.Errorf("refused, and headers %v", r.header)
			}
			break
		}
		if i > 40 {
			t.Fatal("there is no limit")
		}
	}
	junk := message(t, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": "x", "url": a.kid}, nil)
	if r := e.post(a.kid, junk); r.problem(429, "rateLimited").Detail == "" || r.header.Get("Replay-Nonce") != "" {
		t.Errorf("a refusal gives a nonce to a stranger who has had all: %v", r.header)
	}
	for range 30 {
		r := e.post(a.kid, message(t, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": nonce, "url": a.kid}, nil)).want(200)
		nonce = r.header.Get("Replay-Nonce")
	}
	e.later(time.Minute)
	if e.get("/new-nonce").want(204).header.Get("Replay-Nonce") == "" {
		t.Error("no nonce after a minute")
	}

	for range 3 {
		e.get("/renewal-info/AA.AA").problem(404, "malformed")
	}
	if r := e.get("/renewal-info/AA.AA"); r.problem(429, "rateLimited").Detail == "" || r.header.Get("Retry-After") == "" {
		t.Errorf("headers %v", r.header)
	}
	e.get("/directory").want(http.StatusOK)
}

// An account may look at its orders again and again, within bounds.
func TestRequestsOfOneAccount(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) { o.Limits.OrdersPerAccount = 1 })
	a, b := e.device("lamp-1"), e.device("lamp-2")
	limited := false
	for range 130 {
		if r := a.post(a.kid, nil); r.status == 429 {
			r.problem(429, "rateLimited")
			limited = true
			break
		}
	}
	if !limited {
		t.Error("there is no limit")
	}
	b.post(b.kid, nil).want(200)
}
