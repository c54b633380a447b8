package cmp

import (
	"crypto/x509/pkix"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// Time is a Time (RFC 5280 §4.1.2.5): UTCTime, or GeneralizedTime where
// Generalized is set or the year is past 2049. Absent when At is zero.
type Time struct {
	At          time.Time
	Generalized bool
}

//	CertTemplate ::= SEQUENCE {
//	    version      [0] Version               OPTIONAL,
//	    serialNumber [1] INTEGER               OPTIONAL,
//	    signingAlg   [2] AlgorithmIdentifier   OPTIONAL,
//	    issuer       [3] Name                  OPTIONAL,
//	    validity     [4] OptionalValidity      OPTIONAL,
//	    subject      [5] Name                  OPTIONAL,
//	    publicKey    [6] SubjectPublicKeyInfo  OPTIONAL,
//	    issuerUID    [7] UniqueIdentifier      OPTIONAL,
//	    subjectUID   [8] UniqueIdentifier      OPTIONAL,
//	    extensions   [9] Extensions            OPTIONAL }      -- IMPLICIT tags
//	OptionalValidity ::= SEQUENCE {
//	    notBefore  [0] Time OPTIONAL,
//	    notAfter   [1] Time OPTIONAL } -- at least one MUST be present

// CertTemplate is a CertTemplate (RFC 4211 §5): what a requester wants in a
// certificate, or how it names the certificate to revoke. All fields are optional.
type CertTemplate struct {
	Version      *int64 // RFC 4211 §5 wants 2 (v3) if it is there at all
	SerialNumber *big.Int
	SigningAlg   Algorithm
	Issuer       []byte // Name in DER
	Validity     *OptionalValidity
	Subject      []byte // Name in DER
	PublicKey    []byte // SubjectPublicKeyInfo in DER
	IssuerUID    []byte // BIT STRING in DER
	SubjectUID   []byte // BIT STRING in DER
	Extensions   []pkix.Extension

	emptyExtensions bool // OpenSSL sends them so when there are none
}

// OptionalValidity is an OptionalValidity; not both fields absent.
type OptionalValidity struct{ NotBefore, NotAfter Time }

// KeyGeneration reports whether the template leaves the key to the CA, and for
// which algorithm, if it says (RFC 9483 §4.1.6): its publicKey is absent, or an
// algorithm with an empty BIT STRING.
func (t *CertTemplate) KeyGeneration() (alg Algorithm, asked bool) {
	if t.PublicKey == nil {
		return Algorithm{}, true
	}
	type spki struct {
		alg   Algorithm
		empty bool
	}
	v, err := parseValue(t.PublicKey, "publicKey", func(r *in) spki {
		s := r.seq("publicKey")
		v := spki{alg: readAlgorithm(&s)}
		v.empty = len(s.bits("subjectPublicKey")) == 0
		s.end("publicKey")
		return v
	})
	if err != nil || !v.empty {
		return Algorithm{}, false
	}
	return v.alg, true
}

// KeyToGenerate makes the publicKey of a template that asks the CA for a key of
// an algorithm; nil, which leaves the choice to the CA, if alg names none.
func KeyToGenerate(alg Algorithm) []byte {
	if !alg.Present() {
		return nil
	}
	return mustEncode(func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addAlgorithm(b, alg)
			addBits(b, nil)
		})
	})
}

func readTemplate(r *in) CertTemplate {
	s := r.seq("CertTemplate")
	var t CertTemplate
	if s.has(primitive(0)) {
		v := s.taggedInt(primitive(0), "version")
		t.Version = &v
	}
	if s.has(primitive(1)) {
		e := in{s.implicit(primitive(1), asn1.INTEGER, "serialNumber"), s.d}
		t.SerialNumber = e.bigInt("serialNumber")
	}
	if s.has(context(2)) {
		t.SigningAlg = s.algorithm(context(2))
	}
	t.Issuer = s.optName(3, "issuer")
	if s.has(context(4)) {
		t.Validity = readValidity(&s)
	}
	t.Subject = s.optName(5, "subject")
	if s.has(context(6)) {
		t.PublicKey = s.implicit(context(6), asn1.SEQUENCE, "publicKey")
	}
	if s.has(primitive(7)) {
		t.IssuerUID = s.implicit(primitive(7), asn1.BIT_STRING, "issuerUID")
	}
	if s.has(primitive(8)) {
		t.SubjectUID = s.implicit(primitive(8), asn1.BIT_STRING, "subjectUID")
	}
	if s.has(context(9)) {
		e := s.sub(context(9), "extensions")
		t.Extensions = readAll(&e, "extensions", readExtension)
		t.emptyExtensions = len(t.Extensions) == 0
	}
	s.end("CertTemplate")
	return t
}

