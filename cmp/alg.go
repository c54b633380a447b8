package cmp

import (
	encasn1 "encoding/asn1"
	"slices"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// Algorithm is an AlgorithmIdentifier (RFC 5280 §4.1.1.2).
type Algorithm struct {
	OID    encasn1.ObjectIdentifier
	Params []byte // one element in DER; nil when absent
}

// Present reports whether a names an algorithm at all.
func (a Algorithm) Present() bool { return len(a.OID) > 0 }

// plain reports whether parameters are absent or NULL.
func (a Algorithm) plain() bool {
	return a.Params == nil || len(a.Params) == 2 && a.Params[0] == byte(asn1.NULL) && a.Params[1] == 0
}

func readAlgorithm(r *in) Algorithm { return r.algorithm(asn1.SEQUENCE) }

func (r *in) algorithm(tag asn1.Tag) Algorithm {
	s := r.sub(tag, "AlgorithmIdentifier")
	a := Algorithm{OID: s.oid("algorithm")}
	if !s.s.Empty() {
		a.Params = s.anyElement("parameters")
	}
	s.end("AlgorithmIdentifier")
	return a
}

func addAlgorithm(b *out, a Algorithm) { addTaggedAlgorithm(b, asn1.SEQUENCE, a) }

func addTaggedAlgorithm(b *out, tag asn1.Tag, a Algorithm) {
	b.AddASN1(tag, func(b *out) {
		b.AddASN1ObjectIdentifier(a.OID)
		b.AddBytes(a.Params)
	})
}

// DER returns the encoding of a; nil if it names no algorithm.
func (a Algorithm) DER() []byte {
	if !a.Present() {
		return nil
	}
	return mustEncode(func(b *out) { addAlgorithm(b, a) })
}

// Equal reports whether a and o are the same octets.
func (a Algorithm) Equal(o Algorithm) bool {
	return a.OID.Equal(o.OID) && slices.Equal(a.Params, o.Params)
}
