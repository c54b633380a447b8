package cmp

import (
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// Status is a PKIStatus (RFC 9810 §5.2.3).
type Status int

// The values of PKIStatus.
const (
	Accepted               Status = iota // exactly what was asked for
	GrantedWithMods                      // something like it; the requester finds out the differences
	Rejection                            // refused
	Waiting                              // not decided yet: poll
	RevocationWarning                    // a revocation is imminent
	RevocationNotification               // a revocation has occurred
	KeyUpdateWarning                     // the key of oldCertId was already updated
)

var statusNames = []string{"accepted", "grantedWithMods", "rejection", "waiting", "revocationWarning",
	"revocationNotification", "keyUpdateWarning"}

// String returns the name that the grammar has for s.
func (s Status) String() string {
	if s >= 0 && int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", int(s))
}

// Granted reports whether s says yes.
func (s Status) Granted() bool { return s == Accepted || s == GrantedWithMods }

// FailInfo is a PKIFailureInfo: a set of reasons (RFC 9810 §5.2.3, Appendix F).
// Bit n of the grammar is 1<<n.
type FailInfo uint32

// The bits of PKIFailureInfo.
const (
	BadAlg FailInfo = 1 << iota
	BadMessageCheck
	BadRequest
	BadTime
	BadCertID
	BadDataFormat
	WrongAuthority
	IncorrectData
	MissingTimeStamp
	BadPOP
	CertRevoked
	CertConfirmed
	WrongIntegrity
	BadRecipientNonce
	TimeNotAvailable
	UnacceptedPolicy
	UnacceptedExtension
	AddInfoNotAvailable
	BadSenderNonce
	BadCertTemplate
	SignerNotTrusted
	TransactionIDInUse
	UnsupportedVersion
	NotAuthorized
	SystemUnavail
	SystemFailure
	DuplicateCertReq
)

var failNames = []string{"badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId", "badDataFormat",
	"wrongAuthority", "incorrectData", "missingTimeStamp", "badPOP", "certRevoked", "certConfirmed", "wrongIntegrity",
	"badRecipientNonce", "timeNotAvailable", "unacceptedPolicy", "unacceptedExtension", "addInfoNotAvailable",
	"badSenderNonce", "badCertTemplate", "signerNotTrusted", "transactionIdInUse", "unsupportedVersion",
	"notAuthorized", "systemUnavail", "systemFailure", "duplicateCertReq"}

// String returns the names of the bits that are set, separated by commas.
func (f FailInfo) String() string {
	if f == 0 {
		return "none"
	}
	var names []string
	for rest := uint32(f); rest != 0; rest &= rest - 1 {
		n := bits.TrailingZeros32(rest)
		if n < len(failNames) {
			names = append(names, failNames[n])
		} else {
			names = append(names, fmt.Sprintf("bit %d", n))
		}
	}
	return strings.Join(names, ", ")
}

//	PKIStatusInfo ::= SEQUENCE {
//	    status        PKIStatus,
//	    statusString  PKIFreeText     OPTIONAL,
//	    failInfo      PKIFailureInfo  OPTIONAL }
//	PKIFreeText ::= SEQUENCE SIZE (1..MAX) OF UTF8String

// StatusInfo is a PKIStatusInfo (RFC 9810 §5.2.3).
type StatusInfo struct {
	Status   Status
	Text     []string // for people; nil when absent
	FailInfo FailInfo // absent when 0

	emptyFailInfo bool // present without a bit: lawful, and kept for the round trip
}

// HasFailInfo reports whether failInfo is there, though it may have no bit set.
func (s StatusInfo) HasFailInfo() bool { return s.FailInfo != 0 || s.emptyFailInfo }

// String returns one line for logs. Text of strangers is quoted.
func (s StatusInfo) String() string {
	line := s.Status.String()
	if s.FailInfo != 0 {
		line += " (" + s.FailInfo.String() + ")"
	}
	for _, t := range s.Text {
		line += fmt.Sprintf(" %q", t)
	}
	return line
}

func readStatusInfo(r *in) StatusInfo {
	s := r.seq("PKIStatusInfo")
	var v StatusInfo
	n := s.int("status")
	if n < 0 || n > 255 {
		s.fail("status")
	}
	v.Status = Status(n)
	if s.has(asn1.SEQUENCE) {
		v.Text = readFreeText(&s)
	}
	if s.has(asn1.BIT_STRING) {
		v.FailInfo = readFailInfo(&s)
		v.emptyFailInfo = v.FailInfo == 0
	}
	s.end("PKIStatusInfo")
	return v
}

// readFailInfo reads a named bit list: DER leaves out trailing zeros (X.690
// §11.2.2). Bits beyond the 27 named ones are kept up to 32.
func readFailInfo(r *in) FailInfo {
	s := r.sub(asn1.BIT_STRING, "failInfo")
	if len(s.s) == 0 || len(s.s) > 5 || s.s[0] > 7 {
		r.fail("failInfo")
		return 0
	}
	unused, octets := s.s[0], s.s[1:]
	var f FailInfo
	for i, o := range octets {
		f |= FailInfo(bits.Reverse8(o)) << (8 * i)
	}
	// The last bit that is written must be set.
	if len(octets) == 0 && unused != 0 || len(octets) > 0 && bits.Len32(uint32(f)) != 8*len(octets)-int(unused) {
		r.fail("failInfo")
	}
	return f
}

func addStatusInfo(b *out, v StatusInfo) {
	b.AddASN1(asn1.SEQUENCE, func(b *out) {
		b.AddASN1Int64(int64(v.Status))
		if v.Text != nil {
			addFreeText(b, v.Text)
		}
		if v.FailInfo != 0 || v.emptyFailInfo {
			b.AddASN1(asn1.BIT_STRING, func(b *out) {
				n := bits.Len32(uint32(v.FailInfo))
				octets := (n + 7) / 8
				b.AddUint8(uint8(8*octets - n))
				for i := range octets {
					b.AddUint8(bits.Reverse8(uint8(v.FailInfo >> (8 * i))))
				}
			})
		}
	})
}

func readFreeText(r *in) []string {
	return oneOrMore(r, "PKIFreeText", func(r *in) string { return r.utf8("PKIFreeText") })
}

func addFreeText(b *out, text []string) { addList(b, text, addUTF8) }
