package pack

import (
	"bytes"
	"errors"
	"iter"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func revocations(indices ...uint64) iter.Seq2[uint64, bool] {
	return func(yield func(uint64, bool) bool) {
		for _, i := range indices {
			if !yield(i, true) {
				return
			}
		}
	}
}

func TestAlgorithms(t *testing.T) {
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			c := newCA(t, key)
			st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{3, 999})))
			next := must[*State](t)(st.Next(c.header(1, 2, 0, 1100), revocations(1099)))
			p := must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, Hash{1})), c.options(), must[[]byte](t)(st.Delta(next, c.sign))))
			if got := slices.Collect(p.All()); !slices.Equal(got, []uint64{3, 999, 1099}) {
				t.Fatal(got)
			}
			if p.Hash() != next.Hash() || p.Header() != next.Header() || p.Base() != (Hash{1}) || p.Signer() != c.cert {
				t.Fatal("not the state that was signed")
			}
		})
	}
}

func TestStatus(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	st := must[*State](t)(NewState(c.header(3, 1, 100, 70_000), slices.Values([]uint64{100, 65_535, 65_536, 70_099})))
	p := must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, Hash{})), c.options()))
	edit := func(index uint64, change func([]byte) []byte) []byte { return change(serialOf(index)) }
	for _, tc := range []struct {
		name   string
		serial []byte
		want   Status
	}{
		{"below the universe", serialOf(99), Expired},
		{"index 0", serialOf(0), Expired},
		{"first", serialOf(100), Revoked},
		{"second", serialOf(101), Good},
		{"last of a block", serialOf(65_535), Revoked},
		{"first of a block", serialOf(65_536), Revoked},
		{"next to it", serialOf(65_537), Good},
		{"last but one", serialOf(70_098), Good},
		{"last", serialOf(70_099), Revoked},
		{"end", serialOf(70_100), Unknown},
		{"same low half, other block", serialOf(100 + 1<<16 + 1<<32), Unknown},
		{"highest", serialOf(MaxIndex), Unknown},
		{"none", nil, Unknown},
		{"short", edit(101, func(s []byte) []byte { return s[:18] }), Unknown},
		{"long", edit(101, func(s []byte) []byte { return append(s, 0) }), Unknown},
		{"leading zero", edit(101, func(s []byte) []byte { return append([]byte{0}, s...) }), Unknown},
		{"other first octet", edit(101, func(s []byte) []byte { s[0] = 2; return s }), Unknown},
		{"small number", big.NewInt(101).Bytes(), Unknown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := p.Status(tc.serial, p.Header().ThisUpdate)
			if got != tc.want || err != nil {
				t.Fatalf("%s, %v; want %s", got, err, tc.want)
			}
		})
	}
}

func TestFreshness(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	st := must[*State](t)(NewState(c.header(1, 1, 0, 10), slices.Values([]uint64{3})))
	p := must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, Hash{})), c.options()))
	h := p.Header()
	for _, tc := range []struct {
		name string
		now  time.Time
		want error
	}{
		{"a second early", h.ThisUpdate.Add(-time.Second), ErrNotYet},
		{"at thisUpdate", h.ThisUpdate, nil},
		{"at nextUpdate", h.NextUpdate, nil},
		{"just after", h.NextUpdate.Add(1), ErrStale},
		{"years after", h.NextUpdate.AddDate(5, 0, 0), ErrStale},
		{"no clock", time.Time{}, ErrNotYet},
	} {
		t.Run(tc.name, func(t *testing.T) {
			status, err := p.Status(serialOf(3), tc.now)
			if status != Revoked || !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Fatalf("%s, %v", status, err)
			}
			if tc.want != nil {
				fresh, ok := errors.AsType[*FreshnessError](err)
				if !ok || !fresh.NextUpdate.Equal(h.NextUpdate) || errors.Is(err, ErrStale) == errors.Is(err, ErrNotYet) {
					t.Fatalf("%v", err)
				}
			}
		})
	}
}

