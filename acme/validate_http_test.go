package acme_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/internal/dnstest"
)

const challengePath = "/.well-known/acme-challenge/" + validationToken

func httpRequest(kind, value string) acme.ValidationRequest {
	return acme.ValidationRequest{Type: "http-01", Identifier: acme.Identifier{Type: kind, Value: value}, Token: validationToken, KeyAuthorization: validationKey}
}

// serveOn serves h on an address, "127.0.0.1:0" say.
func serveOn(t *testing.T, address string, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}}
	t.Cleanup(s.Close)
	return s
}

// loopbackDNS: every name is at 127.0.0.1.
func loopbackDNS(t *testing.T) *dnstest.Server {
	return dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body { return dnstest.Records(q, dnstest.A("127.0.0.1")) })
}

func TestHTTP01(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1") // must not be asked
	var seen *http.Request
	s := serveOn(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		seen = r
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		io.WriteString(w, validationKey)
	})
	s.Start()
	port := portOf(t, s.Listener.Addr())
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, Resolver: loopbackDNS(t).Address, AllowNetworks: networks("127.0.0.0/8")})
	for _, tt := range []struct{ kind, value, host string }{
		{"dns", "gw.example", fmt.Sprintf("gw.example:%d", port)},
		{"dns", "GW.Example", fmt.Sprintf("gw.example:%d", port)},
		{"ip", "127.0.0.1", fmt.Sprintf("127.0.0.1:%d", port)},
	} {
		if err := v.Validate(t.Context(), httpRequest(tt.kind, tt.value)); err != nil {
			t.Errorf("%s %s: %v", tt.kind, tt.value, err)
			continue
		}
		if seen.Method != http.MethodGet || seen.URL.Path != challengePath || seen.Host != tt.host || !strings.Contains(seen.UserAgent(), "deviceca") ||
			seen.Header.Get("Cookie") != "" || seen.Header.Get("Accept-Encoding") != "" {
			t.Errorf("%s %s: asked %s %s at %s with %v", tt.kind, tt.value, seen.Method, seen.URL, seen.Host, seen.Header)
		}
	}
	// By default loopback is not contacted, whatever it is called.
	seen = nil
	v = newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, Resolver: loopbackDNS(t).Address})
	wantFault(t, v.Validate(t.Context(), httpRequest("dns", "gw.example")), "connection", "127.0.0.1")
	wantFault(t, v.Validate(t.Context(), httpRequest("dns", "localhost")), "connection", "127.0.0.1")
	wantFault(t, v.Validate(t.Context(), httpRequest("ip", "127.0.0.1")), "rejectedIdentifier", "127.0.0.1")
	if seen != nil {
		t.Error("it was contacted all the same")
	}
}

// TestHTTP01SystemResolver: without a resolver of its own, the hosts file counts.
func TestHTTP01SystemResolver(t *testing.T) {
	s := serveOn(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, validationKey) })
	s.Start()
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: portOf(t, s.Listener.Addr()), AllowNetworks: networks("127.0.0.0/8", "::1/128")})
	if err := v.Validate(t.Context(), httpRequest("dns", "localhost")); err != nil {
		t.Error(err)
	}
}

func TestHTTP01IPv6(t *testing.T) {
	host := ""
	s := serveOn(t, "[::1]:0", func(w http.ResponseWriter, r *http.Request) { host = r.Host; io.WriteString(w, validationKey) })
	s.Start()
	port := portOf(t, s.Listener.Addr())
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, AllowNetworks: networks("::1/128")})
	if err := v.Validate(t.Context(), httpRequest("ip", "::1")); err != nil || host != fmt.Sprintf("[::1]:%d", port) {
		t.Errorf("%v; Host: %s", err, host)
	}
}

