package est_test

import (
	"crypto"
	"crypto/x509"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// TestRenewalLoop: a device that renews in a loop gets its burst, then 429 with the
// time to wait; one that waits as long gets a certificate.
func TestRenewalLoop(t *testing.T) {
	s := newService(t, func(o *ca.Options) { o.Budgets.CertificatesPerDevice = 60 })
	lamp, other := s.register(t, "lamp-1", 1), s.register(t, "lamp-2", 1)
	key := newKey(t)
	cert := s.do(t, call{path: "simpleenroll", user: lamp.Reference, pass: lamp.Secret, body: base64Body(newCSR(t, key, "lamp-1"))}).certs(t)[0]
	renew := func(next crypto.Signer) result {
		return s.do(t, call{path: "simplereenroll", as: &identity{&ca.Certificate{DER: cert.Raw}, key}, body: base64Body(newCSR(t, next, "lamp-1"))})
	}
	serials := map[string]bool{cert.SerialNumber.String(): true}
	var newest *x509.Certificate
	var next crypto.Signer
	for range 59 {
		next = newKey(t)
		newest = renew(next).certs(t)[0]
		serials[newest.SerialNumber.String()] = true
	}
	if len(serials) != 60 {
		t.Errorf("%d certificates, want 60", len(serials))
	}
	// The same key and names are given what they have.
	if again := renew(next).certs(t)[0]; !again.Equal(newest) {
		t.Error("the same key and names got another certificate than the newest")
	}
	refused := renew(newKey(t))
	seconds, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if refused.status != http.StatusTooManyRequests || err != nil || !strings.Contains(refused.body, "budget of 60 certificates") {
		t.Fatalf("the 61st: %d, Retry-After %q: %s", refused.status, refused.header.Get("Retry-After"), refused.body)
	}
	if s.lastObserved() != "simplereenroll rateLimited" {
		t.Errorf("observed %q", s.lastObserved())
	}
	s.do(t, call{path: "simpleenroll", user: other.Reference, pass: other.Secret, body: base64Body(newCSR(t, newKey(t), "lamp-2"))}).certs(t) // is not concerned
	s.late.Add(int64(time.Duration(seconds) * time.Second))
	if after := renew(newKey(t)).certs(t)[0]; serials[after.SerialNumber.String()] {
		t.Error("after the wait it got no new certificate")
	}
	if n := s.core.Stats().Refused; n != 1 {
		t.Errorf("%d refusals counted", n)
	}
}

// TestKeyMakingLoop: keys that the server makes cost acts, before they are made and whether or not they are certified.
func TestKeyMakingLoop(t *testing.T) {
	s := newService(t, func(o *ca.Options) { o.Budgets.ActsPerDevice = 2 })
	lamp := s.register(t, "lamp-1", 9)
	ask := func(id string) result {
		return s.do(t, call{path: "serverkeygen", user: lamp.Reference, pass: lamp.Secret, body: base64Body(newCSR(t, newKey(t), id))})
	}
	if r := ask("lamp-1"); r.status != http.StatusOK {
		t.Fatalf("%d: %s", r.status, r.body)
	}
	if r := ask("lamp-2"); r.status != http.StatusForbidden {
		t.Errorf("another device's: %d: %s", r.status, r.body)
	}
	if r := ask("lamp-1"); r.status != http.StatusTooManyRequests || r.header.Get("Retry-After") != "30" {
		t.Errorf("the third in a minute: %d, Retry-After %q: %s", r.status, r.header.Get("Retry-After"), r.body)
	}
}
