package cmp

import (
	"bytes"
	encasn1 "encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// maxDepth bounds the nesting of elements of one message: far above what
// certificates in nested messages reach, far below what hurts.
const maxDepth = 96

// decoder carries the limits of one parse, and the first fault found.
type decoder struct {
	limits  Limits
	nesting int
	err     error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = refuse(BadDataFormat, generic, format, args...)
	}
}

// in is what is left of one constructed element. Its readers keep the first
// fault in the decoder and empty the input, so that loops end; callers look at
// the decoder once, at the end.
type in struct {
	s cryptobyte.String
	d *decoder
}

func (r *in) fail(what string) {
	r.d.fail("%s is not as the grammar has it", what)
	r.s = nil
}

// end insists that nothing is left.
func (r *in) end(what string) {
	if !r.s.Empty() {
		r.fail(what)
	}
}

func (r *in) has(tag asn1.Tag) bool { return r.s.PeekASN1Tag(tag) }

// sub takes an element off and returns its content.
func (r *in) sub(tag asn1.Tag, what string) in {
	var content cryptobyte.String
	if !r.s.ReadASN1(&content, tag) {
		r.fail(what)
	}
	return in{content, r.d}
}

func (r *in) seq(what string) in { return r.sub(asn1.SEQUENCE, what) }

// element takes a whole element off, header included.
func (r *in) element(tag asn1.Tag, what string) []byte {
	var e cryptobyte.String
	if !r.s.ReadASN1Element(&e, tag) {
		r.fail(what)
	}
	return slices.Clip(e)
}

func (r *in) anyElement(what string) []byte {
	var e cryptobyte.String
	var tag asn1.Tag
	if !r.s.ReadAnyASN1Element(&e, &tag) {
		r.fail(what)
	}
	return slices.Clip(e)
}

// implicit takes off an element tagged IMPLICIT and returns it with the tag that
// its type has by itself.
func (r *in) implicit(tag, own asn1.Tag, what string) []byte {
	e := r.element(tag, what)
	if len(e) == 0 {
		return nil
	}
	e = bytes.Clone(e)
	e[0] = byte(own)
	return e
}

func (r *in) int(what string) int64 { return r.taggedInt(asn1.INTEGER, what) }

func (r *in) taggedInt(tag asn1.Tag, what string) int64 {
	var v int64
	if !r.s.ReadASN1Int64WithTag(&v, tag) {
		r.fail(what)
	}
	return v
}

func (r *in) bigInt(what string) *big.Int {
	v := new(big.Int)
	if !r.s.ReadASN1Integer(v) {
		r.fail(what)
	}
	return v
}

func (r *in) octets(what string) []byte {
	s := r.sub(asn1.OCTET_STRING, what)
	return octetsOf(s.s)
}

// octetsOf tells empty (not nil) from absent (nil).
func octetsOf(s cryptobyte.String) []byte {
	if s == nil {
		return []byte{}
	}
	return slices.Clip(s)
}

// bits takes off a BIT STRING of whole octets.
func (r *in) bits(what string) []byte {
	var v []byte
	if !r.s.ReadASN1BitStringAsBytes(&v) {
		r.fail(what)
	}
	return slices.Clip(v)
}

func (r *in) oid(what string) encasn1.ObjectIdentifier {
	var v encasn1.ObjectIdentifier
	if !r.s.ReadASN1ObjectIdentifier(&v) {
		r.fail(what)
	}
	return v
}

func (r *in) utf8(what string) string {
	s := r.sub(asn1.UTF8String, what)
	if !utf8.Valid(s.s) {
		r.fail(what)
	}
	return string(s.s)
}

// time takes off a GeneralizedTime in DER (X.690 §11.7): UTC, with seconds, and with a fraction of them if that is
// not zero. RFC 5280 §4.1.2.5.2 forbids fractions in certificates and CRLs alone. Those below a nanosecond are refused.
func (r *in) time(what string) time.Time {
	s := r.sub(asn1.GeneralizedTime, what)
	t, err := time.Parse(generalizedTime, string(s.s))
	// The year 1 would read as absent; nothing before 1950 can be meant.
	if err != nil || t.Year() < 1950 || t.Format(generalizedTime) != string(s.s) {
		r.fail(what)
		return time.Time{}
	}
	return t
}

const generalizedTime = "20060102150405.999999999Z"

// anyTime takes off a Time: UTCTime or GeneralizedTime.
func (r *in) anyTime(what string) Time {
	generalized := r.has(asn1.GeneralizedTime)
	t, err := der.Time(&r.s)
	// The year 1 would read as absent; nothing before 1950 can be meant.
	if err != nil || t.Year() < 1950 {
		r.fail(what)
		return Time{}
	}
	return Time{At: t, Generalized: generalized}
}

// cert takes off something with the shape of a certificate; who needs it parses it.
func (r *in) cert(what string) []byte { return r.element(asn1.SEQUENCE, what) }

// oneOrMore reads a SEQUENCE SIZE (1..MAX) OF.
func oneOrMore[T any](r *in, what string, read func(*in) T) []T {
	s := r.seq(what)
	if s.s.Empty() {
		r.fail(what)
		return nil
	}
	return readAll(&s, what, read)
}

// anyNumber reads a SEQUENCE OF. The result is never nil.
func anyNumber[T any](r *in, what string, read func(*in) T) []T {
	s := r.seq(what)
	return readAll(&s, what, read)
}

func readAll[T any](s *in, what string, read func(*in) T) []T {
	list := []T{}
	for !s.s.Empty() {
		if len(list) == s.d.limits.Items {
			s.d.fail("%s has more than %d items", what, s.d.limits.Items)
			s.s = nil
			break
		}
		list = append(list, read(s))
	}
	return list
}

func readCert(r *in) []byte { return r.cert("certificate") }

// parseValue runs one reader over the whole of raw, for the values that header
// and bodies carry inside.
func parseValue[T any](raw []byte, what string, read func(*in) T) (T, error) {
	d := &decoder{limits: Limits{}.withDefaults()}
	if err := der.Check(raw, maxDepth); err != nil {
		var none T
		return none, malformed(what, err)
	}
	r := in{raw, d}
	v := read(&r)
	r.end(what)
	if d.err != nil {
		var none T
		return none, d.err
	}
	return v, nil
}

func malformed(what string, err error) *Error {
	return &Error{Info: BadDataFormat, Section: generic, Reason: fmt.Sprintf("%s is not DER", what), Err: err}
}
