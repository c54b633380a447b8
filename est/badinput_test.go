package est_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/est"
)

// awayAuthority cannot look certificates up.
type awayAuthority struct{ est.Authority }

func (awayAuthority) AuthenticateCertificate(context.Context, []*x509.Certificate) (ca.Requester, error) {
	return ca.Requester{}, ca.Away("the ledger", io.ErrUnexpectedEOF)
}

func vectorFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/csr/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The body, from an authenticated requester: everything that is one request in a
// form that peers send is taken, all else gets a 4xx that says why.
func TestBody(t *testing.T) {
	e := newEnv(t)
	e.credentials["lamp-ref"].Uses = 1000
	key := newKey(t)
	der := newCSR(t, key, "lamp-1")
	flipped := bytes.Clone(der)
	flipped[len(flipped)-3] ^= 1
	text := base64.StdEncoding.EncodeToString(der)
	broken := func(sep string) string {
		var lines []string
		for chunk := range slices.Chunk([]byte(text), 64) {
			lines = append(lines, string(chunk))
		}
		return strings.Join(lines, sep)
	}
	armoured := func(label string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	good := armoured("CERTIFICATE REQUEST")
	tests := []struct {
		name   string
		body   string
		status int
		says   string
	}{
		{"base64, one line", text, 200, ""},
		{"base64, line feed at the end", text + "\n", 200, ""},
		{"base64, CRLF lines", broken("\r\n") + "\r\n", 200, ""},
		{"base64, LF lines", broken("\n"), 200, ""},
		{"base64, bare CR", broken("\r"), 200, ""},
		{"base64, spaces and tabs", "  \t" + broken(" \t ") + "  ", 200, ""},
		{"PEM", good, 200, ""},
		{"PEM, NEW", armoured("NEW CERTIFICATE REQUEST"), 200, ""},
		{"PEM, CRLF", strings.ReplaceAll(good, "\n", "\r\n"), 200, ""},
		{"PEM, line breaks lost", strings.ReplaceAll(good, "\n", " "), 200, ""},
		{"PEM, text around", "Certificate Request:\n    Data:\n        Version: 1 (0x0)\n" + good + "x", 200, ""},
		{"PEM, byte order mark", "\ufeff" + good, 200, ""},
		{"DER", string(der), 200, ""},

		{"empty", "", 400, "the body is empty"},
		{"white space", " \r\n", 400, "the body is empty"},
		{"garbage", "certainly not a request!", 400, "not base64"},
		{"JSON", `{"csr":"` + text + `"}`, 400, "not base64"},
		{"base64 of garbage", base64.StdEncoding.EncodeToString([]byte("certainly not a request")), 400, "not one DER-encoded PKCS#10"},
		{"base64 cut short", text[:len(text)/2/4*4], 400, "not one DER-encoded PKCS#10"},
		{"base64 cut within a quantum", text[:len(text)/2/4*4+1], 400, "not base64"},
		{"base64 without padding", strings.TrimRight(base64.StdEncoding.EncodeToString(append(bytes.Clone(der), make([]byte, 4-len(der)%3)...)), "="), 400, "not base64"},
		{"base64 of the URL alphabet", "-_" + text[2:], 400, "not base64"},
		{"text after base64", text + "!", 400, "not base64"},
		{"twice", text + "\n" + text, 400, "not"},
		{"trailing octet", base64.StdEncoding.EncodeToString(append(bytes.Clone(der), 0)), 400, "not one DER-encoded PKCS#10"},
		{"DER cut short", string(der[:len(der)-1]), 400, "not one DER-encoded PKCS#10"},
		{"DER with a trailing octet", string(der) + "\n", 400, "not one DER-encoded PKCS#10"},
		{"PEM of another kind", armoured("CERTIFICATE"), 400, "not one CERTIFICATE REQUEST"},
		{"PEM twice", good + good, 400, "not one CERTIFICATE REQUEST"},
		{"PEM, and a key", good + "-----BEGIN PRIVATE KEY-----\n", 400, "not one CERTIFICATE REQUEST"},
		{"PEM without end", good[:len(good)-10], 400, "not one CERTIFICATE REQUEST"},
		{"PEM with headers", strings.Replace(good, "\n", "\nProc-Type: 4\n\n", 1), 400, "not base64"},
		{"bad signature", base64.StdEncoding.EncodeToString(flipped), 400, "signature"},
		{"bad signature, vector", string(vectorFile(t, "badsig.csr")), 400, "sign"},
		{"weak RSA key, vector", string(vectorFile(t, "short-rsa.csr")), 400, "key"},
		{"weaker RSA key, vector", string(vectorFile(t, "short_key.der.csr")), 400, "key"},
		{"broken PEM, vector", string(vectorFile(t, "bad.csr")), 400, "not"},
		{"version 1", string(bytes.Replace(der, []byte{2, 1, 0}, []byte{2, 1, 1}, 1)), 400, "version other than 0"},
		{"another device's name", base64.StdEncoding.EncodeToString(newCSR(t, key, "lamp-2")), 403, "(rule names)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.do(t, call{path: "simpleenroll", body: strings.NewReader(tt.body), user: "lamp-ref", pass: lampSecret})
			if tt.status == 200 {
				if cert := r.certs(t)[0]; !key.PublicKey.Equal(cert.PublicKey) {
					t.Error("certificate for another key")
				}
				return
			}
			r.wantRefusal(t, tt.status, tt.says)
			if len(r.body) > 1100 {
				t.Errorf("the body is %d octets long", len(r.body))
			}
		})
	}
}

