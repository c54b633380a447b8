//go:build interop

package interop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/deviceca/deviceca/internal/dnstest"
)

// acmeAuthority is a CA whose challenges lead to this host.
type acmeAuthority struct {
	*authority
	http01, tlsALPN string // host:port where it validates
	dns             *dnstest.Server
	// zone is a directory: the file _acme-challenge.NAME holds TXT records, one a line, for clients' hooks to write.
	zone string
}

func newACMEAuthority(t *testing.T) *acmeAuthority {
	t.Helper()
	a := &acmeAuthority{http01: freeAddr(t), tlsALPN: freeAddr(t), zone: t.TempDir()}
	// Every name is this host.
	a.dns = dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body {
		if q.Kind != dnsmessage.TypeTXT {
			return dnstest.Records(q, dnstest.A("127.0.0.1"))
		}
		var out []dnstest.Body
		text, _ := os.ReadFile(filepath.Join(a.zone, filepath.Base(strings.TrimSuffix(q.Name, "."))))
		for _, line := range strings.Fields(string(text)) {
			out = append(out, dnstest.TXT(line))
		}
		return out
	})
	a.authority = newAuthority(t, "DEVICECA_ACME_HTTP01_PORT="+port(a.http01), "DEVICECA_ACME_TLSALPN01_PORT="+port(a.tlsALPN),
		"DEVICECA_ACME_ALLOW_NETWORKS=127.0.0.0/8", "DEVICECA_ACME_RESOLVER="+a.dns.Address)
	return a
}

// in is the same CA in a subtest.
func (a *acmeAuthority) in(t *testing.T) *acmeAuthority {
	there, here := *a, *a.authority
	here.t, there.authority = t, &here
	return &there
}

func (a *acmeAuthority) directory() string { return url(a.https, "/acme/directory") }

// ledger is what the CA has recorded of a device's certificates, oldest first.
func (a *acmeAuthority) ledger(id string) (out []struct {
	Serial, Profile string
	Revocation      *struct{ Reason string }
}) {
	a.t.Helper()
	text := a.deviceca("cert", "list", "--home", a.home, "--device", id, "--json")
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		a.t.Fatalf("cert list printed %q: %v", text, err)
	}
	return out
}

// expect holds the ledger against what a client believes to have done: so many certificates, so many of
// them revoked.
func (a *acmeAuthority) expect(id string, certificates, revoked int) {
	a.t.Helper()
	list := a.ledger(id)
	n := 0
	for _, c := range list {
		if c.Revocation != nil {
			n++
		}
	}
	if len(list) != certificates || n != revoked {
		a.t.Errorf("the ledger holds %d certificates of %s, %d of them revoked; want %d and %d: %+v", len(list), id, n, certificates, revoked, list)
	}
}

// verify has openssl follow the chain of a file with a certificate and its issuers.
func (a *acmeAuthority) verify(chain string, names ...string) {
	a.t.Helper()
	run(a.t, "", "openssl", "verify", "-CAfile", a.root(), "-untrusted", chain, chain)
	mustContain(a.t, chain, run(a.t, "", "openssl", "x509", "-in", chain, "-noout", "-text"), names...)
}

