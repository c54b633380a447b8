package audit

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"time"
)

// The tree of RFC 6962's certificate-transparency reference vectors: its eight
// leaves and the root over the first n of them.
func TestRoot(t *testing.T) {
	leaves := [][]byte{}
	for _, s := range []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"} {
		b, _ := hex.DecodeString(s)
		leaves = append(leaves, b)
	}
	for n, want := range []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	} {
		if got := Root(leaves[:n]); hex.EncodeToString(got[:]) != want {
			t.Errorf("root over %d leaves is %x, want %s", n, got, want)
		}
	}
}

func TestHashCoversEveryField(t *testing.T) {
	base := Entry{Sequence: 7, Time: time.UnixMicro(1e15), Count: 3, Root: [32]byte{1}, Previous: [32]byte{2}}
	seen := map[[32]byte]string{base.Hash(): "unchanged"}
	for name, change := range map[string]func(*Entry){
		"sequence": func(e *Entry) { e.Sequence++ },
		"time":     func(e *Entry) { e.Time = e.Time.Add(time.Microsecond) },
		"count":    func(e *Entry) { e.Count++ },
		"root":     func(e *Entry) { e.Root[31]++ },
		"previous": func(e *Entry) { e.Previous[31]++ },
	} {
		e := base
		change(&e)
		if other, taken := seen[e.Hash()]; taken {
			t.Errorf("the hash with another %s is that of %s", name, other)
		}
		seen[e.Hash()] = name
	}
	zone := base
	zone.Time = base.Time.In(time.FixedZone("x", 3600))
	if zone.Hash() != base.Hash() {
		t.Error("the hash depends on the time zone")
	}
}

