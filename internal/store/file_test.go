package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("this is no database. ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ url, want string }{
		"file":           {filepath.Join(dir, "a.db"), ""},
		"sqlite:file":    {"sqlite:" + filepath.Join(dir, "b.db"), ""},
		"odd characters": {filepath.Join(dir, "100% of?a#b c.db"), ""},
		"postgres":       {"postgres://localhost/ca", "PostgreSQL"},
		"postgresql":     {"postgresql://localhost/ca", "PostgreSQL"},
		"another":        {"mysql://localhost/ca", "no kind of database"},
		"nothing":        {"", "no database is named"},
		"no directory":   {filepath.Join(dir, "none", "db"), "no such file"},
		"not a database": {garbage, "not a database"},
		"a directory":    {dir, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := store.Open(t.Context(), c.url, store.Options{})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); err != nil {
				t.Error(err)
			}
			path := strings.TrimPrefix(c.url, "sqlite:")
			for _, suffix := range []string{"", "-wal", "-shm"} {
				info, err := os.Stat(path + suffix)
				if err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", suffix, info, err)
				}
			}
		})
	}
}

// TestMustExist: where there must be a ledger, none is made, and what is there instead is named and left as it is.
func TestMustExist(t *testing.T) {
	dir := t.TempDir()
	put := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := filepath.Join(dir, "good")
	openFile(t, good).Close()
	raw, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	db, err := sql.Open("sqlite", foreign)
	if err == nil {
		_, err = db.Exec("CREATE TABLE recipe (name TEXT)")
	}
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	torn := slices.Clone(raw)
	for i := 4096; i < len(torn); i++ {
		torn[i] = 0x5a
	}
	for name, c := range map[string]struct {
		path string
		kind error
		want string
	}{
		"good":       {good, nil, ""},
		"missing":    {filepath.Join(dir, "none"), store.ErrMissing, "is missing"},
		"empty":      {put("empty", nil), store.ErrDamaged, "is empty"},
		"garbage":    {put("garbage", []byte(strings.Repeat("this is no database. ", 1000))), store.ErrDamaged, "file is not a database"},
		"torn":       {put("torn", torn), store.ErrDamaged, "malformed"},
		"cut off":    {put("cut", raw[:8192]), store.ErrDamaged, "malformed"},
		"of another": {foreign, store.ErrMissing, "not one of deviceca"},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := os.ReadFile(c.path)
			s, err := store.Open(t.Context(), c.path, store.Options{MustExist: true})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, c.kind) || c.want != "" && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path)) ||
				err != nil && strings.Contains(err.Error(), "goose") {
				t.Errorf("got %v, want %v with %q", err, c.kind, c.want)
			}
			if after, _ := os.ReadFile(c.path); c.kind != nil && string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestMigrations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	s := openFile(t, path)
	record := storetest.Record(t, s, storetest.NewMake(t, s, 1).Enrol("lamp-1", ""))
	s.Close()

	first, err := fs.ReadFile(store.Migrations(), "00001_ledger.sql")
	if err != nil {
		t.Fatal(err)
	}
	later := fstest.MapFS{
		"00001_ledger.sql": {Data: first},
		"99998_more.sql":   {Data: []byte("-- +goose Up\nALTER TABLE device ADD COLUMN note TEXT NOT NULL DEFAULT '';\n")},
		"99999_most.sql":   {Data: []byte("-- +goose Up\nCREATE TABLE later (id INTEGER PRIMARY KEY);\n")},
	}
	broken := maps.Clone(later)
	broken["99999_most.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE later (id INTEGER PRIMARY KEY);\nNONSENSE;\n")}
	if _, err := store.OpenMigrating(t.Context(), path, store.Options{}, broken); err == nil {
		t.Fatal("a migration that fails opens all the same")
	}
	for range 2 {
		s, err := store.OpenMigrating(t.Context(), path, store.Options{}, later)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.CertificateBySerial(t.Context(), record.Serial); err != nil {
			t.Error(err)
		}
		storetest.Verify(t, s)
		s.Close()
	}
	if _, err := store.Open(t.Context(), path, store.Options{}); err == nil || !strings.Contains(err.Error(), "version 99999") {
		t.Errorf("a database of a later version: %v", err)
	}
}

func TestBackup(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, filepath.Join(dir, "db"))
	m := storetest.NewMake(t, s, 2000)
	acknowledged, stop := load(t, s, m, 8)
	for len(acknowledged()) < 200 {
		time.Sleep(time.Millisecond)
	}
	before := acknowledged()
	copied := filepath.Join(dir, "copy")
	if err := s.Backup(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	stop()
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := s.Backup(t.Context(), copied); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file that is there: %v", err)
	}
	if err := s.Backup(t.Context(), filepath.Join(dir, "none", "copy")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into no directory: %v", err)
	}
	restored := openFile(t, copied)
	mustHold(t, restored, before)
	if copied, err := restored.IsCopy(t.Context()); !copied || err != nil {
		t.Errorf("the copy does not say that it is one: %v", err)
	}
	next, err := restored.Restore(t.Context(), 1<<20, time.Now(), storetest.Event(ca.EventIndexMoved, ""))
	if err != nil || next[storetest.Issuer] < 2000+1<<20 {
		t.Errorf("after the restore: %v, %v", next, err)
	}
	if copied, err := restored.IsCopy(t.Context()); copied || err != nil {
		t.Errorf("it is restored and still says that it is a copy: %v", err)
	}
	storetest.Verify(t, restored)
}