// lego, with each challenge that it has.
func TestLego(t *testing.T) {
	a, dir := newACMEAuthority(t), t.TempDir()
	t.Setenv("LEGO_CA_CERTIFICATES", a.root())
	t.Setenv("EXEC_PATH", script(t, filepath.Join(dir, "hook"), `
case $1 in
present) echo "$3" >> "$ZONE/${2%.}" ;;
cleanup) rm -f "$ZONE/${2%.}" ;;
esac`))
	t.Setenv("EXEC_SEQUENCE_INTERVAL", "1") // s, not 60
	t.Setenv("ZONE", a.zone)
	for _, tt := range []struct {
		id  string // a name: renewing, lego asks for the subject's common name as well
		how []string
	}{
		{"http.gw.example", []string{"--http", "--http.port", a.http01}},
		{"tls.gw.example", []string{"--tls", "--tls.port", a.tlsALPN}},
		{"dns.gw.example", []string{"--dns", "exec", "--dns.disable-cp", "--dns.resolvers", a.dns.Address}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			a := a.in(t)
			g := a.addDevice(tt.id)
			lego := func(path string, names []string, command ...string) (string, string, error) {
				args := []string{"--server", a.directory(), "--email", "operator@example.org", "--accept-tos", "--path", filepath.Join(dir, path),
					"--eab", "--kid", g.ACME.KID, "--hmac", g.ACME.HMAC}
				for _, name := range names {
					args = append(args, "--domains", name)
				}
				return try(dir, "lego", slices.Concat(args, tt.how, command)...)
			}
			must := func(out, errs string, err error) {
				t.Helper()
				if err != nil {
					t.Fatalf("%v\n%s%s", err, out, errs)
				}
			}
			names := []string{tt.id, tt.id + ".lan"}
			must(lego(tt.id, names, "run"))
			chain := filepath.Join(dir, tt.id, "certificates", tt.id+".crt")
			a.verify(chain, "CN = "+tt.id, "DNS:"+tt.id+", DNS:"+tt.id+".lan")
			run(t, "", "openssl", "verify", "-purpose", "sslserver", "-CAfile", a.root(), "-untrusted", chain, chain) // the second name is a gateway's
			first := read(t, chain)
			must(lego(tt.id, names, "renew", "--days", "1000", "--no-random-sleep"))
			if read(t, chain) == first {
				t.Error("renewal left the certificate as it was")
			}
			a.expect(tt.id, 2, 0)
			must(lego(tt.id, names[:1], "revoke", "--reason", "4"))
			a.expect(tt.id, 2, 1)
			if out, errs, err := lego(tt.id+"-2", names, "run"); err == nil || !strings.Contains(out+errs, "no uses left") {
				t.Errorf("another account with a credential that has no uses left: %v\n%s%s", err, out, errs)
			}
		})
	}
}

