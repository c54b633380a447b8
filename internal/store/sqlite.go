package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
)

//go:embed migrations/sqlite/*.sql
var sqliteMigrations embed.FS

const dialect = goose.DialectSQLite3

// sqlitePath is the file that a database URL names.
func sqlitePath(dbURL string) (string, error) {
	scheme, rest, found := strings.Cut(dbURL, ":")
	switch {
	case dbURL == "":
		return "", errors.New("no database is named: give a file")
	case found && (scheme == "postgres" || scheme == "postgresql"):
		return "", errors.New("this build has no PostgreSQL yet: give a file, for example deviceca.db")
	case found && strings.HasPrefix(rest, "//"):
		return "", fmt.Errorf("%s: is no kind of database known here: give a file, for example deviceca.db", scheme)
	case found && scheme == "sqlite":
		return filepath.Abs(rest)
	}
	return filepath.Abs(dbURL)
}

// createPrivate makes the file, so that it is never readable by others: SQLite
// gives its -wal and -shm files the mode of the database.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// connector connects for writing or for reading only.
func connector(path string, write bool) (driver.Connector, error) {
	q := url.Values{"_pragma": {
		"busy_timeout(5000)", // first: the others may meet a lock
		"journal_mode(WAL)",
		"synchronous(FULL)",
		"foreign_keys(ON)",
		"temp_store(MEMORY)",
		"journal_size_limit(67108864)",
		"cache_size(-32768)", // KiB; hot index pages
		"wal_autocheckpoint(4000)",
	}}
	if !write {
		q["_pragma"] = []string{"busy_timeout(5000)", "query_only(ON)", "cache_size(-16384)", "mmap_size(0)"}
	}
	return sqlite.NewConnector((&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
}

// begin takes the write lock at once, so that no transaction fails half way
// because another process wrote.
const begin = "BEGIN IMMEDIATE"

// makeRoom is tried after a failure. On a full disk the WAL cannot grow; moved
// into the database, it can be written from its beginning again.
const makeRoom = "PRAGMA wal_checkpoint(PASSIVE)"

// lockRow ends the SELECT of a row that must not change until the commit.
// SQLite has one writer; PostgreSQL says FOR UPDATE.
const lockRow = ""

// insert runs an INSERT and returns the id that the table gave. PostgreSQL says
// RETURNING id, which costs SQLite a row to be read.
func (t *tx) insert(query string, args ...any) (id int64, err error) {
	r, err := t.run(query, args...)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

// skipIDs moves the IDs that a table gives on; see jump. The table's line in
// sqlite_sequence is there only once it has given one.
func skipIDs(t *tx, table string, now time.Time) error {
	var last int64
	if err := t.row("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = ?", table).Scan(&last); err != nil {
		return err
	}
	if _, err := t.exec("DELETE FROM sqlite_sequence WHERE name = ?", table); err != nil {
		return err
	}
	_, err := t.exec("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", table, jump(last, now))
	return err
}

// Backup writes a consistent copy of the database to a new file of mode 0600,
// while the store is in use. It fails if the file is there. The copy is on
// disk when Backup returns. It is marked as a copy, so that nobody serves it before
// Restore has moved its numbers on.
func (s *Store) Backup(ctx context.Context, file string) (err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(file)
		}
	}()
	// A connection of its own: the readers' may only query, the writer's is busy.
	c, err := connector(s.path, true)
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	defer db.Close()
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", file); err != nil {
		return s.fault(err)
	}
	if err := markCopy(ctx, file); err != nil {
		return s.fault(err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func markCopy(ctx context.Context, file string) error {
	q := url.Values{"_pragma": {"journal_mode(DELETE)", "synchronous(FULL)"}} // one file, also meanwhile
	c, err := sqlite.NewConnector((&url.URL{Scheme: "file", Path: file, RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	db := sql.OpenDB(c)
	_, err = db.ExecContext(ctx, "INSERT INTO setting (name, value) VALUES (?, x'') ON CONFLICT (name) DO NOTHING", copyMark)
	return errors.Join(err, db.Close())
}
