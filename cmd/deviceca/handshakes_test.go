package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	stdlog "log"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshakeLog(t *testing.T) {
	for _, c := range []struct{ line, reason, level, says string }{
		{"http: TLS handshake error from 192.0.2.1:5: tls: failed to parse client certificate: x509: negative serial number", "client_certificate", "WARN", "negative serial number"},
		{"http: TLS handshake error from [2001:db8::1]:5: tls: failed to parse client certificate: x509: malformed extension OID field", "client_certificate", "WARN", "no_client_cert_names"},
		{"http: TLS handshake error from 192.0.2.1:5: the client's chain has 11 certificates of 5000 octets: send at most 10 of 65536", "client_chain", "WARN", "11 certificates"},
		{"http: TLS handshake error from 192.0.2.1:5: tls: client certificate contains an unsupported public key of type *dsa.PublicKey", "client_certificate", "WARN", "dsa"},
		{"http: TLS handshake error from 192.0.2.1:5: remote error: tls: unknown certificate authority", "alert", "WARN", "unknown certificate authority"},
		{"http: TLS handshake error from 192.0.2.1:5: tls: client offered only unsupported versions: [303]", "parameters", "WARN", "tls.min_version"},
		{"http: TLS handshake error from 192.0.2.1:5: EOF", "gone", "DEBUG", "EOF"},
		{"http: TLS handshake error from 192.0.2.1:5: read tcp 192.0.2.9:8443->192.0.2.1:5: i/o timeout", "gone", "DEBUG", "timeout"},
		{"http: TLS handshake error from 192.0.2.1:5: client sent an HTTP request to an HTTPS server", "not_tls", "DEBUG", "HTTP request"},
		{"http: TLS handshake error from 192.0.2.1:5: tls: something new", "other", "DEBUG", "something new"},
		{"http: TLS handshake error from 192.0.2.1:5: " + strings.Repeat("x", 5000), "other", "DEBUG", "xxx"},
		{"http2: server connection error from 192.0.2.1:5: PROTOCOL_ERROR", "", "DEBUG", "PROTOCOL_ERROR"},
		{"http: TLS handshake error from nowhere", "", "DEBUG", "nowhere"},
	} {
		var out bytes.Buffer
		counted := ""
		l := newHandshakeLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})), func(reason string) { counted += reason })
		stdlog.New(l, "", 0).Print(c.line)
		if counted != c.reason || !strings.Contains(out.String(), "level="+c.level) || !strings.Contains(out.String(), c.says) || strings.Count(out.String(), "\n") != 1 || out.Len() > 1500 {
			t.Errorf("%.100s: counted %q, wrote %s", c.line, counted, out.String())
		}
	}
}

// Each address has its lines, and all together have theirs; what is left out is counted, in the log and in the metric.
func TestHandshakeLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		counted := 0
		l := newHandshakeLog(slog.New(slog.NewTextHandler(&out, nil)), func(string) { counted++ })
		fail := func(address string) {
			fmt.Fprintf(l, "http: TLS handshake error from %s: tls: failed to parse client certificate: x509: malformed tbs certificate\n", address)
		}
		lines := func() int {
			defer out.Reset()
			return strings.Count(out.String(), "\n")
		}
		for port := range 100 {
			fail(fmt.Sprintf("192.0.2.1:%d", port+1))
			fail(fmt.Sprintf("[2001:db8::%x]:5", port+1)) // one /64
		}
		if n := lines(); n != 2*handshakeLines || counted != 200 {
			t.Errorf("%d lines, %d counted", n, counted)
		}
		for host := range 200 {
			fail(fmt.Sprintf("198.51.100.%d:5", host))
		}
		if n := lines(); n != allHandshakeLines-2*handshakeLines {
			t.Errorf("%d lines of many addresses", n)
		}
		time.Sleep(time.Minute)
		fail("192.0.2.1:5")
		if !strings.Contains(out.String(), "left_out=152") || lines() != 1 {
			t.Error("what was left out is not said")
		}
	})
}

// What TLS without a client certificate gives is not resumed where one is asked for.
func TestNoClientCertNames(t *testing.T) {
	tickets, err := newTickets(make([]byte, 32), &tls.Config{ClientAuth: tls.RequestClientCert}, []string{"nocert.example"}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, asked := range map[string]bool{"nocert.example": false, "NOCERT.example": false, "ca.example": true, "": true, "x.nocert.example": true} {
		c, err := tickets.serve().GetConfigForClient(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || (c.ClientAuth != tls.NoClientCert) != asked || c.SessionTicketsDisabled == asked {
			t.Errorf("%q: asked %t, %v", name, (c.ClientAuth != tls.NoClientCert), err)
		}
	}
	if tickets.askNobody().ClientAuth != tls.NoClientCert {
		t.Error("the listener asks")
	}
}