func TestHTTP01Answers(t *testing.T) {
	secret := "do not show " + strings.Repeat("x", 100)
	for _, tt := range []struct {
		name          string
		answer        http.HandlerFunc
		problem, text string // "" for success
	}{
		{"white space behind it", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, validationKey+" \r\n\t\n") }, "", ""},
		{"white space before it", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, " "+validationKey) }, "incorrectResponse", ""},
		{"too much white space", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, validationKey+strings.Repeat(" ", 1000))
		}, "incorrectResponse", "more than"},
		{"no content", func(w http.ResponseWriter, r *http.Request) {}, "incorrectResponse", `""`},
		{"another account's", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, validationToken+".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTJ")
		}, "incorrectResponse", validationToken[:40]},
		{"the token alone", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, validationToken) }, "incorrectResponse", ""},
		{"control characters", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "\x1b[31m\r\nno") }, "incorrectResponse", `".[31m..no"`},
		{"a secret", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, secret) }, "incorrectResponse", "do not show"},
		{"not found", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "unauthorized", "404"},
		{"201", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201); io.WriteString(w, validationKey) }, "unauthorized", "201"},
		{"206", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(206); io.WriteString(w, validationKey) }, "unauthorized", "206"},
		{"a redirection to nowhere", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(302) }, "unauthorized", "302"},
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(validationKey, 100)); err != nil {
					return
				}
			}
		}, "incorrectResponse", "more than"},
		{"slow", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				io.WriteString(w, " ")
				w.(http.Flusher).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		}, "connection", "1s"},
		{"a large header", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 100<<10))
			io.WriteString(w, validationKey)
		}, "connection", ""},
		{"broken off", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, validationKey[:10])
		}, "connection", "broke off"},
		{"no HTTP", func(w http.ResponseWriter, r *http.Request) {
			c, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(c, "do not show this\r\n\r\n")
			c.Close()
		}, "connection", "HTTP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := serveOn(t, "127.0.0.1:0", tt.answer)
			s.Start()
			v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: portOf(t, s.Listener.Addr()), AllowNetworks: networks("127.0.0.0/8"), Timeout: time.Second})
			err := v.Validate(t.Context(), httpRequest("ip", "127.0.0.1"))
			if tt.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFault(t, err, tt.problem, tt.text)
			if strings.Contains(err.Error(), strings.Repeat("x", 40)) || tt.name == "no HTTP" && strings.Contains(err.Error(), "show") {
				t.Errorf("the error shows what the target holds: %v", err)
			}
		})
	}
}

func TestHTTP01Redirects(t *testing.T) {
	var victim atomic.Int32
	// A service of the CA's own host, at an address that is not allowed, on the port that is.
	inner := serveOn(t, "127.0.0.2:0", func(w http.ResponseWriter, r *http.Request) { victim.Add(1); io.WriteString(w, validationKey) })
	inner.Start()
	port := portOf(t, inner.Listener.Addr())
	elsewhere := serveOn(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) { victim.Add(1); io.WriteString(w, validationKey) })
	elsewhere.Start()
	secure := serveOn(t, "127.0.0.1:0", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/secret" {
			io.WriteString(w, "do not show")
			return
		}
		io.WriteString(w, validationKey)
	})
	secure.StartTLS() // with a certificate that nobody trusts
	tlsPort := portOf(t, secure.Listener.Addr())

	to := ""
	hops := 0
	front := serveOn(t, fmt.Sprintf("127.0.0.1:%d", port), func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/answer":
			if r.Referer() != "" || r.Header.Get("Cookie") != "" || r.UserAgent() == "" {
				t.Errorf("a redirection is followed with %v", r.Header)
			}
			io.WriteString(w, validationKey)
		case to == "again":
			hops++
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		}
	})
	front.Start()
	dns := dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body {
		if q.Name == "inner.example." {
			return dnstest.Records(q, dnstest.A("127.0.0.2"))
		}
		return dnstest.Records(q, dnstest.A("127.0.0.1"))
	})
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, TLSPort: tlsPort, Resolver: dns.Address, AllowNetworks: networks("127.0.0.1/32")})
	for _, tt := range []struct{ name, to, problem, text string }{
		{"another path", "/answer", "", ""},
		{"another host", fmt.Sprintf("http://central.example:%d/answer", port), "", ""},
		{"https, certificate unknown", fmt.Sprintf("https://central.example:%d/answer", tlsPort), "", ""},
		{"for ever", "again", "unauthorized", "5 times"},
		{"another port", elsewhere.URL + "/answer", "unauthorized", "port"},
		{"SSH's port", "http://127.0.0.1:22/", "unauthorized", "port"},
		{"a refused address", fmt.Sprintf("http://127.0.0.2:%d/", port), "connection", "127.0.0.2"},
		{"a refused address, by name", fmt.Sprintf("http://inner.example:%d/", port), "connection", "127.0.0.2"},
		{"a refused address, mapped", fmt.Sprintf("http://[::ffff:127.0.0.2]:%d/", port), "connection", "127.0.0.2"},
		{"metadata", "http://169.254.169.254/latest/meta-data/", "connection", "169.254.169.254"},
		{"an address written as a number", fmt.Sprintf("http://2130706434:%d/", port), "unauthorized", "no host"},
		{"an address written in hex", fmt.Sprintf("http://0x7f000002:%d/", port), "unauthorized", "no host"},
		{"a file", "file:///etc/passwd", "unauthorized", "http and https"},
		{"gopher", "gopher://127.0.0.1:70/", "unauthorized", "http and https"},
		{"a password", fmt.Sprintf("http://a:b@central.example:%d/answer", port), "unauthorized", "password"},
		{"no URL", "http://%zz/", "connection", ""},
		{"https to a server without TLS", fmt.Sprintf("https://central.example:%d/answer", port), "connection", ""},
		{"where something else stands", fmt.Sprintf("https://central.example:%d/secret", tlsPort), "incorrectResponse", "something other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to = tt.to
			err := v.Validate(t.Context(), httpRequest("dns", "gw.example"))
			if tt.problem == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantFault(t, err, tt.problem, tt.text)
			if strings.Contains(err.Error(), "do not show") {
				t.Errorf("the error shows what the requester chose to read: %v", err)
			}
		})
	}
	if victim.Load() != 0 {
		t.Errorf("%d requests reached what is not allowed", victim.Load())
	}
	if hops != 6 {
		t.Errorf("%d requests of a chain without end", hops)
	}
}

