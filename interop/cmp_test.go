//go:build interop

package interop

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cmpClient is openssl cmp against one authority.
type cmpClient struct {
	t    *testing.T
	a    *authority
	dir  string
	path string
	n    int
}

func newCMPClient(t *testing.T, a *authority) *cmpClient {
	return &cmpClient{t: t, a: a, dir: t.TempDir(), path: ".well-known/cmp"}
}

func (c *cmpClient) args(args []string) []string {
	return append([]string{"cmp", "-config", "", "-server", c.a.http, "-path", c.path, "-recipient", "/CN=CA"}, args...)
}

// ok runs a command that must succeed.
func (c *cmpClient) ok(args ...string) {
	c.t.Helper()
	run(c.t, c.dir, "openssl", c.args(args)...)
}

// fails runs a command that must fail, with the parts in what openssl says.
func (c *cmpClient) fails(args []string, parts ...string) {
	c.t.Helper()
	stdout, stderr, err := try(c.dir, "openssl", c.args(args)...)
	if err == nil {
		c.t.Errorf("openssl cmp %s succeeded", strings.Join(args, " "))
	}
	mustContain(c.t, "openssl cmp "+strings.Join(args, " "), stdout+stderr, parts...)
}

func (c *cmpClient) key(name string) string {
	c.t.Helper()
	run(c.t, c.dir, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name+".key")
	return name + ".key"
}

// chains verifies that a certificate leads to the root, with what came in extraCerts.
func (c *cmpClient) chains(cert string) {
	c.t.Helper()
	run(c.t, c.dir, "openssl", "verify", "-CAfile", c.a.root(), "-untrusted", filepath.Join(c.a.home, "issuing.crt"), cert)
}

func (c *cmpClient) secret(g grant) []string {
	return []string{"-ref", g.Reference, "-secret", "pass:" + g.Secret}
}

func (c *cmpClient) signed(name string) []string {
	return []string{"-cert", name + ".crt", "-key", name + ".key", "-trusted", c.a.root(),
		"-untrusted", filepath.Join(c.a.home, "issuing.crt")}
}

