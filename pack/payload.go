package pack

import (
	"fmt"
	"time"
)

// The first element of a payload says what it is.
const (
	kindPack  = 1
	kindDelta = 2
)

// A delta names its parent by the first octets of the state hash (all of it is signed, as external_aad), and carries
// the first octets of the resulting one.
const (
	parentPrefix = 4
	resultPrefix = 8
)

// appendPack writes
//
//	[1, issuer, epoch, sequence, this-update, next-update, first, size, base / h'', k, count, set]
func (s *State) appendPack(b []byte, base Hash) []byte {
	b = appendHead(b, majorArray, 12)
	b = appendUint(b, kindPack)
	b = s.header.append(b)
	if base == (Hash{}) {
		b = appendBytes(b, nil)
	} else {
		b = appendBytes(b, base[:])
	}
	return s.set.append(b, s.header.First)
}

func parsePack(payload []byte, limits Limits) (st *State, base Hash, err error) {
	r := &reader{rest: payload}
	r.expect(majorArray, 12, "payload")
	r.expect(majorUint, kindPack, "kind")
	var h Header
	copy(h.Issuer[:], r.fixed(len(h.Issuer), "issuer"))
	h.Epoch = r.uint(maxCounter, "epoch")
	h.Sequence = r.uint(maxCounter, "sequence")
	h.ThisUpdate = r.time("this-update")
	h.NextUpdate = r.time("next-update")
	h.First = r.uint(MaxIndex+1, "first")
	h.Size = r.uint(MaxIndex+1, "size")
	switch b := r.bytes("base"); len(b) {
	case 0:
	case len(base):
		if copy(base[:], b); base == (Hash{}) {
			r.fail("base: all zero")
		}
	default:
		r.fail("base: %d octets", len(b))
	}
	if r.err == nil {
		r.err = h.check()
	}
	revoked := r.set(&h, limits)
	if err := r.end("payload"); err != nil {
		return nil, base, err
	}
	st, err = newState(h, revoked)
	return st, base, err
}

// appendDelta writes what turns s into next, of which next has been checked to follow s:
//
//	[2, parent, epoch-rise, sequence, this-update, next-update, first-rise, end-rise, result, k, count, added ? k, count, removed]
func (s *State) appendDelta(b []byte, next *State) []byte {
	old, h := &s.header, &next.header
	added, removed := s.set.from(h.First).diff(next.set)
	elements := uint64(12)
	if removed.n > 0 {
		elements += 3
	}
	b = appendHead(b, majorArray, elements)
	b = appendUint(b, kindDelta)
	b = appendBytes(b, s.hash[:parentPrefix])
	for _, n := range []uint64{h.Epoch - old.Epoch, h.Sequence, uint64(h.ThisUpdate.Unix()), uint64(h.NextUpdate.Unix()), h.First - old.First, h.end() - old.end()} {
		b = appendUint(b, n)
	}
	b = appendBytes(b, next.hash[:resultPrefix])
	b = added.append(b, h.First)
	if removed.n > 0 {
		b = removed.append(b, h.First)
	}
	return b
}

// deltaParent reads only which parent a delta is for.
func deltaParent(payload []byte) ([]byte, error) {
	r := &reader{rest: payload}
	if n := r.head(majorArray, "payload"); r.err == nil && n != 12 && n != 15 {
		r.fail("payload: %d elements, want 12 or 15", n)
	}
	r.expect(majorUint, kindDelta, "kind")
	parent := r.fixed(parentPrefix, "parent")
	return parent, r.err
}

// applyDelta makes the state that follows s, and checks that it is the one that the signer had.
func (s *State) applyDelta(payload []byte, limits Limits) (*State, error) {
	next, result, err := s.change(payload, limits)
	if err != nil {
		return nil, err
	}
	if string(result) != string(next.hash[:resultPrefix]) {
		return nil, ErrResult
	}
	return next, nil
}

// change does as a delta says. It also returns the octets, within payload, that tell what should have come out.
func (s *State) change(payload []byte, limits Limits) (next *State, result []byte, err error) {
	r := &reader{rest: payload}
	elements := r.head(majorArray, "payload")
	if r.err == nil && elements != 12 && elements != 15 {
		r.fail("payload: %d elements, want 12 or 15", elements)
	}
	r.expect(majorUint, kindDelta, "kind")
	parent := r.fixed(parentPrefix, "parent")
	old := &s.header
	h := Header{Issuer: old.Issuer}
	h.Epoch = old.Epoch + r.uint(maxCounter-old.Epoch, "epoch-rise")
	h.Sequence = r.uint(maxCounter, "sequence")
	h.ThisUpdate = r.time("this-update")
	h.NextUpdate = r.time("next-update")
	h.First = old.First + r.uint(MaxIndex+1-old.First, "first-rise")
	end := old.end() + r.uint(MaxIndex+1-old.end(), "end-rise")
	if r.err == nil && h.First > end {
		r.fail("first-rise: beyond the end of the universe")
	}
	h.Size = end - h.First
	result = r.fixed(resultPrefix, "result")
	added := r.set(&h, limits)
	var removed set
	if elements == 15 {
		if removed = r.set(&h, limits); r.err == nil && removed.n == 0 {
			r.fail("removed: empty, so must be left out")
		}
	}
	if err := r.end("payload"); err != nil {
		return nil, nil, err
	}
	if string(parent) != string(s.hash[:parentPrefix]) {
		return nil, nil, ErrParent
	}
	if err := h.check(); err != nil {
		return nil, nil, err
	}
	if err := h.follows(old); err != nil {
		return nil, nil, err
	}
	revoked, ok := s.set.from(h.First).with(added, removed)
	if !ok {
		return nil, nil, fmt.Errorf("%w: adds what is revoked already or removes what is not", ErrResult)
	}
	if revoked.n > uint64(limits.Revoked) {
		return nil, nil, fmt.Errorf("%w: %d revoked, limit %d", ErrLimit, revoked.n, limits.Revoked)
	}
	next, err = newState(h, revoked)
	return next, result, err
}

// append writes the three elements of a set: k, count, and the coded offsets from first.
func (s set) append(b []byte, first uint64) []byte {
	offsets := s.offsets(first)
	k := riceParameter(offsets)
	b = appendUint(b, uint64(k))
	b = appendUint(b, s.n)
	return appendBytes(b, encodeRice(nil, k, offsets))
}

func (r *reader) set(h *Header, limits Limits) set {
	k := r.uint(maxParameter, "rice parameter")
	count := r.uint(MaxIndex+1, "count")
	coded := r.bytes("set")
	if r.err == nil && count > uint64(limits.Revoked) {
		r.err = fmt.Errorf("%w: %d indices, limit %d", ErrLimit, count, limits.Revoked)
	}
	if r.err != nil {
		return set{}
	}
	// Each index takes more than k bits, so that count cannot ask for more memory than the input accounts for.
	b := setBuilder{low: make([]uint16, 0, min(count, uint64(len(coded))*8/(k+1)))}
	if err := decodeRice(coded, uint(k), count, h.Size, func(x uint64) { b.add(h.First + x) }); err != nil {
		r.err = err
		return set{}
	}
	return b.set()
}

func (r *reader) time(what string) time.Time {
	return time.Unix(int64(r.uint(maxTime, what)), 0).UTC()
}
