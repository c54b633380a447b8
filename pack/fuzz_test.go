package pack

import (
	"bytes"
	"slices"
	"testing"
)

// seeds are payloads and envelopes of an issuer that is the same in each run.
func seeds(t testing.TB) (c *ca, states []*State) {
	c = newCA(t, testKey("issuer"))
	st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{3, 70, 999})))
	states = append(states, st)
	for _, next := range []struct {
		h       Header
		changes map[uint64]bool
	}{
		{c.header(1, 2, 0, 1010), map[uint64]bool{1009: true, 70: false}},
		{c.header(2, 3, 4, 100_000), map[uint64]bool{70_000: true, 70_001: true, 99_999: true}},
		{c.header(2, 4, 4, 100_000), nil},
		{c.header(3, 5, 100_004, MaxIndex-100_003), map[uint64]bool{MaxIndex: true}},
	} {
		st = must[*State](t)(st.Next(next.h, func(yield func(uint64, bool) bool) {
			for i, to := range next.changes {
				if !yield(i, to) {
					return
				}
			}
		}))
		states = append(states, st)
	}
	return c, states
}

var fuzzLimits = Limits{Bytes: 64 << 10, Revoked: 64 << 10}.orDefault()

// FuzzPack parses payloads as if their signature had held.
func FuzzPack(f *testing.F) {
	_, states := seeds(f)
	for _, st := range states {
		f.Add(st.appendPack(nil, Hash{}))
		f.Add(st.appendPack(nil, Hash{1}))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		st, base, err := parsePack(payload, fuzzLimits)
		if err != nil {
			return
		}
		if again := st.appendPack(nil, base); !bytes.Equal(again, payload) {
			t.Fatalf("%x comes back as %x", payload, again)
		}
		if n := len(slices.Collect(st.All())); uint64(n) != st.Revoked() {
			t.Fatalf("%d indices of %d", n, st.Revoked())
		}
		for index := range st.All() {
			if st.Index(index) != Revoked {
				t.Fatalf("index %d is not found", index)
			}
		}
	})
}

// FuzzDelta applies payloads as if their signature had held and they gave what they promise.
func FuzzDelta(f *testing.F) {
	_, states := seeds(f)
	for i, st := range states {
		for _, next := range states[i+1:] {
			f.Add(i, st.appendDelta(nil, next))
		}
	}
	f.Fuzz(func(t *testing.T, from int, payload []byte) {
		if from < 0 || from >= len(states) {
			return
		}
		st := states[from]
		payload = bytes.Clone(payload)
		next, result, err := st.change(payload, fuzzLimits)
		if err != nil {
			return
		}
		copy(result, next.hash[:]) // which lies in payload
		if again := st.appendDelta(nil, next); !bytes.Equal(again, payload) {
			t.Fatalf("%x comes back as %x", payload, again)
		}
	})
}

// FuzzVerify goes through the envelope, the delegated certificate included.
func FuzzVerify(f *testing.F) {
	c, states := seeds(f)
	delegated, _ := c.delegate(f, testKey("delegate"), delegateTemplate())
	for _, by := range []*Signer{c.sign, delegated, delegated.Brief()} {
		f.Add(must[[]byte](f)(states[0].Sign(by, Hash{})), must[[]byte](f)(states[0].Delta(states[1], by)))
	}
	f.Fuzz(func(t *testing.T, full, delta []byte) {
		issuer, peekErr := IssuerOf(full)
		p, err := Verify(full, c.options())
		if err != nil {
			return
		}
		if peekErr != nil || issuer != IssuerHash(c.cert) {
			t.Fatalf("%x: of %x, %v", full, issuer, peekErr)
		}
		// A signature over anything else would be a forgery.
		if e, err := parseEnvelope(full, contentType); err != nil || !bytes.Equal(e.append(nil), full) || p.Hash() != states[0].Hash() {
			t.Fatalf("%x", full)
		}
		if q, err := p.Apply(delta); err == nil && q.Hash() != states[1].Hash() {
			t.Fatalf("%x", delta)
		}
	})
}

// TestSeeds keeps the corpora from running dry.
func TestSeeds(t *testing.T) {
	_, states := seeds(t)
	for i, st := range states {
		if _, _, err := parsePack(st.appendPack(nil, Hash{}), fuzzLimits); err != nil {
			t.Error(err)
		}
		for _, next := range states[i+1:] {
			if _, err := st.applyDelta(st.appendDelta(nil, next), fuzzLimits); err != nil {
				t.Error(err)
			}
		}
	}
	if len(states) != 5 {
		t.Errorf("%d seeds", len(states))
	}
}
