package crl

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// house is one issuer with its journal and what is published.
type house struct {
	t    testing.TB
	j    *journal
	key  *token
	cert *x509.Certificate
	dir  string
	p    *Publisher
}

// token is a key that can go away.
type token struct {
	*ecdsa.PrivateKey
	away  atomic.Bool
	signs atomic.Int64
}

func (k *token) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.away.Load() {
		return nil, errors.New("the token is away")
	}
	k.signs.Add(1)
	return k.PrivateKey.Sign(r, digest, opts)
}

const publicURL = "http://ca.example"

func newHouse(t testing.TB, dir string, edit func(*Options)) *house {
	t.Helper()
	key := &token{PrivateKey: newKey(t)}
	h := &house{t: t, j: newJournal(), key: key, cert: newCA(t, "issuing-1", key), dir: dir}
	key.signs.Store(0) // it signed its own certificate
	h.restart(edit)
	return h
}

// restart makes a new publisher over the same directory and journal.
func (h *house) restart(edit func(*Options)) {
	h.t.Helper()
	opts := Options{Source: h.j, Dir: h.dir, URL: publicURL, Partition: 10, Log: quiet}
	if edit != nil {
		edit(&opts)
	}
	p, err := NewPublisher(opts, Issuer{"issuing-1", h.cert, h.key})
	if err != nil {
		h.t.Fatal(err)
	}
	h.p = p
}

// list reads a published list and checks it as a relying party would.
func (h *house) list(id int, delta bool) *List {
	h.t.Helper()
	raw, err := os.ReadFile(h.p.file("issuing-1", id, delta))
	if err != nil {
		h.t.Fatal(err)
	}
	l, err := Parse(raw)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := l.Verify(h.cert, time.Now()); err != nil || len(l.Faults) > 0 {
		h.t.Fatal(err, l.Faults)
	}
	return l
}

// status combines complete list and delta; −1 is not revoked.
func (h *house) status(id int, s ca.Serial) int {
	h.t.Helper()
	line, err := Lookup(h.list(id, false), h.list(id, true), s.Big())
	if err != nil {
		h.t.Fatal(err)
	}
	if line == nil {
		return -1
	}
	return line.Reason
}

func (h *house) run() (stop func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	done := make(chan struct{})
	go func() { h.p.Run(ctx); close(done) }()
	return func() { cancel(); <-done }
}

// Within a second after a revocation the whole delta and that of its partition say so; no other list is signed.
func TestWithinASecond(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, dir, func(o *Options) { o.FullWithin = -1 }) // deltas alone
		var serials []ca.Serial
		for range 35 {
			serials = append(serials, h.j.issue(365*24*time.Hour))
		}
		defer h.run()()
		time.Sleep(time.Second)
		if n := h.key.signs.Load(); n != 12 { // whole, partitions 0 to 4, and their deltas
			t.Errorf("%d signatures at the start", n)
		}
		for i, reason := range []int{6, 1, 0, 4, 6} {
			before := h.key.signs.Load()
			s := serials[i*7]
			h.j.revoke(s, reason)
			h.j.revoke(serials[i*7+1], reason) // they share a list
			time.Sleep(time.Second)
			if got := h.status(Whole, s); got != reason {
				t.Errorf("whole: %d, want %d", got, reason)
			}
			if got := h.status(Partition(s.Index(), 10), s); got != reason {
				t.Errorf("partition: %d, want %d", got, reason)
			}
			if n := h.key.signs.Load() - before; n > 3 { // the two may lie in two partitions
				t.Errorf("%d signatures for two revocations", n)
			}
		}
		h.j.release(serials[0])
		h.j.revoke(serials[28], 1) // held before
		time.Sleep(time.Second)
		if h.status(Whole, serials[0]) != -1 || h.status(0, serials[0]) != -1 || h.status(2, serials[28]) != 1 {
			t.Error("release or change of reason not published")
		}
		if l := h.list(0, true); l.Count != 4 || l.Find(serials[0].Big()).Reason != RemoveFromCRL {
			t.Errorf("%d entries in the delta", l.Count)
		}
		base, delta := h.list(2, false), h.list(2, true)
		if !bytes.Equal(base.Point, delta.Point) || len(base.Scope.URLs) != 1 || base.Scope.URLs[0] != publicURL+"/crl/issuing-1/2.crl" || !base.Scope.OnlyUsers {
			t.Errorf("scopes %+v, %+v", base.Scope, delta.Scope)
		}
		if base.Freshest[0] != publicURL+"/crl/issuing-1/2-delta.crl" || h.list(Whole, false).Freshest[0] != publicURL+"/crl/issuing-1-delta.crl" {
			t.Error(base.Freshest)
		}
	})
}

