package est_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// service is EST over the real core: default policy, SQLite, software keys.
type service struct {
	*env
	core *ca.Service
	late atomic.Int64 // nanoseconds that the core's clock is ahead
}

// Each change is a func(*ca.Options) or a func(*est.Options).
func newService(t *testing.T, changes ...any) *service {
	t.Helper()
	s := &service{}
	now := func() time.Time { return time.Now().Add(time.Duration(s.late.Load())) }
	ledger, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), store.Options{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ledger.Close() })
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: now()}
	rootKey := newKey(t)
	root, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	signers := map[string]crypto.Signer{}
	add := func(role, name string, cert []byte) {
		record := ca.IssuerRecord{Name: name, Role: role, Generation: 1, Key: name, Cert: cert, Created: now()}
		if err := ledger.AddIssuer(t.Context(), record, ca.Event{Kind: ca.EventIssuerAdded, Time: now()}); err != nil {
			t.Fatal(err)
		}
	}
	add("root", "root", root)
	for _, role := range []string{"issuing", "quarantine"} {
		key := newKey(t)
		cert, err := ca.NewSubordinate(root, rootKey, role, 1, key.Public(), h)
		if err != nil {
			t.Fatal(err)
		}
		signers[role+"-1"] = key
		add(role, role+"-1", cert)
	}
	sealer, err := device.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	source := strings.Replace(string(policy.Default()), "    eku: [clientAuth]\n", "    eku: [clientAuth]\n    server_keygen: {allow: true, clear: true}\n", 1)
	rules, err := policy.Parse("policy.yaml", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	opts := ca.Options{Ledger: ledger, Sealer: sealer, Policy: rules, Key: func(_ context.Context, label string) (crypto.Signer, error) { return signers[label], nil }, URL: h.URL,
		LintShare: 1, Now: now, Logger: slog.New(slog.DiscardHandler)}
	toEST := []func(*est.Options){}
	for _, change := range changes {
		switch change := change.(type) {
		case func(*ca.Options):
			change(&opts)
		case func(*est.Options):
			toEST = append(toEST, change)
		default:
			t.Fatalf("a change of type %T", change)
		}
	}
	s.core, err = ca.NewService(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var responder est.Responder
	toEST = append(toEST, func(o *est.Options) {
		responder = o.Authority.(*authority).newResponder(t)
		o.Authority = s.core
		o.Rules = func(p policy.Profile) est.Rules { return est.Rules{Keygen: est.KeygenClear} }
		o.Responder = func(context.Context) (est.Responder, error) { return responder, nil }
	})
	s.env = newEnv(t, toEST...)
	return s
}

func (s *service) register(t *testing.T, id string, uses int) *ca.Grant {
	t.Helper()
	grant, err := s.core.AddDevice(t.Context(), device.Device{ID: id, Level: "software"}, uses, 24*time.Hour, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// TestService leads two devices through their lives, over HTTP alone.
func TestService(t *testing.T) {
	s := newService(t)
	lamp, other := s.register(t, "lamp-1", 2), s.register(t, "lamp-2", 1)
	key := newKey(t)
	csr := newCSR(t, key, "lamp-1")
	enroll := func(t *testing.T, c call, body []byte) result {
		t.Helper()
		if c.path == "" {
			c.path = "simpleenroll"
		}
		c.body = base64Body(body)
		return s.do(t, c)
	}
	byCredential := call{user: lamp.Reference, pass: lamp.Secret}

	var anchors []*x509.Certificate
	t.Run("cacerts", func(t *testing.T) {
		if anchors = s.do(t, call{path: "cacerts"}).certs(t); len(anchors) != 3 {
			t.Fatalf("%d certificates, want root, issuing and quarantine", len(anchors))
		}
	})
	verify := func(t *testing.T, cert *x509.Certificate) {
		t.Helper()
		options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		for _, a := range anchors {
			if a.CheckSignatureFrom(a) == nil {
				options.Roots.AddCert(a)
			} else {
				options.Intermediates.AddCert(a)
			}
		}
		if _, err := cert.Verify(options); err != nil {
			t.Errorf("the certificate does not verify with what cacerts gave: %v", err)
		}
	}
	asIdentity := func(cert *x509.Certificate) identity { return identity{&ca.Certificate{DER: cert.Raw}, key} }

	var first *x509.Certificate
	t.Run("enrol by credential", func(t *testing.T) {
		first = enroll(t, byCredential, csr).certs(t)[0]
		verify(t, first)
		if first.Subject.CommonName != "lamp-1" {
			t.Errorf("subject %s", first.Subject)
		}
	})
	if first == nil {
		t.FailNow()
	}
	t.Run("lost reply", func(t *testing.T) {
		if again := enroll(t, byCredential, csr).certs(t)[0]; !again.Equal(first) {
			t.Error("the same request got another certificate")
		}
	})
	own := asIdentity(first)
	t.Run("renew by certificate", func(t *testing.T) {
		renewed := enroll(t, call{path: "simplereenroll", as: &own}, csr).certs(t)[0]
		verify(t, renewed)
		if renewed.Equal(first) || string(renewed.RawSubject) != string(first.RawSubject) {
			t.Errorf("serial %x, subject %s", renewed.SerialNumber, renewed.Subject)
		}
	})
	t.Run("csrattrs", func(t *testing.T) {
		for _, c := range []call{{path: "csrattrs"}, {path: "csrattrs", as: &own}, {path: "gateway/csrattrs"}} {
			der, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, strings.NewReader(s.do(t, c).body)))
			if err != nil || len(der) == 0 {
				t.Errorf("%s: %x, %v", c.path, der, err)
			}
		}
	})

	t.Run("serverkeygen, read with the tools of docs/est.md", func(t *testing.T) {
		grant := s.register(t, "lamp-3", 1)
		r := s.do(t, call{path: "serverkeygen", body: base64Body(newCSR(t, newKey(t), "lamp-3")), user: grant.Reference, pass: grant.Secret})
		_, cert := r.generated(t, clearKey)
		verify(t, cert)
		const script = `tr -d '\r' > reply
grep -A2 '^Content-Type: application/pkcs8' reply | tail -1 | base64 -d | openssl pkey -inform DER -out key &&
grep -A2 '^Content-Type: application/pkcs7' reply | tail -1 | base64 -d | openssl pkcs7 -inform DER -print_certs -out crt &&
openssl pkey -in key -pubout && openssl x509 -in crt -noout -pubkey`
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Stdin = t.TempDir(), strings.NewReader(r.body)
		out, err := cmd.CombinedOutput()
		if half := len(out) / 2; err != nil || half == 0 || string(out[:half]) != string(out[half:]) {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("serverkeygen under the credential's secret", func(t *testing.T) {
		grant := s.register(t, "lamp-4", 1)
		ask := csrWith(t, newKey(t), "lamp-4", capabilities(aes256CBC, aes256Wrap), octets(attrSecretID, []byte(grant.Reference)))
		r := s.do(t, call{path: "serverkeygen", body: base64Body(ask), user: grant.Reference, pass: grant.Secret})
		sealed, cert := r.generated(t, sealedKey)
		verify(t, cert)
		signed := decryptWithOpenSSL(t, t.TempDir(), sealed, "-secretkey", hex.EncodeToString(est.KEK(device.Secret(grant.Secret))))
		if made := s.opened(t, signed); !samePublic(made, cert) {
			t.Error("the key is not the certificate's")
		}
		// The default profile signs only, so that no key can be encrypted to such a certificate.
		keyID := octets(attrPublicID, first.SubjectKeyId)
		r = s.do(t, call{path: "serverkeygen", body: base64Body(csrWith(t, newKey(t), "lamp-1", capabilities(aes256Wrap), keyID)), as: &own})
		r.wantRefusal(t, 400, "keyAgreement")
	})
	t.Run("fullcmc, from the secret to a renewal", func(t *testing.T) {
		grant, key := s.register(t, "lamp-5", 1), newKey(t)
		m := &pkiMessage{requests: [][]byte{tcr(1, newCSR(t, key, "lamp-5"))}, signer: byKey(key)}
		m.prove(grant.Reference, grant.Secret)
		leaf := func(a pkiAnswer) *x509.Certificate {
			t.Helper()
			for _, c := range a.certs {
				if c.Subject.CommonName == "lamp-5" && a.status == 0 {
					verify(t, c)
					return c
				}
			}
			t.Fatalf("answer %+v", a)
			return nil
		}
		enrolled := leaf(s.pkiAnswer(t, s.cmc(t, "fullcmc", m.seal(t))))
		next := newKey(t)
		m = &pkiMessage{requests: [][]byte{tcr(1, newCSR(t, next, "lamp-5"))}, signer: byCertificate(t, identity{&ca.Certificate{DER: enrolled.Raw}, key})}
		if renewed := leaf(s.pkiAnswer(t, s.cmc(t, "fullcmc", m.seal(t)))); !samePublic(next, renewed) {
			t.Error("a certificate for another key")
		}
		m = &pkiMessage{requests: [][]byte{tcr(1, newCSR(t, newKey(t), "lamp-5"))}}
		m.signer = byKey(newKey(t))
		m.prove("nobody", grant.Secret)
		if a := s.pkiAnswer(t, s.cmc(t, "fullcmc", m.seal(t))); a.fail != 7 {
			t.Errorf("answer %+v", a)
		}
	})

	refusals := []struct {
		name   string
		call   call
		body   []byte
		status int
	}{
		{"wrong secret", call{user: lamp.Reference, pass: "wrong"}, csr, 401},
		{"unknown reference", call{user: "nobody", pass: lamp.Secret}, csr, 401},
		{"foreign certificate", call{as: new(newEnv(t).newIdentity(t, "lamp-1", time.Now().Add(time.Hour)))}, csr, 401},
		{"another device's name, by credential", byCredential, newCSR(t, key, "lamp-2"), 403},
		{"another device's name, by certificate", call{as: &own}, newCSR(t, key, "lamp-2"), 403},
		{"another device's key", call{user: other.Reference, pass: other.Secret}, newCSR(t, key, "lamp-2"), 400},
		{"name that the profile does not allow", byCredential, newCSR(t, key, "lamp-1", "www.example.com"), 403},
		{"changed subjectAltName on re-enrolment", call{path: "simplereenroll", as: &own}, newCSR(t, key, "lamp-1", "lamp-1"), 403},
		{"profile that the level may not have", call{path: "remediation/simpleenroll", as: &own}, csr, 403},
		{"unknown label", call{path: "nosuch/simpleenroll", as: &own}, csr, 404},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) { enroll(t, tt.call, tt.body).wantRefusal(t, tt.status, "") })
	}

	t.Run("spent credential", func(t *testing.T) {
		enroll(t, byCredential, newCSR(t, newKey(t), "lamp-1")).certs(t) // the second and last use
		enroll(t, byCredential, newCSR(t, newKey(t), "lamp-1")).wantRefusal(t, 401, "no uses left")
	})
	t.Run("lapsed", func(t *testing.T) {
		defer s.late.Store(0)
		s.late.Store(int64(time.Until(first.NotAfter) + time.Hour))
		lapsed := call{path: "simplereenroll", as: &own}
		enroll(t, lapsed, newCSR(t, newKey(t), "lamp-1")).wantRefusal(t, 401, "expired")
		enroll(t, lapsed, csr).certs(t)
		// Too long ago for that: a new credential lets the device in, on the same path.
		s.late.Store(int64(time.Until(first.NotAfter) + 365*24*time.Hour))
		enroll(t, lapsed, csr).wantRefusal(t, 401, "expired")
		question := call{path: "csrattrs", as: &own}
		if r := s.do(t, question); r.status != 200 { // as to anyone
			t.Errorf("csrattrs with a lapsed certificate: %d %s", r.status, r.body)
		}
		enroll(t, call{path: "serverkeygen", as: &own}, csr).wantRefusal(t, 401, "expired")
		grant, err := s.core.AddCredential(t.Context(), device.Credential{Device: "lamp-1", Level: "software", Uses: 1}, time.Hour, "admin:test")
		if err != nil {
			t.Fatal(err)
		}
		lapsed.user, lapsed.pass = grant.Reference, grant.Secret
		enroll(t, lapsed, csr).certs(t)
		question.user, question.pass = grant.Reference, grant.Secret
		if r := s.do(t, question); r.status != 200 {
			t.Errorf("csrattrs by the secret beside a lapsed certificate: %d %s", r.status, r.body)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		serial, _ := ca.SerialFromBig(first.SerialNumber)
		if _, err := s.core.Revoke(t.Context(), serial, 1, nil, "admin:test"); err != nil {
			t.Fatal(err)
		}
		enroll(t, call{path: "simplereenroll", as: &own}, csr).wantRefusal(t, 401, "revoked")
		revoked, anyone := s.do(t, call{path: "csrattrs", as: &own}), s.do(t, call{path: "csrattrs"})
		if revoked.status != 200 || revoked.body != anyone.body {
			t.Errorf("csrattrs with a revoked certificate: %d %s, want what anyone gets: %s", revoked.status, revoked.body, anyone.body)
		}
	})
	t.Run("retired", func(t *testing.T) {
		if _, err := s.core.MoveDevice(t.Context(), "lamp-2", device.Retired, 0, "admin:test"); err != nil {
			t.Fatal(err)
		}
		r := enroll(t, call{user: other.Reference, pass: other.Secret}, newCSR(t, newKey(t), "lamp-2"))
		r.wantRefusal(t, 401, "revoked") // its credential went with it
	})
}

// A CA that has expired says so: 503 with the reason, for an operator can mend it.
func TestExpiredCA(t *testing.T) {
	s := newService(t)
	s.late.Store(int64(5*365*24*time.Hour + time.Hour))
	lamp := s.register(t, "lamp-1", 2)
	r := s.do(t, call{path: "simpleenroll", user: lamp.Reference, pass: lamp.Secret, body: base64Body(newCSR(t, newKey(t), "lamp-1"))})
	if r.status != 503 || r.header.Get("Retry-After") != "600" || !strings.Contains(string(r.body), "the CA issuing-1 expired at ") {
		t.Errorf("HTTP %d, Retry-After %q: %s", r.status, r.header.Get("Retry-After"), r.body)
	}
}
