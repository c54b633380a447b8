package cmp

import (
	"crypto"
	"crypto/subtle"

	"golang.org/x/crypto/cryptobyte/asn1"
)

//	CertConfirmContent ::= SEQUENCE OF CertStatus
//	CertStatus ::= SEQUENCE {
//	    certHash    OCTET STRING,
//	    certReqId   INTEGER,
//	    statusInfo  PKIStatusInfo OPTIONAL,
//	    hashAlg [0] AlgorithmIdentifier OPTIONAL }

// Confirmations is the body of certConf (RFC 9810 §5.3.18). An empty list
// rejects all certificates; RFC 9483 §4.1.1 wants exactly one.
type Confirmations struct{ List []CertStatus }

// Type implements Body.
func (*Confirmations) Type() BodyType { return CertConf }

// CertStatus accepts or rejects one certificate.
type CertStatus struct {
	CertHash  []byte
	CertReqID int64
	Status    *StatusInfo // nil accepts
	HashAlg   Algorithm   // absent: the hash of the certificate's signature; needs version 3
}

// Accepted reports whether the certificate is accepted.
func (c CertStatus) Accepted() bool { return c.Status == nil || c.Status.Status == Accepted }

// Confirmation makes the CertStatus for a certificate in DER: with a nil status it is
// accepted.
func Confirmation(cert []byte, certReqID int64, status *StatusInfo) (CertStatus, error) {
	hash, err := CertHash(cert, Algorithm{})
	if err != nil {
		return CertStatus{}, err
	}
	return CertStatus{CertHash: hash, CertReqID: certReqID, Status: status}, nil
}

// Matches checks that c speaks of the certificate in DER.
func (c CertStatus) Matches(cert []byte) error {
	hash, err := CertHash(cert, c.HashAlg)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(hash, c.CertHash) != 1 {
		return refuse(BadCertID, "RFC 9483 §4.1.1", "certHash is not that of the certificate issued")
	}
	return nil
}

// CertHash returns the hash that certConf names a certificate by (RFC 9810
// §5.3.18): by hashAlg if it is given, else by the hash of the certificate's own
// signature algorithm, which is SHA-512 for Ed25519 (RFC 9481 §3.3).
func CertHash(cert []byte, hashAlg Algorithm) ([]byte, error) {
	var hash crypto.Hash
	if hashAlg.Present() {
		var ok bool
		if hash, ok = hashByOID(hashAlg.OID); !ok || !hashAlg.plain() {
			return nil, refuse(BadAlg, "RFC 9810 §5.3.18", "hashAlg %s is not supported", hashAlg.OID)
		}
	} else {
		alg, err := parseValue(cert, "certificate", func(r *in) Algorithm {
			s := r.seq("certificate")
			s.element(asn1.SEQUENCE, "tbsCertificate")
			a := readAlgorithm(&s)
			s.element(asn1.BIT_STRING, "signature")
			s.end("certificate")
			return a
		})
		if err != nil {
			return nil, err
		}
		sig, err := signatureOf(alg)
		if err != nil {
			return nil, err
		}
		if hash = sig.hash; sig.kind == kindEd25519 {
			hash = crypto.SHA512
		}
	}
	h := hash.New()
	h.Write(cert)
	return h.Sum(nil), nil
}

func readCertStatus(r *in) CertStatus {
	s := r.seq("CertStatus")
	v := CertStatus{CertHash: s.octets("certHash"), CertReqID: s.int("certReqId")}
	if s.has(asn1.SEQUENCE) {
		info := readStatusInfo(&s)
		v.Status = &info
	}
	if s.has(context(0)) {
		e := s.sub(context(0), "hashAlg")
		v.HashAlg = readAlgorithm(&e)
		e.end("hashAlg")
	}
	s.end("CertStatus")
	return v
}

func (v *Confirmations) add(b *out) {
	addList(b, v.List, func(b *out, c CertStatus) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			b.AddASN1OctetString(c.CertHash)
			b.AddASN1Int64(c.CertReqID)
			if c.Status != nil {
				addStatusInfo(b, *c.Status)
			}
			if c.HashAlg.Present() {
				addExplicit(b, 0, func(b *out) { addAlgorithm(b, c.HashAlg) })
			}
		})
	})
}