// slow keeps tests of long times short.
func slow(o *Options) { o.Poll = 20 * time.Second }

// For a week with outages shorter than the overlap no relying party ever
// finds an expired list, and whoever kept the complete list before can go on with the delta.
func TestWeek(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, dir, slow)
		stop := h.run()
		defer func() { stop() }()
		time.Sleep(time.Minute)
		kept := h.list(Whole, false)
		numbers := map[string]*big.Int{}
		truth := map[ca.Serial]int{}
		for hour := range 7 * 24 {
			h.key.away.Store(hour >= 40 && hour < 51)
			h.j.setAway(nil)
			if hour >= 90 && hour < 100 {
				h.j.setAway(ca.Away("the database", nil))
			}
			s := h.j.issue(365 * 24 * time.Hour)
			if hour%3 == 0 {
				truth[s] = hour % 7
				if truth[s] == 0 {
					truth[s] = 9
				}
				h.j.revoke(s, truth[s])
			}
			if hour%50 == 49 {
				stop()
				h.restart(slow)
				stop = h.run()
			}
			time.Sleep(time.Hour)
			for id, list := range map[string]*List{"whole": h.list(Whole, false), "delta": h.list(Whole, true), "0": h.list(0, false), "0-delta": h.list(0, true)} {
				if old := numbers[id]; old != nil && list.Number.Cmp(old) < 0 {
					t.Fatalf("hour %d: %s went from number %s to %s", hour, id, old, list.Number)
				}
				numbers[id] = list.Number
			}
			if hour%40 == 20 || hour == 50 {
				continue // the token is back within the hour's backoff at most
			}
			if kept.NextUpdate.Before(time.Now()) {
				kept = h.list(Whole, false)
			}
			for _, delta := range []*List{h.list(Whole, true)} {
				if kept.Number.Cmp(delta.Number) <= 0 {
					if err := kept.CheckDelta(delta); err != nil {
						t.Fatalf("hour %d: %v", hour, err)
					}
				}
			}
		}
		for s, reason := range truth {
			if h.status(Whole, s) != reason || h.status(Partition(s.Index(), 10), s) != reason {
				t.Errorf("%s: %d, want %d", s, h.status(Whole, s), reason)
			}
		}
	})
}

// An entry leaves after one scheduled complete list past the certificate's end,
// not before, whatever is published by hand; and a partition in which all has
// expired is published once more, and removed when that list has ended.
func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, dir, slow)
		var old []ca.Serial
		for range 10 {
			old = append(old, h.j.issue(30*time.Hour))
		}
		live := h.j.issue(1000 * time.Hour)
		h.j.revoke(old[0], 1)
		h.j.revoke(live, 1)
		defer h.run()()
		at := func(hours float64) {
			t.Helper()
			time.Sleep(time.Until(synctestStart.Add(time.Duration(hours * float64(time.Hour)))))
		}
		at(31) // expired at 30, next scheduled list at 48
		if err := h.p.Publish(t.Context(), "issuing-1"); err != nil {
			t.Fatal(err)
		}
		if h.list(Whole, false).Find(old[0].Big()) == nil {
			t.Error("gone from a list made by hand")
		}
		h.j.revoke(old[1], 4) // after its end
		at(47)
		if h.status(Whole, old[1]) != 4 {
			t.Error("revoked after its end, and not listed")
		}
		at(49)
		for _, s := range old[:2] {
			if h.list(Whole, false).Find(s.Big()) == nil || h.list(0, false).Find(s.Big()) == nil {
				t.Errorf("%s is not on the first scheduled list past its end", s)
			}
		}
		at(73)
		whole := h.list(Whole, false)
		if whole.Find(old[0].Big()) != nil || whole.Find(old[1].Big()) != nil || whole.Find(live.Big()) == nil {
			t.Error("the second scheduled list past the end is as long as the first")
		}
		at(95) // the last list of partition 0 began at 48, and ends at 96
		h.list(0, false)
		h.list(0, true)
		at(98)
		if _, err := os.Stat(h.p.file("issuing-1", 0, false)); !errors.Is(err, os.ErrNotExist) {
			t.Error("a partition that is over is still there", err)
		}
		h.list(1, false)
	})
}

