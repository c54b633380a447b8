package crl

import (
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/revlist"
)

// CRLReasons (RFC 5280 §5.3.1) with a meaning of their own here.
const (
	Unspecified     = 0 // never written: its absence says the same
	CertificateHold = 6
	RemoveFromCRL   = revlist.RemoveFromCRL // in deltas alone
)

// Entry is one line of a list:
//
//	SEQUENCE {
//	    userCertificate     CertificateSerialNumber,
//	    revocationDate      Time,
//	    crlEntryExtensions  Extensions OPTIONAL }   -- reasonCode, invalidityDate
type Entry struct {
	Serial  ca.Serial
	Revoked time.Time
	Reason  int
	Invalid time.Time // zero: none (RFC 5280 §5.3.2)
}

// maxEntry is more than any entry takes.
const maxEntry = 96

// encoder appends entries in DER by hand: all lengths but that of the whole are
// constants, and a million entries leave 0.3 µs for each.
type encoder struct {
	delta bool
	last  ca.Serial
	count int

	day  int64 // days since 1970 of date
	date [8]byte
}

func (e *encoder) append(dst []byte, x *Entry) ([]byte, error) {
	if e.count > 0 && string(x.Serial[:]) <= string(e.last[:]) {
		return dst, fmt.Errorf("CRL entries out of order: %s after %s", x.Serial, e.last)
	}
	if x.Serial[0] == 0 || x.Serial[0] >= 0x80 || x.Reason < 0 || x.Reason > 10 || x.Reason == 7 || x.Reason == RemoveFromCRL && !e.delta {
		return dst, fmt.Errorf("CRL entry %s cannot be written with reason %d", x.Serial, x.Reason)
	}
	e.last = x.Serial
	e.count++
	start := len(dst)
	dst = append(dst, 0x30, 0, 0x02, byte(len(x.Serial)))
	dst = append(dst, x.Serial[:]...)
	dst = e.time(dst, x.Revoked)
	reason, invalid := x.Reason != Unspecified, !x.Invalid.IsZero()
	if reason || invalid {
		size := byte(0)
		if reason {
			size += 12
		}
		if invalid {
			size += 26
		}
		dst = append(dst, 0x30, size)
		if reason { // 2.5.29.21, OCTET STRING { ENUMERATED }
			dst = append(dst, 0x30, 10, 0x06, 3, 0x55, 0x1d, 21, 0x04, 3, 0x0a, 1, byte(x.Reason))
		}
		if invalid { // 2.5.29.24, OCTET STRING { GeneralizedTime }
			dst = append(dst, 0x30, 24, 0x06, 3, 0x55, 0x1d, 24, 0x04, 17, 0x18, 15)
			dst = e.digits(dst, x.Invalid, 0)
		}
	}
	dst[start+1] = byte(len(dst) - start - 2)
	return dst, nil
}

// time appends a Time: UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280 §5.1.2.6).
func (e *encoder) time(dst []byte, t time.Time) []byte {
	if unix := t.Unix(); unix >= utcBegin && unix < utcEnd {
		return e.digits(append(dst, 0x17, 13), t, 2)
	}
	return e.digits(append(dst, 0x18, 15), t, 0)
}

// UTCTime means the years 1950 to 2049.
var (
	utcBegin = time.Date(1950, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	utcEnd   = time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
)

// digits appends YYYYMMDDHHMMSSZ without the first skip digits. Days repeat, so the date is kept.
func (e *encoder) digits(dst []byte, t time.Time, skip int) []byte {
	unix := t.Unix()
	day, rest := unix/86400, unix%86400
	if rest < 0 {
		day, rest = day-1, rest+86400
	}
	if day != e.day || e.date[0] == 0 {
		e.day = day
		time.Unix(day*86400, 0).UTC().AppendFormat(e.date[:0], "20060102")
	}
	dst = append(dst, e.date[skip:]...)
	h, m, s := byte(rest/3600), byte(rest/60%60), byte(rest%60)
	return append(dst, '0'+h/10, '0'+h%10, '0'+m/10, '0'+m%10, '0'+s/10, '0'+s%10, 'Z')
}
