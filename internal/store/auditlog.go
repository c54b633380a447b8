package store

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
)

// EventAuditPruned is recorded by PruneEvents itself.
const EventAuditPruned ca.EventKind = "audit.pruned"

const (
	entryColumns  = "sequence, time, count, root, previous"
	entriesAtOnce = 1000
)

func scanEntry(row scanner) (audit.Entry, error) {
	var e audit.Entry
	var at int64
	var root, previous []byte
	err := row.Scan(&e.Sequence, &at, &e.Count, &root, &previous)
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

// Entries is part of audit.Source. It reads page by page, and holds nothing
// open while the caller works.
func (s *Store) Entries(ctx context.Context, from uint64) iter.Seq2[audit.Entry, error] {
	return pages(func(after audit.Entry) ([]audit.Entry, error) {
		return list(ctx, s, "SELECT "+entryColumns+" FROM audit_entry WHERE sequence >= ? ORDER BY sequence LIMIT ?",
			[]any{int64(max(from, after.Sequence+1)), entriesAtOnce}, scanEntry)
	})
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

// Events is part of audit.Source.
func (s *Store) Events(ctx context.Context, sequence uint64) ([][]byte, error) {
	rows, err := s.reads.QueryContext(ctx, `SELECT v.body FROM audit_entry e JOIN audit_event v ON v.id >= e.first AND v.id < e.first + e.count
		WHERE e.sequence = ? ORDER BY v.id`, int64(sequence))
	if err != nil {
		return nil, s.fault(err)
	}
	bodies, err := collect(rows, func(row scanner) (b []byte, err error) { return b, row.Scan(&b) })
	if err != nil || len(bodies) > 0 {
		return bodies, s.fault(err)
	}
	var dropped uint64
	if err := s.reads.QueryRowContext(ctx, "SELECT dropped FROM audit_head").Scan(&dropped); err != nil {
		return nil, s.fault(err)
	}
	if sequence <= dropped {
		return nil, nil
	}
	return [][]byte{}, nil
}

// AddCheckpoint keeps a checkpoint. It is no event itself.
func (s *Store) AddCheckpoint(ctx context.Context, c audit.Checkpoint) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("INSERT INTO audit_checkpoint (sequence, head, time, key, signature) VALUES (?, ?, ?, ?, ?)",
			int64(c.Sequence), c.Head[:], micros(c.Time), c.Key, c.Signature)
		return err
	})
}

// Checkpoints is part of audit.Source.
func (s *Store) Checkpoints(ctx context.Context) iter.Seq2[audit.Checkpoint, error] {
	type row struct {
		id int64
		audit.Checkpoint
	}
	all := pages(func(after row) ([]row, error) {
		return list(ctx, s, `SELECT id, sequence, head, time, key, signature FROM audit_checkpoint
			WHERE sequence > ? OR sequence = ? AND id > ? ORDER BY sequence, id LIMIT ?`,
			[]any{int64(after.Sequence), int64(after.Sequence), after.id, entriesAtOnce}, func(sc scanner) (r row, err error) {
				var at int64
				var head []byte
				err = sc.Scan(&r.id, &r.Sequence, &head, &at, &r.Key, &r.Signature)
				copy(r.Head[:], head)
				r.Time = fromMicros(at)
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

// PruneEvents drops the events of entries older than before and returns how
// many events went. The entries stay, so that the chain can still be verified.
// It ends with an event of its own, in actor's name.
func (s *Store) PruneEvents(ctx context.Context, before time.Time, actor string) (dropped int64, err error) {
	for {
		n, more, err := s.pruneSome(ctx, before, actor)
		dropped += n
		if err != nil || !more {
			return dropped, err
		}
	}
}

func (s *Store) pruneSome(ctx context.Context, before time.Time, actor string) (n int64, more bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		n, more = 0, false
		var done, last, keep int64
		if err := t.row("SELECT dropped, sequence FROM audit_head WHERE one = 1"+lockRow).Scan(&done, &last); err != nil {
			return err
		}
		// The first that is young enough: clocks may have gone back in between.
		if err := t.row("SELECT coalesce(min(sequence), ?) FROM audit_entry WHERE sequence > ? AND time >= ?", last+1, done, micros(before)).Scan(&keep); err != nil {
			return err
		}
		if keep > done+1+pruneAtOnce {
			keep, more = done+1+pruneAtOnce, true
		}
		if keep == done+1 {
			return nil
		}
		if n, err = t.exec("DELETE FROM audit_event WHERE id < (SELECT first + count FROM audit_entry WHERE sequence = ?)", keep-1); err != nil {
			return err
		}
		if _, err := t.exec("UPDATE audit_head SET dropped = ? WHERE one = 1", keep-1); err != nil {
			return err
		}
		ev, err := encode(ca.Event{Time: s.now().UTC(), Kind: EventAuditPruned, Actor: actor,
			Reason: fmt.Sprintf("the events of entries %d to %d, older than %s", done+1, keep-1, before.UTC().Format(time.RFC3339))})
		t.record(ev)
		return err
	})
	if err != nil {
		return 0, false, err
	}
	return n, more, nil
}
