package est_test

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/policy"
)

// newApproving is a service whose profile `device` needs an administrator.
func newApproving(t *testing.T) *service {
	t.Helper()
	return newService(t, func(o *ca.Options) {
		source := string(policy.Default())
		edited := strings.Replace(source, "    renew_at: 0.5 ", "    approval: true\n    renew_at: 0.5 ", 1)
		rules, err := policy.Parse("policy.yaml", []byte(edited))
		if err != nil || edited == source {
			t.Fatalf("the policy: %v", err)
		}
		o.Policy, o.Approval = rules, ca.ApprovalOptions{RetryAfter: time.Second}
	})
}

// TestApproval: 202 with Retry-After until somebody decides (RFC 7030 §4.2.3).
func TestApproval(t *testing.T) {
	s := newApproving(t)
	lamp, other := s.register(t, "lamp-1", 1), s.register(t, "lamp-2", 1)
	key, otherKey := newKey(t), newKey(t)
	ask := func(grant *ca.Grant, csr []byte) result {
		t.Helper()
		return s.do(t, call{path: "simpleenroll", user: grant.Reference, pass: grant.Secret, body: base64Body(csr)})
	}
	csr := newCSR(t, key, "lamp-1")
	for range 2 {
		r := ask(lamp, newCSR(t, key, "lamp-1")) // signed anew each time
		if r.status != 202 || r.header.Get("Retry-After") != "1" || !strings.Contains(r.body, "request 1 waits for an administrator") {
			t.Fatalf("got %d, Retry-After %q: %s", r.status, r.header.Get("Retry-After"), r.body)
		}
	}
	if got := s.lastObserved(); got != "simpleenroll pending" {
		t.Errorf("observed %q", got)
	}
	if r := ask(other, newCSR(t, otherKey, "lamp-2")); r.status != 202 || !strings.Contains(r.body, "request 2 ") {
		t.Fatalf("the other: %d %s", r.status, r.body)
	}
	if _, err := s.core.DecideRequest(t.Context(), 1, true, "", "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.core.DecideRequest(t.Context(), 2, false, "that serial was scrapped", "admin:test"); err != nil {
		t.Fatal(err)
	}
	cert := ask(lamp, csr).certs(t)[0]
	if r := ask(other, newCSR(t, otherKey, "lamp-2")); r.status != 403 || !strings.Contains(r.body, "request 2: that serial was scrapped") {
		t.Errorf("denied: %d %s", r.status, r.body)
	}
	if again := ask(lamp, csr).certs(t)[0]; !again.Equal(cert) {
		t.Error("a lost reply got another certificate")
	}

	// The approval is spent: a renewal, and the next with another key, need their own.
	own := identity{&ca.Certificate{DER: cert.Raw}, key}
	renew := func() result {
		return s.do(t, call{path: "simplereenroll", as: &own, body: base64Body(csr)})
	}
	if r := renew(); r.status != 202 || !strings.Contains(r.body, "request 3 ") {
		t.Fatalf("renewal: %d %s", r.status, r.body)
	}
	if _, err := s.core.DecideRequest(t.Context(), 3, true, "", "admin:test"); err != nil {
		t.Fatal(err)
	}
	renewed := renew().certs(t)[0]
	if renewed.Equal(cert) {
		t.Error("nothing was renewed")
	}
	if again := renew().certs(t)[0]; !again.Equal(renewed) {
		t.Error("a lost reply to a renewal got another certificate")
	}
	csr = newCSR(t, newKey(t), "lamp-1")
	if r := renew(); r.status != 202 || !strings.Contains(r.body, "request 4 ") {
		t.Errorf("with another key: %d %s", r.status, r.body)
	}
	// Four wait at most.
	for range 3 {
		s.do(t, call{path: "simplereenroll", as: &own, body: base64Body(newCSR(t, newKey(t), "lamp-1"))})
	}
	if r := s.do(t, call{path: "simplereenroll", as: &own, body: base64Body(newCSR(t, newKey(t), "lamp-1"))}); r.status != 429 || r.header.Get("Retry-After") != "1" {
		t.Errorf("one too many: %d, Retry-After %q", r.status, r.header.Get("Retry-After"))
	}
}

// TestClientWaits: our own client stays until the request is approved, or is told why it is not.
func TestClientWaits(t *testing.T) {
	for _, approve := range []bool{true, false} {
		t.Run(map[bool]string{true: "approved", false: "denied"}[approve], func(t *testing.T) {
			s := newApproving(t)
			lamp := s.register(t, "lamp-1", 1)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			decided := make(chan error, 1)
			go func() {
				for s.lastObserved() != "simpleenroll pending" {
					select {
					case <-ctx.Done():
						decided <- ctx.Err()
						return
					case <-time.After(10 * time.Millisecond):
					}
				}
				_, err := s.core.DecideRequest(ctx, 1, approve, "not ours", "admin:test")
				decided <- err
			}()
			got, err := client.Run(ctx, client.Config{Server: s.server.URL, Dir: t.TempDir(), Device: "lamp-1",
				Credential: &client.Credential{Reference: lamp.Reference, Secret: lamp.Secret}, Trust: client.Trust{Roots: []*x509.Certificate{s.server.Certificate()}}, Wait: time.Minute})
			if e := <-decided; e != nil {
				t.Fatalf("deciding: %v; the client: %v", e, err)
			}
			if approve && (err != nil || got.Action != client.Enrolled) {
				t.Errorf("got %+v, %v", got, err)
			}
			if !approve && (client.KindOf(err) != client.Refused || !strings.Contains(err.Error(), "not ours")) {
				t.Errorf("got %v, want refused with the reason", err)
			}
		})
	}
}
