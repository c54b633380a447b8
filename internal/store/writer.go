package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

// change is one caller's change, on its way through the writer.
type change struct {
	run   func(*tx) error // may run twice; only its last run counts
	state atomic.Int32    // queued, then taken or dropped
	done  chan error
	err   error
}

const (
	queued  int32 = iota
	taken         // by the writer: the caller must wait for the outcome
	dropped       // by the caller, whose context ended before the writer came to it
)

// writer commits changes in batches. See the package comment.
type writer struct {
	counters
	gate
	doubt     doubt
	path      string
	connector driver.Connector
	conn      *tx // nil until first used, and after anything strange happened
	queue     chan *change
	batch     int
	ended     chan struct{}
	now       func() time.Time
	log       *slog.Logger
}

func newWriter(path string, c driver.Connector, queue, batch int, now func() time.Time, log *slog.Logger) *writer {
	w := &writer{path: path, connector: c, queue: make(chan *change, queue), batch: batch, ended: make(chan struct{}), now: now, log: log}
	go w.loop()
	return w
}

func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.ended
}

// write makes a change durable. run is called by the writer; it must do
// nothing but work on the transaction and set what its caller reads after
// write has returned nil.
func (s *Store) write(ctx context.Context, run func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return ca.Away("the database", err)
	}
	c := &change{run: run, done: make(chan error, 1)}
	if err := s.writer.enqueue(c); err != nil {
		return ca.Away("the database", err)
	}
	select {
	case err := <-c.done:
		return s.fault(err)
	case <-ctx.Done():
		if c.state.CompareAndSwap(queued, dropped) {
			return ca.Away("the database", context.Cause(ctx))
		}
		return s.fault(<-c.done) // too late: it is being committed
	}
}

func (w *writer) enqueue(c *change) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return errors.New("the store is closed")
	}
	select {
	case w.queue <- c:
		return nil
	default:
		return fmt.Errorf("%d changes are waiting", cap(w.queue))
	}
}

func (w *writer) loop() {
	defer close(w.ended)
	batch := make([]*change, 0, w.batch)
	for first := range w.queue {
		w.busySince.Store(time.Now().UnixNano())
		batch = append(batch[:0], first)
	fill:
		for len(batch) < w.batch {
			select {
			case c, open := <-w.queue:
				if !open {
					break fill
				}
				batch = append(batch, c)
			default:
				break fill
			}
		}
		w.commit(batch)
		runtime.Gosched() // those just answered may have something new: let them queue
		clear(batch)
		w.busySince.Store(0)
	}
	w.disconnect()
}

// commit runs a batch and answers everybody in it.
func (w *writer) commit(batch []*change) {
	alive := batch[:0]
	for _, c := range batch {
		if c.state.CompareAndSwap(queued, taken) {
			alive = append(alive, c)
		}
	}
	if len(alive) == 0 {
		return
	}
	// Savepoints cost a copy of each page that a change touches, and hardly any
	// change fails after it has written. So the batch runs without them, and
	// again with them if one did.
	err := w.attempt(alive, false)
	if errors.Is(err, errDirty) {
		w.rerun.Add(1)
		err = w.attempt(alive, true)
	}
	w.failing.Store(err != nil)
	if err != nil {
		w.failed.Add(1)
		w.doubt.here.Store(true)
		err = away(w.path, err) // before the connection ends, which may give room back
		w.disconnect()
		w.log.Error("the ledger's batch failed", "changes", len(alive), "error", err)
	}
	for _, c := range alive {
		switch {
		case err != nil:
			c.err = err
		case c.err != nil:
			w.refused.Add(1)
		default:
			w.changes.Add(1)
		}
		c.done <- c.err
	}
}

// errDirty is a batch in which a change failed after it had written.
var errDirty = errors.New("a change failed half way")

// attempt runs a batch in one transaction, in these steps:
//
//  1. Connect, if the last batch lost the connection, and take the write lock.
//  2. Run each change. A refusal that wrote nothing needs no undoing; one that
//     did ends the attempt, or is undone to its savepoint.
//  3. Read the head of the audit chain, last, and add the entry over the
//     events of the changes that succeeded.
//  4. Commit. From here on the batch may be durable even if an error comes back.
//
// An error means that nobody's change may be relied on. Errors of single
// changes are left in change.err.
func (w *writer) attempt(batch []*change, savepoints bool) (err error) {
	t, err := w.connect()
	if err != nil {
		return err
	}
	if err := t.control(begin); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Some faults (a full disk) have ended the transaction already.
			if rerr := t.control("ROLLBACK"); rerr != nil {
				w.disconnect()
			}
		}
	}()
	t.start()
	for _, c := range batch {
		if savepoints {
			if err := t.control("SAVEPOINT change"); err != nil {
				return err
			}
		}
		mark := t.mark()
		c.err = c.run(t)
		switch {
		case c.err == nil:
		case isAway(c.err):
			return c.err
		case t.wroteSince(mark) && !savepoints:
			return errDirty
		default:
			if savepoints {
				if err := t.control("ROLLBACK TO change"); err != nil {
					return err
				}
			}
			t.forget(mark)
		}
		if savepoints {
			if err := t.control("RELEASE change"); err != nil {
				return err
			}
		}
	}
	if err := t.seal(w.now()); err != nil {
		return err
	}
	if err := t.control("COMMIT"); err != nil {
		return err
	}
	if t.writes > 0 {
		w.commits.Add(1)
	}
	return nil
}

func (w *writer) connect() (*tx, error) {
	if w.conn == nil {
		conn, err := connect(context.Background(), w.connector)
		if err != nil {
			return nil, err
		}
		w.conn = &tx{direct: conn}
		if w.failing.Load() {
			w.conn.control(makeRoom) // if it does not help, the batch will say so
		}
	}
	return w.conn, nil
}

// disconnect throws the connection away, so that the next batch starts from a
// clean one.
func (w *writer) disconnect() {
	if w.conn != nil {
		w.conn.close()
		w.conn = nil
	}
}

// seal adds the audit entry for the events of the transaction, if there are any.
func (t *tx) seal(now time.Time) error {
	if len(t.events) == 0 {
		return nil
	}
	var sequence, event int64
	var hash []byte
	if err := t.row("SELECT sequence, hash, event FROM audit_head WHERE one = 1"+lockRow).Scan(&sequence, &hash, &event); err != nil {
		return err
	}
	leaves := make([][]byte, len(t.events))
	for i, e := range t.events {
		leaves[i] = e.body
	}
	entry := audit.Entry{
		Sequence: uint64(sequence) + 1, Time: now.UTC().Truncate(time.Microsecond),
		Count: len(leaves), Root: audit.Root(leaves), Previous: [32]byte(hash),
	}
	if err := t.insertEvents(event + 1); err != nil {
		return err
	}
	if _, err := t.exec("INSERT INTO audit_entry (sequence, time, first, count, root, previous) VALUES (?, ?, ?, ?, ?, ?)",
		sequence+1, entry.Time.UnixMicro(), event+1, entry.Count, entry.Root[:], entry.Previous[:]); err != nil {
		return err
	}
	head := entry.Hash()
	_, err := t.exec("UPDATE audit_head SET sequence = ?, hash = ?, event = ? WHERE one = 1", sequence+1, head[:], event+int64(len(leaves)))
	return err
}
