package crl

import (
	"context"
	"crypto"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// roundOf is what the lists of one round have in common.
type roundOf struct {
	*Publisher
	is     *publication
	number int64
	head   int64
	now    time.Time
	forced bool // by an administrator
}

func (r *roundOf) template(id int) *Template {
	t := &Template{Issuer: r.is.Cert, Number: r.number, ThisUpdate: r.begin(r.is.state.Scopes[id])}
	if id != Whole {
		t.DistributionPoint = URL(r.opts.URL, r.is.Name, id, false)
	}
	return t
}

// begin is thisUpdate: backdated, and neither before that of the list before nor before the CA.
func (r *roundOf) begin(s *scope) time.Time {
	at := r.now.Add(-r.opts.Backdate()).Truncate(time.Second)
	if len(s.Bases) > 0 {
		at = later(at, s.current().ThisUpdate)
	}
	return later(at, r.is.Cert.NotBefore)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// both makes a scope's delta and complete list under one number. The delta first: over an older base,
// it fits the complete list before as well as the new one, while a delta with a lower number than the complete list fits none.
func (r *roundOf) both(ctx context.Context, id int) error {
	s := r.is.state.Scopes[id]
	first := len(s.Bases) == 0
	if !first {
		if err := r.delta(id); err != nil {
			return err
		}
	}
	if err := r.complete(ctx, id); err != nil {
		return err
	}
	if first || !s.Retired.IsZero() { // it is its own base; or the last one, whose delta lasts as long
		return r.delta(id)
	}
	return nil
}

// complete makes the complete list of a scope, and its base for deltas to come.
func (r *roundOf) complete(ctx context.Context, id int) error {
	s := r.is.state.Scopes[id]
	scheduled := s.scheduled(r.now, r.opts.Interval)
	crowded := len(s.Bases) > 0 && r.crowded(r.is, id)
	extra := !scheduled && !crowded && !r.forced
	t := r.template(id)
	t.NextUpdate = r.now.Add(r.opts.Interval + r.opts.Overlap)
	if extra && s.Scheduled.NextUpdate.After(r.now) {
		t.NextUpdate = s.Scheduled.NextUpdate // for so long a delta completes it
	}
	t.Freshest = URL(r.opts.URL, r.is.Name, id, true)
	q := Query{Since: s.Scheduled.ThisUpdate, After: s.Scheduled.Sequence}
	q.From, q.To = r.indexes(id)
	built, err := r.write(r.file(r.is.Name, id, false), t, r.is.Key, r.opts.Source.Revoked(ctx, r.is.Name, q))
	if err != nil {
		return err
	}
	b := base{Number: r.number, Sequence: r.head, ThisUpdate: t.ThisUpdate, NextUpdate: t.NextUpdate, Made: r.now, Entries: built.Entries, Extra: extra}
	if scheduled {
		s.Scheduled = b
		if s.past {
			s.Retired = r.now
		}
	}
	s.add(b, r.now, crowded)
	r.opts.Log.Info("complete CRL published", "issuer", r.is.Name, "partition", scopeName(id), "number", r.number,
		"entries", built.Entries, "size", built.Size, "expires", t.NextUpdate)
	return nil
}

// delta makes the delta of a scope over the oldest base that is still in force,
// so that whoever holds that one can go on with it.
func (r *roundOf) delta(id int) error {
	s := r.is.state.Scopes[id]
	b := s.base(r.now)
	t := r.template(id)
	t.Base = b.Number
	t.NextUpdate = r.now.Add(r.opts.DeltaInterval + r.opts.DeltaOverlap)
	if !s.Retired.IsZero() {
		t.NextUpdate = s.current().NextUpdate // no delta follows the last
	}
	entries := func(yield func(Entry, error) bool) {
		for _, c := range r.is.within(r.Publisher, id) {
			if c.Sequence <= b.Sequence {
				continue
			}
			if c.Released {
				c.Reason, c.Invalid = RemoveFromCRL, time.Time{}
			}
			if !yield(c.Entry, nil) {
				return
			}
		}
	}
	if _, err := r.write(r.file(r.is.Name, id, true), t, r.is.Key, entries); err != nil {
		return err
	}
	s.sequence, s.deltaDue = r.head, r.now.Add(r.opts.DeltaInterval)
	return nil
}

// write replaces a file with a new list, or leaves it as it was.
func (p *Publisher) write(path string, t *Template, key crypto.Signer, entries iter.Seq2[Entry, error]) (built Built, err error) {
	err = replace(path, func(f *os.File) error {
		built, err = Build(f, t, key, entries)
		return err
	})
	if err != nil {
		return built, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return built, nil
}

// file is where a list lies, and what its URL ends with.
func (p *Publisher) file(name string, id int, delta bool) string {
	return filepath.Join(p.opts.Dir, filepath.FromSlash(relative(name, id, delta)))
}

func relative(name string, id int, delta bool) string {
	var b strings.Builder
	b.WriteString(name)
	if id != Whole {
		fmt.Fprintf(&b, "/%d", id)
	}
	if delta {
		b.WriteString("-delta")
	}
	b.WriteString(".crl")
	return b.String()
}

// URL is where a list is found: what certificates carry in their CRL
// distribution points (complete) and freshest CRL (delta). base is the public
// base URL, partition may be Whole. The list of a partition repeats it octet by octet.
func URL(base, name string, partition int, delta bool) string {
	return base + "/crl/" + relative(name, partition, delta)
}
