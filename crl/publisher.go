package crl

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deviceca/deviceca/ca"
)

// Options configures a Publisher. Source, Dir and URL are needed; zero fields get the default.
type Options struct {
	Source Source
	Dir    string // NAME.crl and the rest lie here; made if missing
	URL    string // public base without a final slash; lists are under URL/crl/

	// A complete list is made every Interval and ends Interval + Overlap after
	// it began: the signer may be away for Overlap without anyone finding an expired list. Default 24 h each.
	Interval time.Duration
	Overlap  time.Duration
	// FullWithin is how long a complete list may lack a revocation, for relying
	// parties that read no deltas. A list with more than FullEntries entries may lack it as many times longer
	// as it has FullEntries, so that long lists are not made all the time. Default 1 min; below 0: until the next Interval.
	FullWithin time.Duration
	// The same of deltas when nothing changes. Default 1 h and 12 h.
	DeltaInterval time.Duration
	DeltaOverlap  time.Duration
	// Backdate is how far before now lists begin, for relying parties whose clock is slow. nil: not at all.
	Backdate func() time.Duration
	// Poll is how often the journal's head is looked at: a revocation is in the
	// delta after at most Poll and the time to sign two lists; those that come meanwhile share one. Default 300 ms.
	Poll time.Duration
	// MaxDelta is from how many changes on a new complete list is made before its time. Default 100,000.
	MaxDelta int
	// Partition is the number of indexes per partition, fixed for ever. Default DefaultPartition; below 0 there are none.
	Partition int

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default
}

// FullEntries is up to how many entries a complete list follows a revocation within Options.FullWithin.
const FullEntries = 50_000