// optName reads [n] EXPLICIT Name: a CHOICE, so explicit in spite of the module's
// IMPLICIT TAGS (X.680 §31.2.7).
func (r *in) optName(n uint8, what string) []byte {
	if !r.has(context(n)) {
		return nil
	}
	e := r.sub(context(n), what)
	name := e.element(asn1.SEQUENCE, what)
	e.end(what)
	return name
}

func readValidity(r *in) *OptionalValidity {
	s := r.sub(context(4), "validity")
	var v OptionalValidity
	if s.has(context(0)) {
		e := s.sub(context(0), "notBefore")
		v.NotBefore = e.anyTime("notBefore")
		e.end("notBefore")
	}
	if s.has(context(1)) {
		e := s.sub(context(1), "notAfter")
		v.NotAfter = e.anyTime("notAfter")
		e.end("notAfter")
	}
	s.end("validity")
	return &v
}

// readExtension reads an Extension (RFC 5280 §4.1). DER leaves out critical when false.
func readExtension(r *in) pkix.Extension {
	s := r.seq("Extension")
	e := pkix.Extension{Id: s.oid("extnID")}
	if s.has(asn1.BOOLEAN) {
		if !s.s.ReadASN1Boolean(&e.Critical) || !e.Critical {
			s.fail("critical")
		}
	}
	e.Value = s.octets("extnValue")
	s.end("Extension")
	return e
}

func addTemplate(b *out, t *CertTemplate) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		if t.Version != nil {
			b.AddASN1Int64WithTag(*t.Version, primitive(0))
		}
		if t.SerialNumber != nil {
			raw := mustEncode(func(b *out) { b.AddASN1BigInt(t.SerialNumber) })
			addImplicit(b, primitive(1), raw, "serialNumber")
		}
		if t.SigningAlg.Present() {
			addTaggedAlgorithm(b, context(2), t.SigningAlg)
		}
		if t.Issuer != nil {
			addExplicit(b, 3, func(b *out) { addRaw(b, t.Issuer, "issuer") })
		}
		if v := t.Validity; v != nil {
			addExplicit(b, 4, func(b *out) {
				addAnyTime(b, 0, v.NotBefore)
				addAnyTime(b, 1, v.NotAfter)
			})
		}
		if t.Subject != nil {
			addExplicit(b, 5, func(b *out) { addRaw(b, t.Subject, "subject") })
		}
		if t.PublicKey != nil {
			addImplicit(b, context(6), t.PublicKey, "publicKey")
		}
		if t.IssuerUID != nil {
			addImplicit(b, primitive(7), t.IssuerUID, "issuerUID")
		}
		if t.SubjectUID != nil {
			addImplicit(b, primitive(8), t.SubjectUID, "subjectUID")
		}
		if len(t.Extensions) > 0 || t.emptyExtensions {
			addExplicit(b, 9, func(b *out) {
				for _, e := range t.Extensions {
					addExtension(b, e)
				}
			})
		}
	})
}

func addAnyTime(b *out, n uint8, t Time) {
	if t.At.IsZero() {
		return
	}
	addExplicit(b, n, func(b *out) {
		if t.Generalized || t.At.UTC().Year() > 2049 {
			addTime(b, t.At.Truncate(time.Second))
		} else {
			b.AddASN1UTCTime(t.At.UTC().Truncate(time.Second))
		}
	})
}

func addExtension(b *out, e pkix.Extension) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		b.AddASN1ObjectIdentifier(e.Id)
		if e.Critical {
			b.AddASN1Boolean(true)
		}
		b.AddASN1OctetString(e.Value)
	})
}
