package stacktest

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestHTTP2: curl speaks it unless told otherwise, and bodies, deadlines and
// refusals work in another way there.
func TestHTTP2(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_LIMITS_READ_TIMEOUT=1s", "DEVICECA_LIMITS_HEADER_TIMEOUT=1s")
	lamp := h.device(h.addDevice("lamp-1", "--uses", "50"))
	transport := lamp.client.Transport.(*http.Transport)
	transport.ForceAttemptHTTP2 = true
	csr := newCSR(t, newKey(t), "lamp-1")
	text := []byte(base64.StdEncoding.EncodeToString(csr))
	stops := func(sent []byte) io.Reader {
		r, w := io.Pipe()
		t.Cleanup(func() { w.Close() })
		go w.Write(sent)
		return r
	}
	if resp, err := lamp.client.Get("https://" + h.https + "/healthz"); err != nil || resp.ProtoMajor != 2 {
		t.Fatalf("no HTTP/2: %v %v", resp, err)
	}
	before := h.ledger()
	cases := []struct {
		name   string
		r      request
		status int
		says   string
	}{
		{"garbage", request{body: strings.NewReader("garbage!")}, 400, "base64"},
		{"body beyond the limit", request{body: strings.NewReader(strings.Repeat("A", 200<<10))}, 413, "larger"},
		{"body beyond the limit, without a length", request{body: io.MultiReader(strings.NewReader(strings.Repeat("A", 200<<10)))}, 413, "larger"},
		{"wrong content type", request{contentType: "text/plain", body: bytes.NewReader(text)}, 415, "application/pkcs10"},
		{"wrong method", request{method: "PUT", body: bytes.NewReader(text)}, 405, "POST"},
		{"unknown label", request{path: "/.well-known/est/nosuch/simpleenroll", body: bytes.NewReader(text)}, 404, "nosuch"},
		{"body that never comes", request{body: stops(nil)}, 408, "too long"},
		{"body that stops", request{body: stops(text[:50])}, 408, "too long"},
		{"wrong secret", request{body: bytes.NewReader(text), header: http.Header{"Authorization": {"Basic eDp5"}}}, 401, noSecret},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			a, err := lamp.do(c.r)
			refused(t, h, before, a, err, c.status, c.says)
			if a.took > patience+slack {
				t.Errorf("it took %s", a.took)
			}
		})
	}
	t.Run("10,000 header lines", func(t *testing.T) {
		header := http.Header{}
		for range 10_000 {
			header.Add("X-Many", "of these")
		}
		if a, err := lamp.do(request{body: bytes.NewReader(text), header: header}); err == nil && a.status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("got %d %q", a.status, a.body)
		}
		unchanged(t, h, before)
	})
	t.Run("a slow stream holds no other up", func(t *testing.T) {
		var slow sync.WaitGroup
		for range 20 {
			slow.Go(func() { lamp.do(request{body: stops(text[:50])}) })
		}
		time.Sleep(100 * time.Millisecond)
		a, err := lamp.enroll(csr)
		if err != nil || a.status != http.StatusOK || a.took > patience/2+slack {
			t.Errorf("got %d %q %v after %s", a.status, a.body, err, a.took)
		}
		slow.Wait()
	})
}

// TestSecondServer: a home is one server's.
func TestSecondServer(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	errs := h.fails("serve", "--home", h.dir, "--https", freeAddr(t), "--http", freeAddr(t), "--metrics", "off")
	if !strings.Contains(errs, "in use") {
		t.Errorf("it says:\n%s", errs)
	}
	other := initHome(t, shortDir(t))
	if errs := other.fails("serve", "--home", other.dir, "--https", h.https, "--http", other.http, "--metrics", "off"); !strings.Contains(errs, h.https) {
		t.Errorf("with an address that is taken it says:\n%s", errs)
	}
	h.device(h.addDevice("lamp-1")).mustEnroll(t, "lamp-1") // the first goes on
}
