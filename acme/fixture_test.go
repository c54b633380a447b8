package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// env is ACME over the real core: SQLite, software keys, the default policy.
type env struct {
	t       testing.TB
	path    string // of the ledger
	store   *store.Store
	ledger  *ledger
	core    *ca.Service
	options acme.Options
	server  atomic.Pointer[acme.Server]
	http    *httptest.Server
	late    atomic.Int64 // nanoseconds that the server's clock is ahead
	roots   *x509.CertPool
	root    []byte
	rootKey crypto.Signer
	signers map[string]crypto.Signer
	budgets ca.Budgets       // from the next start on
	makers  map[string]maker // manufacturers, by name
	nonce   string           // the newest
	mu      sync.Mutex
}

// ledger is the real one, with a seam before certificates are recorded and before
// authorizations are saved.
type ledger struct {
	*store.Store
	mu     sync.Mutex
	record func(i *ca.Issuance, record func() error) error
}

func (l *ledger) Record(ctx context.Context, i *ca.Issuance) error {
	l.mu.Lock()
	hook := l.record
	l.mu.Unlock()
	if hook != nil {
		return hook(i, func() error { return l.Store.Record(ctx, i) })
	}
	return l.Store.Record(ctx, i)
}

func (l *ledger) onRecord(hook func(i *ca.Issuance, record func() error) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.record = hook
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
	t.Helper()
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
}

// newEnv makes one. Each change is a func([]byte) []byte of the policy's source, or a func(*acme.Options).
func newEnv(t testing.TB, changes ...any) *env {
	t.Helper()
	e := &env{t: t, path: filepath.Join(t.TempDir(), "db"), roots: x509.NewCertPool(), signers: map[string]crypto.Signer{}, makers: map[string]maker{}}
	e.open()
	t.Cleanup(func() { e.store.Close() })
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: e.now()}
	e.rootKey = newKey(t)
	e.root = must[[]byte](t)(ca.NewRoot(e.rootKey, 1, h))
	e.roots.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(e.root)))
	e.addIssuer("root", 1, e.root)
	for _, role := range []string{"issuing", "quarantine"} {
		key := newKey(t)
		e.signers[role+"-1"] = key
		e.addIssuer(role, 1, must[[]byte](t)(ca.NewSubordinate(e.root, e.rootKey, role, 1, key.Public(), h)))
	}
	source := policy.Default()
	e.options = acme.Options{Hosts: []string{"127.0.0.1"}, Logger: slog.New(slog.DiscardHandler), Now: e.now}
	for _, change := range changes {
		switch change := change.(type) {
		case func([]byte) []byte:
			source = change(source)
		case func(*acme.Options):
			change(&e.options)
		default:
			t.Fatalf("a change of type %T", change)
		}
	}
	e.start(source)
	e.http = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.server.Load().ServeHTTP(w, r) }))
	t.Cleanup(e.http.Close)
	return e
}

func (e *env) open() {
	e.store = must[*store.Store](e.t)(store.Open(context.WithoutCancel(e.t.Context()), e.path, store.Options{Now: e.now}))
	e.ledger = &ledger{Store: e.store}
}

func (e *env) addIssuer(role string, generation int, cert []byte) {
	e.t.Helper()
	name := fmt.Sprintf("%s-%d", role, generation)
	record := ca.IssuerRecord{Name: name, Role: role, Generation: generation, Key: name, Cert: cert, Created: e.now()}
	if err := e.store.AddIssuer(e.t.Context(), record, ca.Event{Kind: ca.EventIssuerAdded, Time: e.now()}); err != nil {
		e.t.Fatal(err)
	}
}

// start makes the core and the server over the ledger.
func (e *env) start(source []byte) {
	e.t.Helper()
	t := e.t
	verifiable := map[string][]string{}
	for _, v := range e.options.Verifiers {
		verifiable["acme"] = append(verifiable["acme"], v.Format())
	}
	e.core = must[*ca.Service](t)(ca.NewService(t.Context(), ca.Options{Ledger: e.ledger, Sealer: must[*device.Sealer](t)(device.NewSealer(make([]byte, 32))),
		Policy: must[*policy.Policy](t)(policy.Parse("policy.yaml", source)), URL: "http://ca.test:8080", Now: e.now, LintShare: lintShare(t),
		Verifiable: verifiable, Budgets: e.budgets,
		Key: func(_ context.Context, label string) (crypto.Signer, error) { return e.signers[label], nil }}))
	e.options.Authority, e.options.Ledger, e.options.Nonces = e.core, e.ledger, nil
	e.server.Store(acme.New(e.options))
}

