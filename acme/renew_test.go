package acme_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	xacme "golang.org/x/crypto/acme"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// certID names a certificate as RFC 9773 §4.1 does.
func certID(c *x509.Certificate) string {
	return b64(c.AuthorityKeyId) + "." + b64(c.SerialNumber.Bytes())
}

type windowDoc struct {
	SuggestedWindow struct{ Start, End time.Time }
}

func (e *env) window(c *x509.Certificate) windowDoc {
	e.t.Helper()
	var w windowDoc
	r := e.get("/renewal-info/" + certID(c)).want(200)
	r.json(&w)
	if !w.SuggestedWindow.Start.Before(w.SuggestedWindow.End) || r.header.Get("Retry-After") == "" {
		e.t.Errorf("%s %v", r.raw, r.header)
	}
	return w
}

// RFC 9773 §4.
func TestRenewalInfo(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	cert, _ := a.enrolled()
	w := e.window(cert).SuggestedWindow
	middle := cert.NotAfter.Sub(e.now()) / 2
	if off := w.Start.Add(w.End.Sub(w.Start) / 2).Sub(e.now().Add(middle)); off.Abs() > 24*time.Hour/20+10*time.Second {
		t.Errorf("the window's middle is %s off", off)
	}
	id := certID(cert)
	other := must[*x509.Certificate](t)(x509.ParseCertificate(e.root))
	for name, c := range map[string]struct {
		id     string
		status int
	}{
		"padded":               {id + "=", 400},
		"without a dot":        {strings.Replace(id, ".", "", 1), 400},
		"two dots":             {id + ".AA", 400},
		"no serial":            {b64(cert.AuthorityKeyId) + ".", 400},
		"no authority":         {"." + b64(cert.SerialNumber.Bytes()), 400},
		"standard base64":      {base64.RawStdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 20)) + ".AQ", 404},
		"another authority":    {b64(other.SubjectKeyId) + "." + b64(cert.SerialNumber.Bytes()), 404},
		"another serial":       {b64(cert.AuthorityKeyId) + "." + b64(bytes.Repeat([]byte{1}, 19)), 404},
		"a serial of a root's": {certID(other), 404},
		"bits too many":        {id[:len(id)-1] + "B", 400},
	} {
		r := e.get("/renewal-info/" + c.id)
		if r.status != c.status && r.status != 400 && r.status != 404 {
			t.Errorf("%s: %d %s", name, r.status, r.raw)
		}
		if r.status == 200 {
			t.Errorf("%s was accepted", name)
		}
	}
	serial, _ := ca.SerialFromBig(cert.SerialNumber)
	if _, err := e.core.Revoke(t.Context(), serial, 1, nil, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if w := e.window(cert).SuggestedWindow; w.End.After(e.now()) {
		t.Errorf("revoked, and the window ends at %s", w.End)
	}
}

// rotate makes the next issuing generation below a root.
func (e *env) rotate(root []byte, key crypto.Signer, rootName string) {
	e.t.Helper()
	name, generation := e.core.Next("issuing")
	e.signers[name] = newKey(e.t)
	cert := must[[]byte](e.t)(ca.NewSubordinate(root, key, "issuing", generation, e.signers[name].Public(), ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Root: rootName, Now: e.now()}))
	if err := e.core.Take(e.t.Context(), ca.IssuerRecord{Name: name, Role: "issuing", Generation: generation, Key: name, Cert: cert}, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
}

