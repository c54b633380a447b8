package ca_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// While the CA is closed nobody is authenticated or served, by whatever way they come. The CA's own certificates are issued.
func TestClosed(t *testing.T) {
	a := newAuthority(t, nil)
	closed := false
	a.opts.Closed = func(context.Context) error {
		if closed {
			return ca.Closed()
		}
		return nil
	}
	a.reopen()
	r, g := a.grant("lamp-1", "software", 5)
	request := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
	cert := parse(t, a.enroll(request).Certificate.DER)
	closed = true
	ctx := t.Context()
	for name, try := range map[string]func() error{
		"a secret":       func() error { _, err := a.AuthenticateSecret(ctx, g.Reference, g.Secret, localhost); return err },
		"a wrong secret": func() error { _, err := a.AuthenticateSecret(ctx, g.Reference, "x", localhost); return err },
		"a MAC":          func() error { _, _, err := a.CredentialSecret(ctx, g.Reference); return err },
		"a certificate":  func() error { _, err := a.AuthenticateCertificate(ctx, []*x509.Certificate{cert}); return err },
		"an account":     func() error { _, err := a.AccountRequester(ctx, 1, g.Reference, nil); return err },
		"a request that was authenticated before": func() error { _, err := a.Enroll(ctx, request); return err },
	} {
		if e := ca.AsError(try()); e.Kind != ca.Unavailable || e.RetryAfter != 2*time.Minute {
			t.Errorf("%s: %v", name, e)
		}
	}
	if _, err := a.IssueBuiltin(ctx, ca.BuiltinServer, "issuing", newKey(t).Public(), []ca.SAN{{Form: "dns", Value: "localhost"}}, time.Hour); err != nil {
		t.Errorf("the server's own certificate: %v", err)
	}
	closed = false
	a.bySecret(g)
}

// A certificate that the ledger lost is revoked by itself or by its serial, for good, and authenticates nobody.
func TestRevokeLost(t *testing.T) {
	a, other := newAuthority(t, nil), newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 5)
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	// Issued by the CA's key, but not on record: as after a restore from a backup.
	if _, err := a.store.Restore(t.Context(), 1<<24, a.clock.Now(), ca.Event{Kind: ca.EventRestored, Time: a.clock.Now()}); err != nil {
		t.Fatal(err)
	}
	lost := func(index uint64) *x509.Certificate {
		tmpl := &x509.Certificate{SerialNumber: ca.NewSerial(index, [12]byte{5, 11: 7}).Big(), Subject: parse(t, mustCA(t, a, "issuing")).Subject,
			NotBefore: a.clock.Now(), NotAfter: a.clock.Now().Add(24 * time.Hour)}
		tmpl.Subject.CommonName = "lamp-1"
		raw, err := x509.CreateCertificate(rand.Reader, tmpl, parse(t, mustCA(t, a, "issuing")), newKey(t).Public(), a.keys["issuing-1"])
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, raw)
	}
	one, two := lost(5000), lost(5001)
	serial := func(c *x509.Certificate) ca.Serial { s, _ := ca.SerialFromBig(c.SerialNumber); return s }
	revoke := func(s ca.Serial, l ca.Lost, reason int) (*ca.Certificate, error) {
		return a.RevokeLost(t.Context(), s, l, reason, nil, "admin:test")
	}
	c, err := revoke(serial(one), ca.Lost{Cert: one}, ca.ReasonKeyCompromise)
	if err != nil || c.Device != "lamp-1" || !c.NotAfter.Equal(one.NotAfter) || c.Revocation == nil {
		t.Fatalf("by the certificate: %+v, %v", c, err)
	}
	end := a.clock.Now().Add(48 * time.Hour)
	if c, err = revoke(serial(two), ca.Lost{Issuer: "issuing", NotAfter: end}, ca.ReasonSuperseded); err != nil || c.Issuer != "issuing-1" || !c.NotAfter.Equal(end) {
		t.Fatalf("by the serial: %+v, %v", c, err)
	}
	for _, cert := range []*x509.Certificate{one, two} {
		if _, err := a.AuthenticateCertificate(t.Context(), []*x509.Certificate{cert}); ca.KindOf(err) != ca.Unauthenticated {
			t.Errorf("it authenticates: %v", err)
		}
	}
	three := lost(5002)
	for name, wrong := range map[string]struct {
		serial ca.Serial
		lost   ca.Lost
		reason int
		kind   ca.Kind
	}{
		"on hold":              {serial(three), ca.Lost{Cert: three}, ca.ReasonCertificateHold, ca.Malformed},
		"twice":                {serial(one), ca.Lost{Cert: one}, ca.ReasonSuperseded, ca.Conflict},
		"another's serial":     {serial(two), ca.Lost{Cert: three}, ca.ReasonSuperseded, ca.Malformed},
		"another CA's":         {serial(three), ca.Lost{Cert: three, Issuer: "quarantine"}, ca.ReasonSuperseded, ca.Malformed},
		"no CA":                {serial(three), ca.Lost{Issuer: "issuing-7"}, ca.ReasonSuperseded, ca.NotFound},
		"a root":               {serial(three), ca.Lost{Issuer: "root"}, ca.ReasonSuperseded, ca.NotFound},
		"a stranger's":         {serial(three), ca.Lost{Cert: parse(t, mustCA(t, other, "issuing"))}, ca.ReasonSuperseded, ca.Malformed},
		"a taken index":        {ca.NewSerial(5000, [12]byte{1}), ca.Lost{Issuer: "issuing"}, ca.ReasonSuperseded, ca.Malformed},
		"an index not reached": {ca.NewSerial(ca.MaxIndex, [12]byte{1}), ca.Lost{Issuer: "issuing"}, ca.ReasonSuperseded, ca.Malformed},
	} {
		if _, err := revoke(wrong.serial, wrong.lost, wrong.reason); err == nil || ca.KindOf(err) != wrong.kind {
			t.Errorf("%s: %v, want %v", name, err, wrong.kind)
		}
	}
}

func mustCA(t *testing.T, a *authority, name string) []byte {
	t.Helper()
	raw, ok := a.CACert(name)
	if !ok {
		t.Fatalf("there is no CA %s", name)
	}
	return raw
}