// OpenSSL's CMP client through the life of a device.
func TestOpenSSLCMP(t *testing.T) {
	a := newAuthority(t)
	c := newCMPClient(t, a)
	g := a.addDevice("lamp-1", "--uses", "10")
	with := func(auth []string, args ...string) []string { return append(args, auth...) }

	for _, s := range []struct {
		name string
		args []string
	}{
		{"ir-pbm", []string{"-cmd", "ir"}},
		{"ir-pbm-implicit", []string{"-cmd", "ir", "-implicit_confirm"}},
		{"ir-pbm-sha512", []string{"-cmd", "ir", "-digest", "sha512", "-mac", "hmacWithSHA256"}},
		{"cr-pbm", []string{"-cmd", "cr"}},
	} {
		key := c.key(s.name)
		c.ok(append(with(c.secret(g), s.args...), "-newkey", key, "-subject", "/CN=lamp-1", "-certout", s.name+".crt",
			"-extracertsout", s.name+"-extra.pem")...)
		c.chains(s.name + ".crt")
		mustContain(t, "extraCerts of "+s.name, run(t, c.dir, "openssl", "crl2pkcs7", "-nocrl", "-certfile", s.name+"-extra.pem", "-out", "x.p7"))
	}
	c.ok(with(c.secret(g), "-cmd", "ir", "-newkey", c.key("anchor"), "-subject", "/CN=lamp-1", "-certout", "anchor.crt", "-cacertsout", "roots.pem")...)
	mustContain(t, "caPubs", run(t, c.dir, "openssl", "x509", "-in", "roots.pem", "-noout", "-subject"), "Root CA")
	run(t, c.dir, "openssl", "req", "-new", "-key", c.key("p10"), "-subj", "/CN=lamp-1", "-out", "p10.csr")
	c.ok(with(c.secret(g), "-cmd", "p10cr", "-csr", "p10.csr", "-certout", "p10.crt")...)
	c.chains("p10.crt")

	own := c.signed("ir-pbm")
	c.ok(with(own, "-cmd", "kur", "-newkey", c.key("kur"), "-certout", "kur.crt")...)
	c.ok(with(own, "-cmd", "kur", "-implicit_confirm", "-newkey", c.key("kur2"), "-certout", "kur2.crt")...)
	c.ok(with(own, "-cmd", "cr", "-newkey", c.key("cr"), "-subject", "/CN=lamp-1", "-certout", "cr.crt")...)
	c.ok(with(own, "-cmd", "ir", "-newkey", c.key("ir"), "-subject", "/CN=lamp-1", "-certout", "ir.crt")...)
	c.ok(with(own, "-cmd", "p10cr", "-csr", "p10.csr", "-certout", "p10s.crt")...)
	for _, cert := range []string{"kur.crt", "kur2.crt", "cr.crt", "ir.crt", "p10s.crt"} {
		c.chains(cert)
	}
	c.ok(with(own, "-cmd", "genm", "-infotype", "caCerts")...)
	for _, question := range []string{"signKeyPairTypes", "encKeyPairTypes", "preferredSymmAlg", "caProtEncCert", "currentCRL"} {
		c.ok(with(c.secret(g), "-cmd", "genm", "-infotype", question)...)
		c.ok(with(own, "-cmd", "genm", "-infotype", question, "-rspout", question+".der")...)
	}
	mustContain(t, "cmp show", a.deviceca("cmp", "show", filepath.Join(c.dir, "currentCRL.der")), "genp", "currentCRL", "Issuing CA 1")
	mustContain(t, "cmp show", a.deviceca("cmp", "show", filepath.Join(c.dir, "preferredSymmAlg.der")), "AES-256-CBC")
	c.ok(with(c.secret(g), "-cmd", "genm")...)

	// A rejected certificate is revoked: openssl does so when it cannot verify it.
	c.fails(with(c.secret(g), "-cmd", "cr", "-newkey", c.key("rejected"), "-subject", "/CN=lamp-1", "-certout", "rejected.crt",
		"-out_trusted", c.dir+"/ir-pbm.crt"), "")
	if list := a.deviceca("cert", "list", "--home", a.home, "--device", "lamp-1"); !strings.Contains(list, "revoked") {
		t.Errorf("the certificate that openssl rejected is not revoked:\n%s", list)
	}

	c.ok(with(c.signed("kur"), "-cmd", "rr", "-oldcert", "kur.crt", "-revreason", "1")...)
	c.fails(with(c.signed("kur"), "-cmd", "kur", "-newkey", c.key("late"), "-certout", "late.crt"), "signerNotTrusted", "revoked")
	// A certificate revokes itself alone (RFC 9483 §4.2).
	c.fails(with(own, "-cmd", "rr", "-oldcert", "cr.crt", "-revreason", "4"), "notAuthorized")
	c.ok(with(c.signed("cr"), "-cmd", "rr", "-oldcert", "cr.crt", "-revreason", "4")...)

	// Wrong secret and unknown reference: the same answer.
	key := c.key("no")
	for _, wrong := range []grant{{Reference: g.Reference, Secret: "wrong"}, {Reference: "nobody", Secret: g.Secret}} {
		c.fails(with(c.secret(wrong), "-cmd", "ir", "-newkey", key, "-subject", "/CN=lamp-1", "-certout", "no.crt", "-trusted", a.root(),
			"-untrusted", filepath.Join(a.home, "issuing.crt")), "badMessageCheck")
	}
	c.fails(with(c.secret(g), "-cmd", "ir", "-newkey", key, "-subject", "/CN=lamp-2", "-certout", "no.crt"), "notAuthorized")
	c.fails(with(c.secret(g), "-cmd", "ir", "-popo", "0", "-newkey", key, "-subject", "/CN=lamp-1", "-certout", "no.crt"), "notAuthorized")

	// Any message can be read.
	c.ok(with(c.secret(g), "-cmd", "ir", "-newkey", c.key("shown"), "-subject", "/CN=lamp-1", "-certout", "shown.crt",
		"-reqout", "ir.der certconf.der", "-rspout", "ip.der pkiconf.der")...)
	mustContain(t, "cmp show", a.deviceca("cmp", "show", filepath.Join(c.dir, "ip.der")), "ip", "confirmWaitTime", "CN=lamp-1")

	// Profiles by path; https.
	c.path = ".well-known/cmp/p/gateway/keyupdate"
	c.ok(with(own, "-cmd", "kur", "-newkey", c.key("gw"), "-certout", "gw.crt")...)
	mustContain(t, "a certificate of profile gateway", run(t, c.dir, "openssl", "x509", "-in", "gw.crt", "-noout", "-text"), "TLS Web Server Authentication")
	c.path = ".well-known/cmp/p/nosuch"
	c.fails(with(own, "-cmd", "cr", "-newkey", key, "-subject", "/CN=lamp-1", "-certout", "no.crt"), "does not allow the profile")
	c.path = ".well-known/cmp"
	_, httpsPort, _ := strings.Cut(a.https, ":")
	c.ok(with(own, "-cmd", "kur", "-newkey", c.key("tls"), "-certout", "tls.crt", "-server", "localhost:"+httpsPort, "-tls_used", "-tls_trusted", a.root())...)
}

