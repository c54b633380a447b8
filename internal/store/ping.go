package store

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// stuckAfter is how long a change may wait before Ping says that writing is stuck.
const stuckAfter = 5 * time.Second

// What must be free, and what a probe writes, after a batch failed: about what a batch takes. A smaller write may find
// room in the write-ahead log, which is written from its beginning again, when nothing else does.
const (
	leastRoom = 1 << 20
	probeSize = 256 << 10
)

// probeName is the setting that a probe writes.
const probeName = "store.probe"

// doubt is there from a batch that failed until a probe succeeds.
type doubt struct {
	here atomic.Bool

	// One probe at a time, and those who wait for it share what it found: whoever may ask whether we are ready must
	// not keep the disk busy.
	probe sync.Mutex
	ended time.Time
	err   error
}

// Ping reads from the database, and reports if writing does not work. Once a batch failed, it fails until there is room for
// another and a probe was written; small writes that succeed meanwhile change nothing. It fails if changes have waited for more
// than five seconds.
func (s *Store) Ping(ctx context.Context) error {
	var sequence int64
	if err := s.reads.QueryRowContext(ctx, "SELECT sequence FROM audit_head").Scan(&sequence); err != nil {
		return s.fault(err)
	}
	if since := s.writer.busySince.Load(); since != 0 {
		if waited := time.Since(time.Unix(0, since)); waited > stuckAfter {
			return ca.Away("the database", fmt.Errorf("a commit has been under way for %s", waited.Round(time.Second)))
		}
	}
	d := &s.writer.doubt
	if !d.here.Load() {
		return nil
	}
	asked := time.Now()
	d.probe.Lock()
	defer d.probe.Unlock()
	if !d.here.Load() || d.ended.After(asked) {
		return d.err
	}
	d.err = s.tryWriting(ctx)
	d.ended = time.Now()
	d.here.Store(d.err != nil)
	return d.err
}

// tryWriting writes what a batch takes, and takes it back.
func (s *Store) tryWriting(ctx context.Context) error {
	if free, known := Room(filepath.Dir(s.path)); known && free < leastRoom {
		return away(s.path, fmt.Errorf("%d octets are free: %w", free, syscall.ENOSPC))
	}
	if err := s.PutSetting(ctx, probeName, make([]byte, probeSize)); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("DELETE FROM setting WHERE name = ?", probeName)
		return err
	})
}
