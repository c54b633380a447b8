package est_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// service is EST over the real core: default policy, SQLite, software keys.
type service struct {
	*env
	core *ca.Service
	late atomic.Int64 // nanoseconds that the core's clock is ahead
}

// Each change is a func(*ca.Options) or a func(*est.Options).
func newService(t *testing.T, changes ...any) *service {
	t.Helper()
	s := &service{}
	now := func() time.Time { return time.Now().Add(time.Duration(s.late.Load())) }
	ledger, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), store.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: now()}
	rootKey := newKey(t)
	root, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	signers := map[string]crypto.Signer{}
	add := func(role, name string, cert []byte) {
		record := ca.IssuerRecord{Name: name, Role: role, Generation: 1, Key: name, Cert: cert, Created: now()}
		if err := ledger.AddIssuer(t.Context(), record, ca.Event{Kind: ca.EventIssuerAdded, Time: now()}); err != nil {
			t.Fatal(err)
		}
	}
	add("root", "root", root)
	for _, role := range []string{"issuing", "quarantine"} {
		key := newKey(t)
		cert, err := ca.NewSubordinate(root, rootKey, role, 1, key.Public(), h)
		if err != nil {
			t.Fatal(err)
		}
		signers[role+"-1"] = key
		add(role, role+"-1", cert)
	}
	sealer, err := device.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.Parse("policy.yaml", policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	opts := ca.Options{Ledger: ledger, Sealer: sealer, Policy: rules, Key: func(_ context.Context, label string) (crypto.Signer, error) { return signers[label], nil }, URL: h.URL,
		LintShare: 1, Now: now, Logger: slog.New(slog.DiscardHandler)}
	toEST := []func(*est.Options){}
	for _, change := range changes {
		switch change := change.(type) {
		case func(*ca.Options):
			change(&opts)
		case func(*est.Options):
			toEST = append(toEST, change)
		default:
			t.Fatalf("a change of type %T", change)
		}
	}
	s.core, err = ca.NewService(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	s.env = newEnv(t, append(toEST, func(o *est.Options) { o.Authority = s.core })...)
	return s
}

func (s *service) register(t *testing.T, id string, uses int) *ca.Grant {
	t.Helper()
	grant, err := s.core.AddDevice(t.Context(), device.Device{ID: id, Level: "software"}, uses, 24*time.Hour, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// TestService leads two devices through their lives, over HTTP alone.
func TestService(t *testing.T) {
	s := newService(t)
	lamp, other := s.register(t, "lamp-1", 2), s.register(t, "lamp-2", 1)
	key := newKey(t)
	csr := newCSR(t, key, "lamp-1")
	enroll := func(t *testing.T, c call, body []byte) result {
		t.Helper()
		if c.path == "" {
			c.path = "simpleenroll"
		}
		c.body = base64Body(body)
		return s.do(t, c)
	}
	byCredential := call{user: lamp.Reference, pass: lamp.Secret}

	var anchors []*x509.Certificate
	t.Run("cacerts", func(t *testing.T) {
		if anchors = s.do(t, call{path: "cacerts"}).certs(t); len(anchors) != 3 {
			t.Fatalf("%d certificates, want root, issuing and quarantine", len(anchors))
		}
	})
	verify := func(t *testing.T, cert *x509.Certificate) {
		t.Helper()
		options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		for _, a := range anchors {
			if a.CheckSignatureFrom(a) == nil {
				options.Roots.AddCert(a)
			} else {
				options.Intermediates.AddCert(a)
			}
		}
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("the certificate does not verify with what cacerts gave: %v", err)
		}
	}
	asIdentity := func(cert *x509.Certificate) identity { return identity{&ca.Certificate{DER: cert.Raw}, key} }

	var first *x509.Certificate
	t.Run("enrol by credential", func(t *testing.T) {
		first = enroll(t, byCredential, csr).certs(t)[0]
		verify(t, first)
		if first.Subject.CommonName != "lamp-1" {
			t.Errorf("subject %s", first.Subject)
		}
	})
	if first == nil {
		t.FailNow()
	}
	t.Run("lost reply", func(t *testing.T) {
		if again := enroll(t, byCredential, csr).certs(t)[0]; !again.Equal(first) {
			t.Error("the same request got another certificate")
		}
	})
	own := asIdentity(first)
	t.Run("renew by certificate", func(t *testing.T) {
		renewed := enroll(t, call{path: "simplereenroll", as: &own}, csr).certs(t)[0]
		verify(t, renewed)
		if renewed.Equal(first) || string(renewed.RawSubject) != string(first.RawSubject) {
			t.Errorf("serial %x, subject %s", renewed.SerialNumber, renewed.Subject)
		}
	})
	t.Run("csrattrs", func(t *testing.T) {
		for _, c := range []call{{path: "csrattrs"}, {path: "csrattrs", as: &own}, {path: "gateway/csrattrs"}} {
			der, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(s.do(t, c).body)))
			if err != nil || len(der) == 0 {
				t.Errorf("%s: %x, %v", c.path, der, err)
			}
		}
	})

	refusals := []struct {
		name   string
		call   call
		body   []byte
		status int
	}{
		{"wrong secret", call{user: lamp.Reference, pass: "wrong"}, csr, 401},
		{"unknown reference", call{user: "nobody", pass: lamp.Secret}, csr, 401},
		{"foreign certificate", call{as: new(newEnv(t).newIdentity(t, "lamp-1", time.Now().Add(time.Hour)))}, csr, 401},
		{"another device's name, by credential", byCredential, newCSR(t, key, "lamp-2"), 403},
		{"another device's name, by certificate", call{as: &own}, newCSR(t, key, "lamp-2"), 403},
		{"another device's key", call{user: other.Reference, pass: other.Secret}, newCSR(t, key, "lamp-2"), 400},
		{"name that the profile does not allow", byCredential, newCSR(t, key, "lamp-1", "www.example.com"), 403},
		{"changed subjectAltName on re-enrolment", call{path: "simplereenroll", as: &own}, newCSR(t, key, "lamp-1", "lamp-1"), 403},
		{"profile that the level may not have", call{path: "remediation/simpleenroll", as: &own}, csr, 403},
		{"unknown label", call{path: "nosuch/simpleenroll", as: &own}, csr, 404},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) { enroll(t, tt.call, tt.body).wantRefusal(t, tt.status, "") })
	}

	t.Run("spent credential", func(t *testing.T) {
		enroll(t, byCredential, newCSR(t, newKey(t), "lamp-1")).certs(t) // the second and last use
		enroll(t, byCredential, newCSR(t, newKey(t), "lamp-1")).wantRefusal(t, 401, "no uses left")
	})
	t.Run("lapsed", func(t *testing.T) {
		defer s.late.Store(0)
		s.late.Store(int64(time.Until(first.NotAfter) + time.Hour))
		lapsed := call{path: "simplereenroll", as: &own}
		enroll(t, lapsed, newCSR(t, newKey(t), "lamp-1")).wantRefusal(t, 401, "expired")
		enroll(t, lapsed, csr).certs(t)
		// Too long ago for that: a new credential lets the device in, on the same path.
		s.late.Store(int64(time.Until(first.NotAfter) + 365*24*time.Hour))
		enroll(t, lapsed, csr).wantRefusal(t, 401, "expired")
		grant, err := s.core.AddCredential(t.Context(), device.Credential{Device: "lamp-1", Level: "software", Uses: 1}, time.Hour, "admin:test")
		if err != nil {
			t.Fatal(err)
		}
		lapsed.user, lapsed.pass = grant.Reference, grant.Secret
		enroll(t, lapsed, csr).certs(t)
	})
	t.Run("revoked", func(t *testing.T) {
		serial, _ := ca.SerialFromBig(first.SerialNumber)
		if _, err := s.core.Revoke(t.Context(), serial, 1, nil, "admin:test"); err != nil {
			t.Fatal(err)
		}
		enroll(t, call{path: "simplereenroll", as: &own}, csr).wantRefusal(t, 401, "revoked")
	})
	t.Run("retired", func(t *testing.T) {
		if _, err := s.core.MoveDevice(t.Context(), "lamp-2", device.Retired, 0, "admin:test"); err != nil {
			t.Fatal(err)
		}
		r := enroll(t, call{user: other.Reference, pass: other.Secret}, newCSR(t, newKey(t), "lamp-2"))
		r.wantRefusal(t, 401, "revoked") // its credential went with it
	})
}