// OpenSSL's CMP client through rotations: with the certificate of an old issuing
// CA, and with either root.
func TestOpenSSLCMPRotation(t *testing.T) {
	a := newAuthority(t)
	c := newCMPClient(t, a)
	oldRoot := write(t, filepath.Join(c.dir, "root-1.crt"), read(t, a.root()))
	c.ok(append(c.secret(a.addDevice("lamp-1")), "-cmd", "ir", "-newkey", c.key("first"), "-subject", "/CN=lamp-1", "-certout", "first.crt")...)
	// renew renews the first certificate, trusting one root, until the signer below a CA has answered.
	renew := func(name, root, issuer string) {
		t.Helper()
		c.key(name)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			c.ok("-cmd", "kur", "-cert", "first.crt", "-key", "first.key", "-trusted", root, "-newkey", name+".key", "-certout", name+".crt", "-rspout", name+".der "+name+"-conf.der")
			if strings.Contains(a.deviceca("cmp", "show", filepath.Join(c.dir, name+".der")), "sender: CN="+issuer) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("no answer signed below %s", issuer)
			}
		}
	}
	renew("second", oldRoot, "issuing-1 deviceca-cmp")
	a.deviceca("ca", "rotate", "issuing", "--now", "--home", a.home)
	renew("third", oldRoot, "issuing-2 deviceca-cmp")
	mustContain(t, "the issuer of third.crt", run(t, c.dir, "openssl", "x509", "-in", "third.crt", "-noout", "-issuer"), "Issuing CA 2")
	a.deviceca("ca", "rotate", "root", "--home", a.home)
	a.deviceca("ca", "rotate", "issuing", "--now", "--home", a.home)
	for name, root := range map[string]string{"old": oldRoot, "new": write(t, filepath.Join(c.dir, "root-2.crt"), a.deviceca("ca", "export", "root", "--home", a.home))} {
		renew(name, root, "issuing-3 deviceca-cmp")
	}
}

// The same CA, credential and certificate, by our own client.
func TestOwnCMP(t *testing.T) {
	a := newAuthority(t)
	g, dir := a.addDevice("lamp-1"), t.TempDir()
	secret := write(t, filepath.Join(dir, "secret"), g.Secret+"\n")
	for _, server := range []string{"http://" + a.http, "https://" + a.https} {
		enroll := func(args ...string) string {
			return a.deviceca(append([]string{"enroll", "--protocol", "cmp", "--server", server, "--roots", a.root(), "--id", "lamp-1", "--dir", filepath.Join(dir, "lamp-1")}, args...)...)
		}
		if server[:5] == "http:" {
			mustContain(t, "enroll", enroll("--reference", g.Reference, "--secret-file", secret), "enrolled")
		}
		mustContain(t, "enroll again", enroll(), "current")
		mustContain(t, "renew", enroll("--renew"), "renewed")
		mustContain(t, "renew by another profile", enroll("--renew", "--label", "gateway"), "renewed")
	}
	// The other protocol carries on with the same files.
	mustContain(t, "renew over EST", a.deviceca("enroll", "--protocol", "est", "--server", "https://"+a.https, "--id", "lamp-1", "--dir", filepath.Join(dir, "lamp-1"), "--renew"), "renewed")
	_, stderr, err := try(dir, a.program, "enroll", "--protocol", "cmp", "--server", "http://"+a.http, "--roots", a.root(), "--id", "lamp-1", "--dir", "other",
		"--reference", "nobody", "--secret-file", secret)
	if err == nil {
		t.Error("an unknown reference enrolled")
	}
	mustContain(t, "an unknown reference", stderr, "badMessageCheck")
}

