package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/internal/der"
)

// MaxCSR is the largest PKCS#10 request read, in octets.
const MaxCSR = 64 << 10

// maxCSRDepth is how deep a request may be nested: attributes may hold certificates and evidence.
const maxCSRDepth = 32

// CSR is a PKCS#10 request (RFC 2986) whose signature was verified.
type CSR struct {
	Raw       []byte
	PublicKey crypto.PublicKey
	SPKI      []byte
	Names     Names
	// ChallengePassword is attribute 1.2.840.113549.1.9.7, "" if absent.
	ChallengePassword string
	// Attributes other than those that ask for extensions and challengePassword, by dotted
	// OID: the DER of their first value.
	Attributes map[string][]byte
	// Extensions asked for beside subjectAltName: a profile decides what is
	// issued, so these are known and not copied.
	Extensions []asn1.ObjectIdentifier
}

const (
	oidChallengePassword = "1.2.840.113549.1.9.7"
	oidExtensionRequest  = "1.2.840.113549.1.9.14"
	// oidCertExtensions is what Microsoft used before PKCS #9 had extensionRequest, with the same syntax.
	oidCertExtensions = "1.3.6.1.4.1.311.2.1.14"
)

// ParseCSR reads one DER PKCS#10 request, strictly, and verifies its proof of
// possession. No name that it asks for is passed over: what is not read is refused. Errors: Malformed
// (trailing octets, versions and unreadable names included), BadAlg, BadPOP, BadKey (weak, encoded
// in a way that PKIX forbids, or of a kind that is never certified).
func ParseCSR(raw []byte) (*CSR, error) {
	if len(raw) > MaxCSR {
		return nil, Errorf(Malformed, "the certificate request is larger than %d octets", MaxCSR)
	}
	p, err := readCSR(raw)
	if err != nil {
		return nil, &Error{Kind: Malformed, Reason: "the request is not one DER-encoded PKCS#10 certificate request: " + err.Error()}
	}
	if string(p.version) != "\x00" {
		return nil, Errorf(Malformed, "the certificate request has a version other than 0, and RFC 2986 §4.1 knows no other")
	}
	c := &CSR{Raw: raw, SPKI: p.spki}
	if c.PublicKey, err = ParseKey(p.spki); err != nil {
		e := AsError(err)
		return nil, &Error{Kind: e.Kind, Reason: "in the certificate request, " + e.Reason, Err: e.Err}
	}
	if err := CheckProof("certificate request", c.PublicKey, p.algorithm, p.info, p.signature); err != nil {
		return nil, err
	}
	san, err := c.readAttributes(p.attributes)
	if err != nil {
		return nil, &Error{Kind: Malformed, Reason: "the certificate request's attributes are refused: " + err.Error()}
	}
	if c.Names, err = ParseNames(p.subject, san); err != nil {
		return nil, &Error{Kind: Malformed, Reason: "the names in the certificate request cannot be read: " + err.Error()}
	}
	return c, nil
}

// csrParts is a request taken apart: contents of version and attributes, whole elements of the rest.
type csrParts struct{ info, version, subject, spki, attributes, algorithm, signature cryptobyte.String }

// readCSR reads
//
//	CertificationRequest ::= SEQUENCE {
//	    certificationRequestInfo SEQUENCE {
//	        version INTEGER, subject Name, subjectPKInfo SubjectPublicKeyInfo, attributes [0] IMPLICIT SET OF Attribute },
//	    signatureAlgorithm AlgorithmIdentifier, signature BIT STRING }
//
// Attributes may be left out altogether, as old clients do who have none.
func readCSR(raw []byte) (p csrParts, err error) {
	if err := der.Check(raw, maxCSRDepth); err != nil {
		return p, err
	}
	body, err := der.Whole(raw, cbasn1.SEQUENCE)
	if err != nil {
		return p, err
	}
	var present bool
	if !body.ReadASN1Element(&p.info, cbasn1.SEQUENCE) || !body.ReadASN1Element(&p.algorithm, cbasn1.SEQUENCE) ||
		!body.ReadASN1BitStringAsBytes((*[]byte)(&p.signature)) || !body.Empty() {
		return p, errors.New("it does not consist of a CertificationRequestInfo, an algorithm and a signature (RFC 2986 §4.2)")
	}
	info, fields := p.info, cryptobyte.String(nil)
	if !info.ReadASN1(&fields, cbasn1.SEQUENCE) || !fields.ReadASN1(&p.version, cbasn1.INTEGER) || !fields.ReadASN1Element(&p.subject, cbasn1.SEQUENCE) ||
		!fields.ReadASN1Element(&p.spki, cbasn1.SEQUENCE) ||
		!fields.ReadOptionalASN1(&p.attributes, &present, cbasn1.Tag(0).ContextSpecific().Constructed()) || !fields.Empty() {
		return p, errors.New("its CertificationRequestInfo does not consist of version, subject, subjectPKInfo and attributes [0] (RFC 2986 §4.1)")
	}
	return p, nil
}