// restart is a new process over the same ledger.
func (e *env) restart() {
	e.t.Helper()
	source := e.core.Policy().Source()
	if err := e.store.Close(); err != nil {
		e.t.Fatal(err)
	}
	e.open()
	e.start(source)
}

// run runs the server's background until the test ends.
func (e *env) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(e.t.Context()))
	done := make(chan struct{})
	server := e.server.Load()
	go func() { server.Run(ctx); close(done) }()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	e.t.Cleanup(stop)
	return stop
}

func (e *env) now() time.Time         { return time.Now().Add(time.Duration(e.late.Load())) }
func (e *env) later(d time.Duration)  { e.late.Add(int64(d)) }
func (e *env) url(path string) string { return "https://" + e.host() + "/acme" + path }
func (e *env) host() string           { return e.http.Listener.Addr().(*net.TCPAddr).String() }
func b64(b []byte) string             { return base64.RawURLEncoding.EncodeToString(b) }
func (e *env) takeNonce() (n string)  { return e.get("/new-nonce").header.Get("Replay-Nonce") }
func (e *env) register(id, level string, uses int) *ca.Grant {
	e.t.Helper()
	return must[*ca.Grant](e.t)(e.core.AddDevice(e.t.Context(), device.Device{ID: id, Level: level}, uses, 24*time.Hour, "admin:test"))
}

// answer is what came back.
type answer struct {
	t      testing.TB
	status int
	header http.Header
	raw    []byte
}

func (a *answer) json(to any) {
	a.t.Helper()
	if err := json.Unmarshal(a.raw, to); err != nil {
		a.t.Fatalf("%v: %s", err, a.raw)
	}
}

// want fails the test unless the status is this one.
func (a *answer) want(status int) *answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	return a
}

type problemDoc struct {
	Type, Detail string
	Status       int
	Identifier   *acme.Identifier
	Subproblems  []problemDoc
	Algorithms   []string
}

// problem fails the test unless it is a problem document of this status and type.
func (a *answer) problem(status int, kind string) problemDoc {
	a.t.Helper()
	var p problemDoc
	if a.status != status || a.header.Get("Content-Type") != "application/problem+json" {
		a.t.Fatalf("status %d (%s), want problem %s with status %d: %s", a.status, a.header.Get("Content-Type"), kind, status, a.raw)
	}
	a.json(&p)
	if p.Type != "urn:ietf:params:acme:error:"+kind || p.Status != status || p.Detail == "" {
		a.t.Fatalf("got %s, want problem %s", a.raw, kind)
	}
	return p
}

func (e *env) do(r *http.Request) *answer {
	e.t.Helper()
	resp, err := e.http.Client().Do(r)
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	return &answer{e.t, resp.StatusCode, resp.Header, must[[]byte](e.t)(io.ReadAll(resp.Body))}
}

func (e *env) get(path string) *answer {
	e.t.Helper()
	return e.do(must[*http.Request](e.t)(http.NewRequest(http.MethodGet, e.url(path), nil)))
}

// post sends a body as JOSE.
func (e *env) post(url string, body []byte) *answer {
	e.t.Helper()
	r := must[*http.Request](e.t)(http.NewRequest(http.MethodPost, url, bytes.NewReader(body)))
	r.Header.Set("Content-Type", "application/jose+json")
	return e.do(r)
}

// header is a protected header in the making.
type header map[string]any

// algorithm is the one that goes with a key.
func algorithm(key crypto.Signer) string {
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P384() {
			return "ES384"
		}
		return "ES256"
	case *rsa.PrivateKey:
		return "RS256"
	case ed25519.PrivateKey:
		return "EdDSA"
	}
	return "none"
}

func jwk(key crypto.Signer) json.RawMessage {
	raw, err := (&jose.JSONWebKey{Key: key.Public()}).MarshalJSON()
	if err != nil {
		panic(err)
	}
	return raw
}

func thumbprint(key crypto.Signer) string {
	sum, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		panic(err)
	}
	return b64(sum)
}

// sign makes the signature of a JWS by hand, as headers here need not be right.
func sign(t testing.TB, key crypto.Signer, input string) []byte {
	t.Helper()
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		hash, size := crypto.SHA256, 32
		if k.Curve == elliptic.P384() {
			hash, size = crypto.SHA384, 48
		}
		h := hash.New()
		h.Write([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, k, h.Sum(nil))
		if err != nil {
			t.Fatal(err)
		}
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		sum := sha256.Sum256([]byte(input))
		return must[[]byte](t)(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:]))
	case ed25519.PrivateKey:
		return ed25519.Sign(k, []byte(input))
	}
	t.Fatalf("a key of type %T", key)
	return nil
}

