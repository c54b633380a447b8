package ocsp

import (
	"bufio"
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/der"
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
	cpu(b)
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

// BenchmarkHTTP is the same over a kept-alive connection, next to a handler
// that writes the same octets and looks nothing up: the floor of net/http.
func BenchmarkHTTP(b *testing.B) {
	c := newCA(b, "issuing-1", time.Now)
	r := newResponder(b, c, nil)
	in := request(b, c, SHA1, nil, c.issue(1).Big())
	answer := r.Answer(b.Context(), in)
	static := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = typeResponse
		w.Write(answer)
	})
	get := "GET /ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(in)) + " HTTP/1.1\r\nHost: ca.example\r\n\r\n"
	post := "POST /ocsp HTTP/1.1\r\nHost: ca.example\r\nContent-Type: application/ocsp-request\r\nContent-Length: " + strconv.Itoa(len(in)) + "\r\n\r\n" + string(in)
	for _, bb := range []struct {
		name    string
		handler http.Handler
		request string
	}{{"floor", static, get}, {"GET", r, get}, {"POST", r, post}} {
		b.Run(bb.name, func(b *testing.B) {
			srv := httptest.NewServer(bb.handler)
			defer srv.Close()
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			in := bufio.NewReader(conn)
			b.ReportAllocs()
			cpu(b)
			for b.Loop() {
				if _, err := io.WriteString(conn, bb.request); err != nil {
					b.Fatal(err)
				}
				// The headers end with an empty line, then comes the answer.
				for {
					line, err := in.ReadSlice('\n')
					if err != nil {
						b.Fatal(err)
					}
					if len(line) == 2 {
						break
					}
				}
				if _, err := in.Discard(len(answer)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkNonce signs each answer; BenchmarkSign is what the key does alone.
func BenchmarkNonce(b *testing.B) {
	c := newCA(b, "issuing-1", time.Now)
	r := newResponder(b, c, func(o *Options) { o.LiveRate = 1e9 })
	in := request(b, c, SHA1, make([]byte, 32), c.issue(1).Big())
	r.Answer(b.Context(), in)
	b.ReportAllocs()
	cpu(b)
	for b.Loop() {
		r.Answer(context.Background(), in)
	}
}

func BenchmarkSign(b *testing.B) {
	key := newKey(b)
	alg, err := der.SignatureFor(key.Public())
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 200)
	cpu(b)
	for b.Loop() {
		if _, err := alg.Sign(key, alg.Digest(message)); err != nil {
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
