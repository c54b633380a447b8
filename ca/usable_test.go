package ca_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// What a CA elsewhere puts into a CA's certificate is found by trying, before the certificate is taken.
func TestCheckUsable(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := parsePolicy(t, nil)
	extension := func(critical bool, oid asn1.ObjectIdentifier, value any) func(*x509.Certificate) {
		der, err := asn1.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: der})
		}
	}
	// directory makes nameConstraints that permit (tag 0) or exclude (tag 1) a directory name.
	directory := func(critical bool, tag int, name pkix.Name) func(*x509.Certificate) {
		base, err := asn1.Marshal(name.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		type subtree struct{ Base asn1.RawValue }
		trees, err := asn1.Marshal([]subtree{{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: base}}})
		if err != nil {
			t.Fatal(err)
		}
		var inner asn1.RawValue
		if _, err := asn1.Unmarshal(trees, &inner); err != nil {
			t.Fatal(err)
		}
		return extension(critical, asn1.ObjectIdentifier{2, 5, 29, 30}, []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: inner.Bytes}})
	}
	type edit = func(*x509.Certificate)
	none := func(*x509.Certificate) {}
	for name, c := range map[string]struct {
		ca, root edit
		want     string // in the error; "" if it is fine
	}{
		"nothing special":        {none, none, ""},
		"every use":              {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }, none, ""},
		"constraints that fit":   {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example"} }, none, ""},
		"excludes another name":  {directory(false, 1, pkix.Name{Organization: []string{"Else"}}), none, ""},
		"policies":               {func(c *x509.Certificate) { c.PolicyIdentifiers = []asn1.ObjectIdentifier{{1, 2, 3}} }, none, ""},
		"dns names":              {func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"factory.test"} }, none, "profile device would verify"},
		"dns names, of the root": {none, func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example"} }, "would verify"},
		"addresses": {func(c *x509.Certificate) {
			c.PermittedIPRanges = []*net.IPNet{{IP: net.IP{10, 0, 0, 0}, Mask: net.CIDRMask(8, 32)}}
		}, none, "would verify"},
		"directory names":                {directory(false, 0, pkix.Name{Organization: []string{"Else"}}), none, "is not permitted"},
		"directory names of the root":    {none, directory(false, 0, pkix.Name{Organization: []string{"Else"}}), "is not permitted"},
		"directory names, critical":      {directory(true, 0, pkix.Name{Organization: []string{"Else"}}), none, "would verify"},
		"excludes every name":            {directory(false, 1, pkix.Name{}), none, "is excluded"},
		"client authentication alone":    {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, none, "lack serverAuth"},
		"uses of the root":               {none, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "lack clientAuth"},
		"an extension that nobody knows": {extension(true, asn1.ObjectIdentifier{1, 2, 3, 4}, 1), none, "would verify"},
		"the same, not critical":         {extension(false, asn1.ObjectIdentifier{1, 2, 3, 4}, 1), none, ""},
		"a policy is demanded": {extension(true, asn1.ObjectIdentifier{2, 5, 29, 36}, struct {
			Explicit int `asn1:"tag:0"`
		}{0}), none, "would verify"},
		"the root permits no CA below a CA": {none, func(c *x509.Certificate) { c.MaxPathLenZero = true }, "would verify"},
		"no subject":                        {func(c *x509.Certificate) { c.Subject = pkix.Name{} }, none, "no subject"},
		"it ends after its root":            {func(c *x509.Certificate) { c.NotAfter = now.Add(3 * 365 * 24 * time.Hour) }, none, "after its root"},
		"it has expired":                    {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, none, "certificate expired at 2026-07-01T11:59:00Z"},
		"the root has expired":              {none, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }, "not now"},
	} {
		key, rootKey := ecKey(t, elliptic.P256()), rsaKey
		template := func(cn string, e edit) *x509.Certificate {
			c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: cn}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
				IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(cn)}
			e(c)
			return c
		}
		rootTemplate := template("elsewhere", c.root)
		root, err := x509.CreateCertificate(rand.Reader, rootTemplate, rootTemplate, rootKey.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.CreateCertificate(rand.Reader, template("below", c.ca), parse(t, root), key.Public(), rootKey)
		if err != nil {
			t.Fatal(err)
		}
		err = ca.CheckUsable(p, cert, root, "issuing", "http://ca.test", now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Under the CAs that we make ourselves everything verifies.
func TestOwnCAsAreUsable(t *testing.T) {
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test/", Now: time.Now()}
	key := ecKey(t, elliptic.P384())
	for role, make := range map[string]func() ([]byte, error){"issuing": func() ([]byte, error) { return ca.NewRoot(key, 1, h) }, "quarantine": func() ([]byte, error) { return ca.NewQuarantineRoot(key, 1, h) }} {
		root, err := make()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.NewSubordinate(root, key, role, 1, ecKey(t, elliptic.P256()).Public(), h)
		if err != nil {
			t.Fatal(err)
		}
		source := policy.Default()
		p, err := policy.Parse("policy.yaml", source)
		if err != nil {
			t.Fatal(err)
		}
		if err := ca.CheckUsable(p, cert, root, role, h.URL, h.Now); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}
