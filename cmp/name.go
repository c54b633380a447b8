package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// GeneralName is one GeneralName (RFC 5280 §4.2.1.6) in DER, tag and length
// included. Make one with [DirectoryName], [CommonName], [URIName] or [NullName].
type GeneralName []byte

// NullDN is the Name without components.
var nullDN = []byte{0x30, 0x00}

// NullName returns the NULL-DN: "not known" (RFC 9483 §3.1).
func NullName() GeneralName { return DirectoryName(nullDN) }

// DirectoryName wraps a Name in DER, such as x509.Certificate.RawSubject.
func DirectoryName(name []byte) GeneralName {
	return mustEncode(func(b *out) { addExplicit(b, 4, func(b *out) { b.AddBytes(name) }) })
}

// CommonName makes a directory name of one commonName, as senders with a shared
// secret use it (RFC 9483 §4.1.5).
func CommonName(cn string) GeneralName { return DirectoryName(commonNameDN(cn)) }

// URIName makes a uniformResourceIdentifier, which must be ASCII: the name of a CRL
// distribution point.
func URIName(uri string) GeneralName {
	return mustEncode(func(b *out) { b.AddASN1(primitive(6), func(b *out) { b.AddBytes([]byte(uri)) }) })
}

var oidCommonName = encasn1.ObjectIdentifier{2, 5, 4, 3}

func commonNameDN(cn string) []byte {
	return mustEncode(func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			b.AddASN1(asn1.SET, func(b *out) {
				b.AddASN1(asn1.SEQUENCE, func(b *out) {
					b.AddASN1ObjectIdentifier(oidCommonName)
					addUTF8(b, cn)
				})
			})
		})
	})
}

// Directory returns the Name in DER if n is a directory name.
func (n GeneralName) Directory() ([]byte, bool) {
	s := cryptobyte.String(n)
	var name cryptobyte.String
	if !s.ReadASN1(&name, context(4)) {
		return nil, false
	}
	return name, true
}

// URI returns the text of n if it is a uniformResourceIdentifier.
func (n GeneralName) URI() (string, bool) {
	s := cryptobyte.String(n)
	var text cryptobyte.String
	if !s.ReadASN1(&text, primitive(6)) {
		return "", false
	}
	return string(text), true
}

// IsNull reports whether n is the NULL-DN.
func (n GeneralName) IsNull() bool {
	dn, ok := n.Directory()
	return ok && bytes.Equal(dn, nullDN)
}

// CommonName returns the last commonName of a directory name, which for a sender
// with a shared secret is its reference (RFC 9483 §4.1.5); "" if there is none.
func (n GeneralName) CommonName() string {
	dn, ok := n.Directory()
	if !ok {
		return ""
	}
	name, err := der.ParseName(dn)
	if err != nil {
		return ""
	}
	names := name.Values(commonNameContents)
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

const commonNameContents = "\x55\x04\x03" // of its OBJECT IDENTIFIER

// String returns the name for people: directory names in the order and syntax of
// RFC 4514, which escapes what could mislead; the rest by kind and hex.
func (n GeneralName) String() string {
	if dn, ok := n.Directory(); ok {
		return nameString(dn)
	}
	if len(n) == 0 {
		return NullName().String()
	}
	s := cryptobyte.String(n)
	var content cryptobyte.String
	var tag asn1.Tag
	if !s.ReadAnyASN1(&content, &tag) {
		return fmt.Sprintf("%x", []byte(n))
	}
	switch tag {
	case primitive(1):
		return fmt.Sprintf("email:%+q", content)
	case primitive(2):
		return fmt.Sprintf("DNS:%+q", content)
	case primitive(6):
		return fmt.Sprintf("URI:%+q", content)
	}
	return fmt.Sprintf("[%d]:%x", tag&0x1f, []byte(content))
}

// nameString prints a Name in DER.
func nameString(dn []byte) string {
	if bytes.Equal(dn, nullDN) {
		return "NULL-DN"
	}
	var rdns pkix.RDNSequence
	if rest, err := encasn1.Unmarshal(dn, &rdns); err != nil || len(rest) > 0 {
		return fmt.Sprintf("%x", dn)
	}
	return printable(rdns.String())
}

// printable makes control characters visible.
func printable(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r > 0x7e }) {
		return fmt.Sprintf("%+q", s)
	}
	return s
}

// SameName reports whether two Names in DER are equal by RFC 5280 §7.1: the same
// attributes in the same order, strings compared without regard to their type,
// to case, and to the amount of space, for clients differ in string types.
func SameName(a, b []byte) bool { return der.SameName(a, b) }

// readGeneralName checks the shape that the tag promises.
func readGeneralName(r *in) GeneralName {
	raw := r.anyElement("GeneralName")
	if len(raw) == 0 {
		return nil
	}
	switch tag := asn1.Tag(raw[0]); tag {
	case primitive(1), primitive(2), primitive(6), primitive(7), primitive(8), context(0), context(3), context(5):
	case context(4):
		s := in{raw, r.d}
		e := s.sub(tag, "directoryName")
		e.element(asn1.SEQUENCE, "directoryName")
		e.end("directoryName")
	default:
		r.fail("GeneralName")
	}
	return GeneralName(raw)
}

func addGeneralName(b *out, n GeneralName) {
	if len(n) == 0 {
		n = NullName()
	}
	b.AddBytes(n)
}