// script writes a program for the shell.
func script(t *testing.T, path, text string) string {
	t.Helper()
	write(t, path, "#!/bin/sh\nset -eu\n"+text+"\n")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// certbot, stand-alone and with a hook for DNS.
func TestCertbot(t *testing.T) {
	a, dir := newACMEAuthority(t), t.TempDir()
	t.Setenv("REQUESTS_CA_BUNDLE", a.root())
	t.Setenv("ZONE", a.zone)
	auth := script(t, filepath.Join(dir, "auth"), `echo "$CERTBOT_VALIDATION" >> "$ZONE/_acme-challenge.$CERTBOT_DOMAIN"`)
	cleanup := script(t, filepath.Join(dir, "cleanup"), `rm -f "$ZONE/_acme-challenge.$CERTBOT_DOMAIN"`)
	for _, tt := range []struct {
		id  string
		how []string
	}{
		{"http.gw.example", []string{"--standalone", "--http-01-address", "127.0.0.1", "--http-01-port", port(a.http01)}},
		{"dns.gw.example", []string{"--manual", "--preferred-challenges", "dns", "--manual-auth-hook", auth, "--manual-cleanup-hook", cleanup}},
	} {
		t.Run(tt.id, func(t *testing.T) {
			a := a.in(t)
			g, home := a.addDevice(tt.id), filepath.Join(dir, tt.id)
			base := []string{"-n", "--server", a.directory(), "--config-dir", filepath.Join(home, "etc"), "--work-dir", filepath.Join(home, "lib"), "--logs-dir", filepath.Join(home, "log")}
			run(t, dir, "certbot", slices.Concat([]string{"certonly"}, base, tt.how, []string{"--agree-tos", "--register-unsafely-without-email",
				"--eab-kid", g.ACME.KID, "--eab-hmac-key", g.ACME.HMAC, "-d", tt.id})...)
			chain := filepath.Join(home, "etc", "live", tt.id, "fullchain.pem")
			a.verify(chain, "CN = "+tt.id, "DNS:"+tt.id)
			first := read(t, chain)
			run(t, dir, "certbot", slices.Concat([]string{"renew", "--force-renewal", "--no-random-sleep-on-renew"}, base)...)
			if read(t, chain) == first {
				t.Error("renewal left the certificate as it was")
			}
			run(t, dir, "certbot", slices.Concat([]string{"revoke", "--cert-path", chain, "--reason", "superseded", "--no-delete-after-revoke"}, base)...)
			a.expect(tt.id, 2, 1)
			run(t, dir, "certbot", slices.Concat([]string{"unregister"}, base)...)
		})
	}
}

// uacme has no flag for a CA of one's own, so it runs with a mount of its own over the system's list.
func TestUacme(t *testing.T) {
	a, dir := newACMEAuthority(t), t.TempDir()
	g, name := a.addDevice("gw-1"), "gw-1.internal"
	web := filepath.Join(dir, "web")
	if err := os.Mkdir(web, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", a.http01)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.StripPrefix("/.well-known/acme-challenge/", http.FileServer(http.Dir(web)))}
	go server.Serve(l)
	defer server.Close()
	hook := script(t, filepath.Join(dir, "hook"), `
[ "$2" = http-01 ] || exit 1
case $1 in
begin) printf %s "$5" > `+web+`/"$4" ;;
*) rm -f `+web+`/"$4" ;;
esac`)
	namespace := "-m"
	if os.Geteuid() != 0 {
		namespace = "-rm"
	}
	uacme := func(args ...string) error {
		args = append([]string{namespace, "sh", "-c", `mount --bind "$1" /etc/ssl/certs/ca-certificates.crt && shift && exec uacme "$@"`, "sh", a.root(),
			"-y", "-o", "-a", a.directory(), "-c", filepath.Join(dir, "uacme"), "-h", hook}, args...)
		out, errs, err := try(dir, "unshare", args...)
		if err != nil {
			return fmt.Errorf("%w\n%s%s", err, out, errs)
		}
		return nil
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(uacme("-e", g.ACME.KID+":"+g.ACME.HMAC, "new"))
	must(uacme("issue", name))
	chain := filepath.Join(dir, "uacme", name, "cert.pem")
	a.verify(chain, "CN = gw-1", "DNS:"+name)
	first := read(t, chain)
	must(uacme("-f", "issue", name))
	if read(t, chain) == first {
		t.Error("renewal left the certificate as it was")
	}
	must(uacme("-r", "4", "revoke", chain))
	a.expect("gw-1", 2, 1)
	must(uacme("newkey"))
	must(uacme("-f", "issue", name))
	a.expect("gw-1", 3, 1)
	must(uacme("deactivate"))
	if err := uacme("-f", "issue", name); err == nil || strings.Contains(err.Error(), "mount") {
		t.Errorf("a deactivated account: %v", err)
	}
}

// golang.org/x/crypto/acme: what the command-line clients leave out as well.
func TestGoACME(t *testing.T) {
	a := newACMEAuthority(t)
	g, name := a.addDevice("gw-1"), "gw-1.internal"
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	client := goClient(t, a)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	hmac, err := base64.RawURLEncoding.DecodeString(g.ACME.HMAC)
	must(err)
	if _, err := client.Register(ctx, &acme.Account{}, acme.AcceptTOS); err == nil {
		t.Error("an account without binding is made")
	}
	_, err = client.Register(ctx, &acme.Account{Contact: []string{"mailto:operator@example.org"}, ExternalAccountBinding: &acme.ExternalAccountBinding{KID: g.ACME.KID, Key: hmac}}, acme.AcceptTOS)
	must(err)
	account, err := client.GetReg(ctx, "")
	must(err)
	if account.Status != acme.StatusValid || !slices.Equal(account.Contact, []string{"mailto:operator@example.org"}) {
		t.Errorf("the account is %+v", account)
	}
	_, err = client.UpdateReg(ctx, &acme.Account{Contact: []string{"mailto:other@example.org"}})
	must(err)
	if _, err := client.Register(ctx, &acme.Account{}, acme.AcceptTOS); !errors.Is(err, acme.ErrAccountAlreadyExists) {
		t.Errorf("a second account for the key: %v", err)
	}

	// An order of two names and the device itself, of a profile, each name by another challenge.
	ids := append(acme.DomainIDs(name, "gw-1.lan"), acme.AuthzID{Type: "permanent-identifier", Value: "gw-1"})
	order, err := client.AuthorizeOrder(ctx, ids, acme.WithOrderIssuanceProfile("gateway"))
	must(err)
	if order.Status != acme.StatusPending || order.Profile != "gateway" || len(order.AuthzURLs) != 3 {
		t.Errorf("the order is %+v", order)
	}
	goAuthorize(t, a, client, order, map[string]string{name: "tls-alpn-01", "gw-1.lan": "dns-01"})
	order, err = client.WaitOrder(ctx, order.URI)
	must(err)
	key, csr := goRequest(t, name, "gw-1.lan")
	chain, _, err := client.CreateCertFromOrder(ctx, order, csr, true)
	must(err)
	cert := goVerify(t, a, chain)
	if cert.Subject.CommonName != "gw-1" || !slices.Equal(cert.DNSNames, []string{name, "gw-1.lan"}) {
		t.Errorf("the certificate is for %v with %v", cert.Subject, cert.DNSNames)
	}

	// The account's key is changed; the old one is worth nothing then.
	old := client.Key
	fresh, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	must(client.AccountKeyRollover(ctx, fresh))
	stale := goClient(t, a)
	stale.Key = old
	if _, err := stale.GetReg(ctx, ""); err == nil {
		t.Error("the old key still has an account")
	}
	order, err = client.AuthorizeOrder(ctx, acme.DomainIDs(name))
	must(err)
	goAuthorize(t, a, client, order, map[string]string{name: "dns-01"})
	order, err = client.WaitOrder(ctx, order.URI)
	must(err)
	_, csr = goRequest(t, name)
	second, _, err := client.CreateCertFromOrder(ctx, order, csr, true)
	must(err)
	goVerify(t, a, second)
	// Revoked by the certificate's key, and by the account.
	must(goClient(t, a).RevokeCert(ctx, key, chain[0], acme.CRLReasonKeyCompromise))
	must(client.RevokeCert(ctx, nil, second[0], acme.CRLReasonSuperseded))
	a.expect("gw-1", 2, 2)
	must(client.DeactivateReg(ctx))
	if _, err := client.AuthorizeOrder(ctx, acme.DomainIDs(name)); err == nil {
		t.Error("a deactivated account orders")
	}

	// Names of others, and kinds that nobody knows.
	for _, tt := range [][]acme.AuthzID{acme.DomainIDs("gw-2.internal"), acme.DomainIDs("example.com"), {{Type: "permanent-identifier", Value: "gw-2"}}, {{Type: "email", Value: "a@example.org"}}} {
		g := a.addDevice("lamp-" + strings.ReplaceAll(tt[0].Value, "@", "-"))
		hmac, err := base64.RawURLEncoding.DecodeString(g.ACME.HMAC)
		must(err)
		other := goClient(t, a)
		_, err = other.Register(ctx, &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: g.ACME.KID, Key: hmac}}, acme.AcceptTOS)
		must(err)
		if order, err := other.AuthorizeOrder(ctx, tt); err == nil {
			t.Errorf("%s may order %v: %+v", g.ID, tt, order)
		}
	}
}

// goAuthorize meets the challenges named for the names of an order; the rest is authorized by the binding.
func goAuthorize(t *testing.T, a *acmeAuthority, client *acme.Client, order *acme.Order, how map[string]string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range order.AuthzURLs {
		authorization, err := client.GetAuthorization(t.Context(), at)
		must(err)
		kind, name := how[authorization.Identifier.Value], authorization.Identifier.Value
		if (kind == "") != (authorization.Status == acme.StatusValid) {
			t.Errorf("%v is %s", authorization.Identifier, authorization.Status)
		}
		if kind == "" {
			continue
		}
		i := slices.IndexFunc(authorization.Challenges, func(c *acme.Challenge) bool { return c.Type == kind })
		if i < 0 {
			t.Fatalf("%s is not offered for %v", kind, authorization.Identifier)
		}
		c := authorization.Challenges[i]
		switch kind {
		case "tls-alpn-01":
			cert, err := client.TLSALPN01ChallengeCert(c.Token, name)
			must(err)
			l, err := tls.Listen("tcp", a.tlsALPN, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{acme.ALPNProto}})
			must(err)
			defer l.Close()
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					conn.(*tls.Conn).Handshake()
					conn.Close()
				}
			}()
		case "dns-01":
			value, err := client.DNS01ChallengeRecord(c.Token)
			must(err)
			write(t, filepath.Join(a.zone, "_acme-challenge."+name), value)
		}
		_, err = client.Accept(t.Context(), c)
		must(err)
		_, err = client.WaitAuthorization(t.Context(), at)
		must(err)
	}
}

