package ocsp

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// slashy is a request whose base64 has both + and / in it.
func slashy(t *testing.T, c *testCA) (in []byte, text string) {
	for n := byte(0); ; n++ {
		in = request(t, c, SHA1, []byte{n, 0xfb, 0xff, 0xfe, 0xfb, 0xef}, c.issue(uint64(n)).Big())
		if text = base64.StdEncoding.EncodeToString(in); strings.Contains(text, "+") && strings.Contains(text, "/") && strings.HasSuffix(text, "=") {
			return in, text
		}
	}
}

func TestHTTP(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	srv := httptest.NewServer(r)
	defer srv.Close()
	in, text := slashy(t, c)
	escaped := url.PathEscape(text)
	escaped = strings.NewReplacer("+", "%2b", "=", "%3D").Replace(escaped)
	const ct = "application/ocsp-request"
	tests := []struct {
		name, method, path, contentType string
		body                            []byte
		code                            int
		status                          ResponseStatus
	}{
		{"GET, bare", "GET", "/ocsp/" + text, "", nil, 200, Successful},
		{"GET, percent-encoded", "GET", "/ocsp/" + escaped, "", nil, 200, Successful},
		{"GET, half encoded", "GET", "/ocsp/" + strings.Replace(text, "+", "%2B", 1), "", nil, 200, Successful},
		{"GET, every character encoded", "GET", "/ocsp/" + func() (s string) {
			for _, b := range []byte(text) {
				s += "%" + hex.EncodeToString([]byte{b})
			}
			return s
		}(), "", nil, 200, Successful},
		{"GET, slash twice", "GET", "/ocsp//" + text, "", nil, 200, Successful},
		{"GET, base64url", "GET", "/ocsp/" + base64.URLEncoding.EncodeToString(in), "", nil, 200, MalformedRequest},
		{"GET, no padding", "GET", "/ocsp/" + strings.TrimRight(text, "="), "", nil, 200, MalformedRequest},
		{"GET, line end", "GET", "/ocsp/" + text[:8] + "%0A" + text[8:], "", nil, 200, MalformedRequest},
		{"GET, encoded twice", "GET", "/ocsp/" + strings.ReplaceAll(escaped, "%", "%25"), "", nil, 200, MalformedRequest},
		{"GET, nothing", "GET", "/ocsp", "", nil, 200, MalformedRequest},
		{"GET, nothing but a slash", "GET", "/ocsp/", "", nil, 200, MalformedRequest},
		{"GET, cut", "GET", "/ocsp/" + text[:12], "", nil, 200, MalformedRequest},
		{"GET, huge", "GET", "/ocsp/" + strings.Repeat("A", 100_000), "", nil, 200, MalformedRequest},
		{"GET, under another path", "GET", "/other/" + text, "", nil, 200, MalformedRequest},
		{"POST", "POST", "/ocsp", ct, in, 200, Successful},
		{"POST, slash, parameter", "POST", "/ocsp/", "Application/OCSP-Request; charset=x", in, 200, Successful},
		{"POST, empty", "POST", "/ocsp", ct, nil, 200, MalformedRequest},
		{"POST, cut", "POST", "/ocsp", ct, in[:len(in)-1], 200, MalformedRequest},
		{"POST, trailing", "POST", "/ocsp", ct, append(bytes.Clone(in), 0), 200, MalformedRequest},
		{"POST, base64", "POST", "/ocsp", ct, []byte(text), 200, MalformedRequest},
		{"POST, huge", "POST", "/ocsp", ct, make([]byte, 1<<20), 200, MalformedRequest},
		{"POST, other type", "POST", "/ocsp", "text/plain", in, 415, 0},
		{"POST, no type", "POST", "/ocsp", "", in, 415, 0},
		{"PUT", "PUT", "/ocsp", ct, in, 405, 0},
		{"DELETE", "DELETE", "/ocsp/" + text, "", nil, 405, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// io.MultiReader hides the length, so that every second request is chunked.
			for _, body := range []io.Reader{bytes.NewReader(tt.body), io.MultiReader(bytes.NewReader(tt.body))} {
				q, err := http.NewRequest(tt.method, srv.URL+tt.path, body)
				if err != nil {
					t.Fatal(err)
				}
				if tt.contentType != "" {
					q.Header.Set("Content-Type", tt.contentType)
				}
				resp, err := http.DefaultClient.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != tt.code {
					t.Fatalf("%s %v", resp.Status, err)
				}
				if tt.code != 200 {
					continue
				}
				if ct := resp.Header.Get("Content-Type"); ct != "application/ocsp-response" {
					t.Errorf("content type %q", ct)
				}
				p, err := ParseResponse(got)
				if err != nil || p.Status != tt.status {
					t.Fatalf("%v %v", p, err)
				}
				if p.Status == Successful {
					if err := Verify(p, c.cert, time.Now()); err != nil || p.Responses[0].Status != Good {
						t.Error(err, p.Responses[0].Status)
					}
				} else if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
					t.Errorf("an error may be cached: %q", cc)
				}
			}
		})
	}
}