func TestWeakKeys(t *testing.T) {
	e := newEnv(t)
	for _, options := range []string{
		"rsa:1024",
		"rsa:2048 -pkeyopt rsa_keygen_pubexp:3",
		"ec -pkeyopt ec_paramgen_curve:secp224r1",
		"ec -pkeyopt ec_paramgen_curve:secp256k1",
	} {
		t.Run(options, func(t *testing.T) {
			args := append([]string{"req", "-nodes", "-keyout", t.TempDir() + "/key", "-subj", "/CN=lamp-1", "-newkey"}, strings.Fields(options)...)
			csr, err := exec.CommandContext(t.Context(), "openssl", args...).Output()
			if err != nil {
				t.Fatal(err)
			}
			r := e.do(t, call{path: "simpleenroll", body: bytes.NewReader(csr), user: "lamp-ref", pass: lampSecret})
			r.wantRefusal(t, http.StatusBadRequest, "key")
			if got := e.lastObserved(); got != "simpleenroll badKey" {
				t.Errorf("observed %q", got)
			}
		})
	}
}

func TestTransferEncodingIsIgnored(t *testing.T) {
	e := newEnv(t)
	for _, value := range []string{"base64", "binary", "7bit", "nonsense"} {
		e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "group-ref", pass: groupSecret,
			header: map[string]string{"Content-Transfer-Encoding": value}}).certs(t)
	}
}

func TestContentType(t *testing.T) {
	e := newEnv(t)
	tests := []struct {
		contentType string
		status      int
	}{
		{"application/pkcs10", 200},
		{"Application/PKCS10", 200},
		{"application/pkcs10; charset=utf-8", 200},
		{"application/pkcs10;", 200},
		{"application/pkcs10 ; x", 200},
		{"none", 415},
		{"application/x-www-form-urlencoded", 415},
		{"text/plain; application/pkcs10", 415},
		{"application/pkcs7-mime", 415},
	}
	for _, tt := range tests {
		t.Run(tt.contentType, func(t *testing.T) {
			r := e.do(t, call{path: "simpleenroll", contentType: tt.contentType, body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "group-ref", pass: groupSecret})
			if tt.status == 200 {
				r.certs(t)
				return
			}
			r.wantRefusal(t, tt.status, "application/pkcs10")
		})
	}
}

