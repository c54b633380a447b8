package pack

import (
	"fmt"
	"math/bits"
)

// The major types of RFC 8949 §3.1 that packs are made of. Floats, simple values and indefinite lengths have no place in them.
const (
	majorUint  = 0
	majorNint  = 1
	majorBytes = 2
	majorText  = 3
	majorArray = 4
	majorMap   = 5
	majorTag   = 6
)

func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n <= 0xff:
		return append(b, major|24, byte(n))
	case n <= 0xffff:
		return append(b, major|25, byte(n>>8), byte(n))
	case n <= 0xffffffff:
		return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, major|27, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}

func appendUint(b []byte, n uint64) []byte { return appendHead(b, majorUint, n) }

func appendBytes(b, s []byte) []byte { return append(appendHead(b, majorBytes, uint64(len(s))), s...) }

func appendText(b []byte, s string) []byte {
	return append(appendHead(b, majorText, uint64(len(s))), s...)
}

// reader takes deterministic CBOR (RFC 8949 §4.2.1) apart in one direction. The first fault sticks, so that callers
// read a whole structure and look at err once. It allocates nothing: strings point into the input.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
		r.rest = nil
	}
}

// head reads one initial octet and its argument, which must have its shortest form.
func (r *reader) head(major byte, what string) uint64 {
	if len(r.rest) == 0 {
		r.fail("%s: input ends", what)
		return 0
	}
	first := r.rest[0]
	if first>>5 != major {
		r.fail("%s: CBOR major type %d, want %d", what, first>>5, major)
		return 0
	}
	info := first & 31
	if info < 24 {
		r.rest = r.rest[1:]
		return uint64(info)
	}
	if info > 27 {
		r.fail("%s: reserved or indefinite length", what)
		return 0
	}
	size := 1 << (info - 24)
	if len(r.rest) < 1+size {
		r.fail("%s: input ends", what)
		return 0
	}
	var n uint64
	for _, c := range r.rest[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	if n < 24 || size > 1 && bits.Len64(n) <= 4*size {
		r.fail("%s: integer is not in its shortest form", what)
		return 0
	}
	r.rest = r.rest[1+size:]
	return n
}

// uint reads an unsigned integer of at most limit.
func (r *reader) uint(limit uint64, what string) uint64 {
	n := r.head(majorUint, what)
	if n > limit {
		r.fail("%s: %d is above %d", what, n, limit)
		return 0
	}
	return n
}

func (r *reader) str(major byte, what string) []byte {
	n := r.head(major, what)
	if n > uint64(len(r.rest)) {
		r.fail("%s: input ends", what)
		return nil
	}
	s := r.rest[:n:n]
	r.rest = r.rest[n:]
	return s
}

func (r *reader) bytes(what string) []byte { return r.str(majorBytes, what) }

// fixed reads a byte string of exactly size octets.
func (r *reader) fixed(size int, what string) []byte {
	s := r.bytes(what)
	if r.err == nil && len(s) != size {
		r.fail("%s: %d octets, want %d", what, len(s), size)
	}
	return s
}

// expect reads a head that can have one value only.
func (r *reader) expect(major byte, n uint64, what string) {
	if got := r.head(major, what); r.err == nil && got != n {
		r.fail("%s: %d, want %d", what, got, n)
	}
}

// end refuses what is left over.
func (r *reader) end(what string) error {
	if r.err == nil && len(r.rest) != 0 {
		r.fail("%s: %d octets too many", what, len(r.rest))
	}
	return r.err
}
