package est

import (
	encasn1 "encoding/asn1"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/policy"
)

var (
	oidECPublicKey       = encasn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSAEncryption     = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519           = encasn1.ObjectIdentifier{1, 3, 101, 112}
	oidChallengePassword = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidRequestTemplate   = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 61} // id-aa-certificationRequestInfoTemplate
	oidExtensionTemplate = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 62} // id-aa-extensionReqTemplate
	oidSubjectAltName    = encasn1.ObjectIdentifier{2, 5, 29, 17}
)

var curves = map[string]encasn1.ObjectIdentifier{
	"ecdsa-p256": {1, 2, 840, 10045, 3, 1, 7},
	"ecdsa-p384": {1, 3, 132, 0, 34},
	"ecdsa-p521": {1, 3, 132, 0, 35},
}

// encodeCSRAttrs says what a request should look like (RFC 8951 §4):
//
//	CsrAttrs  ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
//	AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET SIZE (1..MAX) OF ANY }
//
// It says it twice: in the plain form, for clients from before RFC 9908, and then
// in a template, for clients that read those and pass over the rest. Both name the
// first key algorithm of the profile: neither form knows an "or", and a client
// that makes this key is right. Usages need not be asked for, as the profile sets
// them. device is the ID of who asks, "" if it is not known. nil says that there is nothing to say.
func encodeCSRAttrs(p policy.Profile, rules Rules, device string) []byte {
	key := ""
	if len(p.Keys) > 0 && knownKey(p.Keys[0]) {
		key = p.Keys[0]
	}
	if key == "" && !rules.Binding && len(p.Subject) == 0 {
		return nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		if rules.Binding { // RFC 7030 §4.5.2
			b.AddASN1ObjectIdentifier(oidChallengePassword)
		}
		addPlainKey(b, key)
		if key != "" || len(p.Subject) > 0 {
			addAttribute(b, oidRequestTemplate, func(b *cryptobyte.Builder) { addTemplate(b, p, key, device) })
		}
	})
	der, err := b.Bytes()
	if err != nil {
		return nil
	}
	return der
}

func rsaBits(key string) int {
	size, ok := strings.CutPrefix(key, "rsa-")
	if bits, err := strconv.Atoi(size); ok && err == nil && bits > 0 && bits%8 == 0 {
		return bits
	}
	return 0
}

func knownKey(key string) bool { return curves[key] != nil || rsaBits(key) > 0 || key == "ed25519" }

func addPlainKey(b *cryptobyte.Builder, key string) {
	switch {
	case curves[key] != nil:
		addAttribute(b, oidECPublicKey, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(curves[key]) })
	case rsaBits(key) > 0:
		addAttribute(b, oidRSAEncryption, func(b *cryptobyte.Builder) { b.AddASN1Int64(int64(rsaBits(key))) })
	case key == "ed25519":
		b.AddASN1ObjectIdentifier(oidEd25519) // has no parameters, and an attribute must have a value
	}
}

func addAttribute(b *cryptobyte.Builder, oid encasn1.ObjectIdentifier, value cryptobyte.BuilderContinuation) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1(asn1.SET, value)
	})
}

// addTemplate writes a request with blanks for the client to fill in (RFC 9908 §3.4):
//
//	CertificationRequestInfoTemplate ::= SEQUENCE {
//	    version           INTEGER { v1(0) },
//	    subject           SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY OPTIONAL } OPTIONAL,
//	    subjectPKInfo [0] IMPLICIT SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING OPTIONAL } OPTIONAL,
//	    attributes    [1] IMPLICIT SET OF Attribute }
//
//	ExtensionReqTemplate ::= SEQUENCE OF SEQUENCE {
//	    extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING OPTIONAL }
func addTemplate(b *cryptobyte.Builder, p policy.Profile, key, device string) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		if len(p.Subject) > 0 {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, rdn := range p.Subject {
					b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { addRDN(b, rdn, device) })
				}
			})
		}
		if key != "" {
			b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { addKeyTemplate(b, key) })
		}
		b.AddASN1(asn1.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			// A server needs names, which only it knows; other devices may leave them out.
			if len(p.SAN) > 0 && slices.Contains(p.EKU, "serverAuth") {
				addAttribute(b, oidExtensionTemplate, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidSubjectAltName) })
					})
				})
			}
		})
	})
}

var subjectTypes = map[string]encasn1.ObjectIdentifier{
	"cn": {2, 5, 4, 3}, "serialnumber": {2, 5, 4, 5}, "c": {2, 5, 4, 6}, "l": {2, 5, 4, 7}, "st": {2, 5, 4, 8}, "o": {2, 5, 4, 10}, "ou": {2, 5, 4, 11},
}

// addRDN leaves the value out where the client knows better.
func addRDN(b *cryptobyte.Builder, rdn policy.SubjectTemplate, device string) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		oid := subjectTypes[rdn.Attr]
		if oid == nil {
			for part := range strings.SplitSeq(rdn.Attr, ".") {
				n, err := strconv.Atoi(part)
				if err != nil {
					b.SetError(err)
					return
				}
				oid = append(oid, n)
			}
		}
		b.AddASN1ObjectIdentifier(oid)
		value := rdn.Value
		if device != "" {
			value = strings.ReplaceAll(value, "{device.id}", device)
		}
		if strings.Contains(value, "{device.") {
			return
		}
		tag := asn1.UTF8String
		if rdn.Attr == "c" || rdn.Attr == "serialnumber" { // RFC 5280 appendix A.1
			tag = asn1.PrintableString
		}
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	})
}

// addKeyTemplate writes the algorithm; the size of an RSA key is shown by a public
// key of that size which is none.
func addKeyTemplate(b *cryptobyte.Builder, key string) {
	bits := rsaBits(key)
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		switch {
		case bits > 0:
			b.AddASN1ObjectIdentifier(oidRSAEncryption)
			b.AddASN1NULL()
		case curves[key] != nil:
			b.AddASN1ObjectIdentifier(oidECPublicKey)
			b.AddASN1ObjectIdentifier(curves[key])
		default:
			b.AddASN1ObjectIdentifier(oidEd25519)
		}
	})
	if bits == 0 {
		return
	}
	var placeholder cryptobyte.Builder
	placeholder.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.INTEGER, func(b *cryptobyte.Builder) {
			modulus := make([]byte, 1+bits/8)
			modulus[1] = 0x80
			b.AddBytes(modulus)
		})
		b.AddASN1Int64(65537)
	})
	b.AddASN1BitString(placeholder.BytesOrPanic())
}
