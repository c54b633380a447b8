package ocsp

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// BenchmarkPresigned is the steady state: one certificate of many, no nonce,
// without the cost of net/http.
func BenchmarkPresigned(b *testing.B) {
	const certificates = 10_000
	c := newCA(b, "issuing-1", time.Now)
	r := newResponder(b, c, nil)
	var requests []*http.Request
	for i := range uint64(certificates) {
		in := request(b, c, SHA1, nil, c.issue(i).Big())
		requests = append(requests, httptest.NewRequest("GET", "/ocsp/"+url.PathEscape(base64.StdEncoding.EncodeToString(in)), nil))
		r.ServeHTTP(httptest.NewRecorder(), requests[i])
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		w := nullWriter{http.Header{}}
		for i := 0; p.Next(); i++ {
			clear(w.h)
			r.ServeHTTP(w, requests[i%certificates])
		}
	})
	if s := r.Stats(); s.Filled != certificates {
		b.Errorf("%+v", s)
	}
}

// BenchmarkNonce signs each answer; BenchmarkSign is what the key does alone.
func BenchmarkNonce(b *testing.B) {
	c := newCA(b, "issuing-1", time.Now)
	r := newResponder(b, c, func(o *Options) { o.LiveRate = 1e9 })
	in := request(b, c, SHA1, make([]byte, 32), c.issue(1).Big())
	r.Answer(b.Context(), in)
	b.ReportAllocs()
	for b.Loop() {
		r.Answer(context.Background(), in)
	}
}

func BenchmarkSign(b *testing.B) {
	key := newKey(b)
	alg, err := algorithmFor(key.Public())
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 200)
	for b.Loop() {
		if _, err := alg.sign(key, message); err != nil {
			b.Fatal(err)
		}
	}
}

// issuedSource says that every certificate was issued.
type issuedSource struct{ notAfter time.Time }

func (s issuedSource) Status(context.Context, string, ca.Serial) (Status, error) {
	return Status{Issued: true, NotAfter: s.notAfter}, nil
}

// BenchmarkMemory measures the octets that one kept answer costs.
func BenchmarkMemory(b *testing.B) {
	const answers = 20_000
	c := newCA(b, "issuing-1", time.Now)
	for b.Loop() {
		r := newResponder(b, c, func(o *Options) {
			o.Source, o.Entries = issuedSource{time.Now().AddDate(1, 0, 0)}, 2*answers
		})
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range uint64(answers) {
			if err := r.Presign(b.Context(), c.name, ca.NewSerial(i, [12]byte{10: byte(i >> 8), 11: byte(i)})); err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(r.cache.len()), "B/answer")
		runtime.KeepAlive(r)
	}
}
