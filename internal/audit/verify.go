package audit

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// Source is a log to be verified.
type Source interface {
	// Extent is how far log and tables go now, all read at one moment.
	Extent(ctx context.Context) (Extent, error)
	// Log yields the entries up to a sequence, in order, with the events that are there.
	Log(ctx context.Context, upTo uint64) iter.Seq2[Logged, error]
	// Checkpoints yields the checkpoints in order of sequence.
	Checkpoints(ctx context.Context) iter.Seq2[Checkpoint, error]
}

// Extent bounds what Verify looks at, so that a log may grow meanwhile.
type Extent struct {
	Entry       uint64 // sequence of the newest entry
	Certificate int64  // number of the newest certificate
	Line        int64  // number of the newest line of the revocation journal
}

// Logged is an entry with its events, in order: none if they are gone.
type Logged struct {
	Entry
	Events []Event
}

// Event is an event as it was hashed, and as the database finds it.
type Event struct {
	Body         []byte
	Kind, Device string // copies out of the body
}

func leaves(events []Event) [][]byte {
	bodies := make([][]byte, len(events))
	for i := range events {
		bodies[i] = events[i].Body
	}
	return bodies
}

// Report says what Verify looked at.
type Report struct {
	First       uint64    `json:"first"` // sequence of the oldest entry
	Last        uint64    `json:"last"`
	Head        [32]byte  `json:"-"` // hash of the newest entry
	Entries     uint64    `json:"entries"`
	Events      uint64    `json:"events"`      // events that were hashed again
	Dropped     uint64    `json:"dropped"`     // events that were dropped by age; only their entries could be checked
	Checkpoints uint64    `json:"checkpoints"` // signatures that were checked
	Signed      uint64    `json:"signed"`      // everything up to this entry is covered by a signature
	SignedAt    time.Time `json:"signed_at,omitzero"`

	Certificates uint64 `json:"certificates"` // records that agree with their event
	Revocations  uint64 `json:"revocations"`  // lines of the journal, releases included, that agree with theirs
	Unnamed      uint64 `json:"unnamed"`      // of these, lines whose event names a device and no serial number
	Unchecked    uint64 `json:"unchecked"`    // records whose events were dropped
}

// Fault is the first thing found wrong in a log.
type Fault struct {
	Sequence uint64 // entry or checkpoint; 0 if What says it all
	What     string
}

func (f *Fault) Error() string {
	if f.Sequence == 0 {
		return f.What
	}
	return fmt.Sprintf("the audit log is not intact at entry %d: %s", f.Sequence, f.What)
}

func fault(sequence uint64, format string, args ...any) error {
	return &Fault{sequence, fmt.Sprintf(format, args...)}
}

// Verify reads the whole log: that the entries are dense from the first on and
// linked, that each entry's events are those that it was made over, that every
// checkpoint is signed and names the entry that is there, and that no checkpoint
// speaks of an entry that is not. Events may be gone where a checkpoint states it. With records, if not nil,
// it compares the events.
//
// progress, if not nil, is told every 1000 entries how many are done, and of how
// many. The error is a *Fault for the first fault found (the report then ends there), or
// what the source failed with.
func Verify(ctx context.Context, src Source, keys Keys, records Records, progress func(done, of uint64)) (Report, error) {
	v := &verifier{keys: keys}
	extent, err := src.Extent(ctx)
	if err != nil {
		return v.report, err
	}
	if v.dropped, err = droppedUpTo(ctx, src, keys); err != nil {
		return v.report, err
	}
	v.checkpoints = &checkpointReader{keys: keys}
	var stop func()
	v.checkpoints.next, stop = iter.Pull2(src.Checkpoints(ctx))
	defer stop()
	if err := v.checkpoints.advance(&v.report); err != nil {
		return v.report, err
	}
	if records != nil {
		v.compare = newComparison(ctx, records, extent, &v.report)
		defer v.compare.stop()
	}
	for l, err := range src.Log(ctx, extent.Entry) {
		if err == nil {
			err = v.entry(l)
		}
		if err != nil {
			return v.report, err
		}
		if progress != nil && v.report.Entries%1000 == 0 {
			progress(v.report.Entries, extent.Entry)
		}
	}
	return v.report, v.end(ctx, src)
}

type verifier struct {
	keys        Keys
	checkpoints *checkpointReader
	compare     *comparison // nil: the log alone is verified
	dropped     uint64      // entries up to this one may lack their events
	report      Report
	last        Entry
}

func (v *verifier) entry(l Logged) error {
	e, r := l.Entry, &v.report
	switch {
	case e.Sequence == 1 && r.Entries == 0:
		if e.Previous != [32]byte{} {
			return fault(1, "the first entry has one before it")
		}
	case r.Entries == 0:
		return fault(e.Sequence, "the log begins with it; the entries before are gone")
	case e.Sequence != v.last.Sequence+1:
		return fault(e.Sequence, "it follows entry %d; entries are missing or out of order", v.last.Sequence)
	case e.Previous != v.last.Hash():
		return fault(e.Sequence, "it is not linked to entry %d as that stands here; one of them was changed", v.last.Sequence)
	}
	switch {
	case len(l.Events) == 0 && e.Sequence <= v.dropped:
		r.Dropped += uint64(e.Count)
		if v.compare != nil {
			v.compare.unknownUntil = e.Time
		}
	case len(l.Events) == 0:
		return fault(e.Sequence, "its events are gone, and no signed checkpoint says that they were dropped")
	case len(l.Events) != e.Count:
		return fault(e.Sequence, "it was made over %d events, and has %d", e.Count, len(l.Events))
	case Root(leaves(l.Events)) != e.Root:
		return fault(e.Sequence, "an event was changed, or their order")
	default:
		r.Events += uint64(e.Count)
		if v.compare != nil {
			if err := v.compare.events(l); err != nil {
				return err
			}
		}
	}
	r.First = 1
	r.Entries++
	r.Last, r.Head = e.Sequence, e.Hash()
	v.last = e
	return v.checkpoints.check(e, r)
}

// end is when every entry was seen.
func (v *verifier) end(ctx context.Context, src Source) error {
	if c := v.checkpoints; c.have {
		// Perhaps of an entry that was made meanwhile: that is for the next time.
		now, err := src.Extent(ctx)
		if err != nil {
			return err
		}
		if c.current.Sequence > now.Entry {
			return fault(c.current.Sequence, "a checkpoint was signed for it, but the log ends at entry %d", now.Entry)
		}
	}
	if v.compare != nil {
		return v.compare.end()
	}
	return nil
}

// droppedUpTo is the newest entry whose events a signed checkpoint says were dropped.
func droppedUpTo(ctx context.Context, src Source, keys Keys) (dropped uint64, err error) {
	for c, err := range src.Checkpoints(ctx) {
		if err != nil {
			return 0, err
		}
		if c.Dropped <= dropped || c.Dropped > c.Sequence {
			continue
		}
		if pub, err := keys(c.Key); err == nil && c.Verify(pub) == nil {
			dropped = c.Dropped
		}
	}
	return dropped, nil
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
