package est_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

// env is a server over the fake core, and clients of it.
type env struct {
	*authority
	server   *httptest.Server
	logs     *logs
	mu       sync.Mutex
	observed []string // "op outcome"
}

// logs is a log that handlers may still write to while a test reads it.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newEnv(t testing.TB, change ...func(*est.Options)) *env {
	t.Helper()
	e := &env{authority: newAuthority(t), logs: &logs{}}
	opts := est.Options{
		Authority: e.authority,
		Logger:    slog.New(slog.NewTextHandler(e.logs, nil)),
		Observe: func(op, outcome string, _ time.Duration) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.observed = append(e.observed, op+" "+outcome)
		},
	}
	for _, f := range change {
		f(&opts)
	}
	e.server = httptest.NewUnstartedServer(est.New(opts))
	e.server.EnableHTTP2 = true
	e.server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	e.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	e.server.StartTLS()
	t.Cleanup(e.server.Close)
	return e
}

func (e *env) lastObserved() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.observed) == 0 {
		return ""
	}
	return e.observed[len(e.observed)-1]
}

// identity is a device's certificate with its key.
type identity struct {
	cert *ca.Certificate
	key  crypto.Signer
}

// newIdentity enters a certificate for the device into the core.
func (e *env) newIdentity(t testing.TB, id string, notAfter time.Time, sans ...string) identity {
	t.Helper()
	key := newKey(t)
	var names ca.Names
	for _, s := range sans {
		names.SANs = append(names.SANs, ca.SAN{Form: "dns", Value: s})
	}
	cert, err := e.sign(id, key.Public(), names, notAfter)
	if err != nil {
		t.Fatal(err)
	}
	return identity{cert, key}
}

// call is one request; zero fields are what a good client sends.
type call struct {
	method      string // POST with a body, GET without
	path        string // below est.Prefix
	contentType string // application/pkcs10 with a body; "none" for none
	body        io.Reader
	user, pass  string
	as          *identity
	header      map[string]string
	http2       bool
	sessions    tls.ClientSessionCache // to resume from
}

type result struct {
	status int
	proto  int
	header http.Header
	body   string
}

func (e *env) do(t testing.TB, c call) result {
	t.Helper()
	config := &tls.Config{RootCAs: e.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	config.ClientSessionCache = c.sessions
	if c.as != nil {
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{c.as.cert.DER}, PrivateKey: c.as.key}}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: c.http2}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	method := c.method
	if method == "" {
		method = http.MethodGet
		if c.body != nil {
			method = http.MethodPost
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, e.server.URL+est.Prefix+c.path, c.body)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case c.contentType == "none":
	case c.contentType != "":
		r.Header.Set("Content-Type", c.contentType)
	case c.body != nil:
		r.Header.Set("Content-Type", "application/pkcs10")
	}
	if c.user != "" || c.pass != "" {
		r.SetBasicAuth(c.user, c.pass)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{resp.StatusCode, resp.ProtoMajor, resp.Header, string(body)}
}

func newCSR(t testing.TB, key crypto.Signer, id string, sans ...string) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}, DNSNames: sans}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func base64Body(der []byte) io.Reader {
	return strings.NewReader(base64.StdEncoding.EncodeToString(der))
}

