package ocsp

import (
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// ResponseStatus is OCSPResponseStatus (RFC 6960 §4.2.1).
type ResponseStatus uint8

const (
	Successful       ResponseStatus = 0
	MalformedRequest ResponseStatus = 1 // the request cannot be read
	InternalError    ResponseStatus = 2 // a fault of the responder
	TryLater         ResponseStatus = 3 // over budget, or the ledger or key is away
	SigRequired      ResponseStatus = 5
	// Unauthorized says that the responder has no authoritative records: a
	// foreign issuer, a record past retention, or a question that it does not take
	// (draft-ietf-lamps-rfc5019bis §3.2.3).
	Unauthorized ResponseStatus = 6
)

func (s ResponseStatus) String() string {
	switch s {
	case Successful:
		return "successful"
	case MalformedRequest:
		return "malformedRequest"
	case InternalError:
		return "internalError"
	case TryLater:
		return "tryLater"
	case SigRequired:
		return "sigRequired"
	case Unauthorized:
		return "unauthorized"
	}
	return "status " + strconv.Itoa(int(s))
}

// ErrorResponse is the whole response of a status other than Successful.
func ErrorResponse(s ResponseStatus) []byte { return []byte{0x30, 3, 0x0a, 1, byte(s)} }

// CertStatus is what is said of one certificate.
type CertStatus uint8

const (
	Good CertStatus = iota
	Revoked
	Unknown // never issued by this CA
)

func (s CertStatus) String() string {
	return [...]string{"good", "revoked", "unknown"}[min(s, Unknown)]
}

// SingleResponse is what a response says of one certificate (RFC 6960 §4.2.1):
//
//	SingleResponse ::= SEQUENCE {
//	    certID                 CertID,
//	    certStatus             CertStatus,
//	    thisUpdate             GeneralizedTime,
//	    nextUpdate         [0] EXPLICIT GeneralizedTime OPTIONAL,
//	    singleExtensions   [1] EXPLICIT Extensions OPTIONAL }
//	CertStatus ::= CHOICE {
//	    good    [0] IMPLICIT NULL,
//	    revoked [1] IMPLICIT SEQUENCE { GeneralizedTime, [0] EXPLICIT CRLReason OPTIONAL },
//	    unknown [2] IMPLICIT NULL }
type SingleResponse struct {
	ID            CertID // of it, only Raw is written
	Status        CertStatus
	RevokedAt     time.Time // with Revoked
	Reason        int       // RFC 5280 §5.3.1; 0 (unspecified) is left out on the wire
	ThisUpdate    time.Time
	NextUpdate    time.Time // zero: absent; never written without
	ArchiveCutoff time.Time // zero: absent (RFC 6960 §4.4.4)
}

func (s *SingleResponse) add(b *cryptobyte.Builder) {
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(s.ID.Raw)
		switch s.Status {
		case Good:
			b.AddBytes([]byte{0x80, 0})
		case Revoked:
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1GeneralizedTime(s.RevokedAt.UTC())
				if s.Reason != 0 {
					b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(s.Reason)) })
				}
			})
		default:
			b.AddBytes([]byte{0x82, 0})
		}
		b.AddASN1GeneralizedTime(s.ThisUpdate.UTC())
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(s.NextUpdate.UTC()) })
		if !s.ArchiveCutoff.IsZero() {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, oidArchiveCutoff, func(b *cryptobyte.Builder) {
						b.AddASN1GeneralizedTime(s.ArchiveCutoff.UTC())
					})
				})
			})
		}
	})
}

// responseData encodes what is signed:
//
//	ResponseData ::= SEQUENCE {
//	    version            [0] EXPLICIT Version DEFAULT v1,
//	    responderID            CHOICE { byName [1] Name, byKey [2] KeyHash },
//	    producedAt             GeneralizedTime,
//	    responses              SEQUENCE OF SingleResponse,
//	    responseExtensions [1] EXPLICIT Extensions OPTIONAL }
func responseData(keyHash []byte, producedAt time.Time, singles []SingleResponse, nonce []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 192*len(singles)+256))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(explicit(2), func(b *cryptobyte.Builder) { b.AddASN1OctetString(keyHash) })
		b.AddASN1GeneralizedTime(producedAt.UTC())
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for i := range singles {
				singles[i].add(b)
			}
		})
		if nonce != nil {
			b.AddASN1(explicit(1), func(b *cryptobyte.Builder) { addNonce(b, nonce) })
		}
	})
	return b.Bytes()
}

// wrap encodes a successful OCSPResponse around what was signed; certs is the
// encoded certs field, or nothing. The result ends with certs. It runs for every
// live answer, so lengths are added up by hand, from the inside out.
func wrap(tbs, algorithmID, signature, certs []byte) []byte {
	bits := 1 + len(signature)
	basic := len(tbs) + len(algorithmID) + element(bits) + len(certs)
	octets := element(basic)
	bytes := 2 + len(oidBasic) + element(octets)
	content := 3 + element(element(bytes))
	dst := make([]byte, 0, element(content))
	dst = append(appendHeader(dst, 0x30, content), 0x0a, 1, byte(Successful))
	dst = appendHeader(dst, 0xa0, element(bytes))
	dst = appendHeader(dst, 0x30, bytes)
	dst = append(append(dst, 0x06, byte(len(oidBasic))), oidBasic...)
	dst = appendHeader(dst, 0x04, octets)
	dst = appendHeader(dst, 0x30, basic)
	dst = append(append(dst, tbs...), algorithmID...)
	dst = append(append(appendHeader(dst, 0x03, bits), 0), signature...)
	return append(dst, certs...)
}

// element is the length of an element with n octets of content, header included.
func element(n int) int {
	switch {
	case n < 0x80:
		return 2 + n
	case n < 1<<8:
		return 3 + n
	case n < 1<<16:
		return 4 + n
	}
	return 5 + n
}

// appendHeader appends tag and length in DER, for lengths below 16 MiB.
func appendHeader(dst []byte, tag byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(dst, tag, byte(n))
	case n < 1<<8:
		return append(dst, tag, 0x81, byte(n))
	case n < 1<<16:
		return append(dst, tag, 0x82, byte(n>>8), byte(n))
	}
	return append(dst, tag, 0x83, byte(n>>16), byte(n>>8), byte(n))
}