func TestPathsAndMethods(t *testing.T) {
	e := newEnv(t)
	body := func() io.Reader { return base64Body(newCSR(t, newKey(t), "lamp-1")) }
	tests := []struct {
		name, method, path string
		body               io.Reader
		status             int
		allow              string
	}{
		{"POST cacerts", "POST", "cacerts", body(), 405, "GET, HEAD"},
		{"POST csrattrs", "POST", "csrattrs", body(), 405, "GET, HEAD"},
		{"DELETE cacerts", "DELETE", "cacerts", nil, 405, "GET, HEAD"},
		{"OPTIONS label cacerts", "OPTIONS", "gateway/cacerts", nil, 405, "GET, HEAD"},
		{"GET simpleenroll", "GET", "simpleenroll", nil, 405, "POST"},
		{"HEAD simpleenroll", "HEAD", "simpleenroll", nil, 405, "POST"},
		{"PUT simpleenroll", "PUT", "simpleenroll", body(), 405, "POST"},
		{"GET simplereenroll", "GET", "gateway/simplereenroll", nil, 405, "POST"},
		{"unheard of method", "ENROL", "simpleenroll", nil, 405, "POST"},
		{"GET serverkeygen", "GET", "serverkeygen", nil, 405, "POST"},
		{"serverkeygen without rules", "POST", "serverkeygen", body(), 501, ""},
		{"fullcmc", "POST", "fullcmc", body(), 501, ""},
		{"label fullcmc", "POST", "gateway/fullcmc", body(), 501, ""},

		{"unknown label", "POST", "nosuch/simpleenroll", body(), 404, ""},
		{"unknown label, cacerts", "GET", "nosuch/cacerts", nil, 404, ""},
		{"unknown label, 501 otherwise", "POST", "nosuch/fullcmc", body(), 404, ""},
		{"escaped label", "GET", "gate%2Fway/cacerts", nil, 404, ""},
		{"operation as label", "GET", "cacerts/cacerts", nil, 404, ""},
		{"unknown operation", "GET", "nosuch", nil, 404, ""},
		{"unknown operation under a label", "POST", "gateway/nosuch", body(), 404, ""},
		{"nothing", "GET", "", nil, 404, ""},
		{"slash at the end", "GET", "cacerts/", nil, 404, ""},
		{"slash at the end, POST", "POST", "simpleenroll/", body(), 404, ""},
		{"two slashes", "GET", "/cacerts", nil, 404, ""},
		{"two labels", "GET", "gateway/gateway/cacerts", nil, 404, ""},
		{"dots", "GET", "gateway/../cacerts", nil, 404, ""},
		{"other case", "GET", "CACerts", nil, 404, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.do(t, call{method: tt.method, path: tt.path, body: tt.body, user: "lamp-ref", pass: lampSecret})
			if tt.method == "HEAD" {
				if r.status != tt.status || r.body != "" {
					t.Errorf("status %d, body %q", r.status, r.body)
				}
			} else {
				r.wantRefusal(t, tt.status, "")
			}
			r.wantHeader(t, "Allow", tt.allow)
			r.wantHeader(t, "Location", "")
		})
	}
	if len(e.requests) != 0 {
		t.Errorf("%d requests reached the core", len(e.requests))
	}
}

func TestSizes(t *testing.T) {
	e := newEnv(t)
	// onlyReader hides the length, so that the client sends chunks.
	type onlyReader struct{ io.Reader }
	big := strings.Repeat("A", est.MaxBody+1)
	wide := base64.StdEncoding.EncodeToString(make([]byte, ca.MaxCSR+1))
	full := base64.StdEncoding.EncodeToString(make([]byte, ca.MaxCSR))
	good := base64.StdEncoding.EncodeToString(newCSR(t, newKey(t), "lamp-1"))
	tests := []struct {
		name   string
		body   io.Reader
		status int
	}{
		{"chunked", onlyReader{strings.NewReader(good)}, 200},
		{"padded up to the limit", strings.NewReader(good + strings.Repeat("\n", est.MaxBody-len(good))), 200},
		{"beyond the limit", strings.NewReader(big), 413},
		{"beyond the limit, chunked", onlyReader{strings.NewReader(big)}, 413},
		{"far beyond the limit", strings.NewReader(strings.Repeat(big, 8)), 413},
		{"request too large when decoded", strings.NewReader(wide), 413},
		{"DER too large", strings.NewReader("0" + strings.Repeat("A", ca.MaxCSR)), 413},
		{"largest request, garbage", strings.NewReader(full), 400},
	}
	for _, tt := range tests {
		for _, http2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, http2 %t", tt.name, http2), func(t *testing.T) {
				body, err := io.ReadAll(tt.body)
				if err != nil {
					t.Fatal(err)
				}
				var again io.Reader = bytes.NewReader(body)
				if _, chunked := tt.body.(onlyReader); chunked {
					again = onlyReader{again}
				}
				tt.body = bytes.NewReader(body)
				r := e.do(t, call{path: "simpleenroll", body: again, user: "group-ref", pass: groupSecret, http2: http2})
				if tt.status == 200 {
					r.certs(t)
					return
				}
				r.wantRefusal(t, tt.status, "")
			})
		}
	}
}