// goClient is a client with a key of its own.
func goClient(t *testing.T, a *acmeAuthority) *acme.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(read(t, a.root())))
	return &acme.Client{Key: key, DirectoryURL: a.directory(), HTTPClient: &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}}
}

func goRequest(t *testing.T, names ...string) (crypto.Signer, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func goVerify(t *testing.T, a *acmeAuthority, chain [][]byte) *x509.Certificate {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, a.root())))
	var first *x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = c
		}
		between.AddCert(c)
	}
	if _, err := first.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	return first
}

// The device's own client: enrols, renews by itself when the CA says so, and after a revocation.
func TestOwnACME(t *testing.T) {
	a, dir := newACMEAuthority(t), t.TempDir()
	g := a.addDevice("gw-1")
	secret := write(t, filepath.Join(dir, "secret"), g.Secret+"\n")
	enroll := func(more ...string) (r struct{ Action, Serial, Outcome string }) {
		t.Helper()
		text := a.deviceca(append([]string{"enroll", "--protocol", "acme", "--server", "https://" + a.https, "--id", "gw-1", "--dir", filepath.Join(dir, "tls"),
			"--http01", a.http01, "--json"}, more...)...)
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("enroll printed %q: %v", text, err)
		}
		return r
	}
	first := enroll("--roots", a.root(), "--reference", g.Reference, "--secret-file", secret, "--dns", "gw-1.internal", "--profile", "gateway")
	if first.Action != "enrolled" || first.Outcome != "issue" {
		t.Errorf("%+v", first)
	}
	chain := filepath.Join(dir, "tls", "fullchain.pem")
	a.verify(chain, "CN = gw-1", "DNS:gw-1.internal", "TLS Web Server Authentication")
	if again := enroll(); again.Action != "current" || again.Serial != first.Serial {
		t.Errorf("%+v", again)
	}
	if renewed := enroll("--renew"); renewed.Action != "renewed" || renewed.Serial == first.Serial {
		t.Errorf("%+v", renewed)
	}
	list := a.ledger("gw-1")
	a.expect("gw-1", 2, 0)
	// A revocation pulls the window to now. The client asks when it was told to: forget what it was told.
	a.deviceca("cert", "revoke", "--home", a.home, list[len(list)-1].Serial, "--reason", "superseded")
	a.deviceca("cert", "revoke", "--home", a.home, list[0].Serial, "--reason", "superseded")
	if err := os.Remove(filepath.Join(dir, "tls", "renewal.json")); err != nil {
		t.Fatal(err)
	}
	if r := enroll(); r.Action != "renewed" {
		t.Errorf("after a revocation: %+v", r)
	}
	a.expect("gw-1", 3, 2)
}

