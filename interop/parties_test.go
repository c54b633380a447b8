//go:build interop && long

package interop

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// parties are the rows of the table. Each uses the configuration that its page shows.
var parties = []party{
	{"nginx", "nginx.md", nginxParty},
	{"HAProxy", "haproxy.md", haproxyParty},
	{"mosquitto", "mosquitto.md", mosquittoParty},
	{"FreeRADIUS", "freeradius.md", freeradiusParty},
	{"Go", "go.md", goParty},
	{"Python", "python.md", pythonParty},
	{"OpenSSL", "openssl.md", opensslParty},
	{"GnuTLS", "gnutls.md", gnutlsParty},
	{"strongSwan pki", "strongswan.md", strongswanParty},
	{"curl", "curl.md", curlParty},
}

// daemon runs a server until the test ends, and waits until it takes connections.
func daemon(t *testing.T, addr string, args ...string) *bytes.Buffer {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	log := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for deadline := time.Now().Add(20 * time.Second); addr != ""; time.Sleep(20 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", args[0], err, log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen\n%s", args[0], log)
		}
	}
	return log
}

// handshake shows a certificate to a TLS server. With TLS 1.2 the server has judged it when the handshake ends.
func handshake(addr string, d *fielded) (*tls.Conn, error) {
	cert, err := tls.LoadX509KeyPair(d.chain(), d.key())
	if err != nil {
		return nil, err
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, &tls.Config{
		InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, // the server is not what is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }})
	if err == nil {
		conn.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return conn, err
}

func tlsVerifier(addr string) verifier {
	return func(d *fielded) (bool, string) {
		conn, err := handshake(addr, d)
		if err != nil {
			return false, err.Error()
		}
		conn.Close()
		return true, "handshake done"
	}
}

// httpVerifier asks for a page: 200 is acceptance.
func httpVerifier(addr string) verifier {
	return func(d *fielded) (bool, string) {
		conn, err := handshake(addr, d)
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
		answer, err := io.ReadAll(conn)
		return bytes.Contains(answer, []byte(" 200 ")), fmt.Sprintf("%v %s", err, answer)
	}
}

func nginxParty(t *testing.T, c config) verifier {
	switch {
	case c.ocsp != "":
		// CA certificates name no responder, since their root's key is offline: asked about them, nginx refuses everybody.
		if ok, said := nginxServing(t, c, "whole", "ssl_ocsp on;")(c.field.good); ok {
			t.Errorf("nginx with ssl_ocsp on accepts a device: %s; the page says otherwise", said)
		}
		return nginxServing(t, c, "leaf", "ssl_ocsp leaf;")
	}
	return nginxServing(t, c, "plain", "")
}

func nginxServing(t *testing.T, c config, name, status string) verifier {
	addr := freeAddr(t)
	server := c.shown(t, "nginx.md", "listen 8443", "listen "+addr, "ssl_verify_client on;", "ssl_verify_client on; "+status)
	conf := write(t, filepath.Join(c.dir, name+".conf"), fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/%[2]s.pid; error_log %[1]s/error.log info; worker_processes 1;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
%[3]s
}`, c.dir, name, server))
	daemon(t, addr, "nginx", "-p", c.dir, "-c", conf)
	return httpVerifier(addr)
}

func haproxyParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return nil // it staples for itself, and asks about nobody else
	}
	addr := freeAddr(t)
	both := write(t, filepath.Join(c.dir, "server.pem"), read(t, c.field.server.chain())+read(t, c.field.server.key()))
	more := []string{"bind :8443", "bind " + addr, "/etc/server/both.pem", both}
	if c.crlFile == "" { // on the same line
		more = append(more, " crl-file /etc/deviceca/crls.pem", "")
	}
	more = append(more, "/etc/deviceca/crls.pem", c.crlFile)
	with := c
	with.crlFile = "-" // keep the line
	conf := write(t, filepath.Join(c.dir, "haproxy.cfg"), with.shown(t, "haproxy.md", more...)+"\n")
	daemon(t, addr, "haproxy", "-db", "-f", conf)
	return httpVerifier(addr)
}

func mosquittoParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return nil
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	conf := write(t, filepath.Join(c.dir, "mosquitto.conf"), "user root\nallow_anonymous true\n"+c.shown(t, "mosquitto.md", "listener 8883", "listener "+port+" 127.0.0.1"))
	daemon(t, addr, "mosquitto", "-c", conf)
	return func(d *fielded) (bool, string) {
		conn, err := handshake(addr, d)
		if err != nil {
			return false, err.Error()
		}
		defer conn.Close()
		conn.Write([]byte("\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x")) // CONNECT, MQTT 3.1.1 §3.1
		answer := make([]byte, 4)
		_, err = io.ReadFull(conn, answer)
		return err == nil && answer[0] == 0x20 && answer[3] == 0, fmt.Sprintf("CONNACK %x %v", answer, err)
	}
}

func freeradiusParty(t *testing.T, c config) verifier {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.LocalAddr().(*net.UDPAddr).Port
	l.Close()
	// It reads the lists from the file of the CAs.
	trusted := read(t, c.cas)
	more := []string{"check_crl = yes", "check_crl = no"}
	if c.crlFile != "" {
		trusted, more = trusted+read(t, c.crlFile), nil
	}
	if c.ocsp != "" {
		more = append(more, "# ocsp", "ocsp {\n        enable = yes\n        override_cert_url = no\n        softfail = no\n      }\n      #")
	}
	more = append(more, "/etc/freeradius/deviceca.pem", write(t, filepath.Join(c.dir, "trusted.pem"), trusted))
	conf := fmt.Sprintf(`
prefix = /usr
logdir = %[1]s
raddbdir = %[1]s
confdir = %[1]s
libdir = /usr/lib/freeradius
run_dir = %[1]s
pidfile = %[1]s/pid
security {
  reject_delay = 0
}
client test {
  ipaddr = 127.0.0.1
  secret = testing123
}
modules {
  eap {
    default_eap_type = tls
%[3]s
    tls {
      tls = devices
    }
  }
}
server devices {
  listen {
    type = auth
    ipaddr = 127.0.0.1
    port = %[2]d
  }
  authorize {
    eap
  }
  authenticate {
    eap
  }
}
`, c.dir, port, c.shown(t, "freeradius.md", more...))
	write(t, filepath.Join(c.dir, "radiusd.conf"), conf)
	write(t, filepath.Join(c.dir, "dictionary"), "")
	log := daemon(t, "", "freeradius", "-f", "-X", "-d", c.dir, "-n", "radiusd")
	_ = log
	return func(d *fielded) (bool, string) {
		network := write(t, filepath.Join(c.dir, d.id+".conf"), fmt.Sprintf("network={\n key_mgmt=IEEE8021X\n eap=TLS\n identity=\"%s\"\n ca_cert=\"%s\"\n client_cert=\"%s\"\n private_key=\"%s\"\n}\n",
			d.id, c.field.root, d.chain(), d.key()))
		for attempt := 0; ; attempt++ { // it takes a moment until it listens
			out, errs, err := try("", "eapol_test", "-c", network, "-a", "127.0.0.1", "-p", fmt.Sprint(port), "-s", "testing123", "-r", "0", "-t", "5")
			if strings.Contains(out, "SUCCESS") && err == nil {
				return true, "SUCCESS"
			}
			if strings.Contains(out, "EAP-Failure") || strings.Contains(out, "code=4 (failure)") || strings.Contains(out, "EAP Failure") || attempt == 3 {
				return false, errs + faults(log.String())
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
}

// faults are the lines of FreeRADIUS's log that say what went wrong.
func faults(log string) (lines string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "ERROR") || strings.Contains(line, "verif") || strings.Contains(line, "depth") || strings.Contains(line, "CRL") {
			lines += line
		}
	}
	return lines
}

// goParty is what docs/relying-parties/go.md shows.
func goParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return nil // the standard library has no OCSP
	}
	_, source, _ := strings.Cut(read(t, "parties_test.go"), "// notRevoked wants")
	source, _, _ = strings.Cut(source, "func pemCertificates")
	if !strings.Contains(read(t, "../docs/relying-parties/go.md"), strings.TrimSpace(source)) {
		t.Error("go.md shows other code than is tested")
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, cert := range pemCertificates(t, c.cas) {
		if bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			if pemCertificates(t, c.field.root)[0].Equal(cert) {
				roots.AddCert(cert)
			}
		} else {
			between.AddCert(cert)
		}
	}
	var lists []*x509.RevocationList
	for _, file := range c.lists {
		block, _ := pem.Decode([]byte(read(t, file)))
		for rest := []byte(read(t, file)); ; {
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			list, err := x509.ParseRevocationList(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			lists = append(lists, list)
		}
	}
	return func(d *fielded) (bool, string) {
		chain := pemCertificates(t, d.chain())
		for _, cert := range chain[1:] {
			between.AddCert(cert)
		}
		paths, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if err != nil {
			return false, err.Error()
		}
		for _, path := range paths {
			if err = notRevoked(path, lists, time.Now()); err == nil {
				return true, "a path that nothing revokes"
			}
		}
		return false, err.Error()
	}
}

// notRevoked wants for each certificate of a path but the anchor a complete list of its issuer that is current, and does not name it.
func notRevoked(path []*x509.Certificate, lists []*x509.RevocationList, now time.Time) error {
	for i, cert := range path[:len(path)-1] {
		issuer := path[i+1]
		j := slices.IndexFunc(lists, func(l *x509.RevocationList) bool {
			return bytes.Equal(l.RawIssuer, issuer.RawSubject) && len(critical(l)) == 0 && l.CheckSignatureFrom(issuer) == nil
		})
		switch {
		case len(lists) == 0:
			continue
		case j < 0:
			return fmt.Errorf("no complete CRL of %s", issuer.Subject)
		case now.Before(lists[j].ThisUpdate) || now.After(lists[j].NextUpdate):
			return fmt.Errorf("the CRL of %s is not current", issuer.Subject)
		case slices.ContainsFunc(lists[j].RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(cert.SerialNumber) == 0 }):
			return fmt.Errorf("%s is revoked", cert.Subject)
		}
	}
	return nil
}

// critical lists the critical extensions: of a partition its scope, of a delta its base. Who does not know them must not use the list.
func critical(l *x509.RevocationList) (ids []string) {
	for _, e := range l.Extensions {
		if e.Critical {
			ids = append(ids, e.Id.String())
		}
	}
	return ids
}

func pemCertificates(t *testing.T, file string) (certs []*x509.Certificate) {
	t.Helper()
	for block, rest := pem.Decode([]byte(read(t, file))); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

func pythonParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return nil
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	script := write(t, filepath.Join(c.dir, "server.py"), c.shown(t, "python.md", "8443", port))
	daemon(t, addr, "/usr/bin/python3", script)
	return tlsVerifier(addr)
}

func opensslParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return func(d *fielded) (bool, string) {
			issuer := write(t, filepath.Join(c.dir, "issuer.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pemCertificates(t, d.chain())[1].Raw})))
			out, errs, err := try("", "openssl", "ocsp", "-CAfile", c.field.root, "-issuer", issuer, "-cert", d.cert(), "-url", c.ocsp)
			return err == nil && strings.Contains(out, ": good") && strings.Contains(errs, "Response verify OK"), out + errs
		}
	}
	return func(d *fielded) (bool, string) {
		var more []string
		if c.scoped || c.deltas {
			more = append(more, "-crl_check_all", "-crl_check_all -extended_crl")
		}
		if c.deltas {
			more[1] += " -use_deltas"
		}
		out, errs, err := c.command(t, "openssl.md", d, more...)
		return err == nil, out + errs
	}
}

func gnutlsParty(t *testing.T, c config) verifier {
	if c.ocsp != "" {
		return func(d *fielded) (bool, string) {
			issuer := write(t, filepath.Join(c.dir, "issuer.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pemCertificates(t, d.chain())[1].Raw})))
			out, errs, err := try("", "ocsptool", "--ask="+c.ocsp, "--load-cert", d.cert(), "--load-issuer", issuer, "--load-trust", issuer)
			return err == nil && strings.Contains(out, "Certificate Status: good") && strings.Contains(out, "Verifying OCSP Response: Success"), out + errs
		}
	}
	return func(d *fielded) (bool, string) {
		out, errs, err := c.command(t, "gnutls.md", d)
		return err == nil, out + errs
	}
}

func strongswanParty(t *testing.T, c config) verifier {
	var args []string
	split := func(block, file string) {
		n := 0
		for b, rest := pem.Decode([]byte(read(t, file))); b != nil; b, rest = pem.Decode(rest) {
			n++
			args = append(args, block, write(t, filepath.Join(c.dir, fmt.Sprintf("%s-%d-%s", strings.Trim(block, "-"), n, filepath.Base(file))), string(b.Bytes)))
		}
	}
	split("--cacert", c.cas)
	for _, l := range c.lists {
		split("--crl", l)
	}
	// Without this it fetches, and asks OCSP, whatever it is given.
	settings := "pki {\n  load = pem x509 revocation pubkey openssl random nonce constraints\n}\n"
	if c.ocsp != "" {
		settings = "pki {\n  plugins {\n    revocation {\n      enable_crl = no\n    }\n  }\n}\n"
		args = append(args, "--online")
	}
	environment := "STRONGSWAN_CONF=" + write(t, filepath.Join(c.dir, "strongswan.conf"), settings)
	return func(d *fielded) (bool, string) {
		given := args
		for i, cert := range pemCertificates(t, d.chain())[1:] { // as the device sends them
			given = append(given[:len(given):len(given)], "--cacert", write(t, filepath.Join(c.dir, fmt.Sprintf("%s-%d", d.id, i)), string(cert.Raw)))
		}
		out, errs, err := try("", "env", append([]string{environment, "pki", "--verify", "--in", d.cert()}, given...)...)
		return err == nil, out + errs
	}
}

// curlParty is a client: the device serves, with a staple if OCSP is asked for.
func curlParty(t *testing.T, c config) verifier {
	return func(d *fielded) (bool, string) {
		cert, err := tls.LoadX509KeyPair(d.chain(), d.key())
		if err != nil {
			t.Fatal(err)
		}
		var args []string
		if c.ocsp != "" {
			staple := filepath.Join(c.dir, d.id+".ocsp")
			if _, errs, err := try("", c.field.program, "ocsp", "staple", "--cert", d.chain(), "--out", staple); err != nil && !exists(staple) {
				t.Fatal(errs)
			}
			cert.OCSPStaple = []byte(read(t, staple))
			args = append(args, "--cert-status")
		}
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.NotFoundHandler()}
		go srv.Serve(l)
		defer srv.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		out, errs, err := c.command(t, "curl.md", d, "https://device.example/", strings.Join(append(args, "-sS", "--resolve", d.id+":"+port+":127.0.0.1", "https://"+d.id+":"+port+"/"), " "))
		return err == nil, out + errs
	}
}

func exists(file string) bool { _, err := os.Stat(file); return !errors.Is(err, os.ErrNotExist) }
