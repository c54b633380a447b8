package store

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// tx is the writer's connection within a transaction.
type tx struct {
	*direct
	writes int     // statements run that may have written
	events []event // of the changes that succeeded so far
}

// event is an audit event, encoded by the goroutine that asks for the change
// so that the writer need not.
type event struct {
	kind, device string
	body         []byte
}

// encode makes the leaf that the audit log hashes and keeps.
func encode(e ca.Event) (event, error) {
	body, err := e.AppendJSON(make([]byte, 0, 512))
	if err != nil {
		return event{}, fmt.Errorf("audit event %s: %w", e.Kind, err)
	}
	return event{string(e.Kind), device.Fold(e.Device), body}, nil
}

// mark is a point in the transaction.
type mark struct{ writes, events int }

func (t *tx) start()                 { t.writes, t.events = 0, t.events[:0] }
func (t *tx) mark() mark             { return mark{t.writes, len(t.events)} }
func (t *tx) wroteSince(m mark) bool { return t.writes > m.writes }
func (t *tx) forget(m mark)          { t.events = t.events[:m.events] }
func (t *tx) record(events ...event) { t.events = append(t.events, events...) }
func (t *tx) control(sql string) error {
	_, err := t.direct.exec(sql)
	return err
}

// Statements run without a caller's context: what the writer has begun it
// finishes, for the sake of the others in the batch.

// exec runs a statement that writes, and returns how many rows it changed.
func (t *tx) exec(query string, args ...any) (int64, error) {
	r, err := t.run(query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) run(query string, args ...any) (driver.Result, error) {
	r, err := t.direct.exec(query, args...)
	if err != nil {
		return nil, err // a statement that fails leaves nothing behind by itself
	}
	if n, err := r.RowsAffected(); err != nil || n > 0 {
		t.writes++
	}
	return r, nil
}

// returning is row for a statement that writes and returns a row.
func (t *tx) returning(query string, args ...any) scanner {
	t.writes++
	return t.row(query, args...)
}

// eventsAtOnce is how many events one statement inserts; a batch is cut into
// such statements and single ones.
const eventsAtOnce = 16

var insertEvent, insertManyEvents = func() (one, many string) {
	const values = "(?, ?, ?, ?)"
	const into = "INSERT INTO audit_event (id, kind, device, body) VALUES "
	return into + values, into + strings.Join(slices.Repeat([]string{values}, eventsAtOnce), ", ")
}()

func (t *tx) insertEvents(id int64) error {
	args := make([]any, 0, 4*eventsAtOnce)
	for chunk := range slices.Chunk(t.events, eventsAtOnce) {
		args = args[:0]
		for _, e := range chunk {
			args = append(args, id, e.kind, e.device, e.body)
			id++
		}
		if len(chunk) == eventsAtOnce {
			if _, err := t.exec(insertManyEvents, args...); err != nil {
				return err
			}
			continue
		}
		for one := range slices.Chunk(args, 4) {
			if _, err := t.exec(insertEvent, one...); err != nil {
				return err
			}
		}
	}
	return nil
}

// Times are kept in microseconds. The zero time stays the zero time.

func micros(t time.Time) int64 { return t.UnixMicro() }

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

func microsOrNull(t *time.Time) any {
	if t == nil {
		return nil
	}
	return t.UnixMicro()
}

func fromNull(us sql.NullInt64) *time.Time {
	if !us.Valid {
		return nil
	}
	t := fromMicros(us.Int64)
	return &t
}

// journalCounter numbers the lines of the revocation journal.
const journalCounter = "revocation"

// baseCounter is what counters begin above that are not there yet: zero, or since a restore
// more than any number that was ever given.
const baseCounter = "base"

// count takes the next n numbers of a counter and returns the last of them.
// A counter begins with 1 above the base.
func (t *tx) count(name string, n int) (last int64, err error) {
	err = t.returning("INSERT INTO counter (name, value) VALUES (?1, ?2 + coalesce((SELECT value FROM counter WHERE name = ?3), 0)) "+
		"ON CONFLICT (name) DO UPDATE SET value = counter.value + ?2 RETURNING value", name, n, baseCounter).Scan(&last)
	return last, err
}
