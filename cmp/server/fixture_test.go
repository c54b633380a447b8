package server_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// env is CMP over the real core: SQLite, software keys, the default policy.
type env struct {
	t      testing.TB
	core   *authority
	store  *store.Store
	server *server.Server
	http   *httptest.Server
	late   atomic.Int64 // nanoseconds that the server's clock is ahead
	roots  *x509.CertPool
	path   string                   // of the ledger
	root   []byte                   // certificate, DER
	keys   map[string]crypto.Signer // of the CAs, by label
	opts   ca.Options
}

// reopen makes the core anew, with other options.
func (e *env) reopen(change func(*ca.Options)) {
	e.t.Helper()
	change(&e.opts)
	e.core.Service = must[*ca.Service](e.t)(ca.NewService(e.t.Context(), e.opts))
}

// authority is the real core, with seams around Enroll and a count.
type authority struct {
	*ca.Service
	before   func() error
	after    func() error
	enrolled atomic.Int64
}

func (a *authority) Enroll(ctx context.Context, r ca.Request) (*ca.Issued, error) {
	a.enrolled.Add(1)
	if a.before != nil {
		if err := a.before(); err != nil {
			return nil, err
		}
	}
	issued, err := a.Service.Enroll(ctx, r)
	if a.after != nil && err == nil {
		err = a.after()
	}
	return issued, err
}

// must fails the test on an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newKey(t testing.TB) crypto.Signer {
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

func newEnv(t testing.TB, edits ...func([]byte) []byte) *env {
	t.Helper()
	e := &env{t: t, roots: x509.NewCertPool()}
	now := func() time.Time { return time.Now().Add(time.Duration(e.late.Load())) }
	e.path = filepath.Join(t.TempDir(), "db")
	e.store = must[*store.Store](t)(store.Open(t.Context(), e.path, store.Options{Now: now}))
	t.Cleanup(func() { e.store.Close() })
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: now()}
	rootKey := newKey(t)
	root := must[[]byte](t)(ca.NewRoot(rootKey, 1, h))
	e.roots.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(root)))
	e.root = root
	signers := map[string]crypto.Signer{"root-1": rootKey}
	add := func(role, name string, cert []byte) {
		record := ca.IssuerRecord{Name: name, Role: role, Generation: 1, Key: name, Cert: cert, Created: now()}
		if err := e.store.AddIssuer(t.Context(), record, ca.Event{Kind: ca.EventIssuerAdded, Time: now()}); err != nil {
			t.Fatal(err)
		}
	}
	add("root", "root-1", root)
	for _, role := range []string{"issuing", "quarantine"} {
		key := newKey(t)
		signers[role+"-1"] = key
		add(role, role+"-1", must[[]byte](t)(ca.NewSubordinate(root, rootKey, role, 1, key.Public(), h)))
	}
	source := policy.Default()
	for _, edit := range edits {
		source = edit(source)
	}
	e.keys = signers
	e.opts = ca.Options{Ledger: e.store, Sealer: must[*device.Sealer](t)(device.NewSealer(make([]byte, 32))),
		Policy: must[*policy.Policy](t)(policy.Parse("policy.yaml", source)), URL: h.URL, Now: now, LintShare: lintShare(t),
		WrongPerReference: 10, Reloaded: func([]ca.IssuerRecord) { e.server.CAsChanged() },
		Key: func(_ context.Context, label string) (crypto.Signer, error) { return signers[label], nil }}
	e.core = &authority{Service: must[*ca.Service](t)(ca.NewService(t.Context(), e.opts))}
	e.server = must[*server.Server](t)(server.New(t.Context(), server.Options{Authority: e.core, Ledger: e.store, Now: now, Logger: slog.New(slog.DiscardHandler)}))
	e.http = httptest.NewServer(e.server)
	t.Cleanup(e.http.Close)
	return e
}

func (e *env) now() time.Time { return time.Now().Add(time.Duration(e.late.Load())) }

// post sends octets and parses the answer, which must be a PKIMessage with status 200.
func (e *env) post(path string, raw []byte) *cmp.Message {
	e.t.Helper()
	answer, err := cmp.Parse(e.postRaw(path, raw))
	if err != nil {
		e.t.Fatalf("the answer: %v", err)
	}
	return answer
}

func (e *env) postRaw(path string, raw []byte) []byte {
	e.t.Helper()
	resp, err := http.Post(e.http.URL+server.Prefix+path, "application/pkixcmp", bytes.NewReader(raw))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body := must[[]byte](e.t)(io.ReadAll(resp.Body))
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/pkixcmp" {
		e.t.Fatalf("HTTP %s: %s", resp.Status, body)
	}
	return body
}

// party is who asks: a shared secret or a certificate.
type party struct {
	id     string
	secret []byte
	mac    *cmp.MAC
	key    crypto.Signer
	crt    *x509.Certificate
}

// opener opens what is encrypted to the party.
func (p party) opener(t testing.TB) cmp.Opener {
	if p.mac != nil {
		return cmp.WithSecret(p.secret)
	}
	return must[cmp.Opener](t)(cmp.WithKey(p.key))
}

