package ca_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

func TestHierarchy(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test/", Now: now}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": ecKey(t, elliptic.P256()), "P-384": ecKey(t, elliptic.P384()), "RSA-3072": rsaKey, "Ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			rootDER, err := ca.NewRoot(key, 1, h)
			if err != nil {
				t.Fatal(err)
			}
			root := parse(t, rootDER)
			for _, role := range []string{"issuing", "quarantine"} {
				der, err := ca.NewSubordinate(rootDER, key, role, 1, key.Public(), h)
				if err != nil {
					t.Fatal(err)
				}
				cert := parse(t, der)
				if err := cert.CheckSignatureFrom(root); err != nil {
					t.Error(err)
				}
				above := map[string]string{"issuing": "root-1", "quarantine": "quarantine-root-1"}[role]
				if !cert.IsCA || !cert.MaxPathLenZero || cert.IssuingCertificateURL[0] != "http://ca.test/ca/"+above+".crt" || cert.CRLDistributionPoints[0] != "http://ca.test/crl/"+above+".crl" {
					t.Errorf("%s: %+v", role, cert)
				}
				if err := ca.CheckSubordinate(der, rootDER, role, key.Public(), now); err != nil {
					t.Error(err)
				}
				other := map[string]string{"issuing": "quarantine", "quarantine": "issuing"}[role]
				if err := ca.CheckSubordinate(der, rootDER, other, key.Public(), now); err == nil {
					t.Errorf("the %s certificate passes as that of %s", role, other)
				}
				if err := ca.CheckSubordinate(der, rootDER, role, ecKey(t, elliptic.P256()).Public(), now); err == nil {
					t.Error("a certificate for another key passes")
				}
				if csr, err := ca.SubordinateCSR(key, role, 1, h); err != nil {
					t.Error(err)
				} else if parsed, err := x509.ParseCertificateRequest(csr); err != nil || parsed.CheckSignature() != nil {
					t.Errorf("the request does not verify: %v", err)
				}
			}
			crlDER, err := ca.RootCRL(rootDER, key, 7, []ca.RevokedCA{{Serial: root.SerialNumber, Time: now, Reason: 1}}, now, now.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			crl, err := x509.ParseRevocationList(crlDER)
			if err != nil || crl.CheckSignatureFrom(root) != nil || crl.Number.Int64() != 7 || len(crl.RevokedCertificateEntries) != 1 {
				t.Errorf("root CRL %+v, %v", crl, err)
			}
			if !crl.ThisUpdate.Equal(now.Add(-time.Hour).Truncate(time.Second)) {
				t.Errorf("the root's CRL begins %s, its certificate %s", crl.ThisUpdate, root.NotBefore)
			}
		})
	}
}

// Quarantine's root is an anchor of its own: nothing leads to it from the root, with whatever purpose.
func TestQuarantineRoot(t *testing.T) {
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test/", Now: time.Now()}
	rootKey, key := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384())
	root, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	own, err := ca.NewQuarantineRoot(key, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	if got := parse(t, own).Subject.CommonName; got != "Test Quarantine Root CA" {
		t.Errorf("it is called %q", got)
	}
	below, err := ca.NewSubordinate(own, key, "quarantine", 1, ecKey(t, elliptic.P256()).Public(), h)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		anchor []byte
		passes bool
	}{"the root": {root, false}, "its own root": {own, true}} {
		pool := x509.NewCertPool()
		pool.AddCert(parse(t, c.anchor))
		if _, err := parse(t, below).Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); (err == nil) != c.passes {
			t.Errorf("trusting %s: %v", what, err)
		}
	}
	crossed, err := ca.NewCross(own, root, rootKey, h)
	if err != nil {
		t.Fatal(err)
	}
	for what, cert := range map[string][]byte{"the root itself": root, "one that the root signed": crossed, "no CA": nil} {
		if err := ca.CheckQuarantineRoot(cert, [][]byte{root}, h.Now); err == nil {
			t.Errorf("%s passes as the quarantine root", what)
		}
	}
	if err := ca.CheckQuarantineRoot(own, [][]byte{root}, h.Now); err != nil {
		t.Error(err)
	}
}

func TestSerial(t *testing.T) {
	s := ca.NewSerial(0x0102030405, [12]byte{0xff})
	if s.Index() != 0x0102030405 || s.String() != "01000102030405"+"ff0000000000000000000000" {
		t.Errorf("%s has index %x", s, s.Index())
	}
	for _, text := range []string{s.String(), "0x" + s.String(), s.String()[1:], "01:00:01:02:03:04:05:FF:00:00:00:00:00:00:00:00:00:00:00"} {
		if got, err := ca.ParseSerial(text); err != nil || got != s {
			t.Errorf("ParseSerial(%q) is %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "01", "zz", s.String() + "00", "02" + s.String()[2:]} {
		if got, err := ca.ParseSerial(text); err == nil {
			t.Errorf("ParseSerial(%q) is %s", text, got)
		}
	}
	if got, ok := ca.SerialFromBig(s.Big()); !ok || got != s {
		t.Errorf("round trip gives %s", got)
	}
}