// A rotation pulls renewal forward; after a root's there are alternate chains, each linked from the others (RFC 8555 §7.4.2).
func TestRotation(t *testing.T) {
	e := newEnv(t)
	a := e.device("lamp-1")
	cert, _ := a.enrolled()
	before := e.window(cert).SuggestedWindow
	e.rotate(e.root, e.rootKey, "root-1")
	if w := e.window(cert).SuggestedWindow; !w.Start.Before(before.Start) || w.Start.After(e.now().Add(24*time.Hour/10)) {
		t.Errorf("the window is %v, was %v", w, before)
	}

	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: e.now()}
	newRootKey := newKey(t)
	newRoot := must[[]byte](t)(ca.NewRoot(newRootKey, 2, h))
	cross := must[[]byte](t)(ca.NewCross(e.root, newRoot, newRootKey, h))
	for _, r := range []ca.IssuerRecord{{Name: "root-2", Role: "root", Generation: 2, Key: "root-2", Cert: newRoot}, {Name: "root-1-by-2", Role: "cross", Generation: 1, Key: "root-1", Cert: cross}} {
		if err := e.core.Take(t.Context(), r, "admin:test"); err != nil {
			t.Fatal(err)
		}
	}
	done := readOrder(a.finalize(a.ordered(pid("lamp-1")), csr(t, newKey(t), "", pid("lamp-1"))).want(200))
	r := a.post(done.Certificate, nil).want(200)
	if n := bytes.Count(r.raw, []byte("BEGIN")); n != 3 {
		t.Errorf("%d certificates in the chain by the new root", n)
	}
	alternate := ""
	for _, l := range r.header.Values("Link") {
		if url, ok := strings.CutSuffix(l, `>;rel="alternate"`); ok {
			alternate = url[1:]
		}
	}
	other := a.post(alternate, nil).want(200)
	if n := bytes.Count(other.raw, []byte("BEGIN")); n != 2 || !strings.Contains(strings.Join(other.header.Values("Link"), " "), "<"+done.Certificate+`>;rel="alternate"`) {
		t.Errorf("%d certificates in the other chain, links %v", n, other.header.Values("Link"))
	}
	for i, chain := range [][]byte{r.raw, other.raw} {
		var certs []*x509.Certificate
		for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
			certs = append(certs, must[*x509.Certificate](t)(x509.ParseCertificate(block.Bytes)))
		}
		for j := range certs[1:] {
			if err := certs[j].CheckSignatureFrom(certs[j+1]); err != nil {
				t.Errorf("chain %d: certificate %d is not certified by the next: %v", i, j, err)
			}
		}
		root := must[*x509.Certificate](t)(x509.ParseCertificate([][]byte{newRoot, e.root}[i]))
		if err := certs[len(certs)-1].CheckSignatureFrom(root); err != nil {
			t.Errorf("chain %d does not lead to its root: %v", i, err)
		}
	}
}

// RFC 9773 §5.
func TestReplaces(t *testing.T) {
	e := newEnv(t, onNetworks, edit("outcomes:\n", "outcomes:\n  - name: renewals\n    when: request.operation == \"renew\"\n    then: restricted\n    validity_factor: 0.5\n"))
	e.run()
	a, b := e.device("lamp-1"), e.device("lamp-2")
	cert, _ := a.enrolled()
	id := certID(cert)
	replacing := map[string]any{"replaces": id}
	b.newOrder(replacing, pid("lamp-2")).problem(403, "unauthorized")
	a.newOrder(replacing, dns("lamp-1")).problem(400, "malformed") // no identifier in common
	o := readOrder(a.newOrder(replacing, pid("lamp-1")).want(201))
	if o.Replaces != id || a.fetchOrder(o.url).Replaces != id {
		t.Errorf("order %+v", o)
	}
	a.newOrder(replacing, pid("lamp-1")).problem(409, "alreadyReplaced")
	a.post(o.Authorizations[0], map[string]any{"status": "deactivated"}).want(200) // which makes that order invalid
	var wg sync.WaitGroup
	var mu sync.Mutex
	got := map[int]int{}
	for range 8 {
		wg.Go(func() {
			r := a.newOrder(replacing, pid("lamp-1"))
			mu.Lock()
			defer mu.Unlock()
			if got[r.status]++; r.status == 201 {
				o = readOrder(r)
			}
		})
	}
	wg.Wait()
	if got[201] != 1 || got[409] != 7 {
		t.Errorf("eight at once: %v", got)
	}
	serial, _ := ca.SerialFromBig(cert.SerialNumber)
	if _, err := e.core.Revoke(t.Context(), serial, 4, nil, "admin:test"); err != nil { // no reason not to renew
		t.Fatal(err)
	}
	a.finalize(o, csr(t, newKey(t), "")).want(200)
	all := must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))
	if c := all[len(all)-1]; c.Replaces != serial || c.Decision.Rule != "renewals" || c.Decision.Outcome != policy.Restricted {
		t.Errorf("recorded %+v", c)
	}
	a.newOrder(replacing, pid("lamp-1")).problem(409, "alreadyReplaced")

	// A certificate's profile stays, unless another is asked for.
	key := newKey(t)
	lamp := readOrder(a.newOrder(map[string]any{"profile": "lamp"}, pid("lamp-1")).want(201))
	leaf := a.chain(readOrder(a.finalize(lamp, csr(t, key, "", pid("lamp-1"))).want(200)).Certificate)[0]
	if o := readOrder(a.newOrder(map[string]any{"replaces": certID(leaf)}, pid("lamp-1")).want(201)); o.Profile != "lamp" {
		t.Errorf("the profile became %s", o.Profile)
	}
}

