package der

import (
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Extension takes one off a list of
//
//	Extension ::= SEQUENCE { extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }
//
// (RFC 5280 §4.1) that somebody asks for: whether it is critical is the profile's to say. Its type may have arcs of any size.
func Extension(list *cryptobyte.String) (dotted string, value cryptobyte.String, ok bool) {
	var one cryptobyte.String
	var critical bool
	if !list.ReadASN1(&one, asn1.SEQUENCE) {
		return "", nil, false
	}
	dotted, ok = OID(&one)
	ok = ok && (!one.PeekASN1Tag(asn1.BOOLEAN) || one.ReadASN1Boolean(&critical)) && one.ReadASN1(&value, asn1.OCTET_STRING) && one.Empty()
	return dotted, value, ok
}
