package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
)

// EventAuditPruned is recorded by PruneEvents itself.
const EventAuditPruned ca.EventKind = "audit.pruned"

const (
	entryColumns  = "sequence, time, count, root, previous"
	entriesAtOnce = 500
)

func scanEntry(row scanner, more ...any) (audit.Entry, error) {
	var e audit.Entry
	var at int64
	var root, previous []byte
	err := row.Scan(append([]any{&e.Sequence, &at, &e.Count, &root, &previous}, more...)...)
	copy(e.Root[:], root)
	copy(e.Previous[:], previous)
	e.Time = fromMicros(at)
	return e, err
}

// Head is the newest entry of the audit chain; ca.ErrNoRecord if there is none yet.
func (s *Store) Head(ctx context.Context) (audit.Entry, error) {
	e, err := scanEntry(s.reads.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM audit_entry ORDER BY sequence DESC LIMIT 1"))
	return e, s.fault(err)
}

// Extent is part of audit.Source.
func (s *Store) Extent(ctx context.Context) (x audit.Extent, err error) {
	err = s.reads.QueryRowContext(ctx, `SELECT coalesce((SELECT max(sequence) FROM audit_entry), 0), coalesce((SELECT max(id) FROM certificate), 0),
		coalesce((SELECT value FROM counter WHERE name = ?), 0)`, journalCounter).Scan(&x.Entry, &x.Certificate, &x.Line)
	return x, s.fault(err)
}

// Entry is part of audit.HeadSource.
func (s *Store) Entry(ctx context.Context, sequence uint64) (audit.Entry, bool, error) {
	if sequence > math.MaxInt64 {
		return audit.Entry{}, false, nil
	}
	e, err := scanEntry(s.reads.QueryRowContext(ctx, "SELECT "+entryColumns+" FROM audit_entry WHERE sequence = ?", int64(sequence)))
	if errors.Is(err, sql.ErrNoRows) {
		return audit.Entry{}, false, nil
	}
	return e, err == nil, s.fault(err)
}

// Log is part of audit.Source. It reads page by page, and holds nothing
// open while the caller works.
func (s *Store) Log(ctx context.Context, upTo uint64) iter.Seq2[audit.Logged, error] {
	return pages(func(after audit.Logged) ([]audit.Logged, error) { return s.logPage(ctx, after.Sequence, upTo) })
}

// logPage reads entries, and their events all at once.
func (s *Store) logPage(ctx context.Context, after, upTo uint64) ([]audit.Logged, error) {
	type row struct {
		audit.Entry
		first int64
	}
	entries, err := list(ctx, s, "SELECT "+entryColumns+", first FROM audit_entry WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?",
		[]any{int64(after), int64(upTo), entriesAtOnce}, func(sc scanner) (r row, err error) {
			r.Entry, err = scanEntry(sc, &r.first)
			return r, err
		})
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	first, end := entries[0].first, entries[0].first
	for _, e := range entries {
		first, end = min(first, e.first), max(end, e.first+int64(e.Count))
	}
	type logged struct {
		id int64
		audit.Event
	}
	events, err := list(ctx, s, "SELECT id, body, kind, device FROM audit_event WHERE id >= ? AND id < ? ORDER BY id", []any{first, end},
		func(sc scanner) (l logged, err error) { return l, sc.Scan(&l.id, &l.Body, &l.Kind, &l.Device) })
	if err != nil {
		return nil, err
	}
	page := make([]audit.Logged, len(entries))
	for i, e := range entries {
		page[i].Entry = e.Entry
		from, _ := slices.BinarySearchFunc(events, e.first, func(l logged, id int64) int { return cmp.Compare(l.id, id) })
		for _, l := range events[from:] {
			if l.id >= e.first+int64(e.Count) {
				break
			}
			page[i].Events = append(page[i].Events, l.Event)
		}
	}
	return page, nil
}

// pages yields what read returns, page by page; read gets the last value seen.
func pages[T any](read func(after T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last T
		for {
			page, err := read(last)
			if err != nil {
				yield(last, err)
				return
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
			if len(page) < entriesAtOnce {
				return
			}
			last = page[len(page)-1]
		}
	}
}

// AddCheckpoint keeps a checkpoint. It is no event itself.
func (s *Store) AddCheckpoint(ctx context.Context, c audit.Checkpoint) error {
	return s.write(ctx, func(t *tx) error { return insertCheckpoint(t, c) })
}

func insertCheckpoint(t *tx, c audit.Checkpoint) error {
	_, err := t.exec("INSERT INTO audit_checkpoint (sequence, head, time, key, signature, dropped) VALUES (?, ?, ?, ?, ?, ?)",
		int64(c.Sequence), c.Head[:], micros(c.Time), c.Key, c.Signature, int64(c.Dropped))
	return err
}

const checkpointColumns = "sequence, head, time, key, signature, dropped"

func scanCheckpoint(row scanner, more ...any) (c audit.Checkpoint, err error) {
	var at int64
	var head []byte
	err = row.Scan(append([]any{&c.Sequence, &head, &at, &c.Key, &c.Signature, &c.Dropped}, more...)...)
	copy(c.Head[:], head)
	c.Time = fromMicros(at)
	return c, err
}

// NewestCheckpoint is the checkpoint that was signed last; ca.ErrNoRecord if there is none.
func (s *Store) NewestCheckpoint(ctx context.Context) (audit.Checkpoint, error) {
	c, err := scanCheckpoint(s.reads.QueryRowContext(ctx, "SELECT "+checkpointColumns+" FROM audit_checkpoint WHERE dropped = 0 ORDER BY sequence DESC, id DESC LIMIT 1"))
	return c, s.fault(err)
}

// Checkpointed is the highest sequence that a checkpoint is of, whether its signature holds or not; 0 if there is none.
func (s *Store) Checkpointed(ctx context.Context) (sequence uint64, err error) {
	err = s.reads.QueryRowContext(ctx, "SELECT coalesce(max(sequence), 0) FROM audit_checkpoint").Scan(&sequence)
	return sequence, s.fault(err)
}

// Checkpoints is part of audit.Source.
func (s *Store) Checkpoints(ctx context.Context) iter.Seq2[audit.Checkpoint, error] {
	type row struct {
		id int64
		audit.Checkpoint
	}
	all := pages(func(after row) ([]row, error) {
		return list(ctx, s, "SELECT "+checkpointColumns+", id FROM audit_checkpoint WHERE sequence > ? OR sequence = ? AND id > ? ORDER BY sequence, id LIMIT ?",
			[]any{int64(after.Sequence), int64(after.Sequence), after.id, entriesAtOnce}, func(sc scanner) (r row, err error) {
				r.Checkpoint, err = scanCheckpoint(sc, &r.id)
				return r, err
			})
	})
	return func(yield func(audit.Checkpoint, error) bool) {
		for r, err := range all {
			if !yield(r.Checkpoint, err) {
				return
			}
		}
	}
}

// EventFilter selects events; zero fields select all.
type EventFilter struct {
	Kind          ca.EventKind
	Device        string
	device.Window // by when they were recorded; pages begin after an ID
}

// LoggedEvent is an event with its place in the log.
type LoggedEvent struct {
	ID int64 `json:"id"` // dense, in order; the paging key
	ca.Event
}

// EventLog lists events in order, beginning after the one with the ID after.
// Events that were dropped by age are not there.
func (s *Store) EventLog(ctx context.Context, f EventFilter, after int64, limit int) ([]LoggedEvent, error) {
	var q where
	order, err := s.pageEvents(ctx, &q, f.Window, after)
	if err != nil {
		return nil, err
	}
	if f.Kind != "" {
		q.and("kind = ?", string(f.Kind))
	}
	if f.Device != "" {
		q.and("device = ?", device.Fold(f.Device))
	}
	return list(ctx, s, "SELECT id, body FROM audit_event"+q.String()+order+" LIMIT ?", append(q.args, limit),
		func(row scanner) (LoggedEvent, error) {
			var e LoggedEvent
			var body []byte
			if err := row.Scan(&e.ID, &body); err != nil {
				return e, err
			}
			if err := json.Unmarshal(body, &e.Event); err != nil {
				return e, fmt.Errorf("audit event %d: %w", e.ID, err)
			}
			return e, nil
		})
}

// pruneAtOnce is how many entries lose their events in one transaction: others
// wait for it.
const pruneAtOnce = 2000

// SignDropped states that the events of the entries up to e are dropped.
type SignDropped func(e audit.Entry) (audit.Checkpoint, error)

// PruneEvents drops the events of entries older than before and returns how
// many events went. The entries stay, so that the chain can still be verified, and
// with each step a statement by sign, without which the gap would be a fault.
// It ends with an event of its own, in actor's name.
func (s *Store) PruneEvents(ctx context.Context, before time.Time, actor string, sign SignDropped) (dropped int64, err error) {
	for {
		n, more, err := s.pruneSome(ctx, before, actor, sign)
		dropped += n
		if err != nil || !more {
			return dropped, err
		}
	}
}

// pruneSome signs first, and drops what was signed for.
func (s *Store) pruneSome(ctx context.Context, before time.Time, actor string, sign SignDropped) (n int64, more bool, err error) {
	done, last, more, err := s.prunable(ctx, before)
	if err != nil || last == done {
		return 0, false, err
	}
	e, found, err := s.Entry(ctx, uint64(last))
	if err != nil || !found {
		return 0, false, errors.Join(err, ca.ErrNoRecord)
	}
	c, err := sign(e)
	if err != nil {
		return 0, false, err
	}
	ev, err := encode(ca.Event{Time: s.now().UTC(), Kind: EventAuditPruned, Actor: actor,
		Reason: fmt.Sprintf("the events of entries %d to %d, older than %s", done+1, last, before.UTC().Format(time.RFC3339))})
	if err != nil {
		return 0, false, err
	}
	err = s.write(ctx, func(t *tx) error {
		if n, err = t.exec("DELETE FROM audit_event WHERE id < (SELECT first + count FROM audit_entry WHERE sequence = ?)", last); err != nil {
			return err
		}
		if _, err := t.exec("UPDATE audit_head SET dropped = ? WHERE one = 1 AND dropped < ?", last, last); err != nil {
			return err
		}
		t.record(ev)
		return insertCheckpoint(t, c)
	})
	if err != nil {
		return 0, false, err
	}
	return n, more, nil
}

// prunable is the last entry whose events may go at once, behind those that are
// gone already, and whether there are more.
func (s *Store) prunable(ctx context.Context, before time.Time) (done, last int64, more bool, err error) {
	// The first that is young enough: clocks may have gone back in between.
	err = s.reads.QueryRowContext(ctx, `SELECT h.dropped, coalesce((SELECT min(sequence) FROM audit_entry WHERE sequence > h.dropped AND time >= ?), h.sequence + 1) - 1
		FROM audit_head h`, micros(before)).Scan(&done, &last)
	if last > done+pruneAtOnce {
		last, more = done+pruneAtOnce, true
	}
	return done, last, more, s.fault(err)
}