func TestCertificate(t *testing.T) {
	c, other := newCA(t, testKey("issuer")), newCA(t, testKey("other"))
	st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{500})))
	p := must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, Hash{})), c.options()))
	key := testKey("device")
	now := p.Header().ThisUpdate
	if s, err := p.Certificate(certificate(t, delegateTemplate(), c.cert, key.Public(), c.key), now); s != Revoked || err != nil {
		t.Errorf("own: %s, %v", s, err)
	}
	// Same name, other key: what a CA looks like after its key was rolled over.
	if s, err := p.Certificate(certificate(t, delegateTemplate(), other.cert, key.Public(), other.key), now); s != Unknown || !errors.Is(err, ErrIssuer) {
		t.Errorf("other: %s, %v", s, err)
	}
}

// TestAgainstMap lets an issuer live, with revocations, holds, growth and new epochs, and checks that whoever follows by
// any mix of full packs and deltas knows what a plain map knows.
func TestAgainstMap(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 7))
		truth := map[uint64]bool{}
		first, end := r.Uint64N(1<<20), uint64(0)
		end = first + r.Uint64N(300_000)
		epoch := uint64(1)
		for range r.IntN(3000) {
			truth[first+r.Uint64N(end-first+1)] = true
		}
		delete(truth, end)
		st := must[*State](t)(NewState(c.header(epoch, 1, first, end-first), slices.Values(slices.Sorted(maps.Keys(truth)))))
		history := []*State{st}
		holders := []*Pack{must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, Hash{})), c.options()))}
		for seq := uint64(2); seq < 25; seq++ {
			end += r.Uint64N(2) * r.Uint64N(100_000)
			if r.IntN(5) == 0 {
				epoch++
				first += r.Uint64N(end - first + 1)
				maps.DeleteFunc(truth, func(i uint64, _ bool) bool { return i < first })
			}
			var changes [][2]uint64
			held := slices.Sorted(maps.Keys(truth))
			for range r.IntN(40) {
				if end == 0 {
					break
				}
				index, to := r.Uint64N(end), r.Uint64N(2)
				if len(held) > 0 && to == 0 {
					index = held[r.IntN(len(held))]
				}
				changes = append(changes, [2]uint64{index, to})
				if delete(truth, index); to == 1 && index >= first {
					truth[index] = true
				}
			}
			st = must[*State](t)(st.Next(c.header(epoch, seq, first, end-first), func(yield func(uint64, bool) bool) {
				for _, ch := range changes {
					if !yield(ch[0], ch[1] == 1) {
						return
					}
				}
			}))
			want := slices.Sorted(maps.Keys(truth))
			if got := slices.Collect(st.All()); !slices.Equal(got, want) || st.Revoked() != uint64(len(want)) {
				t.Fatalf("seed %d seq %d: %d revoked, want %d", seed, seq, len(got), len(want))
			}
			full := must[*Pack](t)(Verify(must[[]byte](t)(st.Sign(c.sign, history[len(history)-1].Hash())), c.options()))
			if full.Hash() != st.Hash() {
				t.Fatal("full pack has another hash")
			}
			// Each holder catches up with one delta, however far behind it is, or lags on.
			for i, p := range holders {
				if r.IntN(2) == 0 {
					continue
				}
				from := history[slices.IndexFunc(history, func(s *State) bool { return s.Hash() == p.Hash() })]
				holders[i] = must[*Pack](t)(p.Apply(must[[]byte](t)(from.Delta(st, c.sign))))
				if holders[i].Hash() != st.Hash() || !slices.Equal(slices.Collect(holders[i].All()), want) {
					t.Fatalf("seed %d seq %d: delta leads elsewhere", seed, seq)
				}
			}
			history, holders = append(history, st), append(holders, full)
			for range 200 {
				index := r.Uint64N(end + 50)
				want := Good
				switch {
				case index < first:
					want = Expired
				case index >= end:
					want = Unknown
				case truth[index]:
					want = Revoked
				}
				if got, err := full.Status(serialOf(index), st.Header().ThisUpdate); got != want || err != nil {
					t.Fatalf("seed %d seq %d index %d: %s, %v; want %s", seed, seq, index, got, err, want)
				}
			}
		}
	}
}