// What a client may not do, told in ACME's words.
func TestACMERefusals(t *testing.T) {
	a := newACMEAuthority(t)
	g, name := a.addDevice("gw-1"), "gw-1.internal"
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := goClient(t, a)
	hmac, err := base64.RawURLEncoding.DecodeString(g.ACME.HMAC)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Register(ctx, &acme.Account{ExternalAccountBinding: &acme.ExternalAccountBinding{KID: g.ACME.KID, Key: hmac}}, acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	answer := ""
	l, err := net.Listen("tcp", a.http01)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if location, ok := strings.CutPrefix(answer, "->"); ok {
			http.Redirect(w, r, location, http.StatusFound)
			return
		}
		io.WriteString(w, answer)
	})}
	go server.Serve(l)
	defer server.Close()
	for _, tt := range []struct{ answer, problem, detail string }{
		{"wrong", "incorrectResponse", "wrong"},
		{"->http://169.254.169.254/latest/meta-data/", "connection", "169.254.169.254"},
		{"->http://127.0.0.1:22/", "unauthorized", "port"},
		{"->file:///etc/passwd", "unauthorized", "http and https"},
	} {
		answer = tt.answer
		order, err := client.AuthorizeOrder(ctx, acme.DomainIDs(name))
		if err != nil {
			t.Fatal(err)
		}
		authorization, err := client.GetAuthorization(ctx, order.AuthzURLs[0])
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(authorization.Challenges, func(c *acme.Challenge) bool { return c.Type == "http-01" })
		if _, err := client.Accept(ctx, authorization.Challenges[i]); err != nil {
			t.Fatal(err)
		}
		_, err = client.WaitAuthorization(ctx, order.AuthzURLs[0])
		fault, ok := errors.AsType[*acme.AuthorizationError](err)
		if !ok || len(fault.Errors) != 1 || !strings.Contains(fmt.Sprint(fault.Errors[0]), tt.problem) || !strings.Contains(fmt.Sprint(fault.Errors[0]), tt.detail) {
			t.Errorf("%s: %v", tt.answer, err)
		}
		if order, err := client.GetOrder(ctx, order.URI); err != nil || order.Status != acme.StatusInvalid {
			t.Errorf("%s: the order is %+v, %v", tt.answer, order, err)
		}
	}
	a.expect("gw-1", 0, 0)
}