// message is a JWS. A payload that is a string or octets is as it is, else it is written as JSON.
func message(t testing.TB, key crypto.Signer, h header, payload any) []byte {
	t.Helper()
	var body []byte
	switch p := payload.(type) {
	case nil:
	case string:
		body = []byte(p)
	case []byte:
		body = p
	default:
		body = must[[]byte](t)(json.Marshal(p))
	}
	protected := b64(must[[]byte](t)(json.Marshal(h)))
	input := protected + "." + b64(body)
	return must[[]byte](t)(json.Marshal(map[string]string{"protected": protected, "payload": b64(body), "signature": b64(sign(t, key, input))}))
}

// binding is an external account binding.
func binding(t testing.TB, g *ca.Grant, url string, key crypto.Signer) json.RawMessage {
	t.Helper()
	mac := must[[]byte](t)(base64.RawURLEncoding.DecodeString(g.ACME.HMACKey))
	return macced(t, mac, header{"alg": "HS256", "kid": g.ACME.KID, "url": url}, jwk(key))
}

func macced(t testing.TB, mac []byte, h header, payload []byte) json.RawMessage {
	t.Helper()
	protected := b64(must[[]byte](t)(json.Marshal(h)))
	m := hmac.New(sha256.New, mac)
	m.Write([]byte(protected + "." + b64(payload)))
	return must[[]byte](t)(json.Marshal(map[string]string{"protected": protected, "payload": b64(payload), "signature": b64(m.Sum(nil))}))
}

// account is a client with its account.
type account struct {
	*env
	key crypto.Signer
	kid string
	id  string // of the device

	bound json.RawMessage // its external account binding
}

// account makes an account that is bound to a device's credential.
func (e *env) account(g *ca.Grant) *account {
	e.t.Helper()
	a := &account{env: e, key: newKey(e.t), id: g.ID}
	a.bound = binding(e.t, g, e.url("/new-account"), a.key)
	a.kid = a.create(map[string]any{"externalAccountBinding": a.bound, "contact": []string{"mailto:admin@example.com"}}).want(201).header.Get("Location")
	return a
}

// device makes a device of the level software, with an account.
func (e *env) device(id string) *account { return e.account(e.register(id, "software", 1)) }

func (a *account) create(payload any) *answer {
	a.t.Helper()
	url := a.env.url("/new-account")
	return a.env.post(url, message(a.t, a.key, header{"alg": algorithm(a.key), "jwk": jwk(a.key), "nonce": a.takeNonce(), "url": url}, payload))
}

// post asks with the account; a nil payload is POST-as-GET.
func (a *account) post(url string, payload any) *answer {
	a.t.Helper()
	if strings.HasPrefix(url, "/") {
		url = a.env.url(url)
	}
	return a.env.post(url, message(a.t, a.key, header{"alg": algorithm(a.key), "kid": a.kid, "nonce": a.takeNonce(), "url": url}, payload))
}

type orderDoc struct {
	Status         string
	Expires        time.Time
	Identifiers    []acme.Identifier
	Authorizations []string
	Finalize       string
	Certificate    string
	Profile        string
	Replaces       string
	NotBefore      *time.Time
	NotAfter       *time.Time
	Error          *problemDoc
	url            string
}

type challengeDoc struct {
	Type, URL, Status, Token string
	Error                    *problemDoc
}

type authorizationDoc struct {
	Status     string
	Identifier acme.Identifier
	Wildcard   bool
	Challenges []challengeDoc
}

func (d authorizationDoc) challenge(kind string) challengeDoc {
	for _, c := range d.Challenges {
		if c.Type == kind {
			return c
		}
	}
	return challengeDoc{}
}

func pid(value string) acme.Identifier {
	return acme.Identifier{Type: "permanent-identifier", Value: value}
}
func dns(value string) acme.Identifier { return acme.Identifier{Type: "dns", Value: value} }
func ip(value string) acme.Identifier  { return acme.Identifier{Type: "ip", Value: value} }

func (a *account) newOrder(payload map[string]any, ids ...acme.Identifier) *answer {
	a.t.Helper()
	all := map[string]any{"identifiers": ids}
	for k, v := range payload {
		all[k] = v
	}
	return a.post("/new-order", all)
}

// ordered makes an order that must succeed.
func (a *account) ordered(ids ...acme.Identifier) orderDoc {
	a.t.Helper()
	return readOrder(a.newOrder(nil, ids...).want(201))
}

func readOrder(r *answer) orderDoc {
	r.t.Helper()
	var o orderDoc
	r.json(&o)
	o.url = r.header.Get("Location")
	return o
}

func (a *account) fetchOrder(url string) orderDoc {
	a.t.Helper()
	return readOrder(a.post(url, nil).want(200))
}

func (a *account) authorization(url string) authorizationDoc {
	a.t.Helper()
	var d authorizationDoc
	a.post(url, nil).want(200).json(&d)
	return d
}

