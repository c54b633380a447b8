package crl

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

func TestHandler(t *testing.T) {
	h := newHouse(t, t.TempDir(), nil)
	h.j.revoke(h.j.issue(time.Hour), 1)
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.dir+"/../secret.crl", []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	// As after a restart: nothing but the directory is there.
	clock := time.Now().Add(time.Minute) // each list below is dated a second after the one before
	srv := httptest.NewServer(Handler(HandlerOptions{Dir: h.dir, Prefix: "/crl", Now: func() time.Time { return clock }, Resolve: func(name string) string {
		if name == "issuing" {
			return "issuing-1"
		}
		return name
	}}))
	defer srv.Close()
	do := func(method, path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		q, err := http.NewRequest(method, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			q.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(q)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}
	for _, tt := range []struct {
		path  string
		id    int
		delta bool
		cache string
	}{
		{"/crl/issuing-1.crl", Whole, false, "max-age=60, public, no-transform, must-revalidate"},
		{"/crl/issuing.crl", Whole, false, "max-age=60, public, no-transform, must-revalidate"},
		{"/crl/issuing-delta.crl", Whole, true, "max-age=60, public, no-transform, must-revalidate"},
		{"/crl/issuing-1-delta.crl", Whole, true, "max-age=60, public, no-transform, must-revalidate"},
		{"/crl/issuing-1/0.crl", 0, false, "max-age=60, public, no-transform, must-revalidate"},
		{"/crl/issuing/1-delta.crl", 1, true, "max-age=60, public, no-transform, must-revalidate"},
	} {
		want := h.list(tt.id, tt.delta)
		resp, body := do("GET", tt.path)
		if resp.StatusCode != 200 || !bytes.Equal(body, want.Raw) {
			t.Fatalf("%s: %s", tt.path, resp.Status)
		}
		info, err := os.Stat(h.p.file("issuing-1", tt.id, tt.delta))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"Content-Type": "application/pkix-crl", "Cache-Control": tt.cache,
			"Last-Modified": info.ModTime().UTC().Format(http.TimeFormat), "Expires": want.NextUpdate.Format(http.TimeFormat), "Accept-Ranges": "bytes",
		} {
			if got := resp.Header.Get(name); got != value {
				t.Errorf("%s: %s %q, want %q", tt.path, name, got, value)
			}
		}
		etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified")
		if resp, body := do("GET", tt.path, "If-None-Match", etag); resp.StatusCode != 304 || len(body) > 0 {
			t.Errorf("%s, If-None-Match: %s", tt.path, resp.Status)
		}
		if resp, _ := do("GET", tt.path, "If-Modified-Since", resp.Header.Get("Last-Modified")); resp.StatusCode != 304 {
			t.Errorf("%s, If-Modified-Since: %s", tt.path, resp.Status)
		}
		if resp, body := do("GET", tt.path, "Range", "bytes=10-19", "If-Range", etag); resp.StatusCode != 206 || !bytes.Equal(body, want.Raw[10:20]) {
			t.Errorf("%s, Range: %s", tt.path, resp.Status)
		}
		if resp, body := do("HEAD", tt.path); resp.StatusCode != 200 || len(body) > 0 || resp.ContentLength != int64(len(want.Raw)) {
			t.Errorf("%s, HEAD: %s", tt.path, resp.Status)
		}
		h.j.revoke(h.j.issue(time.Hour), 1)
		if err := h.p.Publish(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		if resp, body := do("GET", tt.path, "If-None-Match", etag); resp.StatusCode != 200 || bytes.Equal(body, want.Raw) || resp.Header.Get("ETag") == etag {
			t.Errorf("%s, another list: %s", tt.path, resp.Status)
		}
		if resp, _ := do("GET", tt.path, "If-Modified-Since", modified); resp.StatusCode != 200 {
			t.Errorf("%s, another list of the same second, If-Modified-Since: %s", tt.path, resp.Status)
		}
		if resp, _ := do("GET", tt.path, "If-Modified-Since", clock.AddDate(1, 0, 0).UTC().Format(http.TimeFormat)); resp.StatusCode != 200 {
			t.Errorf("%s, If-Modified-Since in the future: %s", tt.path, resp.Status)
		}
	}
	for _, path := range []string{
		"/crl/", "/crl/issuing-1", "/crl/issuing-2.crl", "/crl/issuing-1/99.crl", "/crl/issuing-1/x.crl", "/crl/issuing-1.json", "/crl/issuing-1/",
		"/crl/../secret.crl", "/crl/%2e%2e/secret.crl", "/crl/..%2fsecret.crl", "/crl/issuing-1/0/0.crl", "/crl/-delta.crl", "/crl/issuing-1-delta-delta.crl",
		"/crl/issuing-1/0-delta-delta.crl", "/crl/.crl", "/crl/issuing-1/12345678901.crl", "/crl/issuing-1%00.crl",
	} {
		if resp, _ := do("GET", path); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if resp, _ := do("POST", "/crl/issuing.crl"); resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %s", resp.Status)
	}
	// Expired lists are served, and not cached.
	clock = clock.AddDate(1, 0, 0)
	if resp, _ := do("GET", "/crl/issuing.crl"); resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "max-age=0, public, no-transform, must-revalidate" {
		t.Errorf("expired: %s %s", resp.Status, resp.Header.Get("Cache-Control"))
	}
}
