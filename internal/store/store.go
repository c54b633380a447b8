package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/ocsp"
)

// Options adjust a store. The zero value is good.
type Options struct {
	Now     func() time.Time // the clock of audit entries and of what is expired; default time.Now
	Logger  *slog.Logger     // default: nothing is logged
	Readers int              // connections for reading, default 3: each commit invalidates what each has cached
	Queue   int              // changes that may wait for the writer, default 4096; more are Unavailable at once
	Batch   int              // changes in one transaction at most, default 64

	// MustExist refuses to make a ledger where there is none: ErrMissing, or ErrDamaged if something else is there.
	MustExist bool
}

// Store is the ledger. It is safe for concurrent use, and several processes
// may have the same file open.
type Store struct {
	path     string
	now      func() time.Time
	log      *slog.Logger
	reads    *sql.DB
	hot      *readers // for the reads of every request
	scans    *readers // for reading the revocation journal through
	reserved reserved
	writer   *writer
	open     atomic.Bool // Closed found it open
}

var (
	_ ca.Ledger        = (*Store)(nil)
	_ audit.Source     = (*Store)(nil)
	_ audit.HeadSource = (*Store)(nil)
	_ audit.Records    = Records{}
	_ crl.Source       = Journal{}
	_ ocsp.Source      = Journal{}
)

// seams are what tests put something else in for.
type seams struct {
	wrap       func(driver.Connector) driver.Connector // around the writer's
	migrations fs.FS
}

// Open opens the database that dbURL names (a file, or "sqlite:" and a file),
// makes it if there is none, and brings its tables up to this version. It
// refuses a database of a later version. A damaged one is ErrDamaged.
func Open(ctx context.Context, dbURL string, opts Options) (*Store, error) {
	migrations, err := fs.Sub(sqliteMigrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return open(ctx, dbURL, opts, seams{
		wrap:       func(c driver.Connector) driver.Connector { return c },
		migrations: migrations,
	})
}

func open(ctx context.Context, dbURL string, opts Options, seams seams) (*Store, error) {
	path, err := sqlitePath(dbURL)
	if err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{path: path, now: opts.Now, log: opts.Logger}
	if opts.MustExist {
		if err := mustBeLedger(ctx, path); err != nil {
			return nil, err
		}
	}
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("the database cannot be made: %w", err)
	}
	forWriting, err := connector(path, true)
	if err != nil {
		return nil, err
	}
	forReading, err := connector(path, false)
	if err != nil {
		return nil, err
	}
	forWriting = seams.wrap(forWriting)
	if err := migrate(ctx, forWriting, seams.migrations); isDamage(err) {
		return nil, damaged(path, err)
	} else if err != nil {
		return nil, fmt.Errorf("database %s: %w", path, s.fault(err))
	}
	s.reads = sql.OpenDB(forReading)
	readers := orDefault(opts.Readers, 3)
	s.reads.SetMaxOpenConns(readers)
	s.reads.SetMaxIdleConns(readers)
	s.hot, s.scans = newReaders(forReading, readers), newReaders(forReading, 2)
	s.writer = newWriter(path, forWriting, orDefault(opts.Queue, 4096), orDefault(opts.Batch, 64), s.now, s.log)
	return s, nil
}

func orDefault(n, def int) int {
	if n > 0 {
		return n
	}
	return def
}

// migrate brings the tables up to this version.
func migrate(ctx context.Context, c driver.Connector, migrations fs.FS) error {
	db := sql.OpenDB(c)
	defer db.Close()
	// Out of order: migrations that were made side by side come in the order in which they were merged, and each stands by itself.
	p, err := goose.NewProvider(dialect, db, migrations, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()), goose.WithAllowOutofOrder(true))
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return err
	}
	if has > knows {
		return fmt.Errorf("its tables are of version %d and this program knows %d: use the program that wrote it, or a later one", has, knows)
	}
	if pending, err := p.HasPending(ctx); err != nil || !pending {
		return err
	}
	_, err = p.Up(ctx)
	return err
}

// Close waits for the changes that are queued, and closes the database.
// Changes that come later are Unavailable.
func (s *Store) Close() error {
	s.writer.close()
	return errors.Join(s.hot.close(), s.scans.close(), s.reads.Close())
}

// Stats are counts since the store was opened.
type Stats struct {
	Commits   int64 // transactions made durable; each is one fsync, but for checkpoints of the WAL
	Changes   int64 // changes that succeeded in them
	Refused   int64 // changes that failed alone
	Failed    int64 // batches that failed whole
	Rerun     int64 // batches that ran again under savepoints, because a change failed after it had written
	Queue     int   // changes waiting now
	QueueSize int
}

// Stats reads the counts.
func (s *Store) Stats() Stats {
	w := s.writer
	return Stats{
		Commits: w.commits.Load(), Changes: w.changes.Load(), Refused: w.refused.Load(), Failed: w.failed.Load(), Rerun: w.rerun.Load(),
		Queue: len(w.queue), QueueSize: cap(w.queue),
	}
}

// fault makes what callers see of an error: the contract's errors as they are,
// a database that is away as Unavailable, everything else as the fault of ours that it is.
func (s *Store) fault(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return ca.ErrNoRecord
	case isAway(err):
		if _, typed := errors.AsType[*ca.Error](err); typed {
			return err
		}
		return away(s.path, err)
	}
	return err
}

// counters of the writer; see Stats.
type counters struct {
	commits, changes, refused, failed, rerun atomic.Int64
	busySince                                atomic.Int64 // unix nanoseconds; 0 when idle
	failing                                  atomic.Bool  // the last batch failed whole
}

// gate lets changes in until the writer closes.
type gate struct {
	mu     sync.RWMutex
	closed bool
}