// csr is a certificate request for these names.
func csr(t testing.TB, key crypto.Signer, cn string, ids ...acme.Identifier) []byte {
	t.Helper()
	r := &x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}}
	var other []asn1.RawValue
	for _, id := range ids {
		switch id.Type {
		case "dns":
			other = append(other, asn1.RawValue{Class: 2, Tag: 2, Bytes: []byte(id.Value)})
		case "ip":
			raw := net.ParseIP(id.Value)
			if v4 := raw.To4(); v4 != nil {
				raw = v4
			}
			other = append(other, asn1.RawValue{Class: 2, Tag: 7, Bytes: raw})
		case "uri":
			other = append(other, asn1.RawValue{Class: 2, Tag: 6, Bytes: []byte(id.Value)})
		case "permanent-identifier":
			inner := must[[]byte](t)(asn1.Marshal(struct {
				Value string `asn1:"utf8"`
			}{id.Value}))
			oid := must[[]byte](t)(asn1.Marshal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 3}))
			wrapped := must[[]byte](t)(asn1.Marshal(asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: inner}))
			other = append(other, asn1.RawValue{Class: 2, Tag: 0, IsCompound: true, Bytes: append(oid, wrapped...)})
		}
	}
	if len(other) > 0 {
		r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: must[[]byte](t)(asn1.Marshal(other))}}
	}
	return must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, r, key))
}

func (a *account) finalize(o orderDoc, csr []byte) *answer {
	a.t.Helper()
	return a.post(o.Finalize, map[string]any{"csr": b64(csr)})
}

// chain fetches a certificate, which must verify.
func (a *account) chain(url string) []*x509.Certificate {
	a.t.Helper()
	r := a.post(url, nil).want(200)
	if got := r.header.Get("Content-Type"); got != "application/pem-certificate-chain" {
		a.t.Errorf("the chain is of type %s", got)
	}
	var chain []*x509.Certificate
	between := x509.NewCertPool()
	for rest := r.raw; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		c := must[*x509.Certificate](a.t)(x509.ParseCertificate(block.Bytes))
		if len(chain) > 0 {
			between.AddCert(c)
		}
		chain = append(chain, c)
	}
	if len(chain) < 2 {
		a.t.Fatalf("%d certificates in the chain", len(chain))
	}
	leaf := *chain[0]
	leaf.UnhandledCriticalExtensions = nil
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.roots, Intermediates: between, CurrentTime: a.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		a.t.Errorf("the chain does not verify: %v", err)
	}
	return chain
}

// enrolled has a certificate issued to the account's device by its binding.
func (a *account) enrolled() (*x509.Certificate, crypto.Signer) {
	a.t.Helper()
	key := newKey(a.t)
	o := a.ordered(pid(a.id))
	done := readOrder(a.finalize(o, csr(a.t, key, "", pid(a.id))).want(200))
	return a.chain(done.Certificate)[0], key
}

// recorded counts the certificates of a device.
func (e *env) recorded(id string) int {
	e.t.Helper()
	return len(must[[]ca.Certificate](e.t)(e.store.Certificates(e.t.Context(), ca.CertificateFilter{Device: id}, 0, 100)))
}

// lintShare: tests lint every certificate, benchmarks none.
func lintShare(t testing.TB) float64 {
	if _, measured := t.(*testing.B); measured {
		return 0
	}
	return 1
}

// edit replaces a text of the policy, which must be there.
func edit(old, new string) func([]byte) []byte {
	return func(source []byte) []byte {
		if !bytes.Contains(source, []byte(old)) {
			panic("the policy has no " + old)
		}
		return bytes.Replace(source, []byte(old), []byte(new), 1)
	}
}

// eventually waits for something that happens in the background.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// meet says of each authorization of an order that a challenge is met, and waits for the end.
func (a *account) meet(o orderDoc, kind string) {
	a.t.Helper()
	for _, url := range o.Authorizations {
		authz := a.authorization(url)
		if authz.Status == "valid" {
			continue
		}
		c := authz.challenge(kind)
		if c.URL == "" {
			a.t.Fatalf("%s is not offered: %+v", kind, authz)
		}
		a.post(c.URL, map[string]any{}).want(200)
		eventually(a.t, "a validation", func() bool { return a.authorization(url).Status != "pending" })
	}
}

// level changes the first old after the name of a level in the policy.
func level(name, old, new string) func([]byte) []byte {
	return func(source []byte) []byte {
		i := bytes.Index(source, []byte("\nlevels:"))
		j := i + bytes.Index(source[i:], []byte("\n  "+name+":"))
		head, tail := source[:j], source[j:]
		return append(bytes.Clone(head), edit(old, new)(tail)...)
	}
}
