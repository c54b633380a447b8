//go:build interop

package interop

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// below writes the certificates of a file that are not self-signed: roots are
// trusted or they are not, and OpenSSL's path ends at one that it is given as untrusted.
func below(t *testing.T, file string) string {
	t.Helper()
	var kept []byte
	for block, rest := pem.Decode([]byte(read(t, file))); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			kept = append(kept, pem.EncodeToMemory(block)...)
		}
	}
	return write(t, file+".below", string(kept))
}

// Devices go on working through the rotation of the issuing CA and of the root,
// whichever root they trust: shown with curl and openssl. (strongSwan 5.9 cannot
// read the six certificates of cacerts reliably: see docs/est.md.)
func TestRotation(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	g := a.addDevice("lamp-1")
	est := url(a.https, "/.well-known/est")
	oldRoot := write(t, filepath.Join(dir, "root-1.crt"), read(t, a.root()))

	enroll := func(name, root, path string, auth ...string) {
		t.Helper()
		run(t, dir, "openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
			"-keyout", name+".key", "-subj", "/CN=lamp-1", "-outform", "DER", "-out", name+".csr")
		run(t, dir, "openssl", "base64", "-in", name+".csr", "-out", name+".b64")
		run(t, dir, "curl", append([]string{"-sSf", "--cacert", root, "-H", "Content-Type: application/pkcs10",
			"--data-binary", "@" + name + ".b64", "-o", name + ".p7.b64", est + path}, auth...)...)
		run(t, dir, "openssl", "base64", "-d", "-A", "-in", name+".p7.b64", "-out", name+".p7")
		run(t, dir, "openssl", "pkcs7", "-inform", "DER", "-in", name+".p7", "-print_certs", "-out", name+".crt")
	}
	issuer := func(name, want string) {
		t.Helper()
		mustContain(t, "the issuer of "+name, run(t, dir, "openssl", "x509", "-in", name+".crt", "-noout", "-issuer"), want)
	}
	// verify checks a certificate with what cacerts hands out, trusting one root alone.
	verify := func(name, root string) {
		t.Helper()
		run(t, dir, "curl", "-sSf", "--cacert", root, "-o", "cacerts.b64", est+"/cacerts")
		run(t, dir, "openssl", "base64", "-d", "-A", "-in", "cacerts.b64", "-out", "cacerts.p7")
		run(t, dir, "openssl", "pkcs7", "-inform", "DER", "-in", "cacerts.p7", "-print_certs", "-out", "cacerts.pem")
		run(t, dir, "openssl", "verify", "-no-CAfile", "-no-CApath", "-CAfile", root, "-untrusted", below(t, filepath.Join(dir, "cacerts.pem")), name+".crt")
	}

	enroll("first", oldRoot, "/simpleenroll", "-u", g.Reference+":"+g.Secret)
	issuer("first", "Issuing CA 1")
	a.deviceca("ca", "rotate", "issuing", "--now", "--home", a.home)
	enroll("second", oldRoot, "/simplereenroll", "--cert", "first.crt", "--key", "first.key")
	issuer("second", "Issuing CA 2")
	verify("first", oldRoot)
	verify("second", oldRoot)

	a.deviceca("ca", "rotate", "root", "--home", a.home)
	newRoot := write(t, filepath.Join(dir, "root-2.crt"), a.deviceca("ca", "export", "root", "--home", a.home)) // root.crt holds both
	if read(t, oldRoot) == read(t, newRoot) {
		t.Fatal("the newest root is the old one")
	}
	// The server's own certificate comes with the way to the new root in a moment.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if _, _, err := try(dir, "curl", "-sSf", "--cacert", newRoot, "-o", os.DevNull, est+"/cacerts"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("a client that trusts the new root alone does not accept the server: %v", err)
		}
	}
	for name, root := range map[string]string{"old": oldRoot, "new": newRoot} {
		enroll("third-"+name, root, "/simplereenroll", "--cert", "second.crt", "--key", "second.key")
		verify("third-"+name, oldRoot)
		verify("third-"+name, newRoot)
	}
	a.deviceca("ca", "rotate", "issuing", "--now", "--home", a.home)
	enroll("fourth", oldRoot, "/simplereenroll", "--cert", "second.crt", "--key", "second.key")
	issuer("fourth", "Issuing CA 3")
	verify("fourth", oldRoot)
	verify("fourth", newRoot)

	if list := a.deviceca("ca", "list", "--home", a.home); strings.Count(list, "issuing") < 3 {
		t.Errorf("ca list:\n%s", list)
	}
}
