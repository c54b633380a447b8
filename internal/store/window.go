package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/deviceca/deviceca/device"
)

// page selects what comes after a key, and returns the order: by the key, or within a window by the time and then the
// key. first is the key that comes before all.
func (q *where) page(w device.Window, time, key string, after, first any) (order string) {
	switch {
	case !w.Ordered():
		q.and(key+" > ?", after)
		return " ORDER BY " + key
	case !w.Since.IsZero():
		q.and(time+" >= ?", micros(w.Since))
	}
	than, down := ">", ""
	if w.Newest {
		than, down = "<", " DESC"
	}
	if after != first {
		q.and("("+time+", "+key+") "+than+" (?, ?)", micros(w.Passed), after)
	}
	return " ORDER BY " + time + down + ", " + key + down
}

// pageEvents is page for events, whose time is that of the entry which they came with.
func (s *Store) pageEvents(ctx context.Context, q *where, w device.Window, after int64) (order string, err error) {
	if w.Newest && after > 0 {
		q.and("id < ?", after)
	} else {
		q.and("id > ?", after)
	}
	if !w.Since.IsZero() {
		first, err := s.firstEventSince(ctx, micros(w.Since))
		if err != nil {
			return "", err
		}
		q.and("id >= ?", first)
	}
	if w.Newest {
		return " ORDER BY id DESC", nil
	}
	return " ORDER BY id", nil
}

// firstEventSince is the ID of the first event that was recorded at a time or later: entries are dense, and their
// times rise, but where a clock was set back.
func (s *Store) firstEventSince(ctx context.Context, since int64) (int64, error) {
	var from, to, at, first int64
	if err := s.reads.QueryRowContext(ctx, "SELECT 1, sequence + 1, event + 1 FROM audit_head WHERE one = 1").Scan(&from, &to, &first); err != nil {
		return 0, s.fault(err)
	}
	for from < to {
		middle := from + (to-from)/2
		var begins int64
		err := s.reads.QueryRowContext(ctx, "SELECT time, first FROM audit_entry WHERE sequence = ?", middle).Scan(&at, &begins)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && at < since: // no entry: older ones are gone
			from = middle + 1
		case err != nil:
			return 0, s.fault(err)
		default:
			to, first = middle, begins
		}
	}
	return first, nil
}
