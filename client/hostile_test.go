package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestHostileServer: whatever the server does, nothing is stored, and the
// error says what it was.
func TestHostileServer(t *testing.T) {
	ca := newTestCA(t, "good")
	foreign := newTestCA(t, "foreign")
	pkcs7 := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/pkcs7-mime") }
	tests := []struct {
		name string
		op   string
		do   func(s *estServer) http.HandlerFunc
		edit func(*x509.Certificate)
		want Kind
		text string
	}{
		{name: "wrong key in the reply", op: "simpleenroll", want: BadReply, text: "our key", do: func(s *estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				s.certs(w, ca.leaf(t, "sensor-1", newKey(t).Public(), nil))
			}
		}},
		{name: "foreign chain", op: "simpleenroll", want: BadReply, text: "chain", do: func(s *estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				csr, _ := x509.ParseCertificateRequest(s.last("simpleenroll").csr)
				s.certs(w, foreign.leaf(t, "sensor-1", csr.PublicKey, nil), foreign.issuing, foreign.root)
			}
		}},
		{name: "another subject", edit: func(c *x509.Certificate) { c.RawSubject = nil; c.Subject.CommonName = "sensor-2" }, want: BadReply, text: "sensor-2"},
		{name: "a CA certificate", edit: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, want: BadReply, text: "CA's"},
		{name: "expired certificate", edit: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}, want: BadReply, text: "expired"},
		{name: "oversized body", op: "simpleenroll", want: BadReply, text: "longer than", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				pkcs7(w)
				io.WriteString(w, strings.Repeat("A", maxReply+1))
			}
		}},
		{name: "endless body", op: "simpleenroll", want: BadReply, text: "longer than", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				pkcs7(w)
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("A", 8192)); err != nil {
						return
					}
				}
			}
		}},
		{name: "endless error", op: "simpleenroll", want: Refused, text: "AAAA", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusForbidden)
				for r.Context().Err() == nil {
					if _, err := io.WriteString(w, strings.Repeat("A", 8192)); err != nil {
						return
					}
				}
			}
		}},
		{name: "truncated base64", op: "simpleenroll", want: BadReply, text: "cannot be used", do: func(s *estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				pkcs7(w)
				text := certsOnlyText(s.issue(s.last("simpleenroll").csr))
				io.WriteString(w, text[:len(text)/2-1])
			}
		}},
		{name: "empty body", op: "simpleenroll", want: BadReply, text: "empty", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { pkcs7(w) }
		}},
		{name: "no certificates inside", op: "simpleenroll", want: BadReply, text: "cannot be used", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { pkcs7(w); io.WriteString(w, certsOnlyText()) }
		}},
		{name: "a web page", op: "cacerts", want: BadReply, text: "text/html", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, "<html>log in</html>")
			}
		}},
		{name: "no root in cacerts", op: "cacerts", want: BadReply, text: "no root", do: func(s *estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) { s.certs(w, ca.issuing) }
		}},
		{name: "401", op: "simpleenroll", want: Unauthenticated, text: "spent", do: status(401, "the credential is spent", "")},
		{name: "403", op: "simpleenroll", want: Refused, text: "level hsm", do: status(403, "level hsm wants evidence", "")},
		{name: "400", op: "simpleenroll", want: BadRequest, text: "weak", do: status(400, "weak key", "")},
		{name: "404", op: "simpleenroll", want: BadRequest, text: "404", do: status(404, "", "")},
		{name: "500", op: "simpleenroll", want: BadReply, text: "500", do: status(500, "", "")},
		{name: "redirect downgrade", op: "simpleenroll", want: Untrusted, text: "http://", do: func(s *estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, strings.Replace(s.URL, "https", "http", 1)+r.URL.Path, http.StatusTemporaryRedirect)
			}
		}},
		{name: "redirect loop", op: "simpleenroll", want: Untrusted, text: "too many", do: func(*estServer) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, ca, nil)
			s.edit = tt.edit
			if tt.do != nil {
				s.ops[tt.op] = tt.do(s)
			}
			c := s.config(t)
			c.Enroller = newFastEST(t, c)
			_, err := Run(t.Context(), c)
			wantError(t, err, tt.want, tt.text)
			wantNoIdentity(t, c.Dir)
		})
	}
}

func status(code int, text, retryAfter string) func(*estServer) http.HandlerFunc {
	return func(*estServer) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if retryAfter != "" {
				w.Header().Set("Retry-After", retryAfter)
			}
			w.WriteHeader(code)
			io.WriteString(w, text)
		}
	}
}

func wantError(t *testing.T, err error, want Kind, text string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if KindOf(err) != want || !strings.Contains(err.Error(), text) {
		t.Errorf("error %q of kind %v; want one of kind %v with %q", err, KindOf(err), want, text)
	}
	if strings.Contains(err.Error(), testSecret) || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("the error shows the secret or control characters: %q", err)
	}
}

