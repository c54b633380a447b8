package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/policy"
)

func testIssuer(t *testing.T) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	der, err := NewRoot(key, 1, Hierarchy{Organization: "Test", Now: now})
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := newIssuer(IssuerRecord{Name: "issuing-1", Cert: der}, key)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

// What the policy's own checks let through, the lint still stops.
func TestLintStopsAProfile(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	good := policy.Profile{Name: "p", Keys: []string{"ecdsa-p256", "ed25519", "rsa-4096"}, Subject: []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}},
		SAN: []string{"dns", "uri", "ip", "email", "permanent-identifier", "hardware-module"}, KeyUsage: []string{"digitalSignature"}, EKU: []string{"clientAuth"}, PolicyOIDs: []string{"1.3.6.1.4.1.55555.9"},
		Status: policy.Status{OCSP: true, CRL: "partition", Freshest: true, MustStaple: true}}
	for _, c := range []struct {
		name string
		edit func(*policy.Profile)
		want string // part of the lint's name; "" if it is clean
	}{
		{"clean", func(*policy.Profile) {}, ""},
		{"no revocation available", func(p *policy.Profile) { p.Status = policy.Status{NoRevAvail: true} }, ""},
		{"whole-scope CRL", func(p *policy.Profile) { p.Status = policy.Status{CRL: "full"} }, ""},
		{"a policy twice", func(p *policy.Profile) { p.PolicyOIDs = []string{"1.2.3", "1.2.3"} }, "policy_duplicate"},
		{"common name of 70", func(p *policy.Profile) { p.Subject[0].Value = strings.Repeat("x", 70) }, "common_name_max_length"},
		{"key agreement with RSA", func(p *policy.Profile) { p.KeyUsage = []string{"keyAgreement"}; p.Keys = []string{"rsa-2048"} }, "rsa_allowed_ku"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := good
			p.Subject = append([]policy.SubjectTemplate{}, good.Subject...)
			c.edit(&p)
			compiled, err := newProfile(p, testIssuer(t), "http://ca.test")
			if err != nil {
				t.Fatal(err)
			}
			err = compiled.lint(now, time.Hour)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("lint says %v, want %q", err, c.want)
			}
		})
	}
}

// The bytes to be signed, against what Go's encoder makes of the same
// certificate: two encoders that share nothing.
func TestTBSAgainstGo(t *testing.T) {
	issuer := testIssuer(t)
	p, err := newProfile(policy.Profile{Name: "p", Keys: []string{"ecdsa-p256"}, Subject: []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}},
		KeyUsage: []string{"digitalSignature", "keyAgreement"}, EKU: []string{"clientAuth", "serverAuth"}, Status: policy.Status{OCSP: true, CRL: "full"}}, issuer, "http://ca.test/")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	tmpl := template{serial: NewSerial(77, [12]byte{1, 2, 3}), notBefore: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC), notAfter: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC),
		names: Names{Subject: []Attribute{{"cn", "lamp_1"}}, SANs: []SAN{{"dns", "lamp-1.example"}, {"ip", "2001:db8::1"}, {"uri", "urn:dev:lamp_1"}}}, spki: spki}
	tbs, err := p.tbs(tmpl)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := x509.ParseCertificate(issuer.seal(tbs, []byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	ours.Extensions, ours.ExtraExtensions = nil, nil
	theirDER, err := x509.CreateCertificate(rand.Reader, ours, issuer.Cert, key.Public(), issuer.signer)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := x509.ParseCertificate(theirDER)
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(issuer.seal(tbs, []byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	// Go orders the extensions in its own way; each must be the same.
	if len(again.Extensions) != len(theirs.Extensions) {
		t.Errorf("%d extensions, Go makes %d", len(again.Extensions), len(theirs.Extensions))
	}
	for _, e := range theirs.Extensions {
		found := false
		for _, o := range again.Extensions {
			if o.Id.Equal(e.Id) {
				found = true
				if string(o.Value) != string(e.Value) || o.Critical != e.Critical {
					t.Errorf("extension %s: %x, Go makes %x", e.Id, o.Value, e.Value)
				}
			}
		}
		if !found {
			t.Errorf("extension %s is missing", e.Id)
		}
	}
	if string(again.RawSubject) != string(theirs.RawSubject) || string(again.RawSubjectPublicKeyInfo) != string(theirs.RawSubjectPublicKeyInfo) ||
		again.SerialNumber.Cmp(theirs.SerialNumber) != 0 || !again.NotAfter.Equal(theirs.NotAfter) || string(again.RawIssuer) != string(theirs.RawIssuer) {
		t.Error("the certificates differ beside their extensions")
	}
	var outer []asn1.RawValue
	if rest, err := asn1.Unmarshal(again.Raw, &outer); err != nil || len(rest) > 0 || len(outer) != 3 {
		t.Errorf("not a Certificate: %v", err)
	}
}

// The watchdog raises the alarm, names the lint, and shows nothing of the key: not in the log, where the factors of a
// certified key would lie.
func TestLintAlarmHidesTheKey(t *testing.T) {
	p, err := newProfile(policy.Profile{Name: "p", Keys: []string{"rsa-2048"}, Subject: []policy.SubjectTemplate{{Attr: "cn", Value: "{device.id}"}}, KeyUsage: []string{"digitalSignature"}}, testIssuer(t), "http://ca.test/")
	if err != nil {
		t.Fatal(err)
	}
	root := new(big.Int).Lsh(big.NewInt(1), 1023)
	root.SetBit(root, 0, 1)
	next := new(big.Int).Add(root, big.NewInt(2)) // Fermat's method cares not whether they are primes
	spki, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Mul(root, next), E: 65537})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	cert := template{serial: NewSerial(77, [12]byte{1}), notBefore: now, notAfter: now.Add(time.Hour), names: Names{Subject: []Attribute{{"cn", "lamp-1"}}}, spki: spki}
	tbs, err := p.tbs(cert)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := &Service{opts: Options{LintShare: 1}, log: slog.New(slog.NewTextHandler(&log, nil))}
	s.watch(p, cert, tbs)
	if s.Stats().LintFindings != 1 || !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "e_rsa_fermat_factorization") || !strings.Contains(log.String(), cert.serial.String()) {
		t.Errorf("%d findings, logged %s", s.Stats().LintFindings, &log)
	}
	faults, err := lintCertificate(p.issuer.seal(tbs, make([]byte, 64)))
	if err != nil || !strings.Contains(fmt.Sprint(faults), root.String()) {
		t.Fatalf("the lint does not tell the factor, so this test shows nothing: %v %v", faults, err)
	}
	for _, text := range []string{log.String(), lintError(faults).Error()} {
		if strings.Contains(text, root.String()) || strings.Contains(text, next.String()) {
			t.Errorf("the factor is shown: %s", text)
		}
	}
}