func TestRollback(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	first := must[*State](t)(NewState(c.header(2, 7, 0, 100), slices.Values([]uint64{5})))
	second := must[*State](t)(first.Next(c.header(2, 8, 0, 100), revocations(6)))
	third := must[*State](t)(second.Next(c.header(3, 9, 5, 95), revocations(7)))
	data := must[[]byte](t)(first.Sign(c.sign, Hash{}))
	d2, d3 := must[[]byte](t)(first.Delta(second, c.sign)), must[[]byte](t)(second.Delta(third, c.sign))
	for _, tc := range []struct {
		name   string
		floor  Floor
		deltas [][]byte
		ok     bool
	}{
		{"no floor", Floor{}, nil, true},
		{"same", Floor{2, 7}, nil, true},
		{"older sequence", Floor{2, 8}, nil, false},
		{"older epoch", Floor{3, 1}, nil, false},
		{"newer epoch, lower sequence", Floor{1, 100}, nil, true},
		{"delta lifts it", Floor{2, 8}, [][]byte{d2}, true},
		{"delta not enough", Floor{2, 9}, [][]byte{d2}, false},
		{"two deltas", Floor{3, 9}, [][]byte{d2, d3}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := Verify(data, Options{Issuer: c.cert, Floor: tc.floor}, tc.deltas...)
			if tc.ok != (err == nil) {
				t.Fatal(err)
			}
			if rolled, isRollback := errors.AsType[*RollbackError](err); !tc.ok && (!isRollback || rolled.Floor != tc.floor || p != nil) {
				t.Fatalf("%v", err)
			}
		})
	}
	p := must[*Pack](t)(Verify(data, c.options(), d2, d3))
	if p.Floor() != (Floor{3, 9}) {
		t.Fatal(p.Floor())
	}
	for name, deltas := range map[string][][]byte{"twice": {d2, d2}, "one left out": {d3}, "wrong order": {d3, d2}} {
		if _, err := Verify(data, c.options(), deltas...); !errors.Is(err, ErrParent) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStateRefuses(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	good := c.header(2, 5, 100, 1000)
	with := func(change func(*Header)) Header { h := good; change(&h); return h }
	for _, tc := range []struct {
		name    string
		h       Header
		revoked []uint64
	}{
		{"no issuer", with(func(h *Header) { h.Issuer = Hash{} }), nil},
		{"times turned round", with(func(h *Header) { h.ThisUpdate, h.NextUpdate = h.NextUpdate, h.ThisUpdate }), nil},
		{"same second", with(func(h *Header) { h.NextUpdate = h.ThisUpdate.Add(time.Second - 1) }), nil},
		{"no times", with(func(h *Header) { h.ThisUpdate = time.Time{} }), nil},
		{"year 10000", with(func(h *Header) { h.NextUpdate = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }), nil},
		{"universe beyond 48 bits", with(func(h *Header) { h.Size = MaxIndex }), nil},
		{"universe wraps", with(func(h *Header) { h.Size = 1<<64 - 50 }), nil},
		{"epoch", with(func(h *Header) { h.Epoch = 1 << 63 }), nil},
		{"sequence", with(func(h *Header) { h.Sequence = 1 << 63 }), nil},
		{"below first", good, []uint64{99}},
		{"at end", good, []uint64{1100}},
		{"unsorted", good, []uint64{200, 150}},
		{"twice", good, []uint64{200, 200}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := NewState(tc.h, slices.Values(tc.revoked)); !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
		})
	}

	st := must[*State](t)(NewState(good, slices.Values([]uint64{200})))
	for _, tc := range []struct {
		name  string
		h     Header
		index uint64
		want  error
	}{
		{"same sequence", good, 300, ErrOrder},
		{"lower sequence", c.header(2, 4, 100, 1000), 300, ErrOrder},
		{"lower epoch", c.header(1, 6, 100, 1000), 300, ErrOrder},
		{"universe shrinks", c.header(2, 6, 100, 999), 300, ErrOrder},
		{"first falls", c.header(3, 6, 99, 1001), 300, ErrOrder},
		{"first rises within the epoch", c.header(2, 6, 101, 999), 300, ErrOrder},
		{"time moves back", with(func(h *Header) { h.Sequence++; h.ThisUpdate = h.ThisUpdate.Add(-day) }), 300, ErrOrder},
		{"other issuer", with(func(h *Header) { h.Sequence++; h.Issuer[0]++ }), 300, ErrIssuer},
		{"index not in the universe", c.header(2, 6, 100, 1000), 1100, ErrMalformed},
		{"fine", c.header(2, 6, 100, 1000), 1099, nil},
		{"index that has expired", c.header(2, 6, 100, 1000), 5, nil},
		{"revoked again", c.header(2, 6, 100, 1000), 200, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := st.Next(tc.h, revocations(tc.index)); !errors.Is(err, tc.want) || tc.want == nil && err != nil {
				t.Fatal(err)
			}
		})
	}
	old := must[*State](t)(st.Next(c.header(2, 9, 100, 1000), revocations()))
	if _, err := old.Delta(st, c.sign); !errors.Is(err, ErrOrder) {
		t.Errorf("delta back in time: %v", err)
	}
	if _, err := st.Sign(newCA(t, testKey("other")).sign, Hash{}); !errors.Is(err, ErrIssuer) {
		t.Errorf("signer of another issuer: %v", err)
	}
}

