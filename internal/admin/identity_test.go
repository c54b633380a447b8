package admin

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
	"github.com/deviceca/deviceca/policy"
)

// TestAdminsCertificate: the one certificate that is registered counts, as long as it is valid and not
// revoked; another with the same key is nothing. Administrators of whom only the key is known stay known.
func TestAdminsCertificate(t *testing.T) {
	w := newWorld(t)
	issue := func(key crypto.Signer, serial *big.Int, until time.Time) *x509.Certificate {
		t.Helper()
		c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: "again"}, NotBefore: now.Add(-time.Hour), NotAfter: until}
		der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	pair := w.enlist(t, "ops", RoleAdmin, now.Add(time.Hour))
	key := pair.PrivateKey.(*ecdsa.PrivateKey)
	request := func(cert *x509.Certificate, resumed bool) *http.Request {
		r := httptest.NewRequest(http.MethodGet, Prefix+"/status", nil)
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, DidResume: resumed}
		return r
	}
	check := func(name string, r *http.Request, refused string) {
		t.Helper()
		who, err := w.api.certIdentity(r)
		switch {
		case refused == "" && (err != nil || who.Actor != "admin:ops"):
			t.Errorf("%s: %+v, %v; want admin:ops", name, who, err)
		case refused != "" && (ca.KindOf(err) != ca.Unauthenticated || !strings.Contains(err.Error(), refused)):
			t.Errorf("%s: %v; want Unauthenticated with %q", name, err, refused)
		}
	}
	registered, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	other := issue(key, big.NewInt(8), now.AddDate(10, 0, 0))
	check("the certificate registered", request(registered, false), "")
	check("another with its key", request(other, false), "registered with another certificate")
	check("a resumed session", request(registered, true), "full TLS handshake")

	known := &w.admins[len(w.admins)-1]
	known.CertID, known.NotAfter = [32]byte{}, time.Time{} // as an older version registered it
	check("known by key, another certificate", request(other, false), "")
	check("known by key, an expired one", request(issue(key, big.NewInt(9), now.Add(-time.Minute)), false), "is valid from")
	if list, err := w.local().Admins(t.Context()); err != nil || list[len(list)-1].CertSHA256 != "" || !list[len(list)-1].ByKey() {
		t.Errorf("the list says %+v, %v", list, err)
	}

	serial := serialOf(77)
	ours := issue(key, serial.Big(), now.Add(time.Hour))
	w.certs = append(w.certs, ca.Certificate{Serial: serial, DER: ours.Raw})
	check("one of this CA", request(ours, false), "")
	w.certs[len(w.certs)-1].Revocation = &ca.Revocation{Time: now}
	check("one that this CA revoked", request(ours, false), "was revoked at")
	check("another of a revoked one's serial", request(issue(key, serial.Big(), now.Add(time.Hour)), false), "")
}

// slowCore is a core whose Check lasts until it is let go.
type slowCore struct {
	Core
	checking, release chan struct{}
}

func (s slowCore) Check(ctx context.Context, p *policy.Policy) error {
	s.checking <- struct{}{}
	<-s.release
	return nil
}

// TestHeavyRequestsTakeTurns: one is done at a time, and nobody keeps others out by asking often.
func TestHeavyRequestsTakeTurns(t *testing.T) {
	w := newWorld(t)
	slow := slowCore{w.api.Core, make(chan struct{}, 9), make(chan struct{})}
	w.api.Core = slow
	greedy := w.overTLS(t, w.enlist(t, "greedy", RoleOperator, now.Add(time.Hour)))
	honest := w.overTLS(t, w.enlist(t, "honest", RoleOperator, now.Add(time.Hour)))
	done := make(chan error, 9)
	ask := func(c *Client) {
		go func() {
			_, err := post[PolicySummary](t.Context(), c, "/policy/check", Policy{Source: string(policy.Default())})
			done <- err
		}()
	}
	ask(greedy)
	<-slow.checking
	for range 3 {
		ask(greedy)
	}
	for range 2 { // one of them waits
		p, ok := errors.AsType[*Problem](<-done)
		if !ok || p.Status != http.StatusTooManyRequests || p.RetryAfter == 0 {
			t.Errorf("too many of one administrator: %v, want 429 with Retry-After", p)
		}
	}
	ask(honest)
	for range 3 {
		slow.release <- struct{}{}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	auditor := w.overTLS(t, w.enlist(t, "watch", RoleAuditor, now.Add(time.Hour)))
	if _, err := post[PolicySummary](t.Context(), auditor, "/policy/check", Policy{Source: "x"}); err == nil || !strings.Contains(err.Error(), "role auditor may not") {
		t.Errorf("an auditor has a policy checked: %v", err)
	}
}

func TestHeavyRequestsWaitWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{})
		leave, err := a.enter(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		defer leave()
		began := time.Now()
		_, err = a.enter(t.Context(), "two")
		if e := ca.AsError(err); e.Kind != ca.RateLimited || !errors.Is(err, limit.ErrBusy) || time.Since(began) != heavyWait {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}