// synctestStart is when bubbles begin.
var synctestStart = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func TestPublisherRefuses(t *testing.T) {
	h := newHouse(t, t.TempDir(), nil)
	if err := h.p.Publish(t.Context(), "issuing-9"); ca.KindOf(err) != ca.NotFound {
		t.Error(err)
	}
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	h.j.number = 0 // a restore that lost numbers
	h.restart(nil)
	if err := h.p.Publish(t.Context(), ""); err == nil {
		t.Error("a number was given twice")
	}
	if err := os.WriteFile(filepath.Join(h.dir, "issuing-1.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	h.restart(nil)
	if err := h.p.Publish(t.Context(), ""); err == nil {
		t.Error("a broken state was taken")
	}
	for _, name := range []string{"", "../x", "Issuing", "issuing-delta", "a/b"} {
		if _, err := NewPublisher(Options{Source: h.j, Dir: h.dir, URL: publicURL}, Issuer{Name: name}); err == nil {
			t.Errorf("name %q", name)
		}
	}
}

// A token that goes away while lists are replaced leaves whole ones, and what
// was left out comes with the next round.
func TestInterruptedRound(t *testing.T) {
	h := newHouse(t, t.TempDir(), nil)
	for range 25 {
		h.j.issue(time.Hour)
	}
	for stop := int64(0); stop < 10; stop++ {
		h.key.signs.Store(0)
		h.p.issuers[0].Key = &limited{h.key, stop}
		if err := h.p.Publish(t.Context(), ""); err == nil {
			t.Fatal("the token did not fail")
		}
		if stop == 4 { // a crash as well
			h.restart(nil)
		}
		left, err := filepath.Glob(filepath.Join(h.dir, "*", tempName))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		h.p.issuers[0].Key = h.key
		if err := h.p.Publish(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range []int{Whole, 0, 1, 2, 3} {
			if base, delta := h.list(id, false), h.list(id, true); base.Number.Int64() != h.j.number || base.CheckDelta(delta) != nil {
				t.Errorf("partition %d: number %s, want %d; %v", id, base.Number, h.j.number, base.CheckDelta(delta))
			}
		}
	}
}

type limited struct {
	*token
	signs int64
}

func (k *limited) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.signs--; k.signs < 0 {
		return nil, errors.New("the token is away")
	}
	return k.token.Sign(r, digest, opts)
}

// So many changes that the delta grows long bring the next complete list forward.
func TestCrowdedDelta(t *testing.T) {
	h := newHouse(t, t.TempDir(), func(o *Options) { o.MaxDelta = 20 })
	var serials []ca.Serial
	for range 60 {
		serials = append(serials, h.j.issue(time.Hour))
	}
	round := func() {
		t.Helper()
		if err := h.p.round(t.Context(), h.p.issuers[0], false); err != nil {
			t.Fatal(err)
		}
	}
	round()
	first := h.list(Whole, false).Number
	for i, s := range serials {
		h.j.revoke(s, 1)
		round()
		if delta := h.list(Whole, true); delta.Count > 42 {
			t.Fatalf("after %d: %d entries in the delta", i, delta.Count)
		}
		if h.status(Whole, s) != 1 || h.status(Partition(s.Index(), 10), s) != 1 {
			t.Fatal("not listed")
		}
	}
	if h.list(Whole, false).Number.Cmp(first) == 0 {
		t.Error("no new complete list")
	}
	if n := h.key.signs.Load(); n > 16+2*60+2*2*9 {
		t.Errorf("%d signatures", n)
	}
}

// A delta reads and writes what changed since its base, however many are revoked in all.
func TestDeltaCost(t *testing.T) {
	for _, revoked := range []int{10, 5000} {
		h := newHouse(t, t.TempDir(), func(o *Options) { o.Partition = -1 })
		for range revoked {
			h.j.revoke(h.j.issue(time.Hour), 1)
		}
		if err := h.p.Publish(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		h.j.read = 0
		for range 10 {
			h.j.revoke(h.j.issue(time.Hour), 1)
			if err := h.p.round(t.Context(), h.p.issuers[0], false); err != nil {
				t.Fatal(err)
			}
		}
		if l := h.list(Whole, true); h.j.read != 10 || l.Count != 10 {
			t.Errorf("with %d revoked: %d lines read, %d in the delta", revoked, h.j.read, l.Count)
		}
	}
}

// However many lists are due by time, a revocation is published in between.
func TestManyPartitions(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, dir, nil)
		for range 600 {
			h.j.issue(1000 * time.Hour)
		}
		h.p.issuers[0].Key = slowToken{h.key} // 124 lists take 12 seconds
		defer h.run()()
		time.Sleep(20 * time.Second)
		s := serial(7)
		for hour := range 4 {
			time.Sleep(time.Until(synctestStart.Add(time.Duration(hour+1)*time.Hour + 3*time.Second))) // amid the deltas that are due
			before := h.key.signs.Load()
			h.j.revoke(s, 1)
			time.Sleep(1200 * time.Millisecond)
			if h.status(Whole, s) != 1 || h.status(0, s) != 1 {
				t.Fatalf("not published, after %d signatures", h.key.signs.Load()-before)
			}
			h.j.release(s)
			time.Sleep(1200 * time.Millisecond)
			if h.status(Whole, s) != -1 {
				t.Fatal("not released")
			}
		}
		for id := range 61 {
			h.list(id, false)
			h.list(id, true)
		}
	})
}

