package path

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/dertest"
)

// Certificates that crypto/x509 refuses are held to the same rules as others.
func TestOddCertificates(t *testing.T) {
	strong, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	root := (*authority)(nil).issue(t, ecKey(t), named("Root"))
	read := func(raw []byte) *x509.Certificate {
		t.Helper()
		c, err := der.Certificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	verify := func(leaf *x509.Certificate, between ...*x509.Certificate) error {
		_, err := Verify(leaf, between, Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()})
		return err
	}
	for _, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			key := ecKey(t)
			if o.RSA {
				key = strong
			}
			c := dertest.Device(root.cert, "lamp-1", key.Public())
			o.Edit(c)
			if err := verify(read(c.Sign(t, root.key))); err != nil {
				t.Errorf("of a device: %v", err)
			}
			if err := verify(read(c.Sign(t, key))); err == nil {
				t.Error("signed by another, it is good")
			}
			c.End = time.Now().Add(-time.Minute).UTC()
			if err := verify(read(c.Sign(t, root.key))); err == nil || !strings.Contains(err.Error(), "expired") {
				t.Errorf("expired: %v", err)
			}
			ca := dertest.Device(root.cert, "factory", key.Public())
			ca.MakeCA()
			o.Edit(ca)
			between := read(ca.Sign(t, root.key))
			below := dertest.Device(between, "lamp-1", ecKey(t).Public())
			if err := verify(read(below.Sign(t, key)), between); err != nil {
				t.Errorf("of a CA: %v", err)
			}
			notCA := dertest.Device(root.cert, "factory", key.Public())
			o.Edit(notCA)
			if err := verify(read(below.Sign(t, key)), read(notCA.Sign(t, root.key))); err == nil {
				t.Error("a device's certificate issues others")
			}
		})
	}
	c := dertest.Device(root.cert, "lamp-1", ecKey(t).Public())
	c.Extend(dertest.UUID, true, []byte("\x05\x00"))
	if err := verify(read(c.Sign(t, root.key))); err == nil || !strings.Contains(err.Error(), "unhandled critical extension") {
		t.Errorf("a critical extension that nobody knows: %v", err)
	}
}

// Names chain by RFC 5280 §7.1, through all the CAs, and what they are constrained to likewise.
func TestNamesInOtherDress(t *testing.T) {
	root := (*authority)(nil).issue(t, ecKey(t), named("The  Root"))
	key := ecKey(t)
	issue := func(issuer, subject []byte, ca bool, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
		t.Helper()
		c := dertest.Device(root.cert, "x", pub)
		c.Issuer, c.Subject = issuer, subject
		if ca {
			c.MakeCA()
		}
		x, err := der.Certificate(c.Sign(t, by))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	cn := func(tag cbasn1.Tag, text string) []byte {
		return dertest.DN([]dertest.Value{{Type: dertest.CommonName, Content: text, Tag: tag}})
	}
	between := issue(cn(cbasn1.UTF8String, "the root "), cn(cbasn1.T61String, "M\xdcLLER"), true, key.Public(), root.key)
	leaf := issue(cn(cbasn1.UTF8String, "Müller"), cn(cbasn1.UTF8String, "lamp"), false, ecKey(t).Public(), key)
	paths, err := Verify(leaf, []*x509.Certificate{between}, Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()})
	if err != nil || len(paths) != 1 || paths[0][0] != leaf || paths[0][1] != between || paths[0][2] != root.cert {
		t.Errorf("%v, %v", paths, err)
	}
	other := issue(cn(cbasn1.UTF8String, "Miller"), cn(cbasn1.UTF8String, "lamp"), false, ecKey(t).Public(), key)
	if _, err := Verify(other, []*x509.Certificate{between}, Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()}); err == nil {
		t.Error("of an issuer of another name, it is good")
	}
}
