//go:build interop

package interop

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What RFC 7030 asks of a client, done with curl and openssl alone.
func TestCurlOpenSSL(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	g := a.addDevice("lamp-1")
	est := url(a.https, "/.well-known/est")

	run(t, dir, "curl", "-sSf", "--cacert", a.root(), "-o", "cacerts.b64", est+"/cacerts")
	run(t, dir, "openssl", "base64", "-d", "-in", "cacerts.b64", "-out", "cacerts.p7", "-A")
	mustContain(t, "cacerts", run(t, dir, "openssl", "pkcs7", "-inform", "DER", "-in", "cacerts.p7", "-print_certs", "-noout"),
		"Root CA", "Issuing CA 1", "Quarantine CA 1")

	enroll := func(name, path string, auth ...string) {
		t.Helper()
		run(t, dir, "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
			"-keyout", name+".key", "-subj", "/CN=lamp-1", "-outform", "DER", "-out", name+".csr")
		run(t, dir, "openssl", "base64", "-in", name+".csr", "-out", name+".csr.b64")
		run(t, dir, "curl", append([]string{"-sSf", "--cacert", a.root(), "-H", "Content-Type: application/pkcs10",
			"--data-binary", "@" + name + ".csr.b64", "-o", name + ".p7.b64", est + path}, auth...)...)
		run(t, dir, "openssl", "base64", "-d", "-A", "-in", name+".p7.b64", "-out", name+".p7")
		run(t, dir, "openssl", "pkcs7", "-inform", "DER", "-in", name+".p7", "-print_certs", "-out", name+".crt")
		run(t, dir, "openssl", "verify", "-CAfile", a.root(), "-untrusted", filepath.Join(a.home, "issuing.crt"), name+".crt")
	}
	enroll("first", "/simpleenroll", "-u", g.Reference+":"+g.Secret)
	enroll("second", "/simplereenroll", "--cert", "first.crt", "--key", "first.key")
	enroll("third", "/gateway/simpleenroll", "--cert", "second.crt", "--key", "second.key")
	mustContain(t, "a certificate of profile gateway", run(t, dir, "openssl", "x509", "-in", "third.crt", "-noout", "-text"),
		"TLS Web Server Authentication", "TLS Web Client Authentication")

	// The credential had one use.
	out := run(t, dir, "curl", "-sS", "--cacert", a.root(), "-H", "Content-Type: application/pkcs10", "-u", g.Reference+":"+g.Secret,
		"--data-binary", "@third.csr.b64", "-w", "\n%{http_code}", est+"/simpleenroll")
	mustContain(t, "the answer to a spent credential", out, "401", "no uses left")
}

// strongSwan's pki, as an administrator of a VPN uses it.
func TestStrongSwan(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	g := a.addDevice("gw-1.example")
	server := "https://localhost:" + port(a.https)
	// It speaks TLS 1.3, but offers 1.2 unless it is told so.
	t.Setenv("STRONGSWAN_CONF", write(t, filepath.Join(dir, "strongswan.conf"), "libtls {\n  version_max = 1.3\n}\n"))

	run(t, dir, "pki", "--estca", "--url", server, "--cacert", a.root(), "--caout", "est-ca", "--outform", "pem", "--force")
	cas, err := filepath.Glob(filepath.Join(dir, "est-ca*"))
	if err != nil || len(cas) != 4 {
		t.Fatalf("estca wrote %v (%v), want two roots, issuing and quarantine", cas, err)
	}

	key := write(t, filepath.Join(dir, "gw.key"), run(t, dir, "pki", "--gen", "--type", "ecdsa", "--size", "256", "--outform", "pem"))
	csr := func() string {
		return write(t, filepath.Join(dir, "gw.csr"), run(t, dir, "pki", "--req", "--type", "priv", "--in", key,
			"--dn", "CN=gw-1.example", "--san", "gw-1.example", "--outform", "der"))
	}
	cert := write(t, filepath.Join(dir, "gw.crt"), run(t, dir, "pki", "--est", "--url", server, "--in", csr(),
		"--cacert", a.root(), "--cacert", filepath.Join(a.home, "issuing.crt"),
		"--userpass", g.Reference+":"+g.Secret, "--outform", "pem"))
	mustContain(t, "the certificate", run(t, dir, "pki", "--print", "--in", cert), "CN=gw-1.example", "clientAuth")
	run(t, dir, "pki", "--verify", "--in", cert, "--cacert", a.root(), "--cacert", filepath.Join(a.home, "issuing.crt"))

	again := write(t, filepath.Join(dir, "again.crt"), run(t, dir, "pki", "--est", "--url", server, "--in", csr(),
		"--cacert", a.root(), "--cacert", filepath.Join(a.home, "issuing.crt"), "--cert", cert, "--key", key, "--outform", "pem"))
	if first, second := read(t, cert), read(t, again); first == second {
		t.Error("re-enrolment gave the same certificate")
	}
	if list := a.deviceca("cert", "list", "--home", a.home, "--device", "GW-1.example"); strings.Count(list, "gw-1.example") != 2 {
		t.Errorf("the ledger does not hold two certificates of the device:\n%s", list)
	}
}