// OpenSSL polls until an administrator has approved.
func TestOpenSSLCMPPolling(t *testing.T) {
	a := newAuthority(t, "DEVICECA_APPROVAL_RETRY_AFTER=1s")
	c := newCMPClient(t, a)
	rules := filepath.Join(a.home, "policy.yaml")
	write(t, rules, strings.Replace(read(t, rules), "    backdate: 5m", "    approval: true\n    backdate: 5m", 1))
	a.deviceca("policy", "apply", rules, "--home", a.home)
	g := a.addDevice("lamp-1")
	key := c.key("lamp")
	done := make(chan string, 1)
	go func() {
		stdout, stderr, err := try(c.dir, "openssl", c.args(append(c.secret(g), "-cmd", "ir", "-newkey", key, "-subject", "/CN=lamp-1", "-certout", "lamp.crt", "-total_timeout", "30"))...)
		if err != nil {
			stderr = "failed: " + stderr
		}
		done <- stderr + stdout
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if _, _, err := try("", a.program, "request", "approve", "1", "--home", a.home); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no request came to be approved")
		}
	}
	if says := <-done; strings.HasPrefix(says, "failed") || !strings.Contains(says, "POLLREP") && !strings.Contains(says, "polling") {
		t.Fatalf("openssl: %s", says)
	}
	c.chains("lamp.crt")
}

// OpenSSL's client as a new device with its manufacturer's certificate, and as a registration authority whose
// certificate is self-signed; each with the client's defaults.
func TestOpenSSLCMPIDevID(t *testing.T) {
	a := newAuthority(t)
	c := newCMPClient(t, a)
	self := func(name, subject string, extensions ...string) {
		args := []string{"req", "-x509", "-new", "-key", c.key(name), "-subj", subject, "-days", "3650", "-out", name + ".crt"}
		for _, e := range extensions {
			args = append(args, "-addext", e)
		}
		run(t, c.dir, "openssl", args...)
	}
	self("maker", "/CN=Maker")
	run(t, c.dir, "openssl", "req", "-new", "-key", c.key("idevid"), "-subj", "/O=Maker/serialNumber=station-1", "-out", "idevid.csr")
	run(t, c.dir, "openssl", "x509", "-req", "-in", "idevid.csr", "-CA", "maker.crt", "-CAkey", "maker.key", "-CAcreateserial", "-days", "3650", "-out", "idevid.crt",
		"-extfile", write(t, filepath.Join(c.dir, "idevid.cnf"), "subjectAltName = otherName:1.3.6.1.5.5.7.8.4;SEQ:module\n[module]\ntype = OID:1.2.3.4\nserial = OCT:station-1\n"))
	a.deviceca("manufacturer", "add", "maker", "--home", a.home, "--anchor", filepath.Join(c.dir, "maker.crt"), "--level", "software")
	trust := []string{"-trusted", a.root(), "-untrusted", filepath.Join(a.home, "issuing.crt")}

	idevid := append([]string{"-cert", "idevid.crt", "-key", "idevid.key"}, trust...)
	c.ok(append(idevid, "-cmd", "ir", "-newkey", c.key("ldevid"), "-subject", "/CN=station-1", "-certout", "ldevid.crt", "-cacertsout", "roots.pem")...)
	c.chains("ldevid.crt")
	mustContain(t, "caPubs", run(t, c.dir, "openssl", "x509", "-in", "roots.pem", "-noout", "-subject"), "Root CA")
	c.ok(append(idevid, "-cmd", "cr", "-newkey", c.key("more"), "-subject", "/CN=station-1", "-days", "1", "-certout", "more.crt")...)
	c.chains("more.crt")
	// Nothing but the key: OpenSSL takes subject, issuer and names from the IDevID.
	c.ok(append(idevid, "-cmd", "cr", "-newkey", c.key("plain"), "-certout", "plain.crt")...)
	c.chains("plain.crt")
	// No reason, which is the default.
	c.ok(append(c.signed("ldevid"), "-cmd", "rr", "-oldcert", "ldevid.crt")...)
	mustContain(t, "the certificates", a.deviceca("cert", "list", "--home", a.home, "--device", "station-1"), "revoked")

	self("ra", "/CN=line-1", "extendedKeyUsage=1.3.6.1.5.5.7.3.28", "keyUsage=digitalSignature", "basicConstraints=critical,CA:FALSE")
	ra := append([]string{"-cert", "ra.crt", "-key", "ra.key"}, trust...)
	request := append(ra, "-cmd", "cr", "-newkey", c.key("lamp"), "-subject", "/CN=lamp-7", "-certout", "lamp.crt")
	c.fails(request, "badMessageCheck")
	a.deviceca("ra", "add", "line-1", "--home", a.home, "--cert", filepath.Join(c.dir, "ra.crt"), "--names", "lamp-*", "--level", "software")
	c.ok(request...)
	c.chains("lamp.crt")
}
