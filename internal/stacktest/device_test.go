package stacktest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/cms"
)

// dev speaks EST to a home as a device would: with a credential, or with a
// certificate, or neither.
type dev struct {
	h      *home
	grant  grant
	client *http.Client
}

// device talks with a credential; the zero grant offers none.
func (h *home) device(g grant) *dev { return &dev{h, g, h.httpClient(nil)} }

// owner talks with a certificate.
func (h *home) owner(cert *x509.Certificate, key crypto.Signer) *dev {
	return &dev{h, grant{}, h.httpClient(&tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key})}
}

func (h *home) tlsConfig(cert *tls.Certificate) *tls.Config {
	raw, err := os.ReadFile(h.path("root.crt"))
	if err != nil {
		h.t.Fatal(err)
	}
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "localhost"}
	c.RootCAs.AppendCertsFromPEM(raw)
	if cert != nil {
		// Whatever the server hints at: a bad certificate must reach it.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

func (h *home) httpClient(cert *tls.Certificate) *http.Client {
	transport := &http.Transport{TLSClientConfig: h.tlsConfig(cert), MaxIdleConnsPerHost: 64}
	h.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 20 * time.Second, Transport: transport}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
	cert   *x509.Certificate // of a 200 to an enrolment
	took   time.Duration
}

func (a answer) serial() string { return serialOf(a.cert) }

const (
	enrollPath   = "/.well-known/est/simpleenroll"
	reenrollPath = "/.well-known/est/simplereenroll"
	pkcs10       = "application/pkcs10"
)

// request is one HTTP request; zero fields are what a well-behaved device sends.
type request struct {
	method, path, contentType string
	body                      io.Reader
	header                    http.Header
}

// enroll sends a request for a certificate.
func (d *dev) enroll(csr []byte) (answer, error) { return d.do(request{body: encoded(csr)}) }

// reenroll sends a request for renewal.
func (d *dev) reenroll(csr []byte) (answer, error) {
	return d.do(request{path: reenrollPath, body: encoded(csr)})
}

func encoded(csr []byte) io.Reader {
	return bytes.NewReader([]byte(base64.StdEncoding.EncodeToString(csr)))
}

func (d *dev) do(r request) (a answer, err error) {
	if r.method == "" {
		r.method = http.MethodPost
	}
	if r.path == "" {
		r.path = enrollPath
	}
	if r.contentType == "" {
		r.contentType = pkcs10
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+d.h.https+r.path, r.body)
	if err != nil {
		return a, err
	}
	if r.contentType != "none" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if d.grant.Reference != "" {
		req.SetBasicAuth(d.grant.Reference, d.grant.Secret)
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	began := time.Now()
	resp, err := d.client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a = answer{resp.StatusCode, resp.Header, string(body), nil, time.Since(began)}
	if err == nil && a.status == http.StatusOK && r.method == http.MethodPost {
		a.cert, err = oneCert(body)
	}
	return a, err
}

func oneCert(body []byte) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(string(body))
	if err != nil {
		return nil, err
	}
	certs, err := cms.ParseCertsOnly(der)
	if err != nil {
		return nil, err
	}
	if len(certs) != 1 {
		return nil, fmt.Errorf("%d certificates in the answer", len(certs))
	}
	return x509.ParseCertificate(certs[0])
}

// mustEnroll enrols, or ends the test.
func (d *dev) mustEnroll(t *testing.T, id string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := newKey(t)
	a, err := d.enroll(newCSR(t, key, id))
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("enrolment of %s: %d %q %v", id, a.status, a.body, err)
	}
	return a.cert, key
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
	}
	return key
}

// newCSR makes a request with the common name id; change alters it before it is signed.
func newCSR(t *testing.T, key crypto.Signer, id string, change ...func(*x509.CertificateRequest)) []byte {
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}
	for _, f := range change {
		f(template)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Error(err)
	}
	return csr
}

func serialOf(cert *x509.Certificate) string { return hex.EncodeToString(cert.SerialNumber.Bytes()) }
