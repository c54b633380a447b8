package est_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/est"
)

// enrolOver enrols over a connection that the request is bound to.
func (e *env) enrolOver(t *testing.T, config *tls.Config, path string, body func(tls.ConnectionState) []byte) result {
	t.Helper()
	return e.postOver(t, config, path, "application/pkcs10", body)
}

// postOver connects, lets body see the connection, and sends over it what it returns.
func (e *env) postOver(t *testing.T, config *tls.Config, path, contentType string, body func(tls.ConnectionState) []byte) result {
	t.Helper()
	config.RootCAs = e.server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	config.ServerName = "example.com"
	conn, err := tls.Dial("tcp", e.server.Listener.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	der := body(conn.ConnectionState())
	r, err := http.NewRequestWithContext(t.Context(), "POST", e.server.URL+est.Prefix+path, base64Body(der))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	r.SetBasicAuth("lamp-ref", lampSecret)
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{resp.StatusCode, resp.ProtoMajor, resp.Header, string(text)}
}

func exporter(t *testing.T, state tls.ConnectionState, context []byte) string {
	t.Helper()
	value, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", context, 32)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(value)
}

func TestChannelBinding(t *testing.T) {
	e := newKeygenEnv(t)
	e.credentials["lamp-ref"].Uses = 100
	key := newKey(t)
	v12, v13 := func() *tls.Config { return &tls.Config{MaxVersion: tls.VersionTLS12} }, func() *tls.Config { return &tls.Config{MinVersion: tls.VersionTLS13} }
	var earlier string // of another connection
	tests := []struct {
		name, path string
		config     *tls.Config
		challenge  func(tls.ConnectionState) string
		status     int
		says       string
	}{
		{"TLS 1.3, exporter", "simpleenroll", v13(), func(s tls.ConnectionState) string { earlier = exporter(t, s, []byte{}); return earlier }, 200, ""},
		{"TLS 1.3, exporter, demanded", "bound/simpleenroll", v13(), func(s tls.ConnectionState) string { return exporter(t, s, nil) }, 200, ""},
		{"TLS 1.2, unique", "simpleenroll", v12(), func(s tls.ConnectionState) string { return base64.StdEncoding.EncodeToString(s.TLSUnique) }, 200, ""},
		{"TLS 1.2, unique, demanded", "bound/simpleenroll", v12(), func(s tls.ConnectionState) string { return base64.StdEncoding.EncodeToString(s.TLSUnique) }, 200, ""},
		{"TLS 1.2, exporter", "bound/simpleenroll", v12(), func(s tls.ConnectionState) string { return exporter(t, s, []byte{}) }, 200, ""},
		{"not demanded, none", "simpleenroll", v13(), func(tls.ConnectionState) string { return "" }, 200, ""},
		{"on serverkeygen", "bound/serverkeygen", v13(), func(s tls.ConnectionState) string { return exporter(t, s, nil) }, 200, ""},

		{"demanded, none", "bound/simpleenroll", v13(), func(tls.ConnectionState) string { return "" }, 403, "linking of identity"},
		{"another connection's", "simpleenroll", v13(), func(tls.ConnectionState) string { return earlier }, 400, "channel binding"},
		{"another connection's, demanded", "bound/simpleenroll", v13(), func(tls.ConnectionState) string { return earlier }, 400, "channel binding"},
		{"TLS 1.2, exporter without context", "simpleenroll", v12(), func(s tls.ConnectionState) string { return exporter(t, s, nil) }, 400, "channel binding"},
		{"a password", "simpleenroll", v12(), func(tls.ConnectionState) string { return "secret" }, 400, "channel binding"},
		{"cut short", "simpleenroll", v13(), func(s tls.ConnectionState) string { return strings.TrimRight(exporter(t, s, nil), "=") }, 400, "channel binding"},
		{"the secret is not logged", "simpleenroll", v13(), func(tls.ConnectionState) string { return "do-not-log-me" }, 400, "channel binding"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := e.enrolOver(t, tt.config, tt.path, func(s tls.ConnectionState) []byte {
				challenge := tt.challenge(s)
				if challenge == "" {
					return newCSR(t, key, "lamp-1")
				}
				return csrWith(t, key, "lamp-1", challengePassword(challenge))
			})
			switch {
			case tt.status != 200:
				r.wantRefusal(t, tt.status, tt.says)
			case strings.HasSuffix(tt.path, "serverkeygen"):
				r.generated(t, clearKey)
			default:
				r.certs(t)
			}
		})
	}
	if strings.Contains(e.logs.String(), "do-not-log-me") {
		t.Error("the log holds a challenge password")
	}
	t.Run("TLS 1.2, resumed", func(t *testing.T) {
		config := v12()
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		plain := func(tls.ConnectionState) []byte { return newCSR(t, key, "lamp-1") }
		e.enrolOver(t, config, "simpleenroll", plain).certs(t)
		r := e.enrolOver(t, config, "bound/simpleenroll", func(s tls.ConnectionState) []byte {
			if !s.DidResume {
				t.Fatal("not resumed")
			}
			return csrWith(t, key, "lamp-1", challengePassword(exporter(t, s, []byte{})))
		})
		r.certs(t)
	})
	t.Run("csrattrs says so", func(t *testing.T) {
		for path, want := range map[string]bool{"bound/csrattrs": true, "device/csrattrs": false} {
			der, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.do(t, call{path: path}).body))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := client.ParseCSRAttrs(der); err != nil || got.ChallengePassword != want {
				t.Errorf("%s: %+v, %v", path, got, err)
			}
		}
	})
	t.Run("unknown profile", func(t *testing.T) {
		r := e.do(t, call{path: "gateway/simpleenroll", body: bytes.NewReader(newCSR(t, key, "lamp-1")), user: "lamp-ref", pass: lampSecret})
		r.wantRefusal(t, 403, "may not have profile")
	})
}
