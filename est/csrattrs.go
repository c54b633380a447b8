package est

import (
	encasn1 "encoding/asn1"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/policy"
)

var (
	oidECPublicKey   = encasn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSAEncryption = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519       = encasn1.ObjectIdentifier{1, 3, 101, 112}
)

var curves = map[string]encasn1.ObjectIdentifier{
	"ecdsa-p256": {1, 2, 840, 10045, 3, 1, 7},
	"ecdsa-p384": {1, 3, 132, 0, 34},
	"ecdsa-p521": {1, 3, 132, 0, 35},
}

// encodeCSRAttrs makes the plain form of RFC 8951 §4:
//
//	CsrAttrs  ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
//	AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET SIZE (1..MAX) OF ANY }
//
// It names the first key algorithm of the profile: the form knows no "or", and a
// client that makes this key is right. Nothing else has to be asked for: the
// profile sets usages, and fills names in that are left out. nil says that there
// is nothing to say.
func encodeCSRAttrs(p policy.Profile) []byte {
	if len(p.Keys) == 0 {
		return nil
	}
	key := p.Keys[0]
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if curve, ok := curves[key]; ok {
			addAttribute(b, oidECPublicKey, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(curve) })
		} else if bits, ok := strings.CutPrefix(key, "rsa-"); ok {
			size, err := strconv.Atoi(bits)
			if err != nil {
				b.SetError(err)
				return
			}
			addAttribute(b, oidRSAEncryption, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(size)) })
		} else if key == "ed25519" {
			b.AddASN1ObjectIdentifier(oidEd25519) // has no parameters, and an attribute must have a value
		}
	})
	der, err := b.Bytes()
	if err != nil || len(der) <= len("\x30\x00") {
		return nil
	}
	return der
}

func addAttribute(b *cryptobyte.Builder, oid encasn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(asn1.SET, value)
	})
}