// signatureNames are the algorithms of signatures, by the name that people know them by, and the kind of key each goes with.
var signatureNames = map[string]struct{ name, key string }{
	"1.2.840.113549.1.1.2": {"MD2 with RSA", "RSA"}, "1.2.840.113549.1.1.4": {"MD5 with RSA", "RSA"}, "1.2.840.113549.1.1.5": {"SHA-1 with RSA", "RSA"},
	"1.3.14.3.2.29": {"SHA-1 with RSA", "RSA"}, "1.2.840.113549.1.1.14": {"SHA-224 with RSA", "RSA"}, "1.2.840.113549.1.1.1": {"RSA without a hash", "RSA"},
	"1.2.840.113549.1.1.11": {"SHA-256 with RSA", "RSA"}, "1.2.840.113549.1.1.12": {"SHA-384 with RSA", "RSA"}, "1.2.840.113549.1.1.13": {"SHA-512 with RSA", "RSA"},
	"1.2.840.113549.1.1.10": {"RSA-PSS with these parameters", "RSA"},
	"1.2.840.10045.4.1":     {"SHA-1 with ECDSA", "EC"}, "1.2.840.10045.4.3.1": {"SHA-224 with ECDSA", "EC"},
	"1.2.840.10045.4.3.2": {"SHA-256 with ECDSA", "EC"}, "1.2.840.10045.4.3.3": {"SHA-384 with ECDSA", "EC"}, "1.2.840.10045.4.3.4": {"SHA-512 with ECDSA", "EC"},
	"1.2.840.10040.4.3": {"SHA-1 with DSA", "DSA"}, "2.16.840.1.101.3.4.3.2": {"SHA-256 with DSA", "DSA"},
	"1.3.101.112": {"Ed25519", "Ed25519"}, "1.3.101.113": {"Ed448", "Ed448"},
}

func kindOfKey(pub crypto.PublicKey) string {
	switch pub.(type) {
	case *ecdsa.PublicKey:
		return "EC"
	case ed25519.PublicKey:
		return "Ed25519"
	case *rsa.PublicKey:
		return "RSA"
	}
	return ""
}

// CheckProof verifies a proof of possession by signature; algorithm is an AlgorithmIdentifier, DER. Errors: BadPOP, and BadAlg for
// an algorithm that is not accepted: for that the client needs another algorithm, for the other the right key. what is
// the name of what is signed.
func CheckProof(what string, pub crypto.PublicKey, algorithm, message, signature []byte) error {
	fields, err := der.Whole(algorithm, cbasn1.SEQUENCE)
	if err != nil {
		return Errorf(Malformed, "the signature algorithm of the %s is no AlgorithmIdentifier (RFC 5280 §4.1.1.2)", what)
	}
	oid, ok := der.OID(&fields)
	if !ok {
		return Errorf(Malformed, "the signature algorithm of the %s is no AlgorithmIdentifier (RFC 5280 §4.1.1.2)", what)
	}
	known := signatureNames[oid]
	if known.name == "" {
		known.name = oid
	}
	if known.key != "" && known.key != kindOfKey(pub) {
		return Errorf(BadPOP, "the %s is signed with %s, and its key is of %s: sign it with the key that it holds", what, known.name, kindOfKey(pub))
	}
	if known.key == "EC" && string(fields) == "\x05\x00" {
		// RFC 5758 §3.2 leaves the parameters out, and some clients write NULL.
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { der.AddOID(b, oid) })
		algorithm = b.BytesOrPanic()
	}
	switch err := cms.CheckSignature(algorithm, pub, message, signature); {
	case errors.Is(err, cms.ErrSignature):
		return &Error{Kind: BadPOP, Reason: "the signature of the " + what + " does not verify: sign it with the key that it holds", Err: err}
	case err != nil:
		return &Error{Kind: BadAlg, Reason: "the " + what + " is signed with " + known.name + ", which is not accepted: sign it with SHA-256 or longer, by ECDSA, RSA (PKCS #1 v1.5, or PSS with a salt as long as the hash) or Ed25519", Err: err}
	}
	return nil
}

