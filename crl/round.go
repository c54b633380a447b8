package crl

import (
	"context"
	"crypto"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
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
}

func (r *roundOf) template(id int) *Template {
	t := &Template{Issuer: r.is.Cert, Number: r.number, ThisUpdate: r.now}
	if id != Whole {
		t.DistributionPoint = URL(r.opts.URL, r.is.Name, id, false)
	}
	return t
}

// complete makes the complete list of a scope, and its base for deltas to come.
func (r *roundOf) complete(ctx context.Context, id int) error {
	s := r.is.state.Scopes[id]
	scheduled := s.scheduled(r.now, r.opts.Interval)
	t := r.template(id)
	t.NextUpdate = r.now.Add(r.opts.Interval + r.opts.Overlap)
	t.Freshest = URL(r.opts.URL, r.is.Name, id, true)
	q := Query{Since: s.Scheduled.ThisUpdate, After: s.Scheduled.Sequence}
	q.From, q.To = r.indexes(id)
	built, err := r.write(r.file(r.is.Name, id, false), t, r.is.Key, r.opts.Source.Revoked(ctx, r.is.Name, q))
	if err != nil {
		return err
	}
	b := base{Number: r.number, Sequence: r.head, ThisUpdate: r.now, NextUpdate: t.NextUpdate}
	if scheduled {
		s.Scheduled = b
		if s.past {
			s.Retired = r.now
		}
	}
	s.Bases = append(s.Bases, b)
	if len(s.Bases) > 2 {
		s.Bases = slices.Delete(s.Bases, 0, len(s.Bases)-2)
	}
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
