package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/deviceca/deviceca/ca"
)

var (
	// ErrMissing means that there is no ledger where one must be.
	ErrMissing = errors.New("there is no ledger")
	// ErrDamaged means that the file is no database, or one whose content contradicts itself.
	ErrDamaged = errors.New("the ledger is damaged")
	// ErrFull means that the ledger's disk has no room for what is to be written.
	ErrFull = errors.New("the disk of the ledger is full")
)

// code is the primary result code of SQLite; 0 if err is not SQLite's.
func code(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code() & 0xff
	}
	return 0
}

// isDuplicate reports that an insert met a unique key.
func isDuplicate(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// isAway reports that the fault is the database's, not the statement's: full,
// locked, unreadable, gone.
func isAway(err error) bool {
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, fs.ErrPermission) {
		return true
	}
	switch code(err) {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERRUPT,
		sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
		sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
		return true
	}
	return false
}

func isDamage(err error) bool {
	return code(err) == sqlite3.SQLITE_CORRUPT || code(err) == sqlite3.SQLITE_NOTADB
}

// scrap is the room below which an I/O error of a write is the disk's being full: SQLite
// names it so in the database and its log, and not in the files beside them.
const scrap = 64 << 10

func isFull(path string, err error) bool {
	if code(err) == sqlite3.SQLITE_FULL || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return true
	}
	free, known := Room(filepath.Dir(path))
	return code(err) == sqlite3.SQLITE_IOERR && known && free < scrap
}

// away is the Unavailable error for a fault of the database at path. Those that do not pass
// by themselves are named, with what to do.
func away(path string, err error) *ca.Error {
	a := ca.Away("the database", err)
	switch {
	case isDamage(err):
		a.Reason = "the database is damaged"
		a.Err = damaged(path, err)
	case isFull(path, err):
		a.Reason = "the database cannot be written, because its disk is full; try again when there is room"
		a.Err = fmt.Errorf("%w: make room on the file system of %s (%w)", ErrFull, filepath.Dir(path), err)
	}
	return a
}

// damaged names the ledger, and keeps of the error what SQLite said.
func damaged(path string, err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		err = e
	}
	return fmt.Errorf("%w: %s (SQLite: %w)", ErrDamaged, path, err)
}

// mustBeLedger refuses a path at which there is no ledger. It writes nothing: making tables in somebody
// else's database would be worse than not finding ours.
func mustBeLedger(ctx context.Context, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is missing", ErrMissing, path)
	case err != nil:
		return err
	case info.Mode().IsRegular() && info.Size() == 0:
		return fmt.Errorf("%w: %s is empty", ErrDamaged, path)
	}
	c, err := connector(path, false)
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	defer db.Close()
	var tables int
	if err := db.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master WHERE name = 'audit_head'").Scan(&tables); err != nil {
		if isDamage(err) {
			return damaged(path, err)
		}
		return away(path, err)
	}
	if tables == 0 {
		return fmt.Errorf("%w: %s is a database, and not one of deviceca", ErrMissing, path)
	}
	return nil
}
