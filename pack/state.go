package pack

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"
)

// MaxIndex is the highest issuance index that a serial can hold.
const MaxIndex = 1<<48 - 1

// Numbers on the wire stay in the range of a signed 64-bit integer, and times in years of four digits.
const (
	maxCounter = 1<<63 - 1
	maxTime    = 253402300799 // 9999-12-31T23:59:59Z
)

// Hash is a SHA-256 value. The zero Hash means none.
type Hash [sha256.Size]byte

// IssuerHash names an issuing CA: SHA-256 over the DER SubjectPublicKeyInfo of its certificate.
func IssuerHash(issuer *x509.Certificate) Hash { return sha256.Sum256(issuer.RawSubjectPublicKeyInfo) }

// Header is what a pack says besides the set.
type Header struct {
	Issuer Hash // see [IssuerHash]

	// Epoch and Sequence order the states of an issuer: the pair rises with every state, Epoch first, and a pair never
	// names two states. Within an epoch First stays where it is. An epoch begins when First rises; it may also
	// begin when a publisher, restored from a backup, cannot tell which sequences it has used.
	Epoch, Sequence uint64

	// ThisUpdate and NextUpdate, in whole seconds (fractions are dropped): when the state was taken, and until when a
	// newer one will be out.
	ThisUpdate, NextUpdate time.Time

	// The universe is the Size indices from First on. All certificates below First have expired; none was issued
	// from First+Size on when the state was taken. It ends at most at MaxIndex+1.
	First, Size uint64
}

func (h *Header) end() uint64 { return h.First + h.Size }

func (h *Header) check() error {
	from, until := h.ThisUpdate.Unix(), h.NextUpdate.Unix()
	switch {
	case h.Issuer == Hash{}:
		return fmt.Errorf("%w: no issuer hash", ErrMalformed)
	case h.Epoch > maxCounter || h.Sequence > maxCounter:
		return fmt.Errorf("%w: epoch or sequence above 2^63-1", ErrMalformed)
	case from < 0 || until > maxTime || from >= until:
		return fmt.Errorf("%w: nextUpdate must be after thisUpdate, both between 1970 and 9999", ErrMalformed)
	case h.First > MaxIndex+1 || h.Size > MaxIndex+1-h.First:
		return fmt.Errorf("%w: universe of %d from %d goes beyond 48 bits", ErrMalformed, h.Size, h.First)
	}
	return nil
}

// follows checks that h may come after old.
func (h *Header) follows(old *Header) error {
	switch {
	case h.Issuer != old.Issuer:
		return fmt.Errorf("%w: %w", ErrOrder, ErrIssuer)
	case h.floor().Compare(old.floor()) <= 0:
		return fmt.Errorf("%w: epoch %d sequence %d is not above epoch %d sequence %d", ErrOrder, h.Epoch, h.Sequence, old.Epoch, old.Sequence)
	case h.First < old.First || h.end() < old.end() || h.ThisUpdate.Before(old.ThisUpdate):
		return fmt.Errorf("%w: universe or thisUpdate moves back", ErrOrder)
	case h.First > old.First && h.Epoch == old.Epoch:
		return fmt.Errorf("%w: the first index rises without a new epoch", ErrOrder)
	}
	return nil
}

func (h *Header) floor() Floor { return Floor{h.Epoch, h.Sequence} }

// Floor is the newest state that a relying party has accepted. Persist it, and hand it to [Verify].
type Floor struct {
	Epoch, Sequence uint64
}

// Compare orders by epoch, then sequence.
func (f Floor) Compare(g Floor) int {
	return cmp.Or(cmp.Compare(f.Epoch, g.Epoch), cmp.Compare(f.Sequence, g.Sequence))
}

// State is one state of an issuer's revocation: a header and the set of revoked indices. It is immutable and safe for
// concurrent use; states made by [State.Next] share what they have in common. It takes about two octets per revoked index.
type State struct {
	header Header
	set    set
	hash   Hash
}

// NewState makes a state from the revoked indices, which come strictly ascending and within the universe.
func NewState(h Header, revoked iter.Seq[uint64]) (*State, error) {
	var b setBuilder
	next := h.First
	for index := range revoked {
		if index < next || index >= h.end() {
			return nil, fmt.Errorf("%w: revoked index %d is out of order or outside of [%d, %d)", ErrMalformed, index, h.First, h.end())
		}
		b.add(index)
		next = index + 1
	}
	return newState(h, b.set())
}

func newState(h Header, s set) (*State, error) {
	h.ThisUpdate, h.NextUpdate = h.ThisUpdate.UTC().Truncate(time.Second), h.NextUpdate.UTC().Truncate(time.Second)
	if err := h.check(); err != nil {
		return nil, err
	}
	st := &State{header: h, set: s}
	st.hash = st.sum()
	return st, nil
}

// sum is the state hash: over all that a state says, in a form that does not depend on how the set is coded and
// that a publisher can keep up with at the cost of a change.
func (s *State) sum() Hash {
	setHash := s.set.hash()
	b := appendHead(nil, majorArray, 8)
	b = s.header.append(b)
	b = appendBytes(b, setHash[:])
	return sha256.Sum256(b)
}

// append writes the seven fields of a header that packs and state hashes have in common.
func (h *Header) append(b []byte) []byte {
	b = appendBytes(b, h.Issuer[:])
	for _, n := range []uint64{h.Epoch, h.Sequence, uint64(h.ThisUpdate.Unix()), uint64(h.NextUpdate.Unix()), h.First, h.Size} {
		b = appendUint(b, n)
	}
	return b
}

// Next makes the state that follows, from changes in the order of the revocation journal: an index, and whether it is
// revoked now. The last change of an index counts; one that changes nothing, or that is below h.First, is passed over. The
// cost follows the changes and the 65,536-index blocks, not the number of revoked certificates.
func (s *State) Next(h Header, changes iter.Seq2[uint64, bool]) (*State, error) {
	last := maps.Collect(changes)
	kept := s.set.from(h.First)
	var added, removed setBuilder
	for _, index := range slices.Sorted(maps.Keys(last)) {
		switch {
		case index >= h.end():
			return nil, fmt.Errorf("%w: index %d is not below the end of the universe, %d", ErrMalformed, index, h.end())
		case index < h.First || last[index] == kept.contains(index):
		case last[index]:
			added.add(index)
		default:
			removed.add(index)
		}
	}
	next, ok := kept.with(added.set(), removed.set())
	if !ok {
		return nil, ErrResult
	}
	st, err := newState(h, next)
	if err != nil {
		return nil, err
	}
	if err := st.header.follows(&s.header); err != nil {
		return nil, err
	}
	return st, nil
}

// Header returns the header, with times in UTC.
func (s *State) Header() Header { return s.header }

// Hash returns the state hash, by which deltas name their parent.
func (s *State) Hash() Hash { return s.hash }

// Revoked returns how many indices are revoked.
func (s *State) Revoked() uint64 { return s.set.n }

// All yields the revoked indices, ascending.
func (s *State) All() iter.Seq[uint64] { return s.set.offsets(0) }

// Index returns the status of an issuance index, whatever the time.
func (s *State) Index(index uint64) Status {
	switch {
	case index < s.header.First:
		return Expired
	case index >= s.header.end():
		return Unknown
	case s.set.contains(index):
		return Revoked
	}
	return Good
}
