package server_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// RFC 9811 §3.
func TestHTTP(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	genm := func() []byte { return e.protected(e.message(&cmp.General{}), own) }
	for _, c := range []struct {
		name, method, path, mediaType string
		body                          []byte
		status                        int
	}{
		{"well-known URI", "POST", "", "application/pkixcmp", genm(), 200},
		{"trailing slash", "POST", "/", "application/pkixcmp", genm(), 200},
		{"parameters of the media type", "POST", "/getcacerts", "Application/PKIXCMP; x=y", genm(), 200},
		{"profile and operation", "POST", "/p/device/getcacerts", "application/pkixcmp", genm(), 200},
		{"garbage is answered by CMP", "POST", "", "application/pkixcmp", []byte("garbage"), 200},
		{"nothing is answered by CMP", "POST", "", "application/pkixcmp", nil, 200},
		{"GET", "GET", "", "application/pkixcmp", nil, 405},
		{"media type", "POST", "", "application/octet-stream", genm(), 415},
		{"unknown operation", "POST", "/nosuch", "application/pkixcmp", genm(), 404},
		{"empty profile", "POST", "/p//getcacerts", "application/pkixcmp", genm(), 404},
		{"longer word", "POST", "x", "application/pkixcmp", genm(), 404},
		{"too large", "POST", "", "application/pkixcmp", make([]byte, server.MaxBody+1), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := must[*http.Request](t)(http.NewRequest(c.method, e.http.URL+server.Prefix+c.path, bytes.NewReader(c.body)))
			r.Header.Set("Content-Type", c.mediaType)
			resp := must[*http.Response](t)(http.DefaultClient.Do(r))
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("%s, want %d", resp.Status, c.status)
			}
		})
	}
	if got := status(e.post("/keyupdate", genm())).FailInfo; got != cmp.BadRequest {
		t.Errorf("genm to keyupdate: %s", got)
	}
	kur := e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.CertProfile("device"))
	if got := status(e.post("/p/gateway", e.protected(kur, own))).FailInfo; got != cmp.BadRequest {
		t.Errorf("two profiles: %s", got)
	}
	answer := e.post("/p/gateway/keyupdate", e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))
	if cert := e.certificate(answer); len(cert.ExtKeyUsage) != 2 {
		t.Errorf("not of profile gateway: %v", cert.ExtKeyUsage)
	}
}
