//go:build interop

package interop

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// publishedWithin is how soon a revocation must be published, with slack for a
// busy machine; the goal is a second.
const publishedWithin = 3 * time.Second

// enrolled is a device with a certificate.
type enrolled struct {
	dir, cert, serial string
}

// enroll gets a device a certificate of a profile.
func (a *authority) enroll(id, profile string) enrolled {
	a.t.Helper()
	g := a.addDevice(id)
	dir := filepath.Join(a.t.TempDir(), id)
	a.t.Setenv("DEVICECA_SECRET", g.Secret)
	out := a.deviceca("enroll", "--protocol", "est", "--server", "https://"+a.https, "--roots", a.root(), "--id", id,
		"--reference", g.Reference, "--label", profile, "--dir", dir, "--json")
	var r struct{ Serial string }
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		a.t.Fatalf("enroll printed %q: %v", out, err)
	}
	return enrolled{dir, filepath.Join(dir, "cert.pem"), r.Serial}
}

func (a *authority) revoke(serial, reason string) {
	a.t.Helper()
	a.deviceca("cert", "revoke", "--home", a.home, serial, "--reason", reason)
}

// fetch reads a URL of the http listener; nil if it is not there.
func (a *authority) fetch(path string) ([]byte, http.Header) {
	a.t.Helper()
	resp, err := http.Get("http://" + a.http + path)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, resp.Header
	}
	return body, resp.Header
}

// save fetches until there is something, and keeps it.
func (a *authority) save(path, file string) string {
	a.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if body, _ := a.fetch(path); body != nil {
			return write(a.t, file, string(body))
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("%s is not served", path)
		}
	}
}

func (a *authority) issuing() string { return filepath.Join(a.home, "issuing.crt") }

func TestOCSPClients(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	good, revoked := a.enroll("lamp-1", "device"), a.enroll("lamp-2", "device")
	a.revoke(revoked.serial, "keyCompromise")
	ocsp := "http://" + a.http + "/ocsp"

	// openssl asks with POST, and with a nonce unless told not to.
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"good":           {[]string{"-cert", good.cert}, ": good"},
		"good, no nonce": {[]string{"-cert", good.cert, "-no_nonce"}, ": good"},
		"good, SHA-256":  {[]string{"-sha256", "-cert", good.cert}, ": good"},
		"revoked":        {[]string{"-cert", revoked.cert}, "Reason: keyCompromise"},
		"both":           {[]string{"-cert", good.cert, "-cert", revoked.cert}, ": revoked"},
		"never issued":   {[]string{"-serial", "0x" + good.serial[:36] + "00"}, ": unknown"},
		"another form":   {[]string{"-serial", "0x1234"}, ": unknown"},
	} {
		t.Run("openssl/"+name, func(t *testing.T) {
			args := append([]string{"ocsp", "-CAfile", a.root(), "-issuer", a.issuing()}, append(c.args, "-url", ocsp)...)
			out, errs, err := try(dir, "openssl", args...)
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, errs)
			}
			mustContain(t, "openssl", out+errs, "Response verify OK", c.want)
		})
	}
	// By GET, as curl sends it: RFC 6960 appendix A.1, the base64 bare and escaped.
	run(t, dir, "openssl", "ocsp", "-issuer", a.issuing(), "-cert", revoked.cert, "-no_nonce", "-reqout", "request.der")
	request := strings.TrimSpace(run(t, dir, "openssl", "base64", "-A", "-in", "request.der"))
	for name, path := range map[string]string{
		"escaped": strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(request), "bare": request,
	} {
		t.Run("curl GET/"+name, func(t *testing.T) {
			run(t, dir, "curl", "-sSf", "--path-as-is", "-D", "headers", "-o", "answer.der", ocsp+"/"+path)
			mustContain(t, "the headers", read(t, filepath.Join(dir, "headers")), "application/ocsp-response", "max-age=", "Etag: ", "Expires: ")
			out, errs, err := try(dir, "openssl", "ocsp", "-respin", "answer.der", "-CAfile", a.root(), "-issuer", a.issuing(), "-cert", revoked.cert)
			if err != nil {
				t.Fatalf("%v\n%s%s", err, out, errs)
			}
			mustContain(t, "the answer", out+errs, "Response verify OK", ": revoked")
		})
	}
	t.Run("ocsptool", func(t *testing.T) {
		for _, c := range []struct{ cert, want string }{{good.cert, "Certificate Status: good"}, {revoked.cert, "Certificate Status: revoked"}} {
			out, errs, err := try(dir, "ocsptool", "--ask="+ocsp, "--load-cert", c.cert, "--load-issuer", a.issuing(), "--load-trust", a.issuing())
			if err != nil && !strings.Contains(out+errs, "revoked") {
				t.Fatalf("%v\n%s%s", err, out, errs)
			}
			mustContain(t, "ocsptool", out+errs, c.want)
		}
	})
}