// raw speaks HTTP/1.1 by hand and returns the answer and the connection.
func raw(t *testing.T, e *env, send string) (*http.Response, *bufio.Reader) {
	t.Helper()
	conn, err := tls.Dial("tcp", e.server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp, in
}

func TestSlowBody(t *testing.T) {
	const head = "POST /.well-known/est/%s HTTP/1.1\r\nHost: ca\r\nContent-Type: application/pkcs10\r\nContent-Length: 400\r\n\r\nMIIB"
	for _, tt := range []struct {
		path   string
		status int
	}{{"simpleenroll", 408}, {"nosuch", 404}, {"nosuch/simpleenroll", 404}, {"fullcmc", 501}, {"cacerts", 405}} {
		t.Run("HTTP/1.1 "+tt.path, func(t *testing.T) {
			e := newEnv(t, func(o *est.Options) { o.BodyTimeout = 100 * time.Millisecond })
			resp, in := raw(t, e, fmt.Sprintf(head, tt.path))
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			io.Copy(io.Discard, resp.Body)
			if _, err := in.ReadByte(); err != io.EOF {
				t.Errorf("the connection is not closed: %v", err)
			}
		})
	}
	t.Run("HTTP/2", func(t *testing.T) {
		e := newEnv(t, func(o *est.Options) { o.BodyTimeout = 100 * time.Millisecond })
		body, feed := io.Pipe()
		defer feed.Close()
		go io.WriteString(feed, "MIIB")
		r := e.do(t, call{path: "simpleenroll", body: body, user: "lamp-ref", pass: lampSecret, http2: true})
		if r.proto != 2 {
			t.Errorf("HTTP/%d", r.proto)
		}
		r.wantRefusal(t, http.StatusRequestTimeout, "took too long")
	})
}

// The deadline is for the body alone: a core that takes its time is waited for.
func TestSlowCore(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		e := newEnv(t, func(o *est.Options) { o.BodyTimeout = 100 * time.Millisecond })
		e.before = func(ctx context.Context, _ ca.Request) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(300 * time.Millisecond):
				return nil
			}
		}
		e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), user: "lamp-ref", pass: lampSecret, http2: http2}).certs(t)
	}
}

func TestOddRequests(t *testing.T) {
	e := newEnv(t)
	auth := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("lamp-ref:"+lampSecret)) + "\r\n"
	post := "POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: ca\r\nContent-Type: application/pkcs10\r\n" + auth
	tests := []struct {
		name, send string
		status     int
		says       string
	}{
		{"no length, no body", post + "\r\n", 400, "the body is empty"},
		{"length 0", post + "Content-Length: 0\r\n\r\n", 400, "the body is empty"},
		{"chunk of no size", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "ended before"},
		{"negative length", post + "Content-Length: -1\r\n\r\n", 400, ""},
		{"two lengths", post + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nMIIB", 400, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, _ := raw(t, e, tt.send)
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.status || !strings.Contains(string(body), tt.says) {
				t.Errorf("status %d, body %q, want %d with %q", resp.StatusCode, body, tt.status, tt.says)
			}
		})
	}
}

// Any number of spaces may follow the scheme, whose case does not matter (RFC 9110 §11.1, §11.4).
func TestAuthorizationSpaces(t *testing.T) {
	e := newEnv(t)
	pair := base64.StdEncoding.EncodeToString([]byte("lamp-ref:" + lampSecret))
	for _, value := range []string{"Basic " + pair, "Basic  " + pair, "bASIC    " + pair} {
		e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1")), header: map[string]string{"Authorization": value}}).certs(t)
	}
}

// Authorization fields that are no Basic, or no pair.
func TestAuthorizationField(t *testing.T) {
	e := newEnv(t)
	for _, value := range []string{"Bearer abc", "Basic", "Basic !!!", "Basic " + base64.StdEncoding.EncodeToString([]byte("no-colon")), "Digest username=\"x\"",
		"Basic " + base64.StdEncoding.EncodeToString([]byte(":")), "Basic " + base64.StdEncoding.EncodeToString([]byte("lamp-ref:"))} {
		for _, c := range []call{{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), "lamp-1"))}, {path: "csrattrs"}} {
			c.header = map[string]string{"Authorization": value}
			e.do(t, c).wantRefusal(t, http.StatusUnauthorized, "")
		}
	}
}

