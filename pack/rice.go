package pack

import (
	"fmt"
	"iter"
	"math/bits"
)

// Golomb–Rice coding of a strictly ascending list of offsets x0 < x1 < … below a universe size.
//
// The gaps g0 = x0, gi = xi − x(i−1) − 1 are coded one after the other with the parameter k: the quotient g >> k as that
// many one bits and a zero bit, then the low k bits of g, most significant first. Bits fill octets from the most
// significant down; the last octet is padded with zero bits.
//
// A list has one coding: k is the smallest value with Σ ⌈(gi >> k) / 2⌉ ≤ n. The length n·(k+1) + Σ (gi >> k) is
// convex in k, and going from k to k+1 adds n bits and saves exactly Σ ⌈(gi >> k) / 2⌉, so that k gives the shortest coding.

// maxParameter follows from indices having 48 bits: with k = 47 no list can gain from a larger one.
const maxParameter = 47

// riceParameter finds k for offsets.
func riceParameter(offsets iter.Seq[uint64]) uint {
	var saved [maxParameter + 2]uint64
	var n, next uint64
	for x := range offsets {
		n++
		for g, k := x-next, 0; g != 0; g, k = g>>1, k+1 {
			saved[k] += (g + 1) / 2
		}
		next = x + 1
	}
	k := uint(0)
	for saved[k] > n {
		k++
	}
	return k
}

// encodeRice appends the coding of offsets to dst.
func encodeRice(dst []byte, k uint, offsets iter.Seq[uint64]) []byte {
	w := bitWriter{out: dst}
	var next uint64
	for x := range offsets {
		g := x - next
		q := g >> k
		for ; q >= 32; q -= 32 {
			w.put(1<<32-1, 32)
		}
		w.put(1<<(q+1)-2, uint(q)+1)
		w.put(g&(1<<k-1), k)
		next = x + 1
	}
	return w.flush()
}

// decodeRice calls add with each offset of a coding, in ascending order. It does work in proportion to len(coded),
// whatever count and size say, and accepts only what encodeRice writes.
func decodeRice(coded []byte, k uint, count, size uint64, add func(uint64)) error {
	if k > maxParameter || count > size || count > uint64(len(coded))*8/uint64(k+1) {
		return fmt.Errorf("%w: %d indices with parameter %d cannot lie in %d octets and a universe of %d", ErrMalformed, count, k, len(coded), size)
	}
	r := bitReader{in: coded}
	var next, saved, savedBelow uint64
	for range count {
		q, ok := r.unary()
		if !ok || q > size>>k {
			return fmt.Errorf("%w: set: code runs off its end", ErrMalformed)
		}
		low, ok := r.take(k)
		if !ok {
			return fmt.Errorf("%w: set: code runs off its end", ErrMalformed)
		}
		g := q<<k | low
		if g >= size-next {
			return fmt.Errorf("%w: set: an index lies outside the universe", ErrMalformed)
		}
		saved += (q + 1) / 2
		if k > 0 {
			savedBelow += (g>>(k-1) + 1) / 2
		}
		add(next + g)
		next += g + 1
	}
	if saved > count || k > 0 && savedBelow <= count {
		return fmt.Errorf("%w: set: Rice parameter %d is not the shortest for it", ErrMalformed, k)
	}
	if !r.padded() {
		return fmt.Errorf("%w: set: padding is not zero bits up to the next octet", ErrMalformed)
	}
	return nil
}

type bitWriter struct {
	out []byte
	acc uint64 // the low n bits wait to be written
	n   uint   // always below 8 between calls
}

// put writes the low n bits of v, n ≤ 56; the others must be zero.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc = w.acc<<n | v
	w.n += n
	for w.n >= 8 {
		w.n -= 8
		w.out = append(w.out, byte(w.acc>>w.n))
	}
}

func (w *bitWriter) flush() []byte {
	if w.n > 0 {
		w.out = append(w.out, byte(w.acc<<(8-w.n)))
		w.n = 0
	}
	return w.out
}

type bitReader struct {
	in  []byte
	pos int
	acc uint64 // the top n bits are next, all below them are zero
	n   uint
}

func (r *bitReader) fill() {
	for r.n <= 56 && r.pos < len(r.in) {
		r.acc |= uint64(r.in[r.pos]) << (56 - r.n)
		r.pos++
		r.n += 8
	}
}

// unary counts the one bits before the next zero bit and takes both.
func (r *bitReader) unary() (q uint64, ok bool) {
	for {
		r.fill()
		ones := uint(bits.LeadingZeros64(^r.acc))
		if ones < r.n {
			r.acc <<= ones + 1
			r.n -= ones + 1
			return q + uint64(ones), true
		}
		if r.n == 0 {
			return 0, false
		}
		q += uint64(r.n)
		r.acc, r.n = 0, 0
	}
}

// take reads n ≤ 56 bits.
func (r *bitReader) take(n uint) (v uint64, ok bool) {
	r.fill()
	if r.n < n {
		return 0, false
	}
	v = r.acc >> (64 - n)
	r.acc <<= n
	r.n -= n
	return v, true
}

// padded reports whether nothing is left but zero bits of a last octet that was begun.
func (r *bitReader) padded() bool {
	r.fill()
	return r.n < 8 && r.acc == 0
}
