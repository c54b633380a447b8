package est_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/policy"
)

// instant answers each enrolment with the same certificate, so that what is
// measured is ours: HTTP, the codec, and the check of the request's signature.
type instant struct {
	*authority
	issued *ca.Issued
}

func (a instant) AuthenticateSecret(context.Context, string, string, netip.Addr) (ca.Requester, error) {
	return ca.Requester{Kind: policy.ByCredential, Device: "lamp-1"}, nil
}

func (a instant) AuthenticateCertificate(context.Context, []*x509.Certificate) (ca.Requester, error) {
	return ca.Requester{Kind: policy.ByCertificate, Device: "lamp-1"}, nil
}

func (a instant) Enroll(context.Context, ca.Request) (*ca.Issued, error) { return a.issued, nil }

func newInstant(b *testing.B) instant {
	core := newAuthority(b)
	cert, err := core.sign("lamp-1", newKey(b).Public(), ca.Names{}, core.root.NotAfter)
	if err != nil {
		b.Fatal(err)
	}
	return instant{core, &ca.Issued{Certificate: cert, Outcome: policy.Issue}}
}

func BenchmarkSimpleEnroll(b *testing.B) {
	core := newInstant(b)
	handler := est.New(est.Options{Authority: core, Logger: slog.New(slog.DiscardHandler)})
	body := base64.StdEncoding.EncodeToString(newCSR(b, newKey(b), "lamp-1"))
	r := httptest.NewRequest("POST", est.Prefix+"simpleenroll", nil)
	r.TLS = &tls.ConnectionState{}
	r.Header.Set("Content-Type", "application/pkcs10")
	r.SetBasicAuth("lamp-ref", lampSecret)
	b.ReportAllocs()
	for b.Loop() {
		again := r.Clone(b.Context())
		again.Body = nopCloser{strings.NewReader(body)}
		again.ContentLength = int64(len(body))
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, again)
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

type nopCloser struct{ *strings.Reader }

func (nopCloser) Close() error { return nil }

// BenchmarkParseCSR is the part of BenchmarkSimpleEnroll that is the core's.
func BenchmarkParseCSR(b *testing.B) {
	der := newCSR(b, newKey(b), "lamp-1")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ca.ParseCSR(der); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkServerKeygen makes the key, and has it certified by the fake core (one
// P-256 signature); sealed adds a signature and ECDH.
func BenchmarkServerKeygen(b *testing.B) {
	e := newKeygenEnv(b)
	e.credentials["lamp-ref"].Uses = 1 << 30
	to := e.newReceiver(b, "ecdsa-p256", 0)
	cert, err := x509.ParseCertificate(to.identity.DER)
	if err != nil {
		b.Fatal(err)
	}
	clear := newCSR(b, newKey(b), "lamp-1")
	sealed := csrWith(b, newKey(b), "lamp-1", capabilities(aes256CBC, aes256Wrap), octets(attrPublicID, to.keyID))
	for _, bench := range []struct {
		name, label string
		csr         []byte
		chain       []*x509.Certificate
	}{
		{"P-256 clear", "device", clear, nil},
		{"P-256 sealed", "sealed", sealed, []*x509.Certificate{cert}},
		{"RSA-2048 clear", "rsa", clear, nil},
	} {
		b.Run(bench.name, func(b *testing.B) {
			body := base64.StdEncoding.EncodeToString(bench.csr)
			for b.Loop() {
				r := httptest.NewRequest("POST", est.Prefix+bench.label+"/serverkeygen", strings.NewReader(body))
				r.TLS = &tls.ConnectionState{PeerCertificates: bench.chain}
				r.Header.Set("Content-Type", "application/pkcs10")
				r.SetBasicAuth("lamp-ref", lampSecret)
				w := httptest.NewRecorder()
				e.server.Config.Handler.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Body)
				}
			}
		})
	}
}

func BenchmarkCACerts(b *testing.B) {
	handler := est.New(est.Options{Authority: newInstant(b), Logger: slog.New(slog.DiscardHandler)})
	r := httptest.NewRequest("GET", est.Prefix+"cacerts", nil)
	r.TLS = &tls.ConnectionState{}
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r.Clone(b.Context()))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
