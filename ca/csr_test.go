package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// vectors are the requests of testdata/csr (see SOURCES.tsv there), DER.
func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/csr/*.csr")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	all := map[string][]byte{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(raw); block != nil {
			raw = block.Bytes
		}
		all[strings.TrimSuffix(strings.TrimSuffix(filepath.Base(file), ".csr"), ".der")] = raw
	}
	return all
}

func TestCSRVectors(t *testing.T) {
	const good = ca.Kind(-1)
	want := map[string]ca.Kind{
		"bad": ca.Malformed, "badsig": ca.BadPOP, "invalid_signature": ca.BadPOP,
		"short_key": ca.BadKey, "short-rsa": ca.BadKey, "bad_algorithm": ca.BadAlg,
		"challengePassword": good, "challengePasswordUTF8": good, "cn_and_san": good, "ecdsa": good, "ed25519": good,
		"keytool": good, "rsa": good, "rawSubject": good,
		// Extensions that a profile will not issue are known, and not copied.
		"must_staple": good, "ct_poison_extension": good, "unsupported_extension": good,
		"no_names": good, "long_cn": good,
	}
	all := vectors(t)
	for name, der := range all {
		t.Run(name, func(t *testing.T) {
			kind, known := want[name]
			if !known {
				t.Fatal("no verdict for this vector")
			}
			csr, err := ca.ParseCSR(der)
			if kind == good {
				if err != nil {
					t.Fatal(err)
				}
				if csr.PublicKey == nil || len(csr.SPKI) == 0 {
					t.Error("no key")
				}
				return
			}
			if ca.KindOf(err) != kind {
				t.Errorf("got %v, want %v", err, kind)
			}
		})
	}
	if len(all) != len(want) {
		t.Errorf("%d vectors, %d verdicts", len(all), len(want))
	}
}

func TestCSRContents(t *testing.T) {
	all := vectors(t)
	csr, err := ca.ParseCSR(all["challengePassword"])
	if err != nil {
		t.Fatal(err)
	}
	if csr.ChallengePassword == "" {
		t.Error("the challengePassword was not read")
	}
	if csr, err = ca.ParseCSR(all["cn_and_san"]); err != nil {
		t.Fatal(err)
	}
	if csr.Names.CommonName() == "" || len(csr.Names.SANs) == 0 || csr.Names.SANs[0].Form != "dns" {
		t.Errorf("names: %+v", csr.Names)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t testing.TB, key crypto.Signer, tmpl x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &tmpl, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCSRRefused(t *testing.T) {
	key := newKey(t)
	named := x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}}
	good := newCSR(t, key, named)
	smallExponent := func() []byte {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		k.E = 3
		k.D.ModInverse(big.NewInt(3), new(big.Int).Mul(new(big.Int).Sub(k.Primes[0], big.NewInt(1)), new(big.Int).Sub(k.Primes[1], big.NewInt(1))))
		return csrWithKey(t, &k.PublicKey)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	many := named
	for range 40 {
		many.DNSNames = append(many.DNSNames, "a.example")
	}
	for _, c := range []struct {
		name string
		der  []byte
		kind ca.Kind
	}{
		{"nothing", nil, ca.Malformed},
		{"garbage", []byte("hello, this is no request"), ca.Malformed},
		{"truncated", good[:len(good)-7], ca.Malformed},
		{"trailing byte", append(slices.Clone(good), 0), ca.Malformed},
		{"twice", append(slices.Clone(good), good...), ca.Malformed},
		{"oversized", make([]byte, ca.MaxCSR+1), ca.Malformed},
		{"changed name", bytes.Replace(good, []byte("lamp-1"), []byte("lamp-2"), 1), ca.BadPOP},
		{"curve P-224", newCSR(t, p224, named), ca.BadKey},
		{"RSA exponent 3", smallExponent(), ca.BadKey},
		{"forty names", newCSR(t, key, many), ca.Malformed},
		{"control characters", newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp\n1"}}), ca.Malformed},
		{"name of 300 octets", newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: strings.Repeat("x", 300)}}), ca.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ca.ParseCSR(c.der); ca.KindOf(err) != c.kind || err == nil {
				t.Errorf("got %v, want %v", err, c.kind)
			}
		})
	}
}

// csrWithKey is a request that holds pub and is signed by another key: whether
// the key is acceptable is asked before the signature.
func csrWithKey(t *testing.T, pub crypto.PublicKey) []byte {
	t.Helper()
	signer := newKey(t)
	der := newCSR(t, signer, x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}})
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return replaceKey(t, parsed, spki)
}

func TestNamesCompare(t *testing.T) {
	names := func(cn string, dns ...string) ca.Names {
		csr, err := ca.ParseCSR(newCSR(t, newKey(t), x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}, DNSNames: dns}))
		if err != nil {
			t.Fatal(err)
		}
		return csr.Names
	}
	a := names("Lamp 1", "a.example", "b.example")
	for _, c := range []struct {
		name string
		b    ca.Names
		same bool
	}{
		{"itself", names("Lamp 1", "a.example", "b.example"), true},
		{"case and spaces", names("lamp  1", "A.example", "b.example"), true},
		{"order of SANs", names("Lamp 1", "b.example", "a.example"), true},
		{"SAN missing", names("Lamp 1", "a.example"), false},
		{"another name", names("Lamp 2", "a.example", "b.example"), false},
	} {
		if got := a.Equal(c.b); got != c.same {
			t.Errorf("%s: Equal is %v", c.name, got)
		}
	}
}

// FuzzParseCSR: never a panic, and what parses has a key and bounded names.
func FuzzParseCSR(f *testing.F) {
	for _, der := range vectors(f) {
		f.Add(der)
	}
	uri, _ := url.Parse("urn:dev:lamp-1")
	f.Add(newCSR(f, newKey(f), x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}, URIs: []*url.URL{uri}}))
	for _, odd := range oddCSRs(f) {
		f.Add(odd.der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := ca.ParseCSR(der)
		if err != nil {
			if k := ca.KindOf(err); k != ca.Malformed && k != ca.BadPOP && k != ca.BadAlg && k != ca.BadKey {
				t.Errorf("kind %v: %v", k, err)
			}
			return
		}
		if csr.PublicKey == nil || len(csr.Names.SANs) > 32 || len(csr.Names.Subject) > 16 {
			t.Errorf("out of bounds: %+v", csr)
		}
	})
}