// readAttributes reads
//
//	attributes [0] IMPLICIT SET OF SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
//
// (RFC 2986 §4.1), and returns the value of the subjectAltName that is asked for, nil if none. A type that comes
// twice is refused: which would count? So is an extension that comes twice, in the same attribute or in another.
func (c *CSR) readAttributes(attrs cryptobyte.String) (san []byte, err error) {
	c.Attributes = map[string][]byte{}
	asked := map[string][]byte{}
	for !attrs.Empty() {
		var attr, values, value cryptobyte.String
		var tag cbasn1.Tag
		name, ok := "", attrs.ReadASN1(&attr, cbasn1.SEQUENCE)
		if ok {
			name, ok = der.OID(&attr)
		}
		if !ok || !attr.ReadASN1(&values, cbasn1.SET) || !attr.Empty() {
			return nil, errors.New("one is not a type and a SET of values (RFC 2986 §4.1)")
		}
		if _, twice := c.Attributes[name]; twice {
			return nil, errors.New("attribute " + name + " comes twice")
		}
		if values.Empty() { // OpenSSL writes empty sets for attributes without a value
			c.Attributes[name] = nil
			continue
		}
		if !values.ReadAnyASN1Element(&value, &tag) {
			return nil, errors.New("attribute " + name + " has an unreadable value")
		}
		c.Attributes[name] = value
		switch name {
		case oidChallengePassword, oidExtensionRequest, oidCertExtensions:
			if !values.Empty() {
				return nil, errors.New("attribute " + name + " has two values, and has one alone (RFC 2985 §5.4)")
			}
		}
		switch name {
		case oidChallengePassword:
			c.ChallengePassword, err = readString(value)
			if err != nil {
				err = fmt.Errorf("challengePassword: %w", err)
			}
		case oidExtensionRequest, oidCertExtensions:
			err = c.readExtensions(value, asked)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, own := range []string{oidExtensionRequest, oidCertExtensions, oidChallengePassword} {
		delete(c.Attributes, own)
	}
	return asked[oidSubjectAltName.String()], nil
}

// readString reads a DirectoryString with its tag.
func readString(value cryptobyte.String) (string, error) {
	var text cryptobyte.String
	var tag cbasn1.Tag
	value.ReadAnyASN1(&text, &tag) // it was checked to be DER
	return directoryString(tag, text)
}

// readExtensions reads
//
//	Extensions ::= SEQUENCE OF SEQUENCE { extnID OBJECT IDENTIFIER, critical BOOLEAN DEFAULT FALSE, extnValue OCTET STRING }
//
// (RFC 5280 §4.1) into asked, and remembers the types.
func (c *CSR) readExtensions(list cryptobyte.String, asked map[string][]byte) error {
	var extensions cryptobyte.String
	if !list.ReadASN1(&extensions, cbasn1.SEQUENCE) {
		return errors.New("what asks for extensions is not a SEQUENCE of them (RFC 2985 §5.4.2)")
	}
	for !extensions.Empty() {
		name, value, ok := der.Extension(&extensions)
		if !ok {
			return errors.New("an extension cannot be read (RFC 5280 §4.1)")
		}
		if _, twice := asked[name]; twice {
			return errors.New("extension " + name + " is asked for twice, and a certificate has it once (RFC 5280 §4.2)")
		}
		asked[name] = value
		if name != oidSubjectAltName.String() {
			c.Extensions = append(c.Extensions, numericOID(name))
		}
	}
	return nil
}

// numericOID is a dotted OID for comparing with those that are issued, none of which has an arc of more
// than 31 bits: larger ones become the largest.
func numericOID(dotted string) (oid asn1.ObjectIdentifier) {
	for arc := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.ParseInt(arc, 10, 32)
		if err != nil {
			n = math.MaxInt32
		}
		oid = append(oid, int(n))
	}
	return oid
}