// RFC 8555 §7.6.
func TestRevoke(t *testing.T) {
	e := newEnv(t, onNetworks)
	e.run()
	g := e.register("gw-1", "software", 9)
	a, stranger := e.account(g), e.device("gw-2")
	revoke := func(by *account, c *x509.Certificate, more ...any) *answer {
		p := map[string]any{"certificate": b64(c.Raw)}
		for i := 0; i < len(more); i += 2 {
			p[more[i].(string)] = more[i+1]
		}
		return by.post("/revoke-cert", p)
	}
	byKey := func(key crypto.Signer, c *x509.Certificate) *answer {
		url := e.url("/revoke-cert")
		return e.post(url, message(t, key, header{"alg": algorithm(key), "jwk": jwk(key), "nonce": e.takeNonce(), "url": url}, map[string]any{"certificate": b64(c.Raw), "reason": 1}))
	}
	state := func(c *x509.Certificate) *ca.Revocation {
		serial, _ := ca.SerialFromBig(c.SerialNumber)
		return must[*ca.Certificate](t)(e.store.CertificateBySerial(t.Context(), serial)).Revocation
	}
	cert, key := a.enrolled()
	for _, reason := range []any{2, 6, 7, 8, 10, 11, -1} {
		revoke(a, cert, "reason", reason).problem(400, "badRevocationReason")
	}
	for _, reason := range []any{"1", 1.5, []int{1}} {
		if p := revoke(a, cert, "reason", reason).problem(400, "malformed"); !strings.Contains(p.Detail, "\"reason\" is not a whole number") {
			t.Errorf("the reason %v: %s", reason, p.Detail)
		}
	}
	revoke(stranger, cert).problem(403, "unauthorized")
	byKey(newKey(t), cert).problem(403, "unauthorized")
	a.post("/revoke-cert", map[string]any{}).problem(400, "malformed")
	a.post("/revoke-cert", map[string]any{"certificate": "AAAA"}).problem(400, "malformed")
	revoke(a, must[*x509.Certificate](t)(x509.ParseCertificate(e.root))).problem(404, "malformed")
	changed := bytes.Clone(cert.Raw)
	changed[len(changed)-1] ^= 1
	a.post("/revoke-cert", map[string]any{"certificate": b64(changed)}).problem(404, "malformed")
	if state(cert) != nil {
		t.Fatal("revoked by whom?")
	}
	revoke(a, cert, "reason", 4).want(200)
	if r := state(cert); r == nil || r.Reason != 4 {
		t.Errorf("revocation %+v", r)
	}
	revoke(a, cert).problem(400, "alreadyRevoked")
	byKey(key, cert).problem(400, "alreadyRevoked")

	cert, _ = a.enrolled()
	revoke(a, cert, "reason", nil).want(200) // as if it were not there
	if r := state(cert); r == nil || r.Reason != 0 {
		t.Errorf("revocation %+v", r)
	}

	cert, key = a.enrolled()
	byKey(key, cert).want(200)
	if r := state(cert); r == nil || r.Reason != 1 {
		t.Errorf("revocation %+v", r)
	}

	// The certificate's key speaks for it while it stands: not on hold, not when it has expired, not suspended.
	suspend := func(to device.State) {
		t.Helper()
		must[ca.Revoked](t)(e.core.MoveDevice(t.Context(), "gw-1", to, 0, "admin:test"))
	}
	cert, key = a.enrolled()
	serial, _ := ca.SerialFromBig(cert.SerialNumber)
	must[*ca.Certificate](t)(e.core.Revoke(t.Context(), serial, ca.ReasonCertificateHold, nil, "admin:test"))
	byKey(key, cert).problem(403, "unauthorized")
	must[*ca.Certificate](t)(e.core.Release(t.Context(), serial, "admin:test"))
	suspend(device.Suspended)
	byKey(key, cert).problem(403, "unauthorized")
	revoke(a, cert).problem(403, "unauthorized")
	suspend(device.Active)
	life := cert.NotAfter.Sub(e.now()) + time.Hour
	e.later(life)
	byKey(key, cert).problem(403, "unauthorized")
	e.later(-life)
	if state(cert) != nil {
		t.Error("revoked")
	}

	// Another account that holds authorizations for all names, and one that does for some.
	o := a.ordered(pid("gw-1"), dns("gw-1.local"))
	a.meet(o, "http-01")
	cert = a.chain(readOrder(a.finalize(o, csr(t, newKey(t), "", pid("gw-1"), dns("gw-1.local"))).want(200)).Certificate)[0]
	b := e.account(g)
	b.ordered(pid("gw-1"))
	revoke(b, cert).problem(403, "unauthorized")
	b.meet(b.ordered(dns("gw-1.local")), "http-01")
	revoke(b, cert).want(200)
}