func TestCredentialStates(t *testing.T) {
	tests := []struct {
		reference string
		id        string
		status    int
		says      string
	}{
		{"spent-ref", "lamp-1", 401, "no uses left"},
		{"old-ref", "lamp-1", 401, "expired"},
		{"nobody", "lamp-1", 401, "unknown reference or wrong secret"},
		{"gone-ref", "lamp-9", 403, "retired"},
	}
	e := newEnv(t)
	for _, tt := range tests {
		t.Run(tt.reference, func(t *testing.T) {
			r := e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, newKey(t), tt.id)), user: tt.reference, pass: lampSecret})
			r.wantRefusal(t, tt.status, tt.says)
		})
	}
}

func TestDeviceStates(t *testing.T) {
	e := newEnv(t)
	soon := time.Now().Add(time.Hour)
	lamp1, lamp2, lamp8 := e.newIdentity(t, "lamp-1", soon, "lamp-1"), e.newIdentity(t, "lamp-2", soon), e.newIdentity(t, "lamp-8", soon)
	shared := newKey(t)
	e.do(t, call{path: "simpleenroll", body: base64Body(newCSR(t, shared, "lamp-2")), as: &lamp2}).certs(t)
	tests := []struct {
		name   string
		path   string
		as     *identity
		body   []byte
		status int
		says   string
	}{
		{"another device's name", "simpleenroll", &lamp1, newCSR(t, newKey(t), "lamp-2"), 403, "common name"},
		{"another device's key", "simpleenroll", &lamp1, newCSR(t, shared, "lamp-1"), 400, "another device"},
		{"suspended", "simplereenroll", &lamp8, newCSR(t, newKey(t), "lamp-8"), 403, "suspended"},
		{"re-enrol with other names", "simplereenroll", &lamp1, newCSR(t, newKey(t), "lamp-1", "other"), 403, "keeps the names"},
		{"enrol with other names", "simpleenroll", &lamp1, newCSR(t, newKey(t), "lamp-1", "other"), 200, ""},
		{"re-enrol with the same names", "simplereenroll", &lamp1, newCSR(t, newKey(t), "lamp-1", "lamp-1"), 200, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.do(t, call{path: tt.path, body: base64Body(tt.body), as: tt.as})
			if tt.status == 200 {
				r.certs(t)
				return
			}
			r.wantRefusal(t, tt.status, tt.says)
		})
	}
}

// Without TLS there is no EST (RFC 7030 §3.3), and no panic.
func TestWithoutTLS(t *testing.T) {
	e := newEnv(t)
	handler := est.New(est.Options{Authority: e.authority, Logger: slog.New(slog.DiscardHandler)})
	for _, path := range []string{"cacerts", "csrattrs"} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", est.Prefix+path, nil))
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "TLS only") {
			t.Errorf("%s: status %d, %s", path, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest("POST", est.Prefix+"simpleenroll", base64Body(newCSR(t, newKey(t), "lamp-1")))
	r.Header.Set("Content-Type", "application/pkcs10")
	r.SetBasicAuth("lamp-ref", lampSecret)
	handler.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden || e.secrets != 0 {
		t.Errorf("status %d, secret read %d times", w.Code, e.secrets)
	}
}

// A refusal leaves the connection usable, so that the client may try again on it.
func TestKeepAlive(t *testing.T) {
	e := newEnv(t)
	for _, tt := range []struct {
		path, contentType string
		status            int
	}{{"simpleenroll", "application/pkcs10", 401}, {"simpleenroll", "text/plain", 415}, {"nosuch", "application/pkcs10", 404}, {"cacerts", "application/pkcs10", 405}, {"fullcmc", "application/pkcs10", 501}} {
		t.Run(fmt.Sprint(tt.status), func(t *testing.T) {
			send := fmt.Sprintf("POST /.well-known/est/%s HTTP/1.1\r\nHost: ca\r\nContent-Type: %s\r\nContent-Length: 4\r\n\r\nMIIB", tt.path, tt.contentType)
			first, in := raw(t, e, send+send)
			io.Copy(io.Discard, first.Body)
			second, err := http.ReadResponse(in, nil)
			if err != nil || first.StatusCode != tt.status || second.StatusCode != tt.status {
				t.Errorf("%v, %v", first.Status, err)
			}
		})
	}
}