// certs reads a certs-only body in the form that every known client reads: one
// line of base64 with a line feed.
func (r result) certs(t testing.TB) []*x509.Certificate {
	t.Helper()
	if r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	line, rest, ok := strings.Cut(r.body, "\n")
	if !ok || rest != "" {
		t.Errorf("the body is not one line with a line feed: %q", r.body)
	}
	der, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := cms.ParseCertsOnly(der)
	if err != nil {
		t.Fatal(err)
	}
	var certs []*x509.Certificate
	for _, c := range raw {
		cert, err := x509.ParseCertificate(c)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

func (r result) wantHeader(t testing.TB, name, value string) {
	t.Helper()
	if got := r.header.Get(name); got != value {
		t.Errorf("%s: %q, want %q", name, got, value)
	}
}

// wantRefusal checks what every refusal has in common.
func (r result) wantRefusal(t testing.TB, status int, says string) {
	t.Helper()
	if r.status != status {
		t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	r.wantHeader(t, "Content-Type", "text/plain; charset=utf-8")
	r.wantHeader(t, "Cache-Control", "no-store")
	if !strings.Contains(r.body, says) || !strings.HasSuffix(r.body, "\n") || strings.Count(r.body, "\n") != 1 {
		t.Errorf("body %q, want one line with %q", r.body, says)
	}
	if got := r.header.Get("WWW-Authenticate"); (got != "") != (status == http.StatusUnauthorized) {
		t.Errorf("status %d with WWW-Authenticate %q", status, got)
	}
}

func TestCACerts(t *testing.T) {
	e := newEnv(t)
	for _, path := range []string{"cacerts", "gateway/cacerts"} {
		t.Run(path, func(t *testing.T) {
			r := e.do(t, call{path: path})
			certs := r.certs(t)
			if len(certs) != 1 || !certs[0].Equal(e.root) {
				t.Errorf("%d certificates, want the root", len(certs))
			}
			r.wantHeader(t, "Content-Type", "application/pkcs7-mime")
			r.wantHeader(t, "Content-Transfer-Encoding", "base64")
			r.wantHeader(t, "Cache-Control", "no-cache")
		})
	}
	t.Run("conditional", func(t *testing.T) {
		tag := e.do(t, call{path: "cacerts"}).header.Get("ETag")
		r := e.do(t, call{path: "cacerts", header: map[string]string{"If-None-Match": tag}})
		if r.status != http.StatusNotModified || r.body != "" {
			t.Errorf("status %d, body %q, want 304 without", r.status, r.body)
		}
		r = e.do(t, call{path: "cacerts", header: map[string]string{"If-None-Match": `"other"`}})
		r.certs(t)
	})
	t.Run("HEAD", func(t *testing.T) {
		full, head := e.do(t, call{path: "cacerts"}), e.do(t, call{path: "cacerts", method: http.MethodHead})
		if head.status != http.StatusOK || head.body != "" {
			t.Errorf("status %d, body %q", head.status, head.body)
		}
		for _, name := range []string{"ETag", "Content-Type", "Content-Length"} {
			head.wantHeader(t, name, full.header.Get(name))
		}
	})
	t.Run("Accept is ignored", func(t *testing.T) {
		e.do(t, call{path: "cacerts", header: map[string]string{"Accept": "text/html"}}).certs(t)
	})
	t.Run("needs no authentication, looks at none", func(t *testing.T) {
		e.do(t, call{path: "cacerts", user: "lamp-ref", pass: "wrong"}).certs(t)
	})
}

// Behind another router, the paths are the same.
func TestMounted(t *testing.T) {
	mount := map[string]func(chi.Router, http.Handler){
		"Mount":  func(mux chi.Router, h http.Handler) { mux.Mount(est.Prefix, h) },
		"Handle": func(mux chi.Router, h http.Handler) { mux.Handle(est.Prefix+"*", h) },
	}
	for name, put := range mount {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			mux := chi.NewRouter()
			put(mux, e.server.Config.Handler)
			e.server.Config.Handler = mux
			for path, status := range map[string]int{"cacerts": 200, "gateway/cacerts": 200, "nosuch/cacerts": 404, "cacerts/": 404, "/cacerts": 404, "simpleenroll": 405} {
				if r := e.do(t, call{path: path}); r.status != status || status == 405 && r.header.Get("Allow") != "POST" {
					t.Errorf("%s: status %d, want %d", path, r.status, status)
				}
			}
			e.do(t, call{path: "gateway/simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret}).certs(t)
			if got := e.last(t).Profile; got != "gateway" {
				t.Errorf("profile %q", got)
			}
		})
	}
}

func TestSimpleEnroll(t *testing.T) {
	for _, tt := range []struct {
		name  string
		http2 bool
	}{{"HTTP/1.1", false}, {"HTTP/2", true}} {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnv(t)
			key := newKey(t)
			r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, key, "lamp-1", "lamp-1")), user: "lamp-ref", pass: lampSecret, http2: tt.http2})
			if (r.proto == 2) != tt.http2 {
				t.Errorf("HTTP/%d", r.proto)
			}
			certs := r.certs(t)
			if len(certs) != 1 {
				t.Fatalf("%d certificates, want only the one issued (RFC 7030 §4.2.3)", len(certs))
			}
			if cn := certs[0].Subject.CommonName; cn != "lamp-1" || !key.PublicKey.Equal(certs[0].PublicKey) {
				t.Errorf("certificate for %q, or for another key", cn)
			}
			if err := certs[0].CheckSignatureFrom(e.root); err != nil {
				t.Error(err)
			}
			r.wantHeader(t, "Content-Type", "application/pkcs7-mime; smime-type=certs-only")
			r.wantHeader(t, "Content-Transfer-Encoding", "base64")
			r.wantHeader(t, "Cache-Control", "no-store")
			r.wantHeader(t, est.OutcomeHeader, "issue")
			if got := r.header.Values(est.ReasonHeader); len(got) != 0 {
				t.Errorf("reasons %q", got)
			}
			asked := e.last(t)
			if asked.Protocol != "est" || asked.Renew || asked.Profile != "" || asked.Address != "127.0.0.1" ||
				len(asked.Names.SANs) != 1 || asked.Requester.Credential.Reference != "lamp-ref" {
				t.Errorf("the core was asked %+v", asked)
			}
			if got := e.lastObserved(); got != "simpleenroll issue" {
				t.Errorf("observed %q", got)
			}
			for _, want := range []string{"msg=issued", "device=lamp-1", "issuer=issuing-1", "protocol=est", "outcome=issue", "serial=01"} {
				if !strings.Contains(e.logs.String(), want) {
					t.Errorf("the log lacks %s: %s", want, e.logs)
				}
			}
			if strings.Contains(e.logs.String(), lampSecret) {
				t.Error("the log holds the secret")
			}
		})
	}
}

