package stacktest

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// The host that a request names is in no answer, unless it is one of the server's own names.
func TestForeignHosts(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_TLS_NAMES=CA.example,192.0.2.7")
	_, port, err := net.SplitHostPort(h.https)
	if err != nil {
		t.Fatal(err)
	}
	client := h.httpClient(nil)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	get := func(base, path, host string) (*http.Response, string) {
		r, err := http.NewRequest(http.MethodGet, base+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Forwarded", "host=evil.example")
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response, string(body)
	}
	for _, base := range []string{"https://" + h.https, "http://" + h.http} {
		for _, path := range []string{"/acme/directory", "/acme/new-nonce", "/acme/renewal-info/AA.AA", "/acme//directory", "/.well-known/est/cacerts", "/.well-known/est/csrattrs",
			"/.well-known/est//cacerts", "/.well-known/cmp", "/crl/issuing.crl", "/ca/issuing.crt", "/ocsp", "/pack/issuing.cbor", "/healthz", "/readyz", "/", "//", "/a/../b", "/admin/v1/devices", "/admin"} {
			response, body := get(base, path, "evil.example:"+port)
			var head strings.Builder
			if err := response.Header.Write(&head); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(head.String(), "evil") || strings.Contains(body, "https://evil") || strings.Contains(body, "http://evil") {
				t.Errorf("%s%s repeats the host: %s\n%s", base, path, head.String(), body)
			}
			if strings.HasPrefix(path, "/acme/") && strings.HasPrefix(base, "https") && response.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("%s%s: status %d, want 421: %s", base, path, response.StatusCode, body)
			}
		}
	}
	for host, want := range map[string]string{"ca.example": "ca.example", "CA.EXAMPLE": "ca.example", "192.0.2.7": "192.0.2.7", "localhost": "localhost", "127.0.0.1": "127.0.0.1", "[::1]": "[::1]"} {
		response, body := get("https://"+h.https, "/acme/directory", host+":"+port)
		var d struct{ NewOrder string }
		if err := json.Unmarshal([]byte(body), &d); err != nil || response.StatusCode != 200 || d.NewOrder != "https://"+want+":"+port+"/acme/new-order" {
			t.Errorf("%s: status %d, %s", host, response.StatusCode, body)
		}
	}
}