// slowToken takes a tenth of a second for each signature.
type slowToken struct{ *token }

func (k slowToken) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	time.Sleep(100 * time.Millisecond)
	return k.token.Sign(r, digest, opts)
}

// A restore moves indexes far on. Partitions in the gap have no lists, but for those in which a certificate that was
// lost is revoked, and the first two, where lost ones are likely.
func TestGap(t *testing.T) {
	h := newHouse(t, t.TempDir(), nil)
	for range 25 { // partitions 0 to 2
		h.j.issue(time.Hour)
	}
	const next = 1 << 40
	h.j.gaps = []Gap{{25, next}}
	h.j.next = next
	after := h.j.issue(time.Hour)
	lost := serial(77_777_777)
	h.j.notAfter[lost] = time.Now().Add(time.Hour)
	h.j.revoke(lost, ca.ReasonKeyCompromise)
	if err := h.p.Publish(t.Context(), "issuing-1"); err != nil {
		t.Fatal(err)
	}
	last := Partition(next, 10)
	for _, id := range []int{Whole, 0, 1, 2, 3, Partition(lost.Index(), 10), Partition(after.Index(), 10), last + 1} {
		h.list(id, false)
		h.list(id, true)
	}
	for _, id := range []int{4, 5, Partition(lost.Index(), 10) - 1, Partition(lost.Index(), 10) + 1, last - 1} {
		if _, err := os.Stat(h.p.file("issuing-1", id, false)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("partition %d, in which nothing is, has a list: %v", id, err)
		}
	}
	for _, id := range []int{Whole, Partition(lost.Index(), 10)} {
		if got := h.status(id, lost); got != ca.ReasonKeyCompromise {
			t.Errorf("the lost certificate on list %d: %d", id, got)
		}
	}
}

// The complete list has a revocation within FullWithin, the first one at once; those that come meanwhile share one list. A long list
// waits longer. Deltas go on completing the scheduled list that somebody fetched before.
func TestFullWithin(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, dir, func(o *Options) { o.Partition = -1 })
		var serials []ca.Serial
		for range 100 {
			serials = append(serials, h.j.issue(1000*time.Hour))
		}
		defer h.run()()
		time.Sleep(2 * time.Minute)
		kept := h.list(Whole, false)
		listed := func(s ca.Serial) bool { return h.list(Whole, false).Find(s.Big()) != nil }
		h.j.revoke(serials[0], 1)
		time.Sleep(time.Second)
		if !listed(serials[0]) {
			t.Error("the first revocation is not in the complete list after a second")
		}
		before := h.key.signs.Load()
		for i := 1; i < 100; i++ {
			h.j.revoke(serials[i], 1)
			time.Sleep(5 * time.Second)
			if i%12 == 0 && !listed(serials[i-12]) {
				t.Errorf("revocation %d is not in the complete list after a minute", i-12)
			}
			if h.status(Whole, serials[i]) != 1 {
				t.Errorf("revocation %d is not in the delta", i)
			}
		}
		if n := h.key.signs.Load() - before; n > 99+2*9 {
			t.Errorf("%d signatures for 99 deltas in 500 seconds", n)
		}
		if err := kept.CheckDelta(h.list(Whole, true)); err != nil {
			t.Error(err)
		}
		if now := h.list(Whole, false); !now.NextUpdate.Equal(kept.NextUpdate) {
			t.Errorf("a list beside the schedule ends %s, the scheduled one %s", now.NextUpdate, kept.NextUpdate)
		}
	})
}

