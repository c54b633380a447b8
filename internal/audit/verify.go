package audit

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Source is a log to be verified.
type Source interface {
	// Entries yields the entries from sequence from on, in order. A log whose
	// oldest entries were dropped begins with the oldest it has.
	Entries(ctx context.Context, from uint64) iter.Seq2[Entry, error]
	// Events returns the events of an entry as they were hashed, in order; nil
	// if they were dropped because of their age.
	Events(ctx context.Context, sequence uint64) ([][]byte, error)
	// Checkpoints yields the checkpoints in order of sequence.
	Checkpoints(ctx context.Context) iter.Seq2[Checkpoint, error]
}

// Report says what Verify looked at.
type Report struct {
	First       uint64    `json:"first"` // sequence of the oldest entry; 1 unless entries were dropped
	Last        uint64    `json:"last"`
	Head        [32]byte  `json:"-"` // hash of the newest entry
	Entries     uint64    `json:"entries"`
	Events      uint64    `json:"events"`      // events that were hashed again
	Dropped     uint64    `json:"dropped"`     // events that were dropped by age; only their entries could be checked
	Checkpoints uint64    `json:"checkpoints"` // signatures that were checked
	Signed      uint64    `json:"signed"`      // everything up to this entry is covered by a signature
	SignedAt    time.Time `json:"signed_at,omitzero"`
}

// Fault is the first thing found wrong in a log.
type Fault struct {
	Sequence uint64 // entry or checkpoint
	What     string
}

func (f *Fault) Error() string {
	return fmt.Sprintf("the audit log is not intact at entry %d: %s", f.Sequence, f.What)
}

func fault(sequence uint64, format string, args ...any) error {
	return &Fault{sequence, fmt.Sprintf(format, args...)}
}

// Verify reads the whole log: that the entries are dense and linked, that each
// entry's events are those that it was made over, that every checkpoint is
// signed and names the entry that is there, and that no checkpoint speaks of
// an entry that is not. Where the oldest entries were dropped, a checkpoint at
// or after the gap must vouch for the rest.
//
// progress, if not nil, is told every 1000 entries how many are done. The
// error is a *Fault for the first fault found (the report then ends there), or
// what the source failed with.
func Verify(ctx context.Context, src Source, keys Keys, progress func(done uint64)) (Report, error) {
	checkpoints := &checkpointReader{keys: keys}
	var stop func()
	checkpoints.next, stop = iter.Pull2(src.Checkpoints(ctx))
	defer stop()

	var (
		report Report
		last   Entry
		whole  bool // an entry that has its events was seen: none after it may lack them
	)
	if err := checkpoints.advance(&report); err != nil {
		return report, err
	}
	for e, err := range src.Entries(ctx, 1) {
		if err != nil {
			return report, err
		}
		switch {
		case report.Entries == 0 && e.Sequence == 1:
			if e.Previous != [32]byte{} {
				return report, fault(1, "the first entry has one before it")
			}
		case report.Entries == 0:
			if err := checkpoints.skipTo(e, &report); err != nil {
				return report, err
			}
		case e.Sequence != last.Sequence+1:
			return report, fault(e.Sequence, "it follows entry %d; entries are missing or out of order", last.Sequence)
		case e.Previous != last.Hash():
			return report, fault(e.Sequence, "it is not linked to entry %d as that stands here; one of them was changed", last.Sequence)
		}
		events, err := src.Events(ctx, e.Sequence)
		if err != nil {
			return report, err
		}
		switch {
		case events == nil && whole:
			return report, fault(e.Sequence, "its events are gone, but older ones are still there")
		case events == nil:
			report.Dropped += uint64(e.Count)
		case len(events) != e.Count:
			return report, fault(e.Sequence, "it was made over %d events, and has %d", e.Count, len(events))
		case Root(events) != e.Root:
			return report, fault(e.Sequence, "an event was changed, or their order")
		default:
			whole = true
			report.Events += uint64(e.Count)
		}
		if report.Entries == 0 {
			report.First = e.Sequence
		}
		report.Entries++
		report.Last, report.Head = e.Sequence, e.Hash()
		if err := checkpoints.check(e, &report); err != nil {
			return report, err
		}
		last = e
		if progress != nil && report.Entries%1000 == 0 {
			progress(report.Entries)
		}
	}
	if checkpoints.have {
		return report, fault(checkpoints.current.Sequence, "a checkpoint was signed for it, but the log ends at entry %d", report.Last)
	}
	if report.First > 1 && report.Signed+1 < report.First {
		return report, fault(report.First, "the entries before it are gone, and no checkpoint vouches for the rest")
	}
	return report, nil
}

// checkpointReader walks the checkpoints beside the entries.
type checkpointReader struct {
	next    func() (Checkpoint, error, bool)
	keys    Keys
	current Checkpoint
	have    bool
}

// advance reads the next checkpoint and checks its signature.
func (r *checkpointReader) advance(report *Report) error {
	before := r.current.Sequence
	c, err, ok := r.next()
	if !ok {
		r.have = false
		return nil
	}
	if err != nil {
		return err
	}
	if c.Sequence < before {
		return fault(c.Sequence, "its checkpoint comes after that of entry %d", before)
	}
	pub, err := r.keys(c.Key)
	if err != nil {
		return fault(c.Sequence, "nobody knows the key %q that signed its checkpoint: %v", c.Key, err)
	}
	if err := c.Verify(pub); err != nil {
		return fault(c.Sequence, "%v", err)
	}
	report.Checkpoints++
	r.current, r.have = c, true
	return nil
}

// check compares every checkpoint of entry e, of which there may be several.
func (r *checkpointReader) check(e Entry, report *Report) error {
	for r.have && r.current.Sequence == e.Sequence {
		if r.current.Head != report.Head {
			return fault(e.Sequence, "its checkpoint was signed for another entry; the log was forked or rewritten")
		}
		report.Signed, report.SignedAt = e.Sequence, r.current.Time
		if err := r.advance(report); err != nil {
			return err
		}
	}
	if r.have && r.current.Sequence < e.Sequence {
		return fault(r.current.Sequence, "it has a checkpoint, but is not in the log")
	}
	return nil
}

// skipTo passes over the checkpoints of entries that were dropped before
// first; one for the entry just before must be what first is linked to.
func (r *checkpointReader) skipTo(first Entry, report *Report) error {
	for r.have && r.current.Sequence < first.Sequence {
		if r.current.Sequence == first.Sequence-1 {
			if r.current.Head != first.Previous {
				return fault(first.Sequence, "it is not linked to the entry before, which a checkpoint was signed for")
			}
			report.Signed, report.SignedAt = r.current.Sequence, r.current.Time
		}
		if err := r.advance(report); err != nil {
			return err
		}
	}
	return nil
}
