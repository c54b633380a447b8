package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// faults makes the writer's driver fail at a chosen step. A step is one
// connect, prepare, or run of a statement.
type faults struct {
	mu    sync.Mutex
	err   error // a real error of SQLite that means "away"
	armed bool
	step  int  // steps until the fault
	after bool // fail when it has been done, as a commit does whose answer got lost
	stay  bool // from that step on everything fails
	hit   string
	steps []string
	small bool          // there is room for small writes alone
	block chan struct{} // if set, commits wait for it

	waiting atomic.Bool // a commit waits
}

func newFaults(t *testing.T) *faults {
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "no-such-directory", "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f := &faults{err: db.Ping()}
	if f.err == nil {
		t.Fatal("a database in no directory can be opened")
	}
	return f
}

func (f *faults) arm(step int, after, stay bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.step, f.after, f.stay, f.hit, f.steps = true, step, after, stay, "", nil
}

func (f *faults) disarm() (hit string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	return f.hit
}

// at wraps one step.
func at[T any](f *faults, what string, do func() (T, error)) (T, error) {
	var none T
	f.mu.Lock()
	fail := false
	if f.armed {
		f.steps = append(f.steps, what)
		fail = f.step == 0 || f.stay && f.step < 0
		if f.step == 0 {
			f.hit = what
		}
		f.step--
	}
	block := f.block
	f.mu.Unlock()
	if block != nil && what == "run COMMIT" {
		f.waiting.Store(true)
		<-block
	}
	if fail && !f.after {
		return none, f.err
	}
	v, err := do()
	if fail && err == nil {
		if c, ok := any(v).(interface{ Close() error }); ok {
			c.Close()
		}
		return none, f.err
	}
	return v, err
}

func (f *faults) wrap(c driver.Connector) driver.Connector { return faultyConnector{c, f} }

type faultyConnector struct {
	driver.Connector
	f *faults
}

func (c faultyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	return at(c.f, "connect", func() (driver.Conn, error) {
		conn, err := c.Connector.Connect(ctx)
		if err != nil {
			return nil, err
		}
		return faultyConn{conn, c.f}, nil
	})
}

type faultyConn struct {
	driver.Conn
	f *faults
}

func (c faultyConn) Prepare(query string) (driver.Stmt, error) {
	return at(c.f, "prepare "+query, func() (driver.Stmt, error) {
		s, err := c.Conn.Prepare(query)
		if err != nil {
			return nil, err
		}
		return faultyStmt{s, query, c.f}, nil
	})
}

type faultyStmt struct {
	driver.Stmt
	query string
	f     *faults
}

func (s faultyStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return at(s.f, "run "+s.query, func() (driver.Result, error) {
		s.f.mu.Lock()
		small, err := s.f.small, s.f.err
		s.f.mu.Unlock()
		for _, a := range args {
			if blob, ok := a.Value.([]byte); ok && small && len(blob) > 64<<10 {
				return nil, err
			}
		}
		return s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
	})
}

func (s faultyStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return at(s.f, "run "+s.query, func() (driver.Rows, error) { return s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args) })
}

// TestFaults fails each step of a commit in turn, in three ways, and checks
// that the caller is told Unavailable, that everything or nothing was
// recorded (everything only if the commit went through), and that the store
// works again at once.
func TestFaults(t *testing.T) {
	f := newFaults(t)
	s, err := store.OpenWrapped(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{}, f.wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := storetest.NewMake(t, s, 10_000)
	if err := s.AddCredential(t.Context(), storetest.Credential("group", 10_000), storetest.Event(ca.EventCredentialAdded, "")); err != nil {
		t.Fatal(err)
	}
	state := func(id string) string {
		var device string
		if d, err := s.Device(t.Context(), id); err == nil {
			device = string(d.State)
		}
		c, err := s.Credential(t.Context(), "group")
		if err != nil {
			t.Fatal(err)
		}
		counts, err := s.Counts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		head, err := s.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("device %q, %d uses, %+v, entry %d", device, c.Used, counts, head.Sequence)
	}
	operations := []struct {
		name string
		run  func(id string) error
	}{
		{"enrol", func(id string) error { return s.Record(t.Context(), m.Enrol(id, "group")) }},
		{"retire", func(id string) error {
			_, err := s.MoveDevice(t.Context(), id, device.Retired, ca.Revocation{Time: storetest.Start}, storetest.Event(ca.EventDeviceMoved, id))
			return err
		}},
	}
	for mode, how := range map[string]struct{ after, stay bool }{
		"failed": {false, false}, "failed but was persisted": {true, false}, "failed and goes on failing": {false, true},
	} {
		for _, op := range operations {
			t.Run(op.name+" "+mode, func(t *testing.T) {
				var hits []string
				for step := 0; ; step++ {
					id := fmt.Sprintf("%s-%s-%d", op.name, strings.ReplaceAll(mode, " ", ""), step)
					if op.name == "retire" {
						if err := s.Record(t.Context(), m.Enrol(id, "group")); err != nil {
							t.Fatal(err)
						}
					}
					before := state(id)
					f.arm(step, how.after, how.stay)
					err := op.run(id)
					var ping error
					if how.stay {
						ping = s.Ping(t.Context())
					}
					hit := f.disarm()
					if hit == "" {
						if err != nil {
							t.Fatal(err)
						}
						break
					}
					hits = append(hits, hit)
					if ca.KindOf(err) != ca.Unavailable {
						t.Errorf("fault at %q: got %v, want Unavailable", hit, err)
					}
					if how.stay && ca.KindOf(ping) != ca.Unavailable {
						t.Errorf("fault at %q goes on, and Ping says %v", hit, ping)
					}
					persisted := state(id) != before
					if want := how.after && hit == "run COMMIT"; persisted != want {
						t.Errorf("fault at %q: before %s, now %s", hit, before, state(id))
					}
					if err := s.Ping(t.Context()); err != nil {
						t.Errorf("after a fault at %q: ping: %v", hit, err)
					}
					if err := s.Record(t.Context(), m.Enrol(id+"-next", "group")); err != nil {
						t.Errorf("after a fault at %q: %v", hit, err)
					}
				}
				if len(hits) < 8 || hits[len(hits)-1] != "run COMMIT" {
					t.Errorf("faults were tried at %q", hits)
				}
			})
		}
	}
	storetest.Verify(t, s)
	if s.Stats().Failed == 0 {
		t.Error("no batch failed")
	}
}

// fullError is what SQLite says of a disk that is full.
func fullError(t *testing.T) error {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "db")+"?_pragma=max_page_count(2)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec("CREATE TABLE t (b BLOB); INSERT INTO t VALUES (zeroblob(100000))")
	if err == nil {
		t.Fatal("100 kB fit into two pages")
	}
	return err
}

