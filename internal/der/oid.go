package der

import (
	"crypto/x509"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// OID takes an OBJECT IDENTIFIER off s, with arcs of any size: 2.25 and a UUID has one of 128 bits
// (encoding/asn1 and cryptobyte stop at 31).
func OID(s *cryptobyte.String) (dotted string, ok bool) {
	var content cryptobyte.String
	var oid x509.OID
	// The bound keeps a long one from costing the square of its length when it is written in decimal.
	if !s.ReadASN1(&content, asn1.OBJECT_IDENTIFIER) || len(content) > maxOID || oid.UnmarshalBinary(content) != nil {
		return "", false
	}
	return oid.String(), true
}

const maxOID = 128 // octets

// AddOID writes an OBJECT IDENTIFIER with arcs of any size.
func AddOID(b *cryptobyte.Builder, dotted string) {
	oid, err := x509.ParseOID(dotted)
	if err != nil {
		b.SetError(err)
		return
	}
	content, err := oid.MarshalBinary()
	if err != nil {
		b.SetError(err)
		return
	}
	b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(content) })
}