// A body that ends before its length, and one that never comes, hurt nobody.
func TestTruncatedBody(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	in := request(t, c, SHA1, nil, c.issue(1).Big())
	q := httptest.NewRequest("POST", "/ocsp", io.MultiReader(bytes.NewReader(in[:20])))
	q.Header.Set("Content-Type", "application/ocsp-request")
	q.ContentLength = int64(len(in))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, q)
	if w.Code != 200 || !bytes.Equal(w.Body.Bytes(), ErrorResponse(MalformedRequest)) {
		t.Errorf("%d %x", w.Code, w.Body.Bytes())
	}
}

func TestCacheHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		r := newResponder(t, c, func(o *Options) { o.Validity, o.MaxAge = 4*time.Hour, 100*time.Minute })
		path := "/ocsp/" + base64.StdEncoding.EncodeToString(request(t, c, SHA256, nil, c.issue(1).Big()))
		get := func(match string) *httptest.ResponseRecorder {
			q := httptest.NewRequest("GET", path, nil)
			if match != "" {
				q.Header.Set("If-None-Match", match)
			}
			w := httptest.NewRecorder()
			r.ServeHTTP(w, q)
			return w
		}
		w := get("")
		p, err := ParseResponse(w.Body.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		one := p.Responses[0]
		sum := sha256.Sum256(w.Body.Bytes())
		etag := `"` + hex.EncodeToString(sum[:]) + `"`
		for name, want := range map[string]string{
			"Etag": etag, "Last-Modified": one.ThisUpdate.Format(http.TimeFormat), "Expires": one.NextUpdate.Format(http.TimeFormat),
			"Cache-Control": "max-age=6000, public, no-transform, must-revalidate", "Content-Type": "application/ocsp-response",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		for _, match := range []string{etag, "*", `"x", W/` + etag} {
			if w := get(match); w.Code != 304 || w.Body.Len() > 0 || w.Header().Get("Etag") != etag {
				t.Errorf("If-None-Match %s: %d with %d octets", match, w.Code, w.Body.Len())
			}
		}
		if w := get(`"x"`); w.Code != 200 {
			t.Errorf("another ETag: %d", w.Code)
		}
		time.Sleep(time.Hour) // half of the life is two
		if got := get("").Header().Get("Cache-Control"); !strings.HasPrefix(got, "max-age=3600,") {
			t.Error(got)
		}
		time.Sleep(90 * time.Minute)
		if got := get("").Header().Get("Cache-Control"); !strings.HasPrefix(got, "max-age=0,") {
			t.Error(got)
		}
		time.Sleep(2 * time.Hour)
		if got := get("").Header(); got.Get("Etag") == etag || !strings.HasPrefix(got.Get("Cache-Control"), "max-age=6000,") {
			t.Errorf("past its time: %v", got)
		}
	})
}

// maxAllocated bounds what one request may allocate, beside net/http's own: a
// request of any content costs at most the answer, its encoding steps, and for
// the first in a while the pooled buffer.
const maxAllocated = 64 << 10

func TestAllocationBound(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, func(o *Options) { o.LiveRate = 1e9 })
	s := c.issue(1)
	for name, in := range map[string][]byte{
		"one":         request(t, c, SHA1, nil, s.Big()),
		"sixteen":     request(t, c, SHA256, make([]byte, 128), bigs(s, 16)...),
		"10,000":      request(t, c, SHA1, nil, bigs(s, 10000)...),
		"200":         request(t, c, SHA1, nil, bigs(s, 200)...),
		"huge nonce":  rawRequest(nil, nil, request(t, c, SHA1, nil, s.Big())[6:], extensions(extension(oidNonce, nil, octets(12000)))),
		"deep":        bytes.Repeat([]byte{0x30, 0x80}, 8000),
		"long length": append([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff}, make([]byte, 1000)...),
		"megabytes":   make([]byte, 8<<20),
	} {
		t.Run(name, func(t *testing.T) {
			for range 3 {
				r.Answer(t.Context(), in)
			}
			var before, after runtime.MemStats
			const rounds = 20
			runtime.ReadMemStats(&before)
			for range rounds {
				r.Answer(t.Context(), in)
			}
			runtime.ReadMemStats(&after)
			if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > maxAllocated {
				t.Errorf("%d octets allocated per request", each)
			}
		})
	}
}

// nullWriter is a ResponseWriter that costs nothing.
type nullWriter struct{ h http.Header }

func (w nullWriter) Header() http.Header         { return w.h }
func (w nullWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w nullWriter) WriteHeader(int)             {}

func TestPresignedAllocations(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	q := httptest.NewRequest("GET", "/ocsp/"+url.PathEscape(base64.StdEncoding.EncodeToString(request(t, c, SHA1, nil, c.issue(1).Big()))), nil)
	w := nullWriter{http.Header{}}
	r.ServeHTTP(w, q)
	if n := testing.AllocsPerRun(200, func() { r.ServeHTTP(w, q) }); n > 2 {
		t.Errorf("%v allocations, want the two of Cache-Control", n)
	}
}