func TestCheckpointKeys(t *testing.T) {
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	entry := Entry{Sequence: 9, Time: time.Now(), Count: 1}
	for name, signer := range map[string]crypto.Signer{"p256": p256, "p384": p384, "rsa": rsaKey, "ed25519": edKey} {
		t.Run(name, func(t *testing.T) {
			c, err := Sign(signer, "k", entry, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Verify(signer.Public()); err != nil {
				t.Fatal(err)
			}
			for what, changed := range map[string]Checkpoint{
				"sequence": {c.Sequence + 1, c.Head, c.Time, c.Key, c.Signature, 0},
				"head":     {c.Sequence, [32]byte{}, c.Time, c.Key, c.Signature, 0},
				"time":     {c.Sequence, c.Head, c.Time.Add(time.Second), c.Key, c.Signature, 0},
				"key":      {c.Sequence, c.Head, c.Time, "l", c.Signature, 0},
				"nothing":  {c.Sequence, c.Head, c.Time, c.Key, nil, 0},
				"dropped":  {c.Sequence, c.Head, c.Time, c.Key, c.Signature, 1},
			} {
				if err := changed.Verify(signer.Public()); !errors.Is(err, ErrSignature) {
					t.Errorf("%s changed: %v", what, err)
				}
			}
		})
	}
	if err := (Checkpoint{}).Verify("no key"); err == nil || errors.Is(err, ErrSignature) {
		t.Errorf("a strange key gives %v", err)
	}
}

// memory is a log held in memory, that tests spoil.
type memory struct {
	entries     []Entry
	events      map[uint64][][]byte
	checkpoints []Checkpoint
}

func (m *memory) Extent(context.Context) (x Extent, err error) {
	for _, e := range m.entries {
		x.Entry = max(x.Entry, e.Sequence)
	}
	return x, nil
}

func (m *memory) Log(_ context.Context, upTo uint64) iter.Seq2[Logged, error] {
	return func(yield func(Logged, error) bool) {
		for _, e := range m.entries {
			l := Logged{Entry: e}
			for _, body := range m.events[e.Sequence] {
				l.Events = append(l.Events, Event{Body: body})
			}
			if e.Sequence <= upTo && !yield(l, nil) {
				return
			}
		}
	}
}

func (m *memory) Entry(_ context.Context, sequence uint64) (Entry, bool, error) {
	for _, e := range m.entries {
		if e.Sequence == sequence {
			return e, true, nil
		}
	}
	return Entry{}, false, nil
}

func (m *memory) Checkpoints(context.Context) iter.Seq2[Checkpoint, error] {
	return func(yield func(Checkpoint, error) bool) {
		for _, c := range m.checkpoints {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// link makes the hashes right from entry index i on, as somebody would who
// rewrites the log with all but the signing key at hand.
func (m *memory) link(i int) {
	for ; i < len(m.entries); i++ {
		e := &m.entries[i]
		e.Root, e.Count = Root(m.events[e.Sequence]), len(m.events[e.Sequence])
		if i > 0 {
			e.Previous = m.entries[i-1].Hash()
		}
	}
}

// dropTo drops the events up to an entry as the ledger does, signed by k.
func dropTo(t *testing.T, m *memory, k crypto.Signer, sequence uint64) {
	t.Helper()
	c, err := SignDropped(k, "issuing-1", m.entries[sequence-1], time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	for s := range sequence {
		delete(m.events, s+1)
	}
	at, _ := slices.BinarySearchFunc(m.checkpoints, c.Sequence, func(c Checkpoint, s uint64) int { return int(c.Sequence) - int(s) })
	m.checkpoints = slices.Insert(m.checkpoints, at, c)
}

func TestVerify(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	foreign, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	sign := func(t *testing.T, k crypto.Signer, e Entry) Checkpoint {
		c, err := Sign(k, "issuing-1", e, start)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// 20 entries of 1 to 5 events; checkpoints at 5, 10, 15.
	build := func(t *testing.T) *memory {
		m := &memory{events: map[uint64][][]byte{}}
		for s := range uint64(20) {
			s++
			for n := range s%5 + 1 {
				m.events[s] = append(m.events[s], fmt.Appendf(nil, `{"event":"%d.%d"}`, s, n))
			}
			m.entries = append(m.entries, Entry{Sequence: s, Time: start.Add(time.Duration(s) * time.Second)})
		}
		m.link(0)
		for _, i := range []int{4, 9, 14} {
			m.checkpoints = append(m.checkpoints, sign(t, key, m.entries[i]))
		}
		return m
	}
	// what: part of the fault; "" if there is none.
	for name, c := range map[string]struct {
		spoil func(t *testing.T, m *memory)
		at    uint64
		what  string
	}{
		"intact":                          {func(*testing.T, *memory) {}, 0, ""},
		"event changed":                   {func(_ *testing.T, m *memory) { m.events[7][1][3] ^= 1 }, 7, "event was changed"},
		"event removed":                   {func(_ *testing.T, m *memory) { m.events[7] = m.events[7][1:] }, 7, "made over 3 events, and has 2"},
		"all events of an entry removed":  {func(_ *testing.T, m *memory) { m.events[7] = nil }, 7, "events are gone"},
		"event added":                     {func(_ *testing.T, m *memory) { m.events[7] = append(m.events[7], []byte("x")) }, 7, "made over 3"},
		"events reordered":                {func(_ *testing.T, m *memory) { slices.Reverse(m.events[7]) }, 7, "order"},
		"event changed and its entry too": {func(_ *testing.T, m *memory) { m.events[7][1][3] ^= 1; m.entries[6].Root = Root(m.events[7]) }, 8, "not linked"},
		"rewritten from an event on":      {func(_ *testing.T, m *memory) { m.events[7][1][3] ^= 1; m.link(6) }, 10, "forked or rewritten"},
		"rewritten after the newest checkpoint": {
			func(_ *testing.T, m *memory) { m.events[17][1][3] ^= 1; m.link(16) }, 0, ""}, // nothing signed says otherwise
		"entries reordered": {func(_ *testing.T, m *memory) { m.entries[6], m.entries[7] = m.entries[7], m.entries[6] }, 8, "missing or out of order"},
		"entry missing":     {func(_ *testing.T, m *memory) { m.entries = slices.Delete(m.entries, 6, 7) }, 8, "missing"},
		"entry missing and renumbered": {
			func(_ *testing.T, m *memory) {
				m.entries = slices.Delete(m.entries, 6, 7)
				for i := 6; i < len(m.entries); i++ {
					m.events[uint64(i+1)] = m.events[uint64(i+2)]
					m.entries[i].Sequence = uint64(i + 1)
				}
				m.link(6)
			}, 10, "forked or rewritten"},
		"end cut off before a checkpoint": {func(_ *testing.T, m *memory) { m.entries = m.entries[:12] }, 15, "log ends at entry 12"},
		"everything removed":              {func(_ *testing.T, m *memory) { m.entries = nil }, 5, "log ends at entry 0"},
		"end cut off after the newest checkpoint": {
			func(_ *testing.T, m *memory) { m.entries = m.entries[:17] }, 0, ""},
		"time of an entry changed": {func(_ *testing.T, m *memory) { m.entries[6].Time = start }, 8, "not linked"},
		"checkpoint by another key": {
			func(t *testing.T, m *memory) { m.checkpoints[1] = sign(t, foreign, m.entries[9]) }, 10, "signature"},
		"checkpoint changed": {func(_ *testing.T, m *memory) { m.checkpoints[1].Head[0]++ }, 10, "signature"},
		"forked head": {
			func(t *testing.T, m *memory) {
				other := m.entries[14]
				other.Root[0]++
				m.checkpoints = append(m.checkpoints, sign(t, key, other))
			}, 15, "forked or rewritten"},
		"checkpoints reordered": {
			func(_ *testing.T, m *memory) { m.checkpoints[0], m.checkpoints[1] = m.checkpoints[1], m.checkpoints[0] }, 5, "comes after"},
		"first entry linked to something": {func(_ *testing.T, m *memory) { m.entries[0].Previous[0]++ }, 1, "one before it"},

		"old events dropped": {
			func(t *testing.T, m *memory) {
				dropTo(t, m, key, 9)
			}, 0, ""},
		"old events dropped twice": {
			func(t *testing.T, m *memory) {
				dropTo(t, m, key, 4)
				dropTo(t, m, key, 9)
			}, 0, ""},
		"old events gone, and nothing says so": {
			func(_ *testing.T, m *memory) {
				for s := range uint64(9) {
					delete(m.events, s+1)
				}
			}, 1, "no signed checkpoint says that they were dropped"},
		"more gone than was dropped": {
			func(t *testing.T, m *memory) {
				dropTo(t, m, key, 4)
				delete(m.events, 5)
			}, 5, "no signed checkpoint says"},
		"dropped, says another's signature": {
			func(t *testing.T, m *memory) { dropTo(t, m, foreign, 9) }, 1, "no signed checkpoint says"},
		"dropped, says a checkpoint that was not signed for it": {
			func(t *testing.T, m *memory) { dropTo(t, m, key, 9); m.checkpoints[1].Dropped = 10 }, 1, "no signed checkpoint says"},
		"dropped, says an ordinary checkpoint that was changed": {
			func(t *testing.T, m *memory) {
				dropTo(t, m, key, 9)
				m.checkpoints = slices.Delete(m.checkpoints, 1, 2)
				m.checkpoints[1].Dropped = 9
			}, 1, "no signed checkpoint says"},
		"old entries gone, up to a checkpoint":  {func(_ *testing.T, m *memory) { m.entries = m.entries[10:] }, 11, "the entries before are gone"},
		"old entries gone, between checkpoints": {func(_ *testing.T, m *memory) { m.entries = m.entries[7:] }, 8, "the entries before are gone"},
		"old entries gone, no checkpoint after": {func(_ *testing.T, m *memory) { m.entries = m.entries[16:] }, 17, "the entries before are gone"},
		"no checkpoints at all":                 {func(_ *testing.T, m *memory) { m.checkpoints = nil }, 0, ""},
		"empty":                                 {func(_ *testing.T, m *memory) { *m = memory{} }, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := build(t)
			c.spoil(t, m)
			report, err := Verify(t.Context(), m, OneKey(key.Public()), nil, nil)
			if c.what == "" {
				if err != nil {
					t.Fatal(err)
				}
				if n := len(m.entries); n > 0 && (report.Last != m.entries[n-1].Sequence || report.Entries != uint64(n) || report.Head != m.entries[n-1].Hash()) {
					t.Errorf("report %+v over %d entries", report, n)
				}
				return
			}
			f, ok := errors.AsType[*Fault](err)
			if !ok || f.Sequence != c.at || !strings.Contains(f.What, c.what) {
				t.Errorf("got %v, want a fault at %d with %q", err, c.at, c.what)
			}
		})
	}

	t.Run("report", func(t *testing.T) {
		m := build(t)
		dropTo(t, m, key, 2)
		report, err := Verify(t.Context(), m, OneKey(key.Public()), nil, nil)
		want := Report{First: 1, Last: 20, Head: m.entries[19].Hash(), Entries: 20, Events: 55, Dropped: 5, Checkpoints: 4, Signed: 15, SignedAt: start}
		if err != nil || report != want {
			t.Errorf("got %+v, %v\nwant %+v", report, err, want)
		}
	})
	t.Run("unknown key", func(t *testing.T) {
		none := func(name string) (crypto.PublicKey, error) { return nil, errors.New("no such key") }
		if _, err := Verify(t.Context(), build(t), none, nil, nil); err == nil || !strings.Contains(err.Error(), "issuing-1") {
			t.Errorf("got %v", err)
		}
	})
}

func TestProgress(t *testing.T) {
	m := &memory{events: map[uint64][][]byte{}}
	for s := range uint64(2500) {
		m.events[s+1] = [][]byte{[]byte("e")}
		m.entries = append(m.entries, Entry{Sequence: s + 1})
	}
	m.link(0)
	var told []uint64
	if _, err := Verify(t.Context(), m, OneKey(nil), nil, func(done, _ uint64) { told = append(told, done) }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []uint64{1000, 2000}) {
		t.Errorf("progress told %v", told)
	}
}