// TestPingFull: on a full disk small writes find room now and then. Ping stays red until there is room for a batch.
func TestPingFull(t *testing.T) {
	f := newFaults(t)
	f.err = fullError(t)
	path := filepath.Join(t.TempDir(), "db")
	s, err := store.OpenWrapped(t.Context(), path, store.Options{}, f.wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	full := func(what string, err error) {
		t.Helper()
		if ca.KindOf(err) != ca.Unavailable || !errors.Is(err, store.ErrFull) || !strings.Contains(ca.AsError(err).Reason, "disk is full") ||
			!strings.Contains(err.Error(), "make room on the file system of "+filepath.Dir(path)) {
			t.Errorf("%s: %v", what, err)
		}
	}
	f.arm(1, false, false)
	full("a write", s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")))
	f.disarm()
	f.mu.Lock()
	f.small = true
	f.mu.Unlock()
	for range 3 {
		if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); err != nil {
			t.Fatalf("a small write: %v", err)
		}
		full("ping", s.Ping(t.Context()))
	}
	f.mu.Lock()
	f.small = false
	f.mu.Unlock()
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("ping when there is room: %v", err)
	}
	if _, err := s.Setting(t.Context(), "store.probe"); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("the probe is there still: %v", err)
	}
}

// A fault in the middle of a batch fails every change in it, not only the one at hand.
func TestFaultHitsTheWholeBatch(t *testing.T) {
	f := newFaults(t)
	s, err := store.OpenWrapped(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{}, f.wrap)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n = 32
	m := storetest.NewMake(t, s, 2*n)
	block := make(chan struct{})
	f.mu.Lock()
	f.block = block
	f.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[ca.Kind]int{}
	record := func(i int) {
		wg.Go(func() {
			err := s.Record(t.Context(), m.Enrol(fmt.Sprintf("lamp-%d", i), ""))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				outcomes[ca.KindOf(err)]++
			}
		})
	}
	record(0) // blocks in its commit; the others queue up behind it
	for !f.waiting.Load() {
		time.Sleep(time.Millisecond)
	}
	for i := range n {
		record(i + 1)
	}
	for s.Stats().Queue < n {
		time.Sleep(time.Millisecond)
	}
	f.arm(40, false, false) // in the middle of the second batch
	f.mu.Lock()
	f.block = nil
	f.mu.Unlock()
	close(block)
	wg.Wait()
	f.disarm()
	if outcomes[ca.Unavailable] != n || len(outcomes) != 1 {
		t.Errorf("outcomes %v, want %d Unavailable", outcomes, n)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Issued != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	storetest.Verify(t, s)
}

// Ping notices a commit that does not end, and more changes than the queue
// holds are refused at once.
func TestStuck(t *testing.T) {
	f := newFaults(t)
	path := filepath.Join(t.TempDir(), "db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.OpenWrapped(t.Context(), path, store.Options{Queue: 2}, f.wrap)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		block := make(chan struct{})
		f.mu.Lock()
		f.block = block
		f.mu.Unlock()
		var wg sync.WaitGroup
		for range 3 { // one is being committed, two wait
			wg.Go(func() {
				if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); ca.KindOf(err) != ca.Unavailable {
			t.Errorf("over the queue: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(4 * time.Second)
		if err := s.Ping(ctx); ca.KindOf(err) != ca.Unavailable {
			t.Errorf("with a context that had ended: %v", err)
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("after four seconds: %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := s.Ping(t.Context()); ca.KindOf(err) != ca.Unavailable {
			t.Errorf("after six seconds: %v", err)
		}
		f.mu.Lock()
		f.block = nil
		f.mu.Unlock()
		close(block)
		wg.Wait()
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); ca.KindOf(err) != ca.Unavailable {
			t.Errorf("after Close: %v", err)
		}
	})
}