// nginx staples what `ocsp staple` wrote, and openssl's client accepts it.
func TestNginxStaple(t *testing.T) {
	a := newAuthority(t)
	gw := a.enroll("gw-1.example", "gateway")
	staple := filepath.Join(gw.dir, "staple.der")
	a.deviceca("ocsp", "staple", "--cert", filepath.Join(gw.dir, "fullchain.pem"), "--out", staple)
	addr := freeAddr(t)
	conf := write(t, filepath.Join(gw.dir, "nginx.conf"), fmt.Sprintf(`
daemon off; master_process off; pid %[1]s/nginx.pid; error_log %[1]s/error.log; worker_processes 1;
events { worker_connections 64; }
http {
  access_log off;
  client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
  server {
    listen %[2]s ssl;
    ssl_certificate %[1]s/fullchain.pem; ssl_certificate_key %[1]s/key.pem;
    ssl_stapling on; ssl_stapling_file %[1]s/staple.der;
    location / { return 200 "ok"; }
  }
}`, gw.dir, addr))
	nginx := exec.Command("nginx", "-p", gw.dir, "-c", conf)
	var log bytes.Buffer
	nginx.Stdout, nginx.Stderr = &log, &log
	if err := nginx.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nginx.Process.Kill(); nginx.Wait() })
	var out, errs string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var err error
		out, errs, err = try("", "sh", "-c", "openssl s_client -connect "+addr+" -servername gw-1.example -status -CAfile "+a.root()+" -verify_return_error </dev/null")
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not serve: %v\n%s%s%s", err, out, errs, log.String())
		}
	}
	mustContain(t, "s_client", out+errs, "OCSP Response Status: successful", "Cert Status: good", "Verify return code: 0 (ok)")
}

// Certificates that name a partition: it does, and so does the complete CRL, which covers everything.
func TestCRLClients(t *testing.T) {
	a, dir := prepareAuthority(t), t.TempDir()
	policy := filepath.Join(a.home, "policy.yaml")
	write(t, policy, strings.ReplaceAll(read(t, policy), "crl: full", "crl: partition"))
	a.start()
	good, first, second := a.enroll("lamp-1", "device"), a.enroll("lamp-2", "device"), a.enroll("lamp-3", "device")
	a.revoke(first.serial, "superseded")
	a.deviceca("crl", "publish", "--home", a.home)
	rootCRL := a.save("/crl/root.crl", filepath.Join(dir, "root.der"))
	run(t, dir, "openssl", "crl", "-inform", "DER", "-in", rootCRL, "-out", "root.pem")
	for scope, paths := range map[string][2]string{
		"full":      {"/crl/issuing.crl", "/crl/issuing-delta.crl"},
		"partition": {"/crl/issuing-1/0.crl", "/crl/issuing-1/0-delta.crl"},
	} {
		a.save(paths[0], filepath.Join(dir, scope+".der"))
		run(t, dir, "openssl", "crl", "-inform", "DER", "-in", scope+".der", "-out", scope+".pem")
	}
	a.revoke(second.serial, "certificateHold")
	time.Sleep(time.Second)
	for scope, path := range map[string]string{"full": "/crl/issuing-delta.crl", "partition": "/crl/issuing-1/0-delta.crl"} {
		a.save(path, filepath.Join(dir, scope+"-delta.der"))
		run(t, dir, "openssl", "crl", "-inform", "DER", "-in", scope+"-delta.der", "-out", scope+"-delta.pem")
	}
	for _, scope := range []string{"full", "partition"} {
		for _, file := range []string{scope + ".der", scope + "-delta.der"} {
			list, err := x509.ParseRevocationList([]byte(read(t, filepath.Join(dir, file))))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			block, _ := pem.Decode([]byte(read(t, a.issuing())))
			issuer, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if err := list.CheckSignatureFrom(issuer); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			// The delta is over the base before, which is in force too.
			want := map[bool]int{false: 1, true: 2}[strings.Contains(file, "delta")]
			if len(list.RevokedCertificateEntries) != want {
				t.Errorf("%s: %d entries, want %d", file, len(list.RevokedCertificateEntries), want)
			}
		}
		write(t, filepath.Join(dir, scope+"-all.pem"), read(t, filepath.Join(dir, scope+".pem"))+
			read(t, filepath.Join(dir, scope+"-delta.pem"))+read(t, filepath.Join(dir, "root.pem")))
		for _, c := range []struct {
			name, cert, want string
			deltas           bool
		}{
			{"good", good.cert, "OK", false}, {"good, with deltas", good.cert, "OK", true},
			{"revoked in the base", first.cert, "certificate revoked", false}, {"revoked in the base, with deltas", first.cert, "certificate revoked", true},
			{"held in the delta, without it", second.cert, "OK", false}, {"held in the delta", second.cert, "certificate revoked", true},
		} {
			t.Run(scope+"/"+c.name, func(t *testing.T) {
				args := []string{"verify", "-crl_check", "-extended_crl"}
				if c.deltas {
					args = append(args, "-use_deltas")
				}
				args = append(args, "-CAfile", a.root(), "-untrusted", a.issuing(), "-CRLfile", scope+"-all.pem", c.cert)
				out, errs, err := try(dir, "openssl", args...)
				if (err == nil) != (c.want == "OK") {
					t.Errorf("%v\n%s%s", err, out, errs)
				}
				mustContain(t, "openssl verify", out+errs, c.want)
			})
		}
	}
}

