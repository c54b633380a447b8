package der

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/dertest"
)

func testKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testCA(t testing.TB) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key := testKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Acme"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

// odd writes a certificate with one oddity.
func odd(t testing.TB, o dertest.Oddity, ca *x509.Certificate, by crypto.Signer) (written *dertest.Certificate, raw []byte) {
	t.Helper()
	var key crypto.Signer = testKey(t)
	if o.RSA {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			t.Fatal(err)
		}
	}
	c := dertest.Device(ca, "lamp-1", key.Public())
	o.Edit(c)
	return c, c.Sign(t, by)
}

func TestCertificate(t *testing.T) {
	ca, key := testCA(t)
	for _, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			want, raw := odd(t, o, ca, key)
			if _, err := x509.ParseCertificate(raw); err == nil {
				t.Fatal("crypto/x509 takes it")
			}
			c, err := Certificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(c.Raw, raw) || !bytes.Equal(c.RawSubject, want.Subject) || !bytes.Equal(c.RawIssuer, want.Issuer) ||
				!bytes.Equal(c.RawSubjectPublicKeyInfo, want.SPKI) || !c.NotBefore.Equal(want.Begin) || !c.NotAfter.Equal(want.End) {
				t.Error("it is another certificate")
			}
			if err := c.CheckSignatureFrom(ca); err != nil {
				t.Error(err)
			}
			if c.Subject.SerialNumber != "lamp-1" || c.Subject.Organization[0] != "Acme" || c.Issuer.Organization[0] != "Acme" {
				t.Errorf("subject %s, issuer %s", c.Subject, c.Issuer)
			}
			if c.KeyUsage != x509.KeyUsageDigitalSignature || c.IsCA || len(c.UnhandledCriticalExtensions) > 0 {
				t.Errorf("key usage %v, CA %t, unhandled %v", c.KeyUsage, c.IsCA, c.UnhandledCriticalExtensions)
			}
			if serial := big.NewInt(0x2a); strings.HasPrefix(o.Name, "negative") {
				if c.SerialNumber.Cmp(dertest.Negative(want.Serial)) != 0 {
					t.Errorf("serial number %x", c.SerialNumber)
				}
			} else if c.SerialNumber.Cmp(serial) != 0 {
				t.Errorf("serial number %x", c.SerialNumber)
			}
			for _, e := range want.Extensions {
				i := slices.IndexFunc(c.Extensions, func(x pkix.Extension) bool { return bytes.Equal(x.Value, e.Value) && x.Critical == e.Critical })
				if i < 0 && e.OID != dertest.UUID {
					t.Errorf("extension %x was lost", e.OID)
				}
			}
		})
	}
}

// What crypto/x509 refuses for a reason stays refused, and what is not understood is not passed over.
func TestCertificateRefused(t *testing.T) {
	ca, key := testCA(t)
	make := func(edit func(c *dertest.Certificate)) []byte {
		c := dertest.Device(ca, "lamp-1", key.Public())
		c.Serial = "\xfe"
		edit(c)
		return c.Sign(t, key)
	}
	good := make(func(*dertest.Certificate) {})
	for _, tt := range []struct {
		name string
		raw  []byte
	}{
		{"nothing", nil},
		{"trailing", append(bytes.Clone(good), 0)},
		{"cut short", good[:len(good)-1]},
		{"too large", make(func(c *dertest.Certificate) { c.Extend(dertest.UUID, false, bytes.Repeat([]byte{5, 0}, 40_000)) })},
		{"an extension twice", make(func(c *dertest.Certificate) { c.Extensions = append(c.Extensions, c.Extensions...) })},
		{"an odd extension twice", make(func(c *dertest.Certificate) { c.Extend(dertest.UUID, false, nil); c.Extend(dertest.UUID, false, nil) })},
		{"no OBJECT IDENTIFIER", make(func(c *dertest.Certificate) { c.Extend("\x55\x80\x01", false, nil) })},
		{"key usage that is none", make(func(c *dertest.Certificate) { c.Extensions[0].Value = []byte("\x05\x00") })},
		{"a subject that is none", make(func(c *dertest.Certificate) { c.Subject = []byte("\x30\x02\x31\x00") })},
		{"a key that is none", make(func(c *dertest.Certificate) { c.SPKI[len(c.SPKI)-1]++ })},
		{"a serial number that is not DER", make(func(c *dertest.Certificate) { c.Serial = "\xff\xfe" })},
	} {
		if c, err := Certificate(tt.raw); err == nil || c != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	c, err := Certificate(make(func(c *dertest.Certificate) { c.Extend(dertest.UUID, true, []byte("\x05\x00")) }))
	if err != nil || len(c.UnhandledCriticalExtensions) != 1 {
		t.Errorf("a critical extension that nobody knows: %v", err)
	}
	// It lists a usage, which is none that is known: that is not the same as listing none.
	c, err = Certificate(make(func(c *dertest.Certificate) {
		c.Extend(oidExtKeyUse, true, append([]byte{0x30, byte(2 + len(dertest.UUID)), 6, byte(len(dertest.UUID))}, dertest.UUID...))
	}))
	if err != nil || len(c.ExtKeyUsage) != 0 || !reflect.DeepEqual(c.UnknownExtKeyUsage, []asn1.ObjectIdentifier{{2, 25}}) {
		t.Errorf("usages %v and %v, %v", c.ExtKeyUsage, c.UnknownExtKeyUsage, err)
	}
}

// Of a certificate that crypto/x509 takes, the other way of reading gives the same.
func FuzzCertificate(f *testing.F) {
	ca, key := testCA(f)
	f.Add(ca.Raw)
	for _, o := range dertest.Oddities {
		_, raw := odd(f, o, ca, key)
		f.Add(raw)
	}
	full := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "full", Country: []string{"DE"}}, NotBefore: time.Now(), NotAfter: time.Now(),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: []string{"a.example"},
		OCSPServer: []string{"http://o/"}, CRLDistributionPoints: []string{"http://c/"}, Policies: []x509.OID{mustOID("2.25.329800735698586629295641978511506172918")}}
	raw, err := x509.CreateCertificate(rand.Reader, full, ca, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, in []byte) {
		if c, err := Certificate(in); (c == nil) != (err != nil) {
			t.Fatal(c, err)
		}
		want, err := x509.ParseCertificate(in)
		if err != nil {
			return
		}
		got, err := oddCertificate(bytes.Clone(in))
		if err != nil {
			return // it is stricter
		}
		// Names are compared apart: of an RDN, they come in another order.
		want.Subject, want.Issuer, got.Subject, got.Issuer = pkix.Name{}, pkix.Name{}, pkix.Name{}, pkix.Name{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

func mustOID(dotted string) x509.OID {
	oid, err := x509.ParseOID(dotted)
	if err != nil {
		panic(err)
	}
	return oid
}
