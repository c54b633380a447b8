package ca_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// clock is the tests' time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// authority is a Service over a real ledger, with software keys.
type authority struct {
	*ca.Service
	t              testing.TB
	store          *store.Store
	clock          *clock
	root           *x509.Certificate
	rootKey        crypto.Signer
	rootKeys, keys map[string]crypto.Signer // by name
	signer         *moodySigner
	opts           ca.Options
}

// moodySigner is a CA key that can be made to fail.
type moodySigner struct {
	crypto.Signer
	mu   sync.Mutex
	mood func(sig []byte, err error) ([]byte, error)
}

func (s *moodySigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := s.Signer.Sign(r, digest, opts)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mood != nil {
		return s.mood(sig, err)
	}
	return sig, err
}

func (s *moodySigner) set(mood func([]byte, error) ([]byte, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = mood
}

func ecKey(t testing.TB, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAuthority makes one with the default policy; edit changes its source first.
func newAuthority(t testing.TB, edit func(source string) string) *authority {
	t.Helper()
	a := &authority{t: t, clock: &clock{now: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}}
	ctx := t.Context()
	var err error
	a.store, err = store.Open(ctx, filepath.Join(t.TempDir(), "ledger.db"), store.Options{Now: a.clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.store.Close() })

	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: a.clock.Now()}
	a.rootKey = ecKey(t, elliptic.P256())
	root, err := ca.NewRoot(a.rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	if a.root, err = x509.ParseCertificate(root); err != nil {
		t.Fatal(err)
	}
	a.signer = &moodySigner{Signer: ecKey(t, elliptic.P256())}
	signers := map[string]crypto.Signer{"issuing-1": a.signer, "quarantine-1": ecKey(t, elliptic.P256())}
	a.keys, a.rootKeys = signers, map[string]crypto.Signer{"root-1": a.rootKey}
	add := func(role, name string, cert []byte) {
		if err := a.store.AddIssuer(ctx, ca.IssuerRecord{Name: name, Role: role, Generation: 1, Key: name, Cert: cert, Created: a.clock.Now()}, ca.Event{Kind: ca.EventIssuerAdded, Time: a.clock.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	add("root", "root-1", root)
	a.rootKeys["quarantine-root-1"] = ecKey(t, elliptic.P256())
	quarantineRoot, err := ca.NewQuarantineRoot(a.rootKeys["quarantine-root-1"], 1, h)
	if err != nil {
		t.Fatal(err)
	}
	add("quarantine-root", "quarantine-root-1", quarantineRoot)
	above := map[string][]byte{"root": root, "quarantine-root": quarantineRoot}
	for _, role := range []string{"issuing", "quarantine"} {
		cert, err := ca.NewSubordinate(above[ca.RootOf(role)], a.rootKeys[ca.RootOf(role)+"-1"], role, 1, signers[role+"-1"].Public(), h)
		if err != nil {
			t.Fatal(err)
		}
		add(role, role+"-1", cert)
	}
	sealer, err := device.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	a.opts = ca.Options{Ledger: a.store, Sealer: sealer, Policy: parsePolicy(t, edit), Key: func(_ context.Context, label string) (crypto.Signer, error) { return signers[label], nil }, URL: h.URL, LintShare: 1, Now: a.clock.Now}
	a.reopen()
	return a
}

// reopen makes the service anew over the same ledger, as a restart does.
func (a *authority) reopen() {
	a.t.Helper()
	var err error
	if a.Service, err = ca.NewService(a.t.Context(), a.opts); err != nil {
		a.t.Fatal(err)
	}
}

func parsePolicy(t testing.TB, edit func(string) string) *policy.Policy {
	t.Helper()
	source := string(policy.Default())
	if edit != nil {
		edited := edit(source)
		if edited == source {
			t.Fatal("the edit of the policy changed nothing")
		}
		source = edited
	}
	p, err := policy.Parse("policy.yaml", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// grant registers a device and authenticates its credential.
func (a *authority) grant(id, level string, uses int) (ca.Requester, *ca.Grant) {
	a.t.Helper()
	g, err := a.AddDevice(a.t.Context(), device.Device{ID: id, Level: level}, uses, 0, "admin:test")
	if err != nil {
		a.t.Fatal(err)
	}
	return a.bySecret(g), g
}

func (a *authority) bySecret(g *ca.Grant) ca.Requester {
	a.t.Helper()
	r, err := a.AuthenticateSecret(a.t.Context(), g.Reference, g.Secret, localhost)
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

func (a *authority) byCertificate(der []byte) ca.Requester {
	a.t.Helper()
	r, err := a.AuthenticateCertificate(a.t.Context(), []*x509.Certificate{parse(a.t, der)})
	if err != nil {
		a.t.Fatal(err)
	}
	return r
}

// request is what a protocol makes of a CSR.
func (a *authority) request(r ca.Requester, csr []byte) ca.Request {
	a.t.Helper()
	c, err := ca.ParseCSR(csr)
	if err != nil {
		a.t.Fatal(err)
	}
	return ca.Request{Protocol: "est", Requester: r, PublicKey: c.PublicKey, SPKI: c.SPKI, Names: c.Names}
}

func (a *authority) enroll(r ca.Request) *ca.Issued {
	a.t.Helper()
	issued, err := a.Enroll(a.t.Context(), r)
	if err != nil {
		a.t.Fatal(err)
	}
	return issued
}

func (a *authority) refused(r ca.Request, kind ca.Kind, part string) {
	a.t.Helper()
	issued, err := a.Enroll(a.t.Context(), r)
	if err == nil {
		a.t.Fatalf("issued %s, want %v", issued.Certificate.Serial, kind)
	}
	if e := ca.AsError(err); e.Kind != kind || !contains(e.Reason, part) {
		a.t.Errorf("got %v, want %v with %q", err, kind, part)
	}
}

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// replaceKey puts another key into a request, which its signature then does not cover.
func replaceKey(t testing.TB, csr *x509.CertificateRequest, spki []byte) []byte {
	t.Helper()
	var outer struct {
		Info struct {
			Version    int
			Subject    asn1.RawValue
			Key        asn1.RawValue
			Attributes asn1.RawValue `asn1:"optional,tag:0"`
		}
		Alg asn1.RawValue
		Sig asn1.BitString
	}
	if _, err := asn1.Unmarshal(csr.Raw, &outer); err != nil {
		t.Fatal(err)
	}
	outer.Info.Key = asn1.RawValue{FullBytes: spki}
	der, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