// Issuer is one CA generation.
type Issuer struct {
	Name string // "issuing-1"
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Publisher keeps lists current: for each issuer a complete list and its delta,
// and the same for each partition that holds certificates which are still
// valid, and for the one after, so that a certificate never names a list that is not there.
//
// A round makes lists under one number taken from the Source. Files are
// replaced one by one, each whole and synced: complete lists with their deltas, then the state
// file, then other deltas. A crash in between leaves lists that fit together: the
// state that is left names an older base, whose delta is longer and as true.
type Publisher struct {
	opts    Options
	issuers []*publication
}

// publication is what is published for one issuer.
type publication struct {
	Issuer
	mu    sync.Mutex // one round at a time
	state *state     // nil: not read yet
	// changes since the oldest base in use, one per serial, in their order.
	changes []Change
	from    int64 // changes holds all with a higher sequence,
	to      int64 // up to this one
	checked time.Time

	warned  sync.Mutex
	warning string // of lists that were dated in the future
}

// NewPublisher makes a Publisher; it reads and writes nothing yet.
func NewPublisher(opts Options, issuers ...Issuer) (*Publisher, error) {
	opts.Interval = cmp.Or(opts.Interval, 24*time.Hour)
	opts.Overlap = cmp.Or(opts.Overlap, 24*time.Hour)
	opts.FullWithin = cmp.Or(opts.FullWithin, time.Minute)
	opts.DeltaInterval = cmp.Or(opts.DeltaInterval, time.Hour)
	opts.DeltaOverlap = cmp.Or(opts.DeltaOverlap, 12*time.Hour)
	opts.Poll = cmp.Or(opts.Poll, 300*time.Millisecond)
	opts.MaxDelta = cmp.Or(opts.MaxDelta, 100_000)
	opts.Partition = cmp.Or(opts.Partition, DefaultPartition)
	if opts.Backdate == nil {
		opts.Backdate = func() time.Duration { return 0 }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Source == nil || opts.Dir == "" || opts.URL == "" {
		return nil, errors.New("a CRL publisher needs a source, a directory and a URL")
	}
	if min(opts.Interval, opts.DeltaInterval) < time.Second || min(opts.Overlap, opts.DeltaOverlap, opts.Poll) < 0 {
		return nil, fmt.Errorf("CRL: an interval below a second, or an overlap below zero")
	}
	p := &Publisher{opts: opts}
	for _, is := range issuers {
		if !validName(is.Name) {
			return nil, fmt.Errorf("%q cannot be part of a CRL's URL: use a-z, 0-9 and -", is.Name)
		}
		p.issuers = append(p.issuers, &publication{Issuer: is})
	}
	return p, nil
}

// Waits between rounds that failed.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Run publishes on schedule and after revocations until ctx ends, and returns
// its error. What fails is logged and tried again, ever more slowly; what was published stays.
func (p *Publisher) Run(ctx context.Context) error {
	var all errgroup.Group
	for _, is := range p.issuers {
		all.Go(func() error {
			var pause time.Duration
			for {
				wait := p.opts.Poll
				if err := p.round(ctx, is, false); err != nil && ctx.Err() == nil {
					pause = min(max(2*pause, firstPause), lastPause)
					wait = pause
					p.opts.Log.Warn("CRL not published; the last one stays", "issuer", is.Name, "retry", wait, "error", err)
				} else {
					pause = 0
				}
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(wait):
				}
			}
		})
	}
	return all.Wait()
}

// Publish makes all lists of the issuer called name now ("" of every issuer),
// beside the schedule. NotFound if there is none of that name.
func (p *Publisher) Publish(ctx context.Context, name string) error {
	found := false
	for _, is := range p.issuers {
		if name == "" || is.Name == name {
			found = true
			if err := p.round(ctx, is, true); err != nil {
				return err
			}
		}
	}
	if !found {
		return ca.Errorf(ca.NotFound, "no CA called %q publishes CRLs here", name)
	}
	return nil
}

// Refresh does what is due for the issuer called name now, once, as Run does all the time.
// NotFound if there is none of that name.
func (p *Publisher) Refresh(ctx context.Context, name string) error {
	for _, is := range p.issuers {
		if is.Name == name {
			return p.round(ctx, is, false)
		}
	}
	return ca.Errorf(ca.NotFound, "no CA called %q publishes CRLs here", name)
}

// round does what is due, in this order:
//
//  1. Read the head of the journal before anything is read from it: what comes
//     later may be in a list, what came before must be.
//  2. Decide. Most rounds end here.
//  3. Take a number, durably.
//  4. Complete lists, which become bases, each with its delta.
//  5. The state file, also if not all of them could be made.
//  6. Other deltas that have something new to say, then those that are due by time.
//
// A round takes no more than Poll for what is due by time, and leaves the rest to
// the next: so that with thousands of partitions revocations need not wait.
func (p *Publisher) round(ctx context.Context, is *publication, forced bool) error {
	is.mu.Lock()
	defer is.mu.Unlock()
	if err := p.load(is); err != nil {
		return err
	}
	now := p.opts.Now().UTC().Truncate(time.Second)
	head, err := p.opts.Source.Head(ctx, is.Name)
	if err != nil {
		return err
	}
	p.comeBack(is, now)
	if err := p.gather(ctx, is, head, now); err != nil {
		return err
	}
	if forced || len(is.state.Scopes) == 0 || now.Sub(is.checked) >= time.Minute || now.Before(is.checked) {
		if err := p.addScopes(ctx, is, now); err != nil {
			return err
		}
		is.checked = now
	}
	full, changed, idle := p.due(is, head, now, forced)
	if len(full)+len(changed)+len(idle) == 0 {
		return nil
	}
	number, err := p.opts.Source.NextNumber(ctx, is.Name)
	if err != nil {
		return err
	}
	if number <= is.state.Number {
		return fmt.Errorf("CRL number %d of %s is not above %d, published before: the counter went back; restore it", number, is.Name, is.state.Number)
	}
	r := &roundOf{Publisher: p, is: is, number: number, head: head, now: now, forced: forced}
	begun := p.opts.Now()
	late := func() bool { return !forced && p.opts.Now().Sub(begun) > p.opts.Poll }
	for i, id := range full {
		if late() {
			full = full[:i]
			break
		}
		if err = r.both(ctx, id); err != nil {
			full = full[:i]
			break
		}
	}
	if len(full) > 0 {
		is.state.Number = number
		err = errors.Join(err, p.save(is))
	}
	for i, id := range slices.Concat(changed, idle) {
		if len(is.state.Scopes[id].Bases) == 0 || slices.Contains(full, id) || i >= len(changed) && late() {
			continue
		}
		if e := r.delta(id); e != nil {
			return errors.Join(err, e)
		}
	}
	p.opts.Log.Debug("CRLs published", "issuer", is.Name, "number", number, "complete", len(full), "sequence", head)
	return err
}

// addScopes opens partitions that are new, up to the one after that in use,
// notes those in which all has expired, and deletes those whose last list has ended.
func (p *Publisher) addScopes(ctx context.Context, is *publication, now time.Time) error {
	scopes := is.state.Scopes
	if scopes[Whole] == nil {
		scopes[Whole] = &scope{}
	}
	if p.opts.Partition < 0 {
		return nil
	}
	oldest, next, err := p.opts.Source.Indexes(ctx, is.Name, now)
	if err != nil {
		return err
	}
	first, last := Partition(min(oldest, next), p.opts.Partition), Partition(next, p.opts.Partition)+1
	empty, err := p.emptyPartitions(ctx, is, now)
	if err != nil {
		return err
	}
	for id := first; id <= last; id++ {
		for _, run := range empty {
			if run.from <= id && id < run.to {
				id = run.to
			}
		}
		if scopes[id] == nil {
			scopes[id] = &scope{}
		}
	}
	for id, s := range scopes {
		s.past = id != Whole && id < first
		if !s.Retired.IsZero() && now.After(s.current().NextUpdate) {
			if err := p.remove(is, id); err != nil {
				return err
			}
			delete(scopes, id)
		}
	}
	return nil
}

// run is a range of partitions, from ≤ id < to.
type run struct{ from, to int }

// emptyPartitions are those within gaps that hold nothing revoked, ascending. The partition in which a gap begins and the
// one after are never among them: certificates that a restore lost are likely to name them.
func (p *Publisher) emptyPartitions(ctx context.Context, is *publication, now time.Time) (empty []run, err error) {
	gaps, err := p.opts.Source.Gaps(ctx, is.Name)
	if err != nil {
		return nil, err
	}
	size := p.opts.Partition
	for _, g := range gaps {
		at := run{Partition(g.First, size) + 2, Partition(g.Next, size)}
		if at.from >= at.to {
			continue
		}
		q := Query{From: uint64(at.from) * uint64(size), To: uint64(at.to) * uint64(size), Since: now}
		for e, err := range p.opts.Source.Revoked(ctx, is.Name, q) {
			if err != nil {
				return nil, err
			}
			if id := Partition(e.Serial.Index(), size); id >= at.from {
				if at.from < id {
					empty = append(empty, run{at.from, id})
				}
				at.from = id + 1
			}
		}
		if at.from < at.to {
			empty = append(empty, at)
		}
	}
	return empty, nil
}

// due lists the scopes that need a complete list, those whose delta has
// something new to say, and those whose delta is due by time. A revocation comes into the
// delta first, which is short, and into the complete list in a later round.
func (p *Publisher) due(is *publication, head int64, now time.Time, forced bool) (full, changed, idle []int) {
	for id, s := range is.state.Scopes {
		retired := !s.Retired.IsZero()
		latest := latest(is.within(p, id))
		again := !retired && (forced || len(s.Bases) > 0 && (p.lagging(s, latest, now) || p.crowded(is, id)))
		if len(s.Bases) == 0 || again || !retired && s.scheduled(now, p.opts.Interval) {
			full = append(full, id)
			s.deltaDue = time.Time{}
		}
		switch {
		case latest > s.sequence:
			changed = append(changed, id)
		case (!retired || s.deltaDue.IsZero()) && !now.Before(s.deltaDue): // the last lists have a last delta
			idle = append(idle, id)
		default:
			s.sequence = head
		}
	}
	slices.Sort(full)
	slices.Sort(changed)
	slices.Sort(idle)
	return full, changed, idle
}

// latest is the highest sequence of changes, 0 if there are none.
func latest(changes []Change) (seq int64) {
	for i := range changes {
		seq = max(seq, changes[i].Sequence)
	}
	return seq
}

// lagging reports whether the complete list lacks a change that the delta has, and may be made again.
func (p *Publisher) lagging(s *scope, latest int64, now time.Time) bool {
	b := s.current()
	if p.opts.FullWithin < 0 || latest <= b.Sequence || latest > s.sequence {
		return false
	}
	return !now.Before(b.made().Add(p.opts.FullWithin * time.Duration(1+b.Entries/FullEntries)))
}

// crowded reports whether there are so many changes since the complete list that it is time for another.
func (p *Publisher) crowded(is *publication, id int) bool {
	if len(is.changes) <= p.opts.MaxDelta {
		return false
	}
	b, n := is.state.Scopes[id].current(), 0
	for _, c := range is.within(p, id) {
		if c.Sequence > b.Sequence {
			n++
		}
	}
	return n > p.opts.MaxDelta
}

// gather brings the changes in memory up to head, and drops those before the oldest base in use.
func (p *Publisher) gather(ctx context.Context, is *publication, head int64, now time.Time) error {
	from := head
	for _, s := range is.state.Scopes {
		if len(s.Bases) > 0 {
			from = min(from, s.base(now).Sequence)
		}
	}
	if head < is.to {
		return fmt.Errorf("the journal of %s ends at %d, and ended at %d before: restore it", is.Name, head, is.to)
	}
	if from < is.from || is.to == 0 {
		is.changes, is.from, is.to = nil, from, from // after a start
	}
	if from > is.from {
		is.changes = slices.DeleteFunc(is.changes, func(c Change) bool { return c.Sequence <= from })
		is.from = from
	}
	if head <= is.to {
		return nil
	}
	fresh := map[ca.Serial]Change{}
	for c, err := range p.opts.Source.Changes(ctx, is.Name, is.to, head) {
		if err != nil {
			return err
		}
		if old, ok := fresh[c.Serial]; !ok || old.Sequence < c.Sequence {
			fresh[c.Serial] = c
		}
	}
	is.changes = slices.DeleteFunc(is.changes, func(c Change) bool { _, again := fresh[c.Serial]; return again })
	for _, c := range fresh {
		is.changes = append(is.changes, c)
	}
	slices.SortFunc(is.changes, func(a, b Change) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
	is.to = head
	return nil
}

// within are the changes in a scope: a partition is a range of serials.
func (is *publication) within(p *Publisher, id int) []Change {
	if id == Whole {
		return is.changes
	}
	from, to := p.indexes(id)
	at := func(index uint64) int {
		i, _ := slices.BinarySearchFunc(is.changes, index, func(c Change, index uint64) int { return cmp.Compare(c.Serial.Index(), index) })
		return i
	}
	return is.changes[at(from):at(to)]
}

// indexes is the range of issuance indexes of a scope.
func (p *Publisher) indexes(id int) (from, to uint64) {
	if id == Whole {
		return 0, math.MaxUint64
	}
	size := uint64(p.opts.Partition)
	return uint64(id) * size, uint64(id+1) * size
}