// TestRevocationLatency measures from before `cert revoke` is typed to each publication.
func TestRevocationLatency(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	worst := map[string]time.Duration{}
	for i := range 5 {
		lamp := a.enroll(fmt.Sprintf("lamp-%d", i), "device")
		run(t, dir, "openssl", "ocsp", "-issuer", a.issuing(), "-cert", lamp.cert, "-no_nonce", "-reqout", "request.der")
		request := []byte(read(t, filepath.Join(dir, "request.der")))
		ask := func() []byte {
			resp, err := http.Post("http://"+a.http+"/ocsp", "application/ocsp-request", bytes.NewReader(request))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return body
		}
		before := ask()
		var state string
		a.save("/pack/issuing.cbor", filepath.Join(dir, "full.cbor"))
		_, header := a.fetch("/pack/issuing.cbor")
		state = header.Get("Pack-State")
		for { // the newest state, by whatever deltas there are
			_, header := a.fetch("/pack/issuing/delta/" + state + ".cbor")
			if next := header.Get("Pack-State"); next == "" || next == state {
				break
			} else {
				state = next
			}
		}
		serial := []byte(nil)
		fmt.Sscanf(lamp.serial, "%x", &serial)
		done := map[string]func() bool{
			"OCSP":              func() bool { return !bytes.Equal(ask(), before) },
			"delta CRL":         func() bool { body, _ := a.fetch("/crl/issuing-delta.crl"); return bytes.Contains(body, serial) },
			"partition's delta": func() bool { body, _ := a.fetch("/crl/issuing-1/0-delta.crl"); return bytes.Contains(body, serial) },
			"delta pack":        func() bool { body, _ := a.fetch("/pack/issuing/delta/" + state + ".cbor"); return body != nil },
		}
		begun := time.Now()
		if i%2 == 0 {
			a.revoke(lamp.serial, "keyCompromise")
		} else {
			a.deviceca("device", "retire", "--home", a.home, fmt.Sprintf("lamp-%d", i))
		}
		for len(done) > 0 {
			for what, published := range done {
				if took := time.Since(begun); published() {
					worst[what] = max(worst[what], took)
					delete(done, what)
				} else if took > publishedWithin {
					t.Fatalf("the %s does not say so after %s", what, took)
				}
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for what, took := range worst {
		t.Logf("%s: %s at most, the command's own start included", what, took.Round(time.Millisecond))
	}
}
