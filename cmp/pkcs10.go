package cmp

import (
	"bytes"
	"crypto/x509/pkix"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

//	CertificationRequest ::= SEQUENCE {
//	    certificationRequestInfo  SEQUENCE {
//	        version        INTEGER,                        -- 0
//	        subject        Name,
//	        subjectPKInfo  SubjectPublicKeyInfo,
//	        attributes     [0] IMPLICIT SET OF Attribute },
//	    signatureAlgorithm        AlgorithmIdentifier,
//	    signature                 BIT STRING }
//	Attribute ::= SEQUENCE { type OBJECT IDENTIFIER, values SET OF ANY }

// PKCS10Info is what a p10cr says beside names and key.
type PKCS10Info struct {
	Version    int64            // RFC 9483 §4.1.4 wants 0
	Extensions []pkix.Extension // of the attribute extensionRequest (RFC 2985 §5.4.2); Id is nil where an arc is 2^31 or more
}

// derExtensionRequest is 1.2.840.113549.1.9.14.
var derExtensionRequest = []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14}

// Info takes the request apart as far as PKCS10Info goes. The signature is not looked at.
// Errors carry badDataFormat.
func (p *PKCS10) Info() (PKCS10Info, error) {
	return parseValue(p.Request, "CertificationRequest", func(r *in) (v PKCS10Info) {
		s := r.seq("CertificationRequest")
		i := s.seq("certificationRequestInfo")
		v.Version = i.int("version")
		i.element(asn1.SEQUENCE, "subject")
		i.element(asn1.SEQUENCE, "subjectPKInfo")
		if i.has(context(0)) { // some leave the empty set out
			attributes := i.sub(context(0), "attributes")
			for !attributes.s.Empty() {
				a := attributes.seq("Attribute")
				oid := a.element(asn1.OBJECT_IDENTIFIER, "type") // not decoded: its arcs may be longer than an int
				values := a.sub(asn1.SET, "values")
				a.end("Attribute")
				if bytes.Equal(oid, derExtensionRequest) && !values.s.Empty() {
					v.Extensions = append(v.Extensions, anyNumber(&values, "extensionRequest", readRequestedExtension)...)
				}
			}
		}
		i.end("certificationRequestInfo")
		s.element(asn1.SEQUENCE, "signatureAlgorithm")
		s.bits("signature")
		s.end("CertificationRequest")
		return v
	})
}

// readRequestedExtension is readExtension, but lets critical be FALSE: DER leaves that out, and clients do not.
func readRequestedExtension(r *in) pkix.Extension {
	s := r.seq("Extension")
	id := cryptobyte.String(s.element(asn1.OBJECT_IDENTIFIER, "extnID"))
	var e pkix.Extension
	if !id.ReadASN1ObjectIdentifier(&e.Id) {
		e.Id = nil
	}
	if s.has(asn1.BOOLEAN) && !s.s.ReadASN1Boolean(&e.Critical) {
		s.fail("critical")
	}
	e.Value = s.octets("extnValue")
	s.end("Extension")
	return e
}