// A client that is not ours: golang.org/x/crypto/acme, with http-01 for real.
func TestXCrypto(t *testing.T) {
	var tokens sync.Map
	web := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if v, ok := tokens.Load(r.URL.Path); ok {
			w.Write([]byte(v.(string)))
			return
		}
		http.NotFound(w, r)
	})}
	go server.Serve(web)
	t.Cleanup(func() { server.Close() })
	e := newEnv(t, edit(`        - "10.0.0.0/8"`, `        - "127.0.0.1"`), func(o *acme.Options) {
		o.Validators = must[map[string]acme.Validator](t)(acme.NewValidators(acme.ValidatorOptions{HTTPPort: uint16(web.Addr().(*net.TCPAddr).Port), AllowNetworks: networks("127.0.0.1/32")}))
	})
	e.run()
	g := e.register("gw-1", "software", 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := &xacme.Client{Key: newKey(t), DirectoryURL: e.url("/directory"), HTTPClient: e.http.Client()}
	mac := must[[]byte](t)(base64.RawURLEncoding.DecodeString(g.ACME.HMACKey))
	if _, err := c.Register(ctx, &xacme.Account{Contact: []string{"mailto:a@example.com"}, ExternalAccountBinding: &xacme.ExternalAccountBinding{KID: g.ACME.KID, Key: mac}}, xacme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	order := must[*xacme.Order](t)(c.AuthorizeOrder(ctx, xacme.IPIDs("127.0.0.1")))
	for _, url := range order.AuthzURLs {
		z := must[*xacme.Authorization](t)(c.GetAuthorization(ctx, url))
		for _, ch := range z.Challenges {
			if ch.Type == "http-01" {
				tokens.Store(c.HTTP01ChallengePath(ch.Token), must[string](t)(c.HTTP01ChallengeResponse(ch.Token)))
				if _, err := c.Accept(ctx, ch); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := c.WaitAuthorization(ctx, url); err != nil {
			t.Fatal(err)
		}
	}
	if order, err := c.WaitOrder(ctx, order.URI); err != nil || order.Status != xacme.StatusReady {
		t.Fatal(order, err)
	}
	key := newKey(t)
	der, _, err := c.CreateOrderCert(ctx, order.FinalizeURL, csr(t, key, "", ip("127.0.0.1")), true)
	if err != nil || len(der) != 2 {
		t.Fatal(len(der), err)
	}
	if leaf := must[*x509.Certificate](t)(x509.ParseCertificate(der[0])); leaf.VerifyHostname("127.0.0.1") != nil {
		t.Errorf("certificate for %v", leaf.IPAddresses)
	}
	next := newKey(t)
	if err := c.AccountKeyRollover(ctx, next); err != nil {
		t.Fatal(err)
	}
	if err := c.RevokeCert(ctx, nil, der[0], xacme.CRLReasonSuperseded); err != nil {
		t.Error(err)
	}
	if err := c.RevokeCert(ctx, key, der[0], xacme.CRLReasonKeyCompromise); err != nil && !strings.Contains(err.Error(), "alreadyRevoked") {
		t.Error(err)
	}
	if err := c.DeactivateReg(ctx); err != nil {
		t.Error(err)
	}
}
