package ocsp

import (
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// MaxResponse is the largest response that ParseResponse reads, in octets.
const MaxResponse = 256 << 10

// Response is an OCSPResponse (RFC 6960 §4.2.1) as read, nothing of it verified;
// see Verify. With a Status other than Successful nothing else is set.
type Response struct {
	Raw        []byte
	Status     ResponseStatus
	TBS        []byte // the ResponseData element, which is signed
	ByName     []byte // the responder's Name, or
	ByKey      []byte // the SHA-1 of its public key
	ProducedAt time.Time
	Responses  []SingleResponse
	Nonce      []byte // nil if there is none

	Algorithm    []byte // AlgorithmIdentifier of the signature
	Signature    []byte
	Certificates [][]byte
}

// ParseResponse reads a response, strictly. Errors wrap ErrMalformed.
func ParseResponse(in []byte) (*Response, error) {
	if len(in) > MaxResponse {
		return nil, malformed("response of %d octets, more than %d", len(in), MaxResponse)
	}
	r := &Response{Raw: in}
	input := cryptobyte.String(in)
	var body, bytes, basic cryptobyte.String
	var status int
	var ok bool
	if !input.ReadASN1(&body, asn1.SEQUENCE) || !input.Empty() || !body.ReadASN1Enum(&status) ||
		!body.ReadOptionalASN1(&bytes, &ok, explicit(0)) || !body.Empty() {
		return nil, malformed("no OCSPResponse")
	}
	if status < 0 || status > int(Unauthorized) || status == 4 || ok != (status == 0) {
		return nil, malformed("status %d, with response: %t", status, ok)
	}
	r.Status = ResponseStatus(status)
	if !ok {
		return r, nil
	}
	var oid cryptobyte.String
	if !bytes.ReadASN1(&bytes, asn1.SEQUENCE) || !bytes.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) || string(oid) != oidBasic ||
		!bytes.ReadASN1(&basic, asn1.OCTET_STRING) || !bytes.Empty() {
		return nil, malformed("not a basic response")
	}
	return r, r.parseBasic(basic)
}

// parseBasic reads
//
//	BasicOCSPResponse ::= SEQUENCE {
//	    tbsResponseData      ResponseData,
//	    signatureAlgorithm   AlgorithmIdentifier,
//	    signature            BIT STRING,
//	    certs            [0] EXPLICIT SEQUENCE OF Certificate OPTIONAL }
func (r *Response) parseBasic(in cryptobyte.String) error {
	var body, tbs, alg, certs, cert cryptobyte.String
	var ok bool
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !in.Empty() || !body.ReadASN1Element(&tbs, asn1.SEQUENCE) ||
		!body.ReadASN1Element(&alg, asn1.SEQUENCE) || !body.ReadASN1BitStringAsBytes(&r.Signature) ||
		!body.ReadOptionalASN1(&certs, &ok, explicit(0)) || !body.Empty() {
		return malformed("bad BasicOCSPResponse")
	}
	r.TBS, r.Algorithm = tbs, alg
	if ok {
		if !certs.ReadASN1(&certs, asn1.SEQUENCE) {
			return malformed("bad certs")
		}
		for !certs.Empty() {
			if len(r.Certificates) == 8 || !certs.ReadASN1Element(&cert, asn1.SEQUENCE) {
				return malformed("bad certs, or more than 8")
			}
			r.Certificates = append(r.Certificates, cert)
		}
	}
	return r.parseData(tbs)
}

