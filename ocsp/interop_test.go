package ocsp

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writePEM(t *testing.T, dir, name string, cert *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t *testing.T, want bool, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if (err == nil) != want {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// The clients that people have: openssl (POST with and without nonce, its own
// request by GET) and gnutls.
func TestClients(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	srv := httptest.NewServer(r)
	defer srv.Close()
	dir := t.TempDir()
	good, bad := c.issue(1), c.issue(2)
	c.revoke(bad, 1, 1)
	never := good
	never[10] ^= 1
	issuer := writePEM(t, dir, "ca.pem", c.cert)
	goodCert, badCert := writePEM(t, dir, "good.pem", c.leaf(t, good)), writePEM(t, dir, "bad.pem", c.leaf(t, bad))
	neverCert := writePEM(t, dir, "never.pem", c.leaf(t, never))

	for cert, says := range map[string]string{goodCert: ": good", badCert: "keyCompromise", neverCert: ": unknown"} {
		for _, opts := range [][]string{{"-nonce"}, {"-no_nonce"}, {"-sha256", "-nonce"}, {"-sha256", "-no_nonce"}} {
			args := append([]string{"ocsp", "-url", srv.URL + "/ocsp", "-CAfile", issuer, "-issuer", issuer}, opts...)
			out := run(t, true, "openssl", append(args, "-cert", cert)...)
			if !strings.Contains(out, "Response verify OK") || !strings.Contains(out, says) || strings.Contains(out, "WARNING") {
				t.Errorf("openssl %v: %s", opts, out)
			}
		}
	}
	// Two certificates in one question.
	out := run(t, true, "openssl", "ocsp", "-url", srv.URL+"/ocsp", "-CAfile", issuer, "-issuer", issuer, "-cert", goodCert, "-cert", badCert)
	if !strings.Contains(out, "good.pem: good") || !strings.Contains(out, "bad.pem: revoked") {
		t.Errorf("openssl, two at once: %s", out)
	}

	for _, nonce := range []string{"-nonce", "-no_nonce"} {
		reqFile, respFile := filepath.Join(dir, "req.der"), filepath.Join(dir, "resp.der")
		run(t, true, "openssl", "ocsp", "-issuer", issuer, "-cert", badCert, nonce, "-reqout", reqFile)
		in, err := os.ReadFile(reqFile)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.Get(srv.URL + "/ocsp/" + url.PathEscape(base64.StdEncoding.EncodeToString(in)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(respFile, body, 0o644); err != nil {
			t.Fatal(err)
		}
		out := run(t, true, "openssl", "ocsp", "-respin", respFile, "-reqin", reqFile, "-CAfile", issuer, "-resp_text")
		if !strings.Contains(out, "Response verify OK") || !strings.Contains(out, "Cert Status: revoked") || nonce == "-nonce" && strings.Contains(out, "WARNING") {
			t.Errorf("openssl's request by GET, %s: %s", nonce, out)
		}
	}

	for cert, want := range map[string]string{goodCert: "Certificate Status: good", badCert: "Certificate Status: revoked"} {
		for _, nonce := range []string{"--nonce", "--no-nonce"} {
			args := []string{"--ask=" + srv.URL + "/ocsp", "--load-issuer", issuer, "--load-cert", cert, "--load-trust", issuer}
			if nonce == "--nonce" {
				args = append(args, nonce)
			}
			if out := run(t, true, "ocsptool", args...); !strings.Contains(out, want) || !strings.Contains(out, "Verifying OCSP Response: Success") {
				t.Errorf("ocsptool %s: %s", nonce, out)
			}
		}
	}

	// What is written without a nonce is what a staple holds: openssl verifies it from a file.
	staple := filepath.Join(dir, "staple.der")
	if err := os.WriteFile(staple, r.Answer(t.Context(), request(t, c, SHA1, nil, good.Big())), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, true, "openssl", "ocsp", "-respin", staple, "-CAfile", issuer, "-issuer", issuer, "-cert", goodCert); !strings.Contains(out, "good.pem: good") {
		t.Error(out)
	}
}