// TestRebinding: the address that was judged is the one that is dialled, and refused ones are passed over.
func TestRebinding(t *testing.T) {
	var victim, good atomic.Int32
	inner := serveOn(t, "127.0.0.2:0", func(w http.ResponseWriter, r *http.Request) { victim.Add(1); io.WriteString(w, validationKey) })
	inner.Start()
	port := portOf(t, inner.Listener.Addr())
	front := serveOn(t, fmt.Sprintf("127.0.0.1:%d", port), func(w http.ResponseWriter, r *http.Request) { good.Add(1); io.WriteString(w, validationKey) })
	front.Start()
	dns := dnstest.New(t, func(q dnstest.Question, n int) []dnstest.Body {
		switch q.Name {
		case "turns.example.": // good when it is looked at, bad when it is used
			return dnstest.Records(q, []dnstest.Body{dnstest.A("127.0.0.1"), dnstest.A("127.0.0.2")}[n%2])
		case "both.example.":
			return dnstest.Records(q, dnstest.A("127.0.0.2"), dnstest.A("127.0.0.1"), dnstest.AAAA("::1"), dnstest.AAAA("::ffff:127.0.0.2"))
		case "six.example.": // nobody listens on ::1
			return dnstest.Records(q, dnstest.AAAA("::1"), dnstest.A("127.0.0.1"))
		case "many.example.":
			var all []dnstest.Body
			for range 100 {
				all = append(all, dnstest.AAAA("::1"))
			}
			return dnstest.Records(q, append(all, dnstest.A("127.0.0.1"))...)
		}
		return nil
	})
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, Resolver: dns.Address, AllowNetworks: networks("127.0.0.1/32")})
	for n := range 6 {
		err := v.Validate(t.Context(), httpRequest("dns", "turns.example"))
		if n%2 == 0 && err != nil {
			t.Error(err)
		}
		if n%2 == 1 {
			wantFault(t, err, "connection", "127.0.0.2")
		}
	}
	if got := good.Load(); got != 3 {
		t.Errorf("%d good validations", got)
	}
	if err := v.Validate(t.Context(), httpRequest("dns", "both.example")); err != nil {
		t.Error(err)
	}
	if victim.Load() != 0 {
		t.Error("the address that is not allowed was contacted")
	}
	wantFault(t, v.Validate(t.Context(), httpRequest("dns", "unknown.example")), "dns", "no such host")

	v = newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: port, Resolver: dns.Address, AllowNetworks: networks("127.0.0.1/32", "::1/128")})
	for _, host := range []string{"six.example", "many.example"} {
		if err := v.Validate(t.Context(), httpRequest("dns", host)); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	front.Close()
	err := v.Validate(t.Context(), httpRequest("dns", "six.example"))
	wantFault(t, err, "connection", fmt.Sprintf("[::1]:%d: ", port))
	wantFault(t, err, "connection", fmt.Sprintf("; 127.0.0.1:%d: connection refused", port)) // after the other
	// However many addresses a name has, four of a family are tried.
	err = v.Validate(t.Context(), httpRequest("dns", "many.example"))
	wantFault(t, err, "connection", "127.0.0.1")
	if n := strings.Count(fmt.Sprint(err), ": connection refused"); n != 5 {
		t.Errorf("%d addresses were tried: %v", n, err)
	}
}
