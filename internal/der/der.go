// Package der adds to cryptobyte what strict readers of messages from strangers
// need: one element and nothing after it, bounded nesting, and errors that say
// what is wrong and where. Builders use cryptobyte as it is.
package der

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Errors that callers may want to tell apart; the errors of this package wrap them.
var (
	// ErrMalformed says that the octets are no DER: cut short, a length that
	// is not in its shortest form, an unexpected tag, a value out of form.
	ErrMalformed = errors.New("not DER")
	// ErrIndefinite says that a length is indefinite: BER, which DER forbids (X.690 §10.1).
	ErrIndefinite = errors.New("BER indefinite length: encode the message in DER")
	// ErrTrailing says that something follows the one element expected.
	ErrTrailing = errors.New("trailing octets")
	// ErrDepth says that elements are nested deeper than the reader allows.
	ErrDepth = errors.New("nested too deeply")
)

// Whole returns the content of in, which must be exactly one element of the
// given tag. It looks at the outermost element only; see [Check].
func Whole(in []byte, tag asn1.Tag) (cryptobyte.String, error) {
	rest := cryptobyte.String(in)
	var content cryptobyte.String
	if !rest.ReadASN1(&content, tag) {
		return nil, headerError(in, 0)
	}
	if !rest.Empty() {
		return nil, fmt.Errorf("%w: %d after the first element", ErrTrailing, len(rest))
	}
	return content, nil
}

// Check reports whether in is exactly one element whose own header, and that of
// every element within constructed ones, is DER: definite and shortest lengths,
// each element ending within its parent, at most depth levels of nesting (a
// primitive element alone is one level). What primitive elements hold is not
// looked at, neither is the order within a SET. It allocates nothing.
func Check(in []byte, depth int) error {
	if len(in) == 0 {
		return fmt.Errorf("%w: empty", ErrMalformed)
	}
	rest := cryptobyte.String(in)
	if err := checkNext(&rest, in, depth); err != nil {
		return err
	}
	if !rest.Empty() {
		return fmt.Errorf("%w: %d after the first element", ErrTrailing, len(rest))
	}
	return nil
}

// checkNext takes one element off rest, which ends where whole does or before.
func checkNext(rest *cryptobyte.String, whole []byte, depth int) error {
	at := *rest
	var content cryptobyte.String
	var tag asn1.Tag
	if !rest.ReadAnyASN1(&content, &tag) {
		return headerError(at, offset(whole, at))
	}
	if depth < 1 {
		return fmt.Errorf("%w at offset %d", ErrDepth, offset(whole, at))
	}
	if tag&constructed == 0 {
		return nil
	}
	for !content.Empty() {
		if err := checkNext(&content, whole, depth-1); err != nil {
			return err
		}
	}
	return nil
}

const constructed = 0x20

// offset finds where part begins in whole: a slice of it has the capacity that is left.
func offset(whole, part []byte) int { return cap(whole) - cap(part) }

// headerError says why the element at the start of in could not be read.
func headerError(in []byte, at int) error {
	if len(in) >= 2 && in[1] == 0x80 {
		return fmt.Errorf("%w (at offset %d)", ErrIndefinite, at)
	}
	return fmt.Errorf("%w: bad element at offset %d", ErrMalformed, at)
}

// Time takes a Time (RFC 5280 §4.1.2.5) off s: UTCTime, years 1950 to 2049, or
// GeneralizedTime, each with seconds, in UTC, without fractions. Which of the two
// a year should use is for the caller to judge.
func Time(s *cryptobyte.String) (time.Time, error) {
	var t time.Time
	var ok bool
	at := *s
	switch {
	case s.PeekASN1Tag(asn1.UTCTime):
		// cryptobyte lets seconds go missing and other zones in.
		ok = len(at) >= 2 && at[1] == byte(len("YYMMDDHHMMSSZ")) && s.ReadASN1UTCTime(&t)
	case s.PeekASN1Tag(asn1.GeneralizedTime):
		ok = len(at) >= 2 && at[1] == byte(len("YYYYMMDDHHMMSSZ")) && s.ReadASN1GeneralizedTime(&t)
	}
	if !ok {
		return time.Time{}, fmt.Errorf("%w: not a time as RFC 5280 §4.1.2.5 has it", ErrMalformed)
	}
	return t.UTC(), nil
}
