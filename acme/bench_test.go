package acme_test

import (
	"testing"

	"github.com/deviceca/deviceca/acme"
)

// BenchmarkOrder is a whole order by binding: new order, finalize, certificate, each with its JWS. The client's
// signatures and TLS are in it.
func BenchmarkOrder(b *testing.B) {
	e := newEnv(b, func(o *acme.Options) {
		o.Limits.OrdersPerAccount, o.Limits.OrdersPerDevice, o.Limits.OrdersPerAddress = 1e6, 1e6, 1e6
	})
	a := e.device("lamp-1")
	nonce := e.takeNonce()
	post := func(url string, payload any) *answer {
		r := a.env.post(url, message(b, a.key, header{"alg": "ES256", "kid": a.kid, "nonce": nonce, "url": url}, payload))
		nonce = r.header.Get("Replay-Nonce")
		return r
	}
	before := e.store.Stats().Commits
	for b.Loop() {
		o := readOrder(post(e.url("/new-order"), map[string]any{"identifiers": []acme.Identifier{pid("lamp-1")}}).want(201))
		done := readOrder(post(o.Finalize, map[string]any{"csr": b64(csr(b, newKey(b), "", pid("lamp-1")))}).want(200))
		post(done.Certificate, nil).want(200)
	}
	b.ReportMetric(float64(e.store.Stats().Commits-before)/float64(b.N), "commits/op")
}