func (p party) protector(t testing.TB) cmp.Protector {
	if p.mac != nil {
		return p.mac
	}
	return must[*cmp.Signer](t)(cmp.NewSigner(p.key, p.crt, cmp.SignerOptions{}))
}

// register makes a device with a credential.
func (e *env) register(id string, uses int) party {
	e.t.Helper()
	return e.registerAt(id, "software", uses)
}

func (e *env) registerAt(id, level string, uses int) party {
	e.t.Helper()
	g := must[*ca.Grant](e.t)(e.core.AddDevice(e.t.Context(), device.Device{ID: id, Level: level}, uses, 24*time.Hour, "admin:test"))
	return party{id: id, secret: []byte(g.Secret), mac: must[*cmp.MAC](e.t)(cmp.NewMAC([]byte(g.Reference), []byte(g.Secret), cmp.MACParams{}))}
}

func name(cn string) []byte {
	raw, err := asn1.Marshal(pkix.Name{CommonName: cn}.ToRDNSequence())
	if err != nil {
		panic(err)
	}
	return raw
}

// crmf is a request for a certificate, with its proof of possession.
func crmf(t testing.TB, cn string, key crypto.Signer, change func(*cmp.CertReqMsg)) *cmp.CertReqMsg {
	t.Helper()
	r := &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: name(cn)}}
	r.Template.PublicKey = must[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public()))
	if change != nil {
		change(r)
	}
	if r.POP == nil {
		if err := r.SignPOP(key, cmp.POPAuth{Sender: cmp.CommonName(cn)}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func requests(of cmp.BodyType, r ...*cmp.CertReqMsg) cmp.Body {
	return &cmp.CertRequests{Of: of, Requests: r}
}

// message begins a transaction.
func (e *env) message(body cmp.Body, infos ...cmp.Info) *cmp.Message {
	return cmp.NewRequest(body, cmp.HeaderOptions{Time: e.now(), Infos: infos})
}

// protected is the message's octets.
func (e *env) protected(m *cmp.Message, p party) []byte {
	e.t.Helper()
	if err := m.Protect(p.protector(e.t)); err != nil {
		e.t.Fatal(err)
	}
	return m.Raw()
}

// ask sends a message, and verifies that the answer is protected in kind.
func (e *env) ask(m *cmp.Message, p party) *cmp.Message {
	e.t.Helper()
	return e.verify(e.post("", e.protected(m, p)), m, p)
}

func (e *env) verify(answer, to *cmp.Message, p party) *cmp.Message {
	e.t.Helper()
	o := cmp.VerifyOptions{Header: cmp.HeaderRules{TransactionID: to.Header.TransactionID, RecipNonces: [][]byte{to.Header.SenderNonce},
		Now: e.now, TimeWindow: time.Minute, RequireTime: true}}
	if p.mac != nil {
		if err := answer.Header.Check(o.Header); err != nil {
			e.t.Fatal(err)
		}
		if err := p.mac.Verify(answer); err != nil {
			e.t.Fatalf("not protected by the shared secret: %v", err)
		}
		return answer
	}
	o.Trust = cmp.TrustRoots(e.roots, e.now)
	if _, err := answer.Verify(o); err != nil {
		e.t.Fatalf("not protected by a signature that leads to the root: %v", err)
	}
	return answer
}

// status is the PKIStatusInfo of whatever answer.
func status(m *cmp.Message) cmp.StatusInfo {
	switch b := m.Body.(type) {
	case *cmp.CertResponses:
		return b.Responses[0].Status
	case *cmp.ErrorBody:
		return b.Status
	case *cmp.RevocationResults:
		return b.Statuses[0]
	}
	return cmp.StatusInfo{}
}

// certificate is the certificate in an answer that must hold one.
func (e *env) certificate(m *cmp.Message) *x509.Certificate {
	e.t.Helper()
	b, ok := m.Body.(*cmp.CertResponses)
	if !ok || !b.Responses[0].Status.Status.Granted() {
		e.t.Fatalf("%s: %v", m.Body.Type(), status(m))
	}
	return must[*x509.Certificate](e.t)(x509.ParseCertificate(b.Responses[0].KeyPair.Certificate))
}

// enrolled gives a device a certificate.
func (e *env) enrolled(id string) party {
	e.t.Helper()
	p, key := e.register(id, 1), newKey(e.t)
	cert := e.certificate(e.ask(e.message(requests(cmp.IR, crmf(e.t, id, key, nil)), cmp.ImplicitConfirm()), p))
	return party{id: id, key: key, crt: cert}
}

// revoked reports whether the ledger says that a certificate is revoked.
func (e *env) revoked(c *x509.Certificate) bool {
	e.t.Helper()
	serial, _ := ca.SerialFromBig(c.SerialNumber)
	return must[*ca.Certificate](e.t)(e.store.CertificateBySerial(e.t.Context(), serial)).Revocation != nil
}

// lintShare: tests lint every certificate, benchmarks none.
func lintShare(t testing.TB) float64 {
	if _, measured := t.(*testing.B); measured {
		return 0
	}
	return 1
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
