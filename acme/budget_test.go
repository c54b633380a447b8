package acme_test

import (
	"crypto/x509"
	"strconv"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// The budgets of the core reach ACME's clients as rateLimited with Retry-After (RFC 8555
// §6.6), and the order stays ready.
func TestBudgets(t *testing.T) {
	e := newEnv(t)
	e.budgets = ca.Budgets{CertificatesPerDevice: 2, ActsPerAccount: 3}
	e.restart()
	a := e.account(e.register("lamp-1", "software", 9))
	var certs []*x509.Certificate
	for range 2 {
		cert, _ := a.enrolled()
		certs = append(certs, cert)
	}
	o := a.ordered(pid("lamp-1"))
	request := csr(t, newKey(t), "", pid("lamp-1"))
	refused := a.finalize(o, request)
	refused.problem(429, "rateLimited")
	seconds, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if err != nil || seconds < 3600 {
		t.Fatalf("Retry-After %q", refused.header.Get("Retry-After"))
	}
	if got := a.fetchOrder(o.url); got.Status != "ready" {
		t.Errorf("the order is %s", got.Status)
	}
	revoke := func(c *x509.Certificate) *answer {
		return a.post("/revoke-cert", map[string]any{"certificate": b64(c.Raw)})
	}
	revoke(certs[0]).want(200) // the third act of this account in a minute
	limited := revoke(certs[1])
	limited.problem(429, "rateLimited")
	if limited.header.Get("Retry-After") != "20" {
		t.Errorf("Retry-After %q", limited.header.Get("Retry-After"))
	}
	e.later(20 * time.Second)
	revoke(certs[1]).want(200)
	// So do a change of the key, which is an event of the audit log, and one of the contacts.
	a.rollover(newKey(t)).problem(429, "rateLimited")
	a.post(a.kid, map[string]any{"contact": []string{"mailto:a@example.com"}}).problem(429, "rateLimited")
	a.post(a.kid, map[string]any{}).want(200)
}