func TestLongListsWait(t *testing.T) {
	now := time.Now()
	p := &Publisher{opts: Options{FullWithin: time.Minute}}
	for entries, want := range map[int]time.Duration{0: time.Minute, FullEntries - 1: time.Minute, FullEntries: 2 * time.Minute, 1_000_000: 21 * time.Minute} {
		s := &scope{Bases: []base{{Sequence: 1, Made: now, Entries: entries}}, sequence: 2}
		if p.lagging(s, 2, now.Add(want-time.Second)) || !p.lagging(s, 2, now.Add(want)) {
			t.Errorf("a list of %d entries is not made again after %s", entries, want)
		}
	}
}

// Lists begin before now by Backdate, so that a relying party whose clock is slow takes them, but not before their CA.
func TestBackdate(t *testing.T) {
	h := newHouse(t, t.TempDir(), func(o *Options) {
		o.Backdate = func() time.Duration { return 5 * time.Minute }
	})
	slowClock := time.Now().Add(-4 * time.Minute)
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int{Whole, 0} {
		for _, delta := range []bool{false, true} {
			l := h.list(id, delta)
			if err := l.Verify(h.cert, slowClock); err != nil {
				t.Errorf("%v, %v: %v", id, delta, err)
			}
			if ends := time.Until(l.NextUpdate); !delta && ends < 48*time.Hour-time.Minute {
				t.Errorf("backdating took from the end: %s left", ends)
			}
		}
	}
	h = newHouse(t, t.TempDir(), func(o *Options) { o.Backdate = func() time.Duration { return 24 * time.Hour } })
	if err := h.p.Publish(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if l := h.list(Whole, false); l.ThisUpdate.Before(h.cert.NotBefore) {
		t.Errorf("a list of %s from a CA of %s", l.ThisUpdate, h.cert.NotBefore)
	}
}

// A clock that was ahead leaves lists that begin in the future, without what had expired by then. They are made again, at the start and
// while running, whole, with rising numbers.
func TestClockCameBack(t *testing.T) {
	for name, restart := range map[string]bool{"at the start": true, "while running": false} {
		t.Run(name, func(t *testing.T) {
			var ahead atomic.Int64
			clock := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } }
			h := newHouse(t, t.TempDir(), clock)
			var serials []ca.Serial
			for range 25 {
				serials = append(serials, h.j.issue(30*24*time.Hour))
			}
			h.j.revoke(serials[3], 1)
			round := func() {
				t.Helper()
				if err := h.p.round(t.Context(), h.p.issuers[0], false); err != nil {
					t.Fatal(err)
				}
			}
			round()
			if len(h.p.Warnings()) != 0 {
				t.Error(h.p.Warnings())
			}
			for range 3 { // by the schedule all expired, and partition 0 got its last list
				ahead.Add(int64(400 * 24 * time.Hour))
				round()
			}
			number := h.j.number
			ahead.Store(0)
			if restart {
				h.restart(clock)
			}
			round()
			for _, id := range []int{Whole, 0, 1, 2} {
				if l := h.list(id, false); l.Number.Int64() <= number {
					t.Errorf("number %s after %d", l.Number, number)
				}
				h.list(id, true)
			}
			if h.list(Whole, false).Find(serials[3].Big()) == nil || h.list(0, false).Find(serials[3].Big()) == nil {
				t.Error("a revoked certificate is missing from the new list: by the wrong clock it had expired")
			}
			if w := h.p.Warnings(); len(w) != 1 {
				t.Errorf("%d warnings", len(w))
			}
			signs := h.key.signs.Load()
			round()
			if h.key.signs.Load() != signs {
				t.Error("made again once more")
			}
		})
	}
}