func wantNoIdentity(t *testing.T, dir string) {
	t.Helper()
	if _, err := (&Store{Dir: dir}).Load(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("Load after a failure: %v", err)
	}
	for _, name := range []string{KeyFile, CertFile, ChainFile, nextFile} {
		if _, err := os.Stat(dir + "/" + name); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

// TestRedirectElsewhere: another host never sees the request, let alone the secret.
func TestRedirectElsewhere(t *testing.T) {
	ca := newTestCA(t, "good")
	var asked atomic.Int32
	thief := newESTServer(t, ca, nil) // even with a certificate that we would trust
	thief.ops["simpleenroll"] = func(http.ResponseWriter, *http.Request) { asked.Add(1) }
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := newESTServer(t, ca, nil)
		s.ops["simpleenroll"] = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, thief.URL+r.URL.Path, code)
		}
		c := s.config(t)
		_, err := Run(t.Context(), c)
		wantError(t, err, Untrusted, "127.0.0.1")
		wantNoIdentity(t, c.Dir)
	}
	if asked.Load() != 0 || len(thief.requests) != 0 {
		t.Errorf("the other server was asked %d times", len(thief.requests))
	}
	// Within the origin a redirection is followed (RFC 7030 §3.2.1), secret and body included.
	s := newESTServer(t, ca, nil)
	s.ops["simpleenroll"] = func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/moved/") {
			s.answer(w, *s.last("simpleenroll"))
			return
		}
		http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusTemporaryRedirect)
	}
	if _, err := Run(t.Context(), s.config(t)); err != nil {
		t.Error(err)
	}
}

// TestUntrustedServer: the secret goes to nobody who did not prove who they are.
func TestUntrustedServer(t *testing.T) {
	ca, foreign := newTestCA(t, "good"), newTestCA(t, "foreign")
	sum := sha256.Sum256(ca.root.Raw)
	tests := []struct {
		name  string
		ca    *testCA
		edit  func(*x509.Certificate)
		trust Trust
		text  string
		setup func(*estServer)
	}{
		{name: "expired server certificate", ca: ca, trust: Trust{Roots: []*x509.Certificate{ca.root}}, text: "not trusted", edit: func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}},
		{name: "wrong host name", ca: ca, trust: Trust{Roots: []*x509.Certificate{ca.root}}, text: "not trusted", edit: func(c *x509.Certificate) {
			c.IPAddresses = []net.IP{net.IPv4(192, 0, 2, 1)}
		}},
		{name: "another CA's server", ca: foreign, trust: Trust{Roots: []*x509.Certificate{ca.root}}, text: "not trusted"},
		{name: "a device's certificate as server", ca: ca, trust: Trust{Roots: []*x509.Certificate{ca.root}}, text: "not trusted", edit: func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}},
		{name: "pin: another root", ca: foreign, trust: Trust{RootSHA256: sum[:]}, text: "SHA-256"},
		{name: "pin: the right root shown by another's server", ca: foreign, trust: Trust{RootSHA256: sum[:]}, text: "not trusted", setup: func(s *estServer) {
			s.ops["cacerts"] = func(w http.ResponseWriter, r *http.Request) { s.certs(w, ca.root, foreign.root) }
		}},
		{name: "pin: an issuing certificate pinned", ca: ca, trust: Trust{RootSHA256: digest(ca.issuing)}, text: "SHA-256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newESTServer(t, tt.ca, tt.edit)
			if tt.setup != nil {
				tt.setup(s)
			}
			c := s.config(t)
			c.Trust = tt.trust
			c.Enroller = newFastEST(t, c)
			_, err := Run(t.Context(), c)
			wantError(t, err, Untrusted, tt.text)
			wantNoIdentity(t, c.Dir)
			if slices.ContainsFunc(s.requests, func(r seen) bool { return r.secret != "" || r.csr != nil }) {
				t.Error("the server was told a secret or a request")
			}
		})
	}
	t.Run("pin: an operation without CACerts before it", func(t *testing.T) {
		s := newESTServer(t, foreign, nil)
		c := s.config(t)
		c.Trust = Trust{RootSHA256: digest(ca.root)}
		names, err := DeviceNames("sensor-1", AltNames{})
		if err != nil {
			t.Fatal(err)
		}
		req := &Request{Key: newKey(t), Names: names, Auth: Auth{Credential: c.Credential}}
		_, err = newFastEST(t, c).Enroll(t.Context(), req)
		wantError(t, err, Untrusted, "SHA-256")
		if s.count("simpleenroll") != 0 {
			t.Error("the request was sent")
		}
	})
	t.Run("plain HTTP", func(t *testing.T) {
		s := httptest.NewServer(http.NotFoundHandler())
		defer s.Close()
		c := Config{Dir: t.TempDir(), Device: "sensor-1", Trust: Trust{Roots: []*x509.Certificate{ca.root}}, Server: s.URL}
		_, err := Run(t.Context(), c)
		wantError(t, err, Usage, "https only")
		c.Server = strings.Replace(s.URL, "http", "https", 1)
		_, err = Run(t.Context(), c)
		wantError(t, err, Untrusted, "does not speak TLS")
	})
	t.Run("no trust at all", func(t *testing.T) {
		s := newESTServer(t, ca, nil)
		c := s.config(t)
		c.Trust = Trust{}
		_, err := Run(t.Context(), c)
		wantError(t, err, Usage, "recognise the CA")
		if len(s.requests) != 0 || HintOf(err) == "" {
			t.Error("the server was asked, or there is no hint")
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		s := newESTServer(t, ca, nil)
		s.TLS.MaxVersion = tls.VersionTLS12
		old := httptest.NewUnstartedServer(s)
		old.TLS = s.TLS.Clone()
		old.Config.ErrorLog = s.Config.ErrorLog
		old.StartTLS()
		defer old.Close()
		c := s.config(t)
		c.Server, c.Wait = old.URL, time.Millisecond
		if _, err := Run(t.Context(), c); err == nil {
			t.Error("TLS 1.2 was used without being allowed")
		}
		c.MinTLS, c.Wait = tls.VersionTLS12, time.Minute
		if _, err := Run(t.Context(), c); err != nil {
			t.Error(err)
		}
	})
}

func digest(c *x509.Certificate) []byte {
	sum := sha256.Sum256(c.Raw)
	return sum[:]
}
