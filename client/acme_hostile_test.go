package client

import (
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestHostileACMEServer: whatever the server does, nothing is stored, nothing is said to
// another host, and the error says what it was.
func TestHostileACMEServer(t *testing.T) {
	ca, foreign := newTestCA(t, "good"), newTestCA(t, "foreign")
	type handler = func(w http.ResponseWriter, r *http.Request, q *acmeQuery)
	elsewhere := newESTServer(t, ca, nil) // even with a certificate that we would trust
	send := func(kind, text string) func(*acmeServer) handler {
		return func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Content-Type", kind)
				io.WriteString(w, text)
			}
		}
	}
	endless := func(kind string, code int) func(*acmeServer) handler {
		return func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Content-Type", kind)
				w.WriteHeader(code)
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("A", 8192)); err != nil {
						return
					}
				}
			}
		}
	}
	// change sends the honest directory with one member changed.
	change := func(name string, value any) func(*acmeServer) handler {
		return func(s *acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				d := s.directory()
				d[name] = value
				s.json(w, 200, d)
			}
		}
	}
	order := func(v map[string]any) func(*acmeServer) handler {
		return func(s *acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Location", s.URL+"/acme/order/0")
				s.json(w, 201, v)
			}
		}
	}
	chain := func(make func(s *acmeServer, o *acmeTestOrder) []*x509.Certificate) func(*acmeServer) handler {
		return func(s *acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) { s.chain(w, make(s, s.orders[q.n])...) }
		}
	}
	const pemType = "application/pem-certificate-chain"
	tests := []struct {
		name string
		op   string
		do   func(s *acmeServer) handler
		edit func(*x509.Certificate)
		want Kind
		text string
	}{
		{name: "directory: a web page", op: "directory", do: send("text/html", "<html>log in</html>"), want: BadReply, text: "text/html"},
		{name: "directory: garbage", op: "directory", do: send("application/json", "{\x00"), want: BadReply, text: "cannot be used"},
		{name: "directory: trailing data", op: "directory", do: send("application/json", "{} {}"), want: BadReply, text: "cannot be used"},
		{name: "directory: nothing in it", op: "directory", do: send("application/json", "{}"), want: BadReply, text: "no URL"},
		{name: "directory: endless", op: "directory", do: endless("application/json", 200), want: BadReply, text: "longer than"},
		{name: "directory: deep", op: "directory", do: send("application/json", strings.Repeat("[", 100000)), want: BadReply, text: "cannot be used"},
		{name: "directory: accounts elsewhere", op: "directory", do: change("newAccount", elsewhere.URL+"/x"), want: BadReply, text: elsewhere.URL},
		{name: "directory: orders over http", op: "directory", do: change("newOrder", "http://127.0.0.1/x"), want: BadReply, text: "http://127.0.0.1"},
		{name: "directory: nonces with a password", op: "directory", do: change("newNonce", strings.Replace(elsewhere.URL, "//", "//a:b@", 1)), want: BadReply, text: "newNonce"},
		{name: "directory: renewal elsewhere", op: "directory", do: change("renewalInfo", elsewhere.URL), want: BadReply, text: "renewalInfo"},
		{name: "directory: redirected", op: "directory", want: Untrusted, text: "302", do: func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				http.Redirect(w, r, elsewhere.URL, http.StatusFound)
			}
		}},
		{name: "no nonce", op: "newNonce", do: send("text/plain", ""), want: BadReply, text: "no nonce"},
		{name: "a nonce that is none", op: "newNonce", want: BadReply, text: "no nonce", do: func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) { w.Header().Set("Replay-Nonce", "a b") }
		}},
		{name: "a nonce without end", op: "newNonce", want: BadReply, text: "no nonce", do: func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Replay-Nonce", strings.Repeat("A", maxNonce+1))
			}
		}},
		{name: "account elsewhere", op: "newAccount", want: BadReply, text: elsewhere.URL, do: func(s *acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Location", elsewhere.URL+"/1")
				s.json(w, 201, map[string]string{"status": "valid"})
			}
		}},
		{name: "account without place", op: "newAccount", do: send("application/json", `{"status":"valid"}`), want: BadReply, text: "account is at"},
		{name: "account revoked", op: "newAccount", do: send("application/json", `{"status":"revoked"}`), want: Unauthenticated, text: "revoked"},
		{name: "signed request redirected", op: "newAccount", want: Untrusted, text: "307", do: func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			}
		}},
		{name: "endless error", op: "newOrder", do: endless("text/plain", 403), want: BadReply, text: "AAAA"},
		{name: "endless problem", op: "newOrder", do: endless("application/problem+json", 403), want: BadReply, text: "AAAA"},
		{name: "500 without words", op: "newOrder", do: func(*acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) { w.WriteHeader(500) }
		}, want: BadReply, text: "500"},
		{name: "order elsewhere", op: "newOrder", want: BadReply, text: "the order is at " + elsewhere.URL, do: func(s *acmeServer) handler {
			return func(w http.ResponseWriter, r *http.Request, q *acmeQuery) {
				w.Header().Set("Location", elsewhere.URL+"/1")
				s.json(w, 201, map[string]string{"status": "pending"})
			}
		}},
		{name: "order without status", op: "newOrder", do: order(map[string]any{}), want: BadReply, text: "without status"},
		{name: "order of another status", op: "newOrder", do: order(map[string]any{"status": "perhaps\x1b[31m"}), want: BadReply, text: "perhaps.[31m"},
		{name: "order with authorizations without end", op: "newOrder", do: order(map[string]any{"status": "pending", "authorizations": make([]string, 101)}), want: BadReply, text: "101"},
		{name: "authorization elsewhere", op: "newOrder", do: order(map[string]any{"status": "pending", "authorizations": []string{elsewhere.URL + "/1"}}), want: BadReply, text: elsewhere.URL},
		{name: "finalize elsewhere", op: "newOrder", do: order(map[string]any{"status": "ready", "finalize": elsewhere.URL + "/1"}), want: BadReply, text: elsewhere.URL},
		{name: "certificate elsewhere", op: "newOrder", do: order(map[string]any{"status": "valid", "certificate": elsewhere.URL + "/1"}), want: BadReply, text: elsewhere.URL},
		{name: "no certificate", op: "newOrder", do: order(map[string]any{"status": "valid"}), want: BadReply, text: "no URL"},
		{name: "never ready", op: "order", do: order(map[string]any{"status": "pending"}), want: Pending, text: "not decided"},
		{name: "ready for ever", op: "finalize", do: order(map[string]any{"status": "ready"}), want: BadReply, text: "ready when it should be valid"},
		{name: "another's identifier", op: "authorization", do: send("application/json", `{"status":"pending","identifier":{"type":"dns","value":"bank.example"}}`), want: BadReply, text: "bank.example"},
		{name: "another kind of identifier", op: "authorization", do: send("application/json", `{"status":"pending","identifier":{"type":"ip","value":"gw-1.example"}}`), want: BadReply, text: "not asked for"},
		{name: "no challenge", op: "authorization", do: send("application/json", `{"status":"pending","identifier":{"type":"dns","value":"gw-1.example"}}`), want: Refused, text: "nothing it offers"},
		{name: "a token that is a path", op: "authorization", do: send("application/json",
			`{"status":"pending","identifier":{"type":"dns","value":"gw-1.example"},"challenges":[{"type":"http-01","token":"../x","status":"pending"}]}`), want: BadReply, text: "base64url"},
		{name: "challenge elsewhere", op: "authorization", do: send("application/json",
			`{"status":"pending","identifier":{"type":"dns","value":"gw-1.example"},"challenges":[{"type":"http-01","token":"x","status":"pending","url":"`+elsewhere.URL+`/1"}]}`), want: BadReply, text: elsewhere.URL},
		{name: "never validated", op: "challenge", do: send("application/json", `{"status":"processing"}`), want: Pending, text: "has not looked at gw-1.example"},
		{name: "certificate: JSON", op: "certificate", do: send("application/json", "{}"), want: BadReply, text: pemType},
		{name: "certificate: nothing", op: "certificate", do: send(pemType, ""), want: BadReply, text: "empty"},
		{name: "certificate: garbage", op: "certificate", do: send(pemType, "garbage"), want: BadReply, text: "other than certificates"},
		{name: "certificate: endless", op: "certificate", do: endless(pemType, 200), want: BadReply, text: "longer than"},
		{name: "certificate: a key", op: "certificate", do: send(pemType, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), want: BadReply, text: "other than certificates"},
		{name: "certificate: bad DER", op: "certificate", do: send(pemType, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), want: BadReply, text: "cannot be used"},
		{name: "certificate: cut short", op: "certificate", do: send(pemType, "-----BEGIN CERTIFICATE-----\nAAAA\n"), want: BadReply, text: "not PEM"},
		{name: "certificate: too many", op: "certificate", want: BadReply, text: "more than 10", do: chain(func(s *acmeServer, o *acmeTestOrder) (out []*x509.Certificate) {
			for range 11 {
				out = append(out, ca.issuing)
			}
			return out
		})},
		{name: "wrong key", op: "certificate", want: BadReply, text: "our key", do: chain(func(s *acmeServer, o *acmeTestOrder) []*x509.Certificate {
			return []*x509.Certificate{ca.leaf(t, "gw-1", newKey(t).Public(), nil), ca.issuing}
		})},
		{name: "foreign chain", op: "certificate", want: BadReply, text: "chain", do: chain(func(s *acmeServer, o *acmeTestOrder) []*x509.Certificate {
			return []*x509.Certificate{foreign.leaf(t, "gw-1", o.cert.PublicKey, nil), foreign.issuing, foreign.root}
		})},
		{name: "chain broken off", op: "certificate", want: BadReply, text: "chain", do: chain(func(s *acmeServer, o *acmeTestOrder) []*x509.Certificate {
			return []*x509.Certificate{o.cert}
		})},
		{name: "another subject", edit: func(c *x509.Certificate) { c.RawSubject = nil; c.Subject.CommonName = "gw-2" }, want: BadReply, text: "gw-2"},
		{name: "a CA certificate", edit: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, want: BadReply, text: "CA's"},
		{name: "expired", edit: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, want: BadReply, text: "expired"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newACMEServer(t, ca)
			s.edit = tt.edit
			if tt.do != nil {
				s.ops[tt.op] = tt.do(s)
			}
			c := s.config(t)
			c.HTTP01, c.AltNames.DNS = http01At, []string{"gw-1.example"}
			c.Enroller = newFastACME(t, c)
			_, err := Run(t.Context(), c)
			wantError(t, err, tt.want, tt.text)
			wantNoIdentity(t, c.Dir)
		})
	}
	elsewhere.mu.Lock()
	if n := len(elsewhere.requests); n != 0 {
		t.Errorf("another server was asked %d times", n)
	}
	elsewhere.mu.Unlock()
	t.Run("another CA's server", func(t *testing.T) {
		s := newACMEServer(t, foreign)
		c := s.config(t)
		c.Trust = Trust{Roots: []*x509.Certificate{ca.root}}
		_, err := Run(t.Context(), c)
		wantError(t, err, Untrusted, "not trusted")
		if len(s.asked) != 0 {
			t.Errorf("the server was asked for %v", s.asked)
		}
	})
	t.Run("names left out", func(t *testing.T) {
		s := newACMEServer(t, ca)
		s.edit = func(c *x509.Certificate) { c.DNSNames = nil }
		c := s.config(t)
		c.HTTP01, c.AltNames.DNS = http01At, []string{"gw-1.example"}
		if r, err := Run(t.Context(), c); err != nil || len(r.Warnings) != 1 || !strings.Contains(fmt.Sprint(r.Warnings), "gw-1.example") {
			t.Errorf("%v, %v", r.Warnings, err)
		}
	})
}

// FuzzParseChain: what is taken for a chain holds certificates and nothing else.
func FuzzParseChain(f *testing.F) {
	ca := newTestCA(f, "good")
	good := string(encodeCertificates(ca.issuing, ca.root))
	for _, seed := range []string{good, "\n" + good + "\r\n", good + "x", "x" + good, good[:100], "", strings.Replace(good, "\n", "\nA: b\n\n", 1)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		certs, err := parseChain(text)
		if err != nil {
			return
		}
		again, err := parseChain(encodeCertificates(certs...))
		if err != nil || len(again) != len(certs) || len(certs) == 0 {
			t.Errorf("%d certificates, then %d, %v", len(certs), len(again), err)
		}
	})
}
