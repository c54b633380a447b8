package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/cms"
)

// testCA is a root and an issuing CA that sign what they are given.
type testCA struct {
	root, issuing       *x509.Certificate
	rootKey, issuingKey crypto.Signer
}

func newTestCA(t testing.TB, name string) *testCA {
	t.Helper()
	ca := new(testCA)
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: serialNumber(t), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	ca.rootKey, ca.issuingKey = newKey(t), newKey(t)
	ca.root = sign(t, template(name+" root"), nil, ca.rootKey.Public(), ca.rootKey)
	ca.issuing = sign(t, template(name+" issuing"), ca.root, ca.issuingKey.Public(), ca.rootKey)
	return ca
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serialNumber(t testing.TB) *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n.Add(n, big.NewInt(1))
}

func sign(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf issues a device certificate; edit may change it first.
func (ca *testCA) leaf(t testing.TB, cn string, public crypto.PublicKey, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: serialNumber(t), Subject: pkix.Name{CommonName: cn}, NotBefore: time.Now().Add(-time.Minute).Truncate(time.Second),
		NotAfter: time.Now().Add(100 * time.Hour).Truncate(time.Second), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	if edit != nil {
		edit(c)
	}
	return sign(t, c, ca.issuing, public, ca.issuingKey)
}

// identity is a device with a certificate of ca.
func (ca *testCA) identity(t testing.TB, cn string, edit func(*x509.Certificate)) *Identity {
	t.Helper()
	key := newKey(t)
	return &Identity{Key: key, Certificate: ca.leaf(t, cn, key.Public(), edit), Chain: []*x509.Certificate{ca.issuing}}
}

// estServer is a small EST server. Tests replace single operations to make it hostile.
type estServer struct {
	*httptest.Server
	t  testing.TB
	ca *testCA
	// ops answers an operation instead of the server; nil values fall through.
	ops   map[string]http.HandlerFunc
	edit  func(*x509.Certificate) // changes each certificate before it is signed
	attrs []byte                  // DER of csrattrs, nil for 204

	mu       sync.Mutex
	requests []seen
}

type seen struct {
	op, user, secret string
	csr              []byte
	client           *x509.Certificate
}

const testUser, testSecret = "ref-1", "correct horse"

// newESTServer serves with a certificate of tlsCA (nil: of ca itself).
func newESTServer(t testing.TB, ca *testCA, editTLS func(*x509.Certificate)) *estServer {
	t.Helper()
	s := &estServer{t: t, ca: ca, ops: map[string]http.HandlerFunc{}}
	key := newKey(t)
	cert := ca.leaf(t, "est server", key.Public(), func(c *x509.Certificate) {
		c.IPAddresses, c.ExtKeyUsage = []net.IP{net.IPv4(127, 0, 0, 1)}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if editTLS != nil {
			editTLS(c)
		}
	})
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw, ca.issuing.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *estServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	op := path.Base(r.URL.Path)
	got := seen{op: op}
	got.user, got.secret, _ = r.BasicAuth()
	if len(r.TLS.PeerCertificates) > 0 {
		got.client = r.TLS.PeerCertificates[0]
	}
	if body, _ := io.ReadAll(r.Body); len(body) > 0 {
		if !strings.HasSuffix(string(body), "\n") || strings.Count(string(body), "\n") != 1 {
			s.t.Errorf("%s: the body is not one line of base64 and a newline", op)
		}
		got.csr, _ = base64.StdEncoding.DecodeString(strings.TrimSpace(string(body)))
	}
	s.mu.Lock()
	s.requests = append(s.requests, got)
	s.mu.Unlock()
	if h := s.ops[op]; h != nil {
		h(w, r)
		return
	}
	s.answer(w, got)
}

// answer is the honest behaviour.
func (s *estServer) answer(w http.ResponseWriter, got seen) {
	switch got.op {
	case "cacerts":
		s.certs(w, s.ca.root, s.ca.issuing)
	case "csrattrs":
		if s.attrs == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/csrattrs")
		io.WriteString(w, base64.StdEncoding.EncodeToString(s.attrs)+"\n")
	case "simpleenroll", "simplereenroll":
		if got.op == "simpleenroll" && got.client == nil && (got.user != testUser || got.secret != testSecret) || got.op == "simplereenroll" && got.client == nil {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "the credential is\x1b[31m not known", http.StatusUnauthorized)
			return
		}
		s.certs(w, s.issue(got.csr))
	default:
		http.NotFound(w, nil)
	}
}

// issue makes the certificate that a CSR asks for.
func (s *estServer) issue(der []byte) *x509.Certificate {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		s.t.Errorf("bad CSR: %v", err)
		return s.ca.issuing
	}
	return s.ca.leaf(s.t, "", csr.PublicKey, func(c *x509.Certificate) {
		c.RawSubject = csr.RawSubject
		c.DNSNames, c.IPAddresses, c.URIs = csr.DNSNames, csr.IPAddresses, csr.URIs
		if s.edit != nil {
			s.edit(c)
		}
	})
}

func (s *estServer) certs(w http.ResponseWriter, certs ...*x509.Certificate) {
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	io.WriteString(w, certsOnlyText(certs...))
}

func certsOnlyText(certs ...*x509.Certificate) string {
	var raw [][]byte
	for _, c := range certs {
		raw = append(raw, c.Raw)
	}
	return base64.StdEncoding.EncodeToString(cms.CertsOnly(raw...)) + "\n"
}

// last is the newest request for op.
func (s *estServer) last(op string) *seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.requests) - 1; i >= 0; i-- {
		if s.requests[i].op == op {
			return &s.requests[i]
		}
	}
	return nil
}

func (s *estServer) count(op string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r.op == op {
			n++
		}
	}
	return n
}

// config enrols "sensor-1" at s with the good credential, into a fresh directory.
func (s *estServer) config(t testing.TB) Config {
	return Config{Dir: t.TempDir(), Server: s.URL, Device: "sensor-1", Trust: Trust{Roots: []*x509.Certificate{s.ca.root}},
		Credential: &Credential{Reference: testUser, Secret: testSecret}, Wait: time.Minute, Timeout: 10 * time.Second}
}

// fastEST is an EST client whose clock runs ahead while it would wait.
type fastEST struct {
	*EST
	waits []time.Duration
	ahead time.Duration
}

func newFastEST(t testing.TB, c Config) *fastEST {
	t.Helper()
	f := new(fastEST)
	e, err := NewEST(ESTConfig{Server: c.Server, Label: c.Label, Trust: c.Trust, MinTLS: c.MinTLS, Timeout: c.Timeout, Wait: c.Wait,
		Now: func() time.Time { return time.Now().Add(f.ahead) }})
	if err != nil {
		t.Fatal(err)
	}
	e.sleep = func(_ context.Context, d time.Duration) error {
		f.waits = append(f.waits, d)
		f.ahead += d
		return nil
	}
	f.EST = e
	return f
}
