package crl

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/dertest"
	"github.com/deviceca/deviceca/internal/revlist"
)

// A list is of its CA, and covers a certificate, in whichever dress their names come (RFC 5280 §7.1): the issuer's, and the directoryName of a distribution point.
func TestNamesInOtherDress(t *testing.T) {
	name := func(text string, tag cbasn1.Tag) []byte {
		return dertest.DN([]dertest.Value{{Type: dertest.CommonName, Content: text, Tag: tag}})
	}
	general := func(dn []byte) []byte {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.Tag(4).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddBytes(dn) })
		return b.BytesOrPanic()
	}
	point := func(dn []byte) []pkix.Extension {
		var b cryptobyte.Builder
		context := cbasn1.Tag(0).ContextSpecific().Constructed()
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(context, func(b *cryptobyte.Builder) {
					b.AddASN1(context, func(b *cryptobyte.Builder) { b.AddBytes(general(dn)) })
				})
			})
		})
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: b.BytesOrPanic()}}
	}
	l := &revlist.List{Issuer: name("The CA", cbasn1.PrintableString)}
	l.Scope.Named, l.Scope.Names = true, [][]byte{general(name("Part 1", cbasn1.PrintableString))}
	for _, c := range []struct {
		issuer, point string
		of, covers    bool
	}{
		{"the  ca", "part 1", true, true},
		{"the  ca", "part 2", true, false},
		{"the caa", "part 1", false, false},
	} {
		issuer := name(c.issuer, cbasn1.UTF8String)
		cert := &x509.Certificate{RawIssuer: issuer, Extensions: point(name(c.point, cbasn1.UTF8String))}
		if of := l.IsOf(&x509.Certificate{RawSubject: issuer}) == nil; of != c.of || l.Covers(cert) != c.covers {
			t.Errorf("%q, %q: is of it %t, covers %t", c.issuer, c.point, of, l.Covers(cert))
		}
	}
}
