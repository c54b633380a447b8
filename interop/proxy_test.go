//go:build interop

package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/dertest"
)

// nginxConfig is that of docs/onboarding.md, as is the map.
const nginxConfig = `
daemon off;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	map $ssl_client_raw_cert $client_cert {
		default "";
		include client_cert.map;
	}
	server {
		listen %[2]s ssl;
		ssl_certificate front.pem;
		ssl_certificate_key front.key;
		ssl_verify_client optional_no_ca;
		location /.well-known/est/ {
			proxy_pass https://%[3]s;
			proxy_ssl_protocols TLSv1.3;
			proxy_ssl_verify on;
			proxy_ssl_trusted_certificate %[4]s;
			proxy_ssl_name localhost;
			proxy_ssl_server_name on;
			proxy_ssl_certificate proxy.pem;
			proxy_ssl_certificate_key proxy.key;
			proxy_set_header Client-Cert $client_cert;
			proxy_set_header Client-Cert-Chain "";
		}
	}
}
`

// nginx ends TLS and hands the device's certificate on (RFC 9440): also those that Go's TLS would refuse.
func TestProxiedOddCertificates(t *testing.T) {
	dir := t.TempDir()
	const self = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
	for _, name := range []string{"front", "proxy"} {
		run(t, dir, "openssl", append(strings.Fields(self), "-keyout", name+".key", "-out", name+".pem")...)
	}
	a := newAuthority(t, "DEVICECA_EST_PROXIES=127.0.0.0/8", "DEVICECA_EST_PROXY_CERT="+filepath.Join(dir, "proxy.pem"))
	factory, factoryKey := newFactory(t)
	pemFile := func(name, kind string, der []byte) string {
		return write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	a.deviceca("manufacturer", "add", "acme", "--home", a.home, "--anchor", pemFile("factory.pem", "CERTIFICATE", factory.Raw), "--level", "software")
	front := startNginx(t, dir, a)

	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(id, cert, key string) string {
		t.Helper()
		run(t, dir, "openssl", strings.Fields("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -outform DER -keyout new.key -out new.csr -subj /CN="+id)...)
		run(t, dir, "openssl", "base64", "-in", "new.csr", "-out", "new.b64")
		return run(t, dir, "curl", "-sS", "--cacert", "front.pem", "-H", "Content-Type: application/pkcs10", "--cert", cert, "--key", key,
			"-H", "Client-Cert: :Zm9yZ2Vk:", "--data-binary", "@new.b64", "-w", "\n%{http_code}", "https://localhost:"+front+"/.well-known/est/simpleenroll")
	}
	for i, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			var key crypto.Signer = ecKey(t)
			if o.RSA {
				key = strong
			}
			pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprintf("A%d", 1000+i)
			c := dertest.Device(factory, id, key.Public())
			o.Edit(c)
			keyFile := pemFile("idevid.key", "PRIVATE KEY", pkcs8)
			body, status, _ := strings.Cut(ask(id, pemFile("idevid.pem", "CERTIFICATE", c.Sign(t, factoryKey)), keyFile), "\n\n")
			if status != "200" {
				t.Fatalf("status %s: %s", status, body)
			}
			write(t, filepath.Join(dir, "issued.b64"), body)
			run(t, dir, "openssl", strings.Fields("base64 -d -A -in issued.b64 -out issued.p7")...)
			mustContain(t, "the certificate", run(t, dir, "sh", "-c", "openssl pkcs7 -inform DER -print_certs -in issued.p7 | openssl x509 -noout -subject"), "CN = "+id)
			forged := pemFile("forged.pem", "CERTIFICATE", c.Sign(t, ecKey(t)))
			mustContain(t, "a forgery", ask(id, forged, keyFile), "401", "nor by a manufacturer")
		})
	}
}

// startNginx serves in front of the CA, and gives the port.
func startNginx(t *testing.T, dir string, a *authority) string {
	t.Helper()
	docs, err := os.ReadFile("../docs/onboarding.md")
	if err != nil {
		t.Fatal(err)
	}
	_, script, found := strings.Cut(string(docs), "\nperl -e ")
	script, _, _ = strings.Cut(script, "\n")
	if !found {
		t.Fatal("the docs do not say how to make the map")
	}
	run(t, dir, "sh", "-c", "perl -e "+script)
	front := freeAddr(t)
	write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(nginxConfig, dir, front, a.https, a.root()))
	cmd := exec.Command("nginx", "-p", dir, "-c", "nginx.conf")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", front)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nginx does not get ready: ", err)
		}
	}
	return front[strings.LastIndexByte(front, ':')+1:]
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newFactory makes a manufacturer's CA.
func newFactory(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := ecKey(t)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme Factory"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return c, key
}
