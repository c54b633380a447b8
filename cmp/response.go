package cmp

import (
	"golang.org/x/crypto/cryptobyte/asn1"
)

//	CertRepMessage ::= SEQUENCE {
//	    caPubs       [1] SEQUENCE SIZE (1..MAX) OF CMPCertificate OPTIONAL,
//	    response         SEQUENCE OF CertResponse }
//	CertResponse ::= SEQUENCE {
//	    certReqId           INTEGER,
//	    status              PKIStatusInfo,
//	    certifiedKeyPair    CertifiedKeyPair    OPTIONAL,
//	    rspInfo             OCTET STRING        OPTIONAL }
//	CertifiedKeyPair ::= SEQUENCE {
//	    certOrEncCert       CertOrEncCert,
//	    privateKey      [0] EncryptedKey        OPTIONAL,
//	    publicationInfo [1] PKIPublicationInfo  OPTIONAL }
//	CertOrEncCert ::= CHOICE {
//	    certificate     [0] CMPCertificate,
//	    encryptedCert   [1] EncryptedKey }
//	EncryptedKey ::= CHOICE {
//	    encryptedValue        EncryptedValue,   -- deprecated
//	    envelopedData     [0] EnvelopedData }   -- IMPLICIT

// CertResponses is the body of ip, cp, kup and ccp (RFC 9810 §5.3.4).
type CertResponses struct {
	Of        BodyType // IP, CP, KUP or CCP
	CAPubs    [][]byte // certificates in DER that the requester may trust; nil when absent
	Responses []CertResponse
}

// Type implements Body.
func (c *CertResponses) Type() BodyType { return c.Of }

// CertResponse is one answer to one request.
type CertResponse struct {
	CertReqID int64 // -1 in answer to p10cr
	Status    StatusInfo
	KeyPair   *KeyPair // nil when absent
	Info      []byte   // rspInfo; nil when absent
}

// KeyPair is a CertifiedKeyPair: either Certificate or EncryptedCert is set.
type KeyPair struct {
	Certificate   []byte        // in DER
	EncryptedCert *EncryptedKey // for the indirect proof of possession
	PrivateKey    *EncryptedKey // after central key generation (RFC 9483 §4.1.6)
	Publication   *PublicationInfo
}

// EncryptedKey is an EncryptedKey: either field is set, in DER and not looked into.
type EncryptedKey struct {
	EnvelopedData  []byte // RFC 5652 §6.1, needs CMP version 3
	EncryptedValue []byte // RFC 4211 appendix B, deprecated
}

func readCertResponses(r *in, t BodyType) Body {
	s := r.seq("CertRepMessage")
	c := &CertResponses{Of: t}
	if s.has(context(1)) {
		e := s.sub(context(1), "caPubs")
		c.CAPubs = oneOrMore(&e, "caPubs", readCert)
		e.end("caPubs")
	}
	c.Responses = anyNumber(&s, "response", readCertResponse)
	s.end("CertRepMessage")
	return c
}

func readCertResponse(r *in) CertResponse {
	s := r.seq("CertResponse")
	v := CertResponse{CertReqID: s.int("certReqId"), Status: readStatusInfo(&s)}
	if s.has(asn1.SEQUENCE) {
		v.KeyPair = readKeyPair(&s)
	}
	if s.has(asn1.OCTET_STRING) {
		v.Info = s.octets("rspInfo")
	}
	s.end("CertResponse")
	return v
}

func readKeyPair(r *in) *KeyPair {
	s := r.seq("CertifiedKeyPair")
	k := &KeyPair{}
	if s.has(context(0)) {
		e := s.sub(context(0), "certificate")
		k.Certificate = e.cert("certificate")
		e.end("certificate")
	} else {
		e := s.sub(context(1), "encryptedCert")
		k.EncryptedCert = readEncryptedKey(&e)
		e.end("encryptedCert")
	}
	if s.has(context(0)) {
		e := s.sub(context(0), "privateKey")
		k.PrivateKey = readEncryptedKey(&e)
		e.end("privateKey")
	}
	if s.has(context(1)) {
		e := s.sub(context(1), "publicationInfo")
		p := readPublicationInfo(&e)
		k.Publication = &p
		e.end("publicationInfo")
	}
	s.end("CertifiedKeyPair")
	return k
}

func readEncryptedKey(r *in) *EncryptedKey {
	if r.has(context(0)) {
		return &EncryptedKey{EnvelopedData: r.implicit(context(0), asn1.SEQUENCE, "EnvelopedData")}
	}
	return &EncryptedKey{EncryptedValue: r.element(asn1.SEQUENCE, "EncryptedValue")}
}

func (c *CertResponses) add(b *out) {
	switch c.Of {
	case IP, CP, KUP, CCP:
	default:
		fault(b, "%s does not hold a CertRepMessage", c.Of)
	}
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		if len(c.CAPubs) > 0 {
			addExplicit(b, 1, func(b *out) { addCerts(b, c.CAPubs) })
		}
		addList(b, c.Responses, func(b *out, v CertResponse) {
			b.AddASN1(asn1.SEQUENCE, func(b *out) {
				b.AddASN1Int64(v.CertReqID)
				addStatusInfo(b, v.Status)
				if v.KeyPair != nil {
					addKeyPair(b, v.KeyPair)
				}
				if v.Info != nil {
					b.AddASN1OctetString(v.Info)
				}
			})
		})
	})
}

func addKeyPair(b *out, k *KeyPair) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		if k.EncryptedCert != nil {
			addExplicit(b, 1, func(b *out) { addEncryptedKey(b, k.EncryptedCert) })
		} else {
			addExplicit(b, 0, func(b *out) { addRaw(b, k.Certificate, "certificate") })
		}
		if k.PrivateKey != nil {
			addExplicit(b, 0, func(b *out) { addEncryptedKey(b, k.PrivateKey) })
		}
		if k.Publication != nil {
			addExplicit(b, 1, func(b *out) { addPublicationInfo(b, *k.Publication) })
		}
	})
}

func addEncryptedKey(b *out, k *EncryptedKey) {
	if k.EnvelopedData != nil {
		addImplicit(b, context(0), k.EnvelopedData, "EnvelopedData")
		return
	}
	addRaw(b, k.EncryptedValue, "EncryptedValue")
}
