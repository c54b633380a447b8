package client

import (
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// CSRAttrs is what a CA wants to see in a request (RFC 7030 §4.5.2, RFC 9908).
type CSRAttrs struct {
	// Key is the kind of key wanted, "" when the CA does not say or wants one
	// that GenerateKey does not make.
	Key KeyType
	// ChallengePassword is set when the CA asks to bind the request to the TLS
	// connection (RFC 7030 §3.5). TLS 1.3 has no tls-unique, so it cannot be done there.
	ChallengePassword bool
	// OIDs are all object identifiers named at the top level, in order, those
	// not understood here included.
	OIDs []asn1.ObjectIdentifier
}

var (
	oidECPublicKey       = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256              = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384              = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidRSA               = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519           = asn1.ObjectIdentifier{1, 3, 101, 112}
	oidChallengePassword = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidRequestTemplate   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 61}
)

// maxCSRAttrs is the most entries read from a csrattrs reply.
const maxCSRAttrs = 256

// ParseCSRAttrs reads the DER of a csrattrs reply:
//
//	CsrAttrs  ::= SEQUENCE SIZE (0..MAX) OF AttrOrOID
//	AttrOrOID ::= CHOICE { oid OBJECT IDENTIFIER, attribute Attribute }
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
//
// A key is named by an attribute whose type is the key's algorithm and whose value is
// the curve or the RSA size, by the algorithm's bare OID, or in a request
// template (RFC 9908 §3.4), which goes before the rest. Entries that are not
// understood are kept as OIDs or passed over: they are advice, and the server
// judges the request. Only a framing that cannot be read is an error.
func ParseCSRAttrs(der []byte) (CSRAttrs, error) {
	var out CSRAttrs
	var list cryptobyte.String
	in := cryptobyte.String(der)
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() {
		return out, errors.New("the csrattrs are not one SEQUENCE")
	}
	var fromTemplate KeyType
	for !list.Empty() {
		if len(out.OIDs) == maxCSRAttrs {
			return out, errors.New("too many csrattrs")
		}
		var entry, values cryptobyte.String
		var tag cbasn1.Tag
		var oid asn1.ObjectIdentifier
		element := list
		if !list.ReadAnyASN1(&entry, &tag) {
			return out, errors.New("a csrattrs entry is cut off")
		}
		switch {
		case tag == cbasn1.OBJECT_IDENTIFIER:
			if !element.ReadASN1ObjectIdentifier(&oid) {
				return out, errors.New("a csrattrs entry is no object identifier")
			}
		case tag == cbasn1.SEQUENCE && entry.ReadASN1ObjectIdentifier(&oid):
			entry.ReadASN1(&values, cbasn1.SET) // none: as the bare OID
		default:
			continue
		}
		out.OIDs = append(out.OIDs, oid)
		switch {
		case oid.Equal(oidChallengePassword):
			out.ChallengePassword = true
		case oid.Equal(oidRequestTemplate):
			fromTemplate = templateKey(values)
		case out.Key == "": // the first that is understood: the CA lists them in its order
			out.Key = keyOf(oid, values)
		}
	}
	if fromTemplate != "" {
		out.Key = fromTemplate
	}
	return out, nil
}

// keyOf maps an algorithm and its parameter, as it stands in an attribute or an AlgorithmIdentifier.
func keyOf(algorithm asn1.ObjectIdentifier, parameter cryptobyte.String) KeyType {
	switch {
	case algorithm.Equal(oidEd25519):
		return Ed25519
	case algorithm.Equal(oidECPublicKey):
		var curve asn1.ObjectIdentifier
		switch {
		case parameter.Empty():
			return ECDSAP256
		case !parameter.ReadASN1ObjectIdentifier(&curve):
		case curve.Equal(oidP256):
			return ECDSAP256
		case curve.Equal(oidP384):
			return ECDSAP384
		}
	case algorithm.Equal(oidRSA):
		var bits int
		switch {
		case !parameter.PeekASN1Tag(cbasn1.INTEGER): // absent, or an AlgorithmIdentifier's NULL
			return RSA2048
		case !parameter.ReadASN1Integer(&bits):
		case bits == 2048:
			return RSA2048
		case bits == 3072:
			return RSA3072
		}
	}
	return ""
}

// templateKey reads the key of a CertificationRequestInfoTemplate (RFC 9908 §3.4):
//
//	SEQUENCE { version INTEGER, subject NameTemplate OPTIONAL,
//	           subjectPKInfo [0] IMPLICIT SEQUENCE { algorithm AlgorithmIdentifier, subjectPublicKey BIT STRING OPTIONAL } OPTIONAL, … }
//
// An RSA size is shown there by a public key with a modulus of that size.
func templateKey(values cryptobyte.String) KeyType {
	var template, info, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	if !values.ReadASN1(&template, cbasn1.SEQUENCE) || !template.SkipASN1(cbasn1.INTEGER) ||
		!template.SkipOptionalASN1(cbasn1.SEQUENCE) || !template.ReadASN1(&info, cbasn1.Tag(0).ContextSpecific().Constructed()) ||
		!info.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1ObjectIdentifier(&oid) {
		return ""
	}
	var key asn1.BitString
	var sequence, modulus cryptobyte.String
	if oid.Equal(oidRSA) && info.ReadASN1BitString(&key) {
		bits := cryptobyte.String(key.RightAlign())
		if bits.ReadASN1(&sequence, cbasn1.SEQUENCE) && sequence.ReadASN1(&modulus, cbasn1.INTEGER) {
			for len(modulus) > 0 && modulus[0] == 0 {
				modulus = modulus[1:]
			}
			switch len(modulus) * 8 {
			case 2048:
				return RSA2048
			case 3072:
				return RSA3072
			}
			return ""
		}
	}
	return keyOf(oid, algorithm)
}