func TestLabelIsProfile(t *testing.T) {
	e := newEnv(t)
	e.do(t, call{path: "gateway/simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret}).certs(t)
	if got := e.last(t).Profile; got != "gateway" {
		t.Errorf("profile %q, want gateway", got)
	}
}

func TestOutcomeHeaders(t *testing.T) {
	e := newEnv(t)
	e.outcome = policy.Restricted
	e.reasons = []string{"evidence is 3 days old", "a\r\nSet-Cookie: x=1 – é", strings.Repeat("long ", 100)}
	r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret})
	r.certs(t)
	r.wantHeader(t, est.OutcomeHeader, "restricted")
	got := r.header.Values(est.ReasonHeader)
	if len(got) != 3 || got[0] != e.reasons[0] || got[1] != "a??Set-Cookie: x=1 ? ?" || len(got[2]) > 200 {
		t.Errorf("reasons %q", got)
	}
	if r.header.Get("Set-Cookie") != "" {
		t.Error("a reason became a header field")
	}
	e.reasons = make([]string, 50)
	r = e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret})
	if n := len(r.header.Values(est.ReasonHeader)); n != 16 {
		t.Errorf("%d reasons, want 16", n)
	}
}

// Both offered, each in every state that matters: which one decides, whether it
// is a renewal, and whether the secret was looked at.
func TestAuthentication(t *testing.T) {
	valid, lapsed, lapsedLong := time.Now().Add(time.Hour), time.Now().Add(-time.Minute), time.Now().Add(-48*time.Hour)
	tests := []struct {
		name        string
		path        string
		certificate string // "", "valid", "lapsed", "lapsed long", "revoked", "foreign"
		secret      string // "", "right", "wrong", "spent"
		status      int
		kind        policy.RequesterKind
		renew       bool
		secretsRead int
	}{
		{"nothing", "simpleenroll", "", "", 401, "", false, 0},
		{"secret", "simpleenroll", "", "right", 200, policy.ByCredential, false, 1},
		{"wrong secret", "simpleenroll", "", "wrong", 401, "", false, 1},
		{"certificate", "simpleenroll", "valid", "", 200, policy.ByCertificate, false, 0},
		{"certificate and secret", "simpleenroll", "valid", "right", 200, policy.ByCertificate, false, 0},
		{"certificate and wrong secret", "simpleenroll", "valid", "wrong", 200, policy.ByCertificate, false, 0},
		{"foreign certificate", "simpleenroll", "foreign", "", 401, "", false, 0},
		{"foreign certificate and secret", "simpleenroll", "foreign", "right", 200, policy.ByCredential, false, 1},
		{"revoked certificate", "simpleenroll", "revoked", "", 401, "", false, 0},
		{"revoked certificate and secret", "simpleenroll", "revoked", "right", 200, policy.ByCredential, false, 1},
		{"revoked certificate and wrong secret", "simpleenroll", "revoked", "wrong", 401, "", false, 1},

		{"re-enrol: nothing", "simplereenroll", "", "", 401, "", false, 0},
		{"re-enrol: certificate", "simplereenroll", "valid", "", 200, policy.ByCertificate, true, 0},
		{"re-enrol: certificate and secret", "simplereenroll", "valid", "right", 200, policy.ByCertificate, true, 0},
		{"re-enrol: secret acts as simpleenroll", "simplereenroll", "", "right", 200, policy.ByCredential, false, 1},
		{"re-enrol: lapsed, forgiven", "simplereenroll", "lapsed", "", 200, policy.ByCertificate, true, 0},
		{"re-enrol: lapsed, forgiven, secret spent", "simplereenroll", "lapsed", "spent", 200, policy.ByCertificate, true, 0},
		{"re-enrol: lapsed long", "simplereenroll", "lapsed long", "", 401, "", false, 0},
		{"re-enrol: lapsed long, with secret", "simplereenroll", "lapsed long", "right", 200, policy.ByCredential, false, 1},
		{"re-enrol: lapsed long, with wrong secret", "simplereenroll", "lapsed long", "wrong", 401, "", false, 1},
		{"re-enrol: revoked, with secret", "simplereenroll", "revoked", "right", 200, policy.ByCredential, false, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEnv(t)
			c := call{path: tt.path, body: base64Body(newCSR(t, newKey(t), "lamp-1"))}
			var id identity
			switch tt.certificate {
			case "":
			case "foreign":
				id = newEnv(t).newIdentity(t, "lamp-1", valid)
			default:
				end := map[string]time.Time{"valid": valid, "lapsed": lapsed, "lapsed long": lapsedLong, "revoked": valid}[tt.certificate]
				id = e.newIdentity(t, "lamp-1", end)
				if tt.certificate == "revoked" {
					id.cert.Revocation = &ca.Revocation{Reason: 1}
				}
			}
			if tt.certificate != "" {
				c.as = &id
			}
			switch tt.secret {
			case "right":
				c.user, c.pass = "lamp-ref", lampSecret
			case "wrong":
				c.user, c.pass = "lamp-ref", "wrong"
			case "spent":
				c.user, c.pass = "spent-ref", lampSecret
			}
			r := e.do(t, c)
			if e.secrets != tt.secretsRead {
				t.Errorf("the secret was read %d times, want %d", e.secrets, tt.secretsRead)
			}
			if tt.status != http.StatusOK {
				r.wantRefusal(t, tt.status, "")
				r.wantHeader(t, "WWW-Authenticate", `Basic realm="est", charset="UTF-8"`)
				return
			}
			r.certs(t)
			if asked := e.last(t); asked.Requester.Kind != tt.kind || asked.Renew != tt.renew {
				t.Errorf("the core was asked by %q, renew %t; want %q, %t", asked.Requester.Kind, asked.Renew, tt.kind, tt.renew)
			}
			if tt.secretsRead > 0 && e.from.String() != "127.0.0.1" {
				t.Errorf("the secret came from %s", e.from)
			}
		})
	}
}