// globalsign's estclient, with software keys.
func TestGlobalSign(t *testing.T) {
	client := filepath.Join(t.TempDir(), "estclient")
	build := exec.Command("go", "build", "-o", client, "github.com/globalsign/est/cmd/estclient")
	build.Dir = "globalsign"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building estclient: %v\n%s", err, out)
	}
	a, dir := newAuthority(t), t.TempDir()
	g := a.addDevice("sensor-7")
	server := []string{"-server", "localhost:" + port(a.https), "-explicit", a.root()}

	run(t, dir, client, append([]string{"cacerts", "-rootout", "-out", "anchor.pem"}, server...)...)
	mustContain(t, "csrattrs", run(t, dir, client, append([]string{"csrattrs"}, server...)...), "1.2.840.10045.2.1")

	run(t, dir, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sensor.key")
	run(t, dir, "openssl", "pkcs8", "-topk8", "-nocrypt", "-in", "sensor.key", "-out", "sensor.p8")
	run(t, dir, client, append([]string{"enroll", "-key", "sensor.p8", "-cn", "sensor-7", "-user", g.Reference, "-pass", g.Secret, "-out", "sensor.crt"}, server...)...)
	run(t, dir, "openssl", "verify", "-CAfile", a.root(), "-untrusted", filepath.Join(a.home, "issuing.crt"), "sensor.crt")
	write(t, filepath.Join(dir, "chain.crt"), read(t, filepath.Join(dir, "sensor.crt"))+read(t, filepath.Join(a.home, "issuing.crt")))
	run(t, dir, client, append([]string{"reenroll", "-key", "sensor.p8", "-certs", "chain.crt", "-out", "again.crt"}, server...)...)
	run(t, dir, "openssl", "verify", "-CAfile", a.root(), "-untrusted", filepath.Join(a.home, "issuing.crt"), "again.crt")
}

// Keys made by the server, for estclient in clear and for openssl encrypted.
func TestServerKeygen(t *testing.T) {
	client := filepath.Join(t.TempDir(), "estclient")
	build := exec.Command("go", "build", "-o", client, "github.com/globalsign/est/cmd/estclient")
	build.Dir = "globalsign"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building estclient: %v\n%s", err, out)
	}
	a, dir := newAuthority(t), t.TempDir()
	g := a.addDevice("sensor-7", "--uses", "3")
	server := []string{"-server", "localhost:" + port(a.https), "-explicit", a.root()}
	ask := append([]string{"serverkeygen", "-cn", "sensor-7", "-user", g.Reference, "-pass", g.Secret, "-keyout", "made.key", "-out", "made.crt"}, server...)

	if out, errs, err := try(dir, client, ask...); err == nil || !strings.Contains(out+errs, "made by the server") {
		t.Errorf("a profile without server_keygen made a key: %v\n%s%s", err, out, errs)
	}
	policy := read(t, filepath.Join(a.home, "policy.yaml"))
	edited := strings.Replace(policy, "    eku: [clientAuth]\n", "    eku: [clientAuth]\n    server_keygen: {allow: true, clear: true}\n", 1)
	a.deviceca("policy", "apply", "--home", a.home, write(t, filepath.Join(dir, "policy.yaml"), edited))
	run(t, dir, client, ask...)
	if key, cert := run(t, dir, "openssl", "pkey", "-in", "made.key", "-pubout"), run(t, dir, "openssl", "x509", "-in", "made.crt", "-noout", "-pubkey"); key != cert {
		t.Errorf("the certificate is not for the key:\n%s%s", key, cert)
	}
	run(t, dir, "openssl", "verify", "-CAfile", a.root(), "-untrusted", filepath.Join(a.home, "issuing.crt"), "made.crt")
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func read(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
