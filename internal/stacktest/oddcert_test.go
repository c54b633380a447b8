package stacktest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/dertest"
)

// Go's TLS refuses certificates that devices have, alone or as an extra in the chain, before anybody looks at
// their credential. The log says so, and by a name or a listener that asks for no certificate they get in.
func TestUnreadableClientCertificates(t *testing.T) {
	t.Parallel()
	noCert := freeAddr(t)
	h := newHome(t, "DEVICECA_TLS_NO_CLIENT_CERT_NAMES=nocert.example", "DEVICECA_LISTEN_HTTPS_NOCERT="+noCert)
	g := h.addDevice("lamp-1", "--uses", "100")
	good, goodKey := h.device(g).mustEnroll(t, "lamp-1")
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other := &home{t: t, dir: h.dir, https: noCert}
	for i, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			var key crypto.Signer = newKey(t)
			if o.RSA {
				key = strong
			}
			odd := dertest.Device(good, "lamp-1", key.Public())
			o.Edit(odd)
			raw := odd.Sign(t, goodKey)
			for name, cert := range map[string]*tls.Certificate{
				"alone":    {Certificate: [][]byte{raw}, PrivateKey: key},
				"an extra": {Certificate: [][]byte{good.Raw, raw}, PrivateKey: goodKey},
			} {
				conn, err := tls.Dial("tcp", h.https, h.tlsConfig(cert))
				if err == nil {
					conn.SetDeadline(time.Now().Add(10 * time.Second))
					if _, err = conn.Read(make([]byte, 1)); err == nil {
						t.Fatalf("%s: the handshake succeeds", name)
					}
					address := conn.LocalAddr().String()
					conn.Close()
					if i == 0 {
						eventually(t, 5*time.Second, "the log", func() bool {
							for line := range strings.SplitSeq(h.log.String(), "\n") {
								if strings.Contains(line, "a TLS handshake failed") && strings.Contains(line, address) {
									return strings.Contains(line, "level=WARN") && strings.Contains(line, "listener=https ") && strings.Contains(line, "reason=client_certificate") &&
										strings.Contains(line, "negative serial number") && strings.Contains(line, "tls.no_client_cert_names")
								}
							}
							return false
						})
					}
				}
				named := h.device(g)
				named.client = h.httpClient(cert)
				named.client.Transport.(*http.Transport).TLSClientConfig.ServerName = "nocert.example"
				named.mustEnroll(t, "lamp-1")
				apart := other.device(g)
				apart.client = other.httpClient(cert)
				apart.mustEnroll(t, "lamp-1")
			}
		})
	}
	if n := strings.Count(h.log.String(), "a TLS handshake failed"); n < 2 || n > 6 {
		t.Errorf("%d lines about handshakes of one address in a minute, which has 6", n)
	}
	// Who has a good certificate shows it by the usual name alone; the name of the server counts in any case.
	renewal := newCSR(t, goodKey, "lamp-1")
	if a, err := h.owner(good, goodKey).reenroll(renewal); err != nil || a.status != http.StatusOK {
		t.Errorf("by the usual name: %d %q, %v", a.status, a.body, err)
	}
	for _, name := range []string{"nocert.example", "NoCert.Example"} {
		d := h.owner(good, goodKey)
		d.client.Transport.(*http.Transport).TLSClientConfig.ServerName = name
		if a, err := d.reenroll(renewal); err != nil || a.status != http.StatusUnauthorized {
			t.Errorf("by %s: %d %q, %v", name, a.status, a.body, err)
		}
	}
	if a, err := other.owner(good, goodKey).reenroll(renewal); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("at the listener that asks for none: %d %q, %v", a.status, a.body, err)
	}
}

// The same with the tools that devices have: OpenSSL takes such a certificate and sends it where it is asked for one.
func TestUnreadableClientCertificateByCurl(t *testing.T) {
	t.Parallel()
	h, dir := newHome(t, "DEVICECA_TLS_NO_CLIENT_CERT_NAMES=nocert.example"), t.TempDir()
	g := h.addDevice("lamp-1", "--uses", "10")
	issuer, issuerKey := h.device(g).mustEnroll(t, "lamp-1")
	key := newKey(t)
	odd := dertest.Device(issuer, "lamp-1", key.Public())
	odd.Serial = "\xfe"
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, csrFile := filepath.Join(dir, "odd.pem"), filepath.Join(dir, "odd.key"), filepath.Join(dir, "csr")
	for file, content := range map[string][]byte{
		certFile: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: odd.Sign(t, issuerKey)}),
		keyFile:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		csrFile:  []byte(base64.StdEncoding.EncodeToString(newCSR(t, key, "lamp-1"))),
	} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := h.https[strings.LastIndexByte(h.https, ':')+1:]
	curl := func(host string) (string, error) {
		out, err := exec.Command("curl", "-sS", "--cacert", h.path("root.crt"), "--resolve", host+":"+port+":127.0.0.1", "--cert", certFile, "--key", keyFile,
			"-u", g.Reference+":"+g.Secret, "-H", "Content-Type: application/pkcs10", "--data-binary", "@"+csrFile, "-o", filepath.Join(dir, "answer"), "-w", "%{http_code}",
			"https://"+host+":"+port+enrollPath).CombinedOutput()
		return string(out), err
	}
	if out, err := curl("localhost"); err == nil {
		t.Errorf("where certificates are asked for: %s", out)
	}
	if out, err := curl("nocert.example"); err != nil || out != "200" {
		t.Errorf("where none is asked for: %s, %v", out, err)
	}
	s, err := exec.Command("sh", "-c", "openssl s_client -connect "+h.https+" -servername nocert.example -verify_return_error -CAfile "+h.path("root.crt")+" </dev/null").CombinedOutput()
	if err != nil || strings.Contains(string(s), "Requested Signature Algorithms") || !strings.Contains(string(s), "Verify return code: 0 (ok)") {
		t.Errorf("openssl s_client: %v\n%s", err, s)
	}
}