// A fault of ours at the certificate must not be taken for a bad certificate.
func TestFaultIsNoFallback(t *testing.T) {
	e := newEnv(t, func(o *est.Options) { o.Authority = awayAuthority{o.Authority} })
	id := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), as: &id, user: "lamp-ref", pass: lampSecret})
	r.wantRefusal(t, http.StatusServiceUnavailable, "the ledger does not answer")
	if e.secrets != 0 {
		t.Error("the secret was read")
	}
}

func TestCSRAttrs(t *testing.T) {
	e := newEnv(t)
	id := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	tests := []struct {
		name   string
		call   call
		status int
		body   string
	}{
		{"anonymous, no label", call{path: "csrattrs"}, 200, "ecdsa-p256"},
		{"anonymous, label", call{path: "gateway/csrattrs"}, 200, "rsa-3072"},
		{"anonymous, nothing to say", call{path: "silent/csrattrs"}, 204, ""},
		{"anonymous, unknown label", call{path: "nosuch/csrattrs"}, 404, "no certificate profile"},
		{"by certificate", call{path: "csrattrs", as: &id}, 200, "ecdsa-p256"},
		{"by secret", call{path: "csrattrs", user: "lamp-ref", pass: lampSecret}, 200, "ecdsa-p256"},
		{"wrong secret", call{path: "csrattrs", user: "lamp-ref", pass: "wrong"}, 401, "wrong secret"},
		{"label not for this requester", call{path: "gateway/csrattrs", as: &id}, 403, "may not have profile"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.do(t, tt.call)
			switch tt.status {
			case 200:
				der, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(r.body, "\n"))
				if err != nil || r.status != 200 {
					t.Fatalf("status %d, body %q", r.status, r.body)
				}
				if got, err := client.ParseCSRAttrs(der); err != nil || string(got.Key) != tt.body || got.ChallengePassword {
					t.Errorf("our client reads %+v, %v, want %s", got, err, tt.body)
				}
				r.wantHeader(t, "Content-Type", "application/csrattrs")
				r.wantHeader(t, "Content-Transfer-Encoding", "base64")
			case 204:
				if r.status != 204 || r.body != "" || r.header.Get("Content-Type") != "" {
					t.Errorf("status %d, body %q, %v", r.status, r.body, r.header)
				}
			default:
				r.wantRefusal(t, tt.status, tt.body)
			}
		})
	}
}

func TestOpenSSLReadsReply(t *testing.T) {
	e := newEnv(t)
	r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret})
	cmd := exec.CommandContext(t.Context(), "openssl", "pkcs7", "-inform", "DER", "-print_certs")
	cmd.Stdin = base64.NewDecoder(base64.StdEncoding, strings.NewReader(r.body))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(out)
	if block == nil || !bytes.Equal(block.Bytes, r.certs(t)[0].Raw) {
		t.Errorf("openssl reads something else:\n%s", out)
	}
}
