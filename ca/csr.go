package ca

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/policy"
)

// MaxCSR is the largest PKCS#10 request read, in octets.
const MaxCSR = 64 << 10

// CSR is a PKCS#10 request (RFC 2986) whose signature was verified.
type CSR struct {
	Raw       []byte
	PublicKey crypto.PublicKey
	SPKI      []byte
	Names     Names
	// ChallengePassword is attribute 1.2.840.113549.1.9.7, "" if absent.
	ChallengePassword string
	// Attributes other than extensionRequest and challengePassword, by dotted
	// OID: the DER of their first value.
	Attributes map[string][]byte
	// Extensions asked for beside subjectAltName: a profile decides what is
	// issued, so these are known and not copied.
	Extensions []asn1.ObjectIdentifier
}

var (
	oidExtensionRequest  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidChallengePassword = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
)

// ParseCSR reads one DER PKCS#10 request, strictly, and verifies its proof of
// possession. Errors: Malformed (trailing bytes and unreadable names
// included), BadPOP, BadKey (weak key, or of a kind that is never certified).
func ParseCSR(der []byte) (*CSR, error) {
	if len(der) > MaxCSR {
		return nil, Errorf(Malformed, "the certificate request is larger than %d octets", MaxCSR)
	}
	parsed, err := x509.ParseCertificateRequest(der)
	if err != nil {
		if spki, ok := csrKey(der); ok {
			if _, keyErr := x509.ParsePKIXPublicKey(spki); keyErr != nil {
				return nil, &Error{Kind: BadKey, Reason: "the key in the certificate request cannot be certified: use P-256, P-384, Ed25519 or RSA of at least 2048 bits", Err: keyErr}
			}
		}
		return nil, &Error{Kind: Malformed, Reason: "the body is not one DER-encoded PKCS#10 certificate request", Err: err}
	}
	if _, err := policy.KeyAlgorithm(parsed.PublicKey); err != nil {
		return nil, Errorf(BadKey, "the key in the certificate request cannot be certified: %w", err)
	}
	switch parsed.SignatureAlgorithm { // collisions make a signature over these prove nothing
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return nil, Errorf(BadPOP, "the certificate request is signed with %s: sign it with SHA-256 or better", parsed.SignatureAlgorithm)
	}
	if err := parsed.CheckSignature(); err != nil {
		return nil, &Error{Kind: BadPOP, Reason: "the signature of the certificate request does not verify: sign it with the key that it holds", Err: err}
	}
	c := &CSR{Raw: parsed.Raw, PublicKey: parsed.PublicKey, SPKI: parsed.RawSubjectPublicKeyInfo}
	if err := c.readAttributes(parsed.RawTBSCertificateRequest); err != nil {
		return nil, &Error{Kind: Malformed, Reason: "the certificate request's attributes cannot be read: " + err.Error(), Err: err}
	}
	var san []byte
	for _, e := range parsed.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			if san != nil {
				return nil, Errorf(Malformed, "the certificate request has two subjectAltName extensions")
			}
			san = e.Value
			continue
		}
		c.Extensions = append(c.Extensions, e.Id)
	}
	if c.Names, err = ParseNames(parsed.RawSubject, san); err != nil {
		return nil, &Error{Kind: Malformed, Reason: "the names in the certificate request cannot be read: " + err.Error(), Err: err}
	}
	return c, nil
}

// csrKey digs the SubjectPublicKeyInfo out of a request that does not parse as
// a whole, so that a key of an unknown kind gets an error that says so.
//
//	CertificationRequestInfo ::= SEQUENCE { version INTEGER, subject Name,
//	    subjectPKInfo SubjectPublicKeyInfo, attributes [0] … }
func csrKey(der []byte) ([]byte, bool) {
	input := cryptobyte.String(der)
	var csr, info, spki cryptobyte.String
	ok := input.ReadASN1(&csr, cbasn1.SEQUENCE) && input.Empty() && csr.ReadASN1(&info, cbasn1.SEQUENCE) &&
		info.SkipASN1(cbasn1.INTEGER) && info.SkipASN1(cbasn1.SEQUENCE) && info.ReadASN1Element(&spki, cbasn1.SEQUENCE)
	return spki, ok
}

// readAttributes reads
//
//	attributes [0] IMPLICIT SET OF SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }
//
// (RFC 2986 §4.1). A type that comes twice is refused: which would count?
func (c *CSR) readAttributes(info []byte) error {
	input := cryptobyte.String(info)
	var body, attrs cryptobyte.String
	var present bool
	if !input.ReadASN1(&body, cbasn1.SEQUENCE) || !body.SkipASN1(cbasn1.INTEGER) || !body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.SkipASN1(cbasn1.SEQUENCE) ||
		!body.ReadOptionalASN1(&attrs, &present, cbasn1.Tag(0).ContextSpecific().Constructed()) || !body.Empty() {
		return errors.New("not a CertificationRequestInfo")
	}
	c.Attributes = map[string][]byte{}
	for !attrs.Empty() {
		var attr, values, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var tag cbasn1.Tag
		if !attrs.ReadASN1(&attr, cbasn1.SEQUENCE) || !attr.ReadASN1ObjectIdentifier(&oid) ||
			!attr.ReadASN1(&values, cbasn1.SET) || !attr.Empty() {
			return errors.New("not an attribute")
		}
		name := oid.String()
		if _, twice := c.Attributes[name]; twice {
			return errors.New("attribute " + name + " comes twice")
		}
		if values.Empty() { // OpenSSL writes empty sets for attributes without a value
			c.Attributes[name] = nil
			continue
		}
		if !values.ReadAnyASN1Element(&value, &tag) {
			return errors.New("attribute " + name + " has an unreadable value")
		}
		if oid.Equal(oidChallengePassword) {
			inner := value
			var text cryptobyte.String
			if !inner.ReadAnyASN1(&text, &tag) {
				return errors.New("unreadable challengePassword")
			}
			password, err := directoryString(tag, text)
			if err != nil {
				return errors.New("challengePassword: " + err.Error())
			}
			c.ChallengePassword = password
		}
		c.Attributes[name] = value
	}
	delete(c.Attributes, oidExtensionRequest.String())
	delete(c.Attributes, oidChallengePassword.String())
	return nil
}
