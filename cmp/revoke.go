package cmp

import (
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

//	RevReqContent ::= SEQUENCE OF RevDetails
//	RevDetails ::= SEQUENCE {
//	    certDetails         CertTemplate,
//	    crlEntryDetails     Extensions    OPTIONAL }
//	RevRepContent ::= SEQUENCE {
//	    status       SEQUENCE SIZE (1..MAX) OF PKIStatusInfo,
//	    revCerts [0] SEQUENCE SIZE (1..MAX) OF CertId OPTIONAL,
//	    crls     [1] SEQUENCE SIZE (1..MAX) OF CertificateList OPTIONAL }

// Revocations is the body of rr (RFC 9810 §5.3.9, RFC 9483 §4.2).
type Revocations struct{ List []Revocation }

// Type implements Body.
func (*Revocations) Type() BodyType { return RR }

// Revocation is a RevDetails: which certificate (issuer and serial number), and
// extensions for its CRL entry, among them the reason.
type Revocation struct {
	Template CertTemplate
	Entry    []pkix.Extension
}

// RevocationResults is the body of rp (RFC 9810 §5.3.10).
type RevocationResults struct {
	Statuses []StatusInfo
	Certs    []CertID // nil when absent
	CRLs     [][]byte // CertificateLists in DER; nil when absent
}

// Type implements Body.
func (*RevocationResults) Type() BodyType { return RP }

// RevokeCert names a certificate by issuer (a Name in DER) and serial number, with
// the reasonCode of RFC 5280 §5.3.1.
func RevokeCert(issuer []byte, serial *big.Int, reason int) Revocation {
	return Revocation{
		Template: CertTemplate{Issuer: issuer, SerialNumber: serial},
		Entry: []pkix.Extension{{
			Id:    oidReasonCode,
			Value: mustEncode(func(b *out) { b.AddASN1Enum(int64(reason)) }),
		}},
	}
}

var oidReasonCode = encasn1.ObjectIdentifier{2, 5, 29, 21}

// Reason returns the reasonCode of the CRL entry asked for. found is false when
// there is none, which RFC 9483 §4.2 forbids and RFC 9810 §5.3.9 does not. Two are
// badRequest (RFC 9483 §4.2, RFC 5280 §5.3).
func (v Revocation) Reason() (code int, found bool, err error) {
	for _, e := range v.Entry {
		if !e.Id.Equal(oidReasonCode) {
			continue
		}
		if found {
			return 0, true, refuse(BadRequest, "RFC 9483 §4.2", "crlEntryDetails has more than one reasonCode: give one")
		}
		s := cryptobyte.String(e.Value)
		if found = true; !s.ReadASN1Enum(&code) || !s.Empty() {
			return 0, true, refuse(BadDataFormat, "RFC 9483 §4.2", "the reasonCode is not an ENUMERATED")
		}
	}
	return code, found, nil
}

func readRevocation(r *in) Revocation {
	s := r.seq("RevDetails")
	v := Revocation{Template: readTemplate(&s)}
	if s.has(asn1.SEQUENCE) {
		v.Entry = oneOrMore(&s, "crlEntryDetails", readExtension)
	}
	s.end("RevDetails")
	return v
}

func (v *Revocations) add(b *out) {
	addList(b, v.List, func(b *out, v Revocation) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addTemplate(b, &v.Template)
			if len(v.Entry) > 0 {
				addList(b, v.Entry, addExtension)
			}
		})
	})
}

func readRevocationResults(r *in) Body {
	s := r.seq("RevRepContent")
	v := &RevocationResults{Statuses: oneOrMore(&s, "status", readStatusInfo)}
	if s.has(context(0)) {
		e := s.sub(context(0), "revCerts")
		v.Certs = oneOrMore(&e, "revCerts", readCertID)
		e.end("revCerts")
	}
	if s.has(context(1)) {
		e := s.sub(context(1), "crls")
		v.CRLs = oneOrMore(&e, "crls", readCert)
		e.end("crls")
	}
	s.end("RevRepContent")
	return v
}

func (v *RevocationResults) add(b *out) {
	if len(v.Statuses) == 0 {
		fault(b, "rp without a status")
	}
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		addList(b, v.Statuses, addStatusInfo)
		if len(v.Certs) > 0 {
			addExplicit(b, 0, func(b *out) { addList(b, v.Certs, addCertID) })
		}
		if len(v.CRLs) > 0 {
			addExplicit(b, 1, func(b *out) { addCerts(b, v.CRLs) })
		}
	})
}