// TestDamage flips bits and cuts at each octet. With Ed25519, nothing but the original verifies.
func TestDamage(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	delegated, _ := c.delegate(t, testKey("delegate"), delegateTemplate())
	st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{3, 70, 999})))
	next := must[*State](t)(st.Next(c.header(1, 2, 0, 1010), func(yield func(uint64, bool) bool) { _ = yield(1009, true) && yield(70, false) }))
	full, delta := must[[]byte](t)(st.Sign(c.sign, Hash{})), must[[]byte](t)(st.Delta(next, c.sign))
	p := must[*Pack](t)(Verify(full, c.options()))
	verify := func(b []byte) (*Pack, error) { return Verify(b, c.options()) }
	for name, tc := range map[string]struct {
		data []byte
		open func([]byte) (*Pack, error)
		bits int // flipped in each octet
	}{
		"pack":            {full, verify, 8},
		"delta":           {delta, p.Apply, 8},
		"delegated pack":  {must[[]byte](t)(st.Sign(delegated, Hash{})), verify, 1},
		"delegated delta": {must[[]byte](t)(st.Delta(next, delegated)), p.Apply, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := tc.open(tc.data); err != nil {
				t.Fatal(err)
			}
			for n := range tc.data {
				if _, err := tc.open(tc.data[:n:n]); err == nil {
					t.Fatalf("cut to %d octets: accepted", n)
				}
				for bit := n % 8; bit < n%8+tc.bits; bit++ {
					bad := bytes.Clone(tc.data)
					bad[n] ^= 1 << (bit % 8)
					if _, err := tc.open(bad); err == nil {
						t.Fatalf("octet %d bit %d: accepted", n, bit)
					}
				}
			}
			if _, err := tc.open(append(bytes.Clone(tc.data), 0)); !errors.Is(err, ErrMalformed) {
				t.Fatalf("trailing octet: %v", err)
			}
		})
	}
	if _, err := Verify(delta, c.options()); err == nil {
		t.Error("delta taken for a pack")
	}
	if _, err := p.Apply(full); err == nil {
		t.Error("pack taken for a delta")
	}
}
