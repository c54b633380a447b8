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
