package acme_test

import (
	"bytes"
	"net"
	"net/http"
	"testing"

	"github.com/deviceca/deviceca/acme"
)

// Of a host that is no name of this server, nothing is repeated, and no message for it is taken.
func TestHosts(t *testing.T) {
	e := newEnv(t, func(o *acme.Options) { o.Hosts = []string{"127.0.0.1", "ca.example", "2001:db8::1"} })
	_, port, _ := net.SplitHostPort(e.host())
	directory := func(method, host string) *answer {
		r := must[*http.Request](t)(http.NewRequest(method, e.url("/directory"), nil))
		r.Host = host
		return e.do(r)
	}
	for host, base := range map[string]string{
		e.host(): "https://" + e.host(), "ca.example:" + port: "https://ca.example:" + port, "CA.example:" + port: "https://ca.example:" + port,
		"[2001:db8::1]:" + port: "https://[2001:db8::1]:" + port, "[2001:DB8:0::1]:" + port: "https://[2001:db8::1]:" + port,
	} {
		var d struct{ NewOrder string }
		if directory("GET", host).want(200).json(&d); d.NewOrder != base+"/acme/new-order" {
			t.Errorf("%s: %s, want it below %s", host, d.NewOrder, base)
		}
	}
	for _, host := range []string{"evil.example:" + port, "ca.example:1", "ca.example", "127.0.0.1", "ca.example.:" + port, "ca.example:0" + port, "x@ca.example:" + port,
		"a\"b", "[::1]:" + port, "ca.example:" + port + "/x", "127.1:" + port, "[::ffff:127.0.0.1]:" + port, ":" + port} {
		r := directory("GET", host)
		if r.problem(421, "malformed"); len(r.header.Values("Link")) > 0 || r.header.Get("Location") != "" {
			t.Errorf("%s is repeated: %v", host, r.header)
		}
		directory("POST", host).problem(421, "malformed")
	}

	// A message that was signed for another server is not taken from whoever passes it on.
	a := e.device("lamp-1")
	r := must[*http.Request](t)(http.NewRequest("POST", a.kid, bytes.NewReader(message(t, a.key,
		header{"alg": "ES256", "kid": "https://evil.example/acme/account/1", "nonce": a.takeNonce(), "url": "https://evil.example/acme/account/1"}, nil))))
	r.Header.Set("Content-Type", "application/jose+json")
	r.Host = "evil.example"
	e.do(r).problem(421, "malformed")

	// With a configured base, that is it, and the host counts for nothing.
	e.options.URL = "https://acme.example"
	e.restart()
	for _, host := range []string{e.host(), "evil.example", "acme.example"} {
		var d struct{ NewOrder string }
		if directory("GET", host).want(200).json(&d); d.NewOrder != "https://acme.example/acme/new-order" {
			t.Errorf("%s: %s", host, d.NewOrder)
		}
	}
	forwarded := func(url string) *answer {
		return e.post(e.url("/new-order"), message(t, a.key, header{"alg": "ES256", "kid": "https://acme.example/acme/account/1", "nonce": e.takeNonce(), "url": url}, map[string]any{"identifiers": []acme.Identifier{pid("lamp-1")}}))
	}
	forwarded(e.url("/new-order")).problem(403, "unauthorized")
	forwarded("https://acme.example/acme/new-order").want(201)
}
