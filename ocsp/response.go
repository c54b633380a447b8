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
// encoded certs field, or nothing. The result ends with certs.
func wrap(tbs, algorithmID, signature, certs []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+len(certs)+96))
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(int64(Successful))
		b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oidBasic)) })
				b.AddASN1(asn1.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						b.AddBytes(algorithmID)
						b.AddASN1BitString(signature)
						b.AddBytes(certs)
					})
				})
			})
		})
	})
	return b.Bytes()
}