func (r *Response) parseData(tbs cryptobyte.String) (err error) {
	var part, list cryptobyte.String
	var ok bool
	if !tbs.ReadASN1(&tbs, asn1.SEQUENCE) ||
		!tbs.ReadOptionalASN1(&part, &ok, explicit(0)) || ok && string(part) != "\x02\x01\x00" {
		return malformed("version is not v1")
	}
	switch {
	case tbs.PeekASN1Tag(explicit(1)):
		if !tbs.ReadASN1(&part, explicit(1)) || der.Check(part, 8) != nil {
			return malformed("bad responderID")
		}
		r.ByName = part
	case tbs.PeekASN1Tag(explicit(2)):
		var key cryptobyte.String
		if !tbs.ReadASN1(&part, explicit(2)) || !part.ReadASN1(&key, asn1.OCTET_STRING) || !part.Empty() || len(key) != 20 {
			return malformed("bad responderID")
		}
		r.ByKey = key
	default:
		return malformed("no responderID")
	}
	if r.ProducedAt, err = generalizedTime(&tbs); err != nil {
		return err
	}
	if !tbs.ReadASN1(&list, asn1.SEQUENCE) || list.Empty() {
		return malformed("no responses")
	}
	for !list.Empty() {
		var s SingleResponse
		if err := s.parse(&list); err != nil {
			return err
		}
		r.Responses = append(r.Responses, s)
	}
	if !tbs.ReadOptionalASN1(&part, &ok, explicit(1)) || !tbs.Empty() {
		return malformed("bad responseExtensions")
	}
	if !ok {
		return nil
	}
	return readExtensions(part, func(oid, value []byte, critical bool) (err error) {
		if string(oid) == oidNonce {
			r.Nonce, err = parseNonce(value)
		} else if critical {
			err = malformed("unknown critical responseExtension")
		}
		return err
	})
}

func (s *SingleResponse) parse(list *cryptobyte.String) (err error) {
	var one, part cryptobyte.String
	var tag asn1.Tag
	var ok bool
	if !list.ReadASN1(&one, asn1.SEQUENCE) {
		return malformed("bad SingleResponse")
	}
	if err := s.ID.parse(&one); err != nil {
		return err
	}
	if !one.ReadAnyASN1(&part, &tag) {
		return malformed("no certStatus")
	}
	switch tag {
	case asn1.Tag(0).ContextSpecific(), asn1.Tag(2).ContextSpecific():
		if !part.Empty() {
			return malformed("bad certStatus")
		}
		s.Status = CertStatus(tag & 3)
	case explicit(1):
		s.Status = Revoked
		if s.RevokedAt, err = generalizedTime(&part); err != nil {
			return err
		}
		var reason cryptobyte.String
		if !part.ReadOptionalASN1(&reason, &ok, explicit(0)) || !part.Empty() ||
			ok && (!reason.ReadASN1Enum(&s.Reason) || !reason.Empty() || s.Reason < 0 || s.Reason > 10 || s.Reason == 7) {
			return malformed("bad revocation reason")
		}
	default:
		return malformed("bad certStatus")
	}
	if s.ThisUpdate, err = generalizedTime(&one); err != nil {
		return err
	}
	if !one.ReadOptionalASN1(&part, &ok, explicit(0)) {
		return malformed("bad nextUpdate")
	}
	if ok {
		if s.NextUpdate, err = generalizedTime(&part); err != nil || !part.Empty() {
			return malformed("bad nextUpdate")
		}
	}
	if !one.ReadOptionalASN1(&part, &ok, explicit(1)) || !one.Empty() {
		return malformed("bad singleExtensions")
	}
	if !ok {
		return nil
	}
	return readExtensions(part, func(oid, value []byte, critical bool) (err error) {
		if string(oid) == oidArchiveCutoff {
			v := cryptobyte.String(value)
			if s.ArchiveCutoff, err = generalizedTime(&v); err == nil && !v.Empty() {
				err = malformed("bad archive cutoff")
			}
		} else if critical {
			err = malformed("unknown critical singleExtension")
		}
		return err
	})
}

// generalizedTime reads YYYYMMDDHHMMSSZ, the only form (RFC 5019 §2.2.4).
func generalizedTime(s *cryptobyte.String) (time.Time, error) {
	if !s.PeekASN1Tag(asn1.GeneralizedTime) {
		return time.Time{}, malformed("no GeneralizedTime")
	}
	t, err := der.Time(s)
	if err != nil {
		return t, malformed("%v", err)
	}
	return t, nil
}