// Two restores of one copy have no number in common.
func TestTwoRestores(t *testing.T) {
	dir := t.TempDir()
	s := openFile(t, filepath.Join(dir, "db"))
	storetest.Record(t, s, storetest.NewMake(t, s, 10).Enrol("lamp-1", ""))
	type numbers struct {
		index, crl, pack, event, journal uint64
		instance                         string
	}
	var got [2]numbers
	for i := range got {
		copied := filepath.Join(dir, "copy"+strconv.Itoa(i))
		if err := s.Backup(t.Context(), copied); err != nil {
			t.Fatal(err)
		}
		r := openFile(t, copied)
		next, err := r.Restore(t.Context(), 1<<24, time.Now(), storetest.Event(ca.EventRestored, ""))
		if err != nil {
			t.Fatal(err)
		}
		number, err1 := r.Journal().NextNumber(t.Context(), storetest.Issuer)
		sequence, err2 := r.Journal().NextSequence(t.Context(), storetest.Issuer)
		event, err3 := r.NewestEvent(t.Context())
		instance, err4 := r.Instance(t.Context())
		certs, err5 := r.Certificates(t.Context(), ca.CertificateFilter{}, 0, 1)
		if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
			t.Fatal(err)
		}
		revoked, err := r.Revoke(t.Context(), []ca.Serial{certs[0].Serial}, ca.Revocation{}, storetest.Event(ca.EventRevoked, ""))
		if err != nil {
			t.Fatal(err)
		}
		got[i] = numbers{next[storetest.Issuer], uint64(number), uint64(sequence), uint64(event), uint64(revoked[0].Revocation.Sequence), instance.ID}
	}
	a, b := got[0], got[1]
	if a.index == b.index || a.crl == b.crl || a.pack == b.pack || a.event == b.event || a.journal == b.journal || a.instance == b.instance {
		t.Errorf("two restores of one backup: %+v and %+v", a, b)
	}
	for _, n := range []uint64{a.crl, a.pack, a.event, a.journal} {
		if n < 1<<50 || n >= 1<<53 {
			t.Errorf("number %d is not made of the time, or too large for readers of JSON", n)
		}
	}
}

// A disk that fills up is Unavailable, and the store comes back when there is space.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("a tmpfs cannot be mounted (this test needs root): %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, filepath.Join(dir, "db"))
	defer s.Close()
	m := storetest.NewMake(t, s, 3000)
	var acknowledged []ca.Serial
	var full error
	for i := range 2000 {
		issuance := m.Enrol(fmt.Sprintf("lamp-%d", i), "")
		if full = s.Record(t.Context(), issuance); full != nil {
			break
		}
		acknowledged = append(acknowledged, issuance.Certificate.Serial)
	}
	if ca.KindOf(full) != ca.Unavailable || !strings.Contains(full.Error(), "full") {
		t.Fatalf("after %d records: %v", len(acknowledged), full)
	}
	for range 3 {
		if err := s.Record(t.Context(), m.Enrol("lamp-x", "")); ca.KindOf(err) != ca.Unavailable {
			t.Errorf("while it is full: %v", err)
		}
	}
	if _, err := s.CertificateBySerial(t.Context(), acknowledged[0]); err != nil {
		t.Errorf("reading while it is full: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("with space again: %v", err)
	}
	for i := range 50 {
		acknowledged = append(acknowledged, storetest.Record(t, s, m.Enrol(fmt.Sprintf("lamp-y-%d", i), "")).Serial)
	}
	mustHold(t, s, acknowledged)
}

// While another process holds the write lock writes are Unavailable and reads
// go on; afterwards it works again.
func TestLocked(t *testing.T) {
	t.Parallel() // it waits out the lock's timeout
	path := filepath.Join(t.TempDir(), "db")
	s := openFile(t, path)
	m := storetest.NewMake(t, s, 3)
	storetest.Record(t, s, m.Enrol("lamp-1", ""))
	other, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	if _, err := other.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := s.Record(t.Context(), m.Enrol("lamp-2", "")); ca.KindOf(err) != ca.Unavailable {
		t.Errorf("locked: %v", err)
	}
	if _, err := s.Device(t.Context(), "lamp-1"); err != nil {
		t.Error(err)
	}
	if _, err := other.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	storetest.Record(t, s, m.Enrol("lamp-2", ""))
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	storetest.Verify(t, s)
}

// Two processes may write to one database: the chain stays one.
func TestTwoWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	var wg sync.WaitGroup
	for side, s := range []*store.Store{openFile(t, path), openFile(t, path)} {
		m := storetest.NewMake(t, s, 100)
		wg.Go(func() {
			for i := range 100 {
				if err := s.Record(t.Context(), m.Enrol(fmt.Sprintf("lamp-%d-%d", side, i), "")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if r := storetest.Verify(t, openFile(t, path)); r.Events != 200 {
		t.Errorf("%d events", r.Events)
	}
}

func TestReopen100k(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	openFile(t, path).Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`INSERT INTO device SELECT value, 'Lamp-' || value, 'lamp-' || value, 'software', '', 'active', '', 0, 0 FROM generate_series(1, 100000)`,
		`INSERT INTO certificate SELECT value, X'01' || substr(CAST(printf('%012x', value) AS BLOB), 7) || randomblob(12), 'issuing-1', value, randomblob(32), 'device', 'software', 'est',
			'credential', 'device:x', NULL, 0, 0, 4102444800000000 + value, randomblob(32), '{}', randomblob(400), randomblob(620), 0 FROM generate_series(1, 100000)`,
	} {
		statement = strings.ReplaceAll(statement, "generate_series(1, 100000)",
			"(WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 100000) SELECT value FROM n)")
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	start := time.Now()
	s := openFile(t, path)
	took := time.Since(start)
	t.Logf("opened in %s", took)
	if took > time.Second {
		t.Errorf("opening took %s", took)
	}
	if c, err := s.Counts(t.Context()); err != nil || c.Issued != 100_000 || c.Active != 100_000 {
		t.Errorf("%+v, %v", c, err)
	}
}
