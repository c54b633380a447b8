package store_test

import (
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

func openFile(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Each record enters a device of its own under a group credential: the most
// that one issuance can ask of the ledger.
func BenchmarkRecord(b *testing.B) {
	for _, workers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("%d", workers), func(b *testing.B) {
			s := openFile(b, filepath.Join(b.TempDir(), "db"))
			if err := s.AddCredential(b.Context(), storetest.Credential("group", 1<<40), storetest.Event(ca.EventCredentialAdded, "")); err != nil {
				b.Fatal(err)
			}
			m := storetest.NewMake(b, s, b.N)
			work := make([]*ca.Issuance, b.N)
			for i := range work {
				work[i] = m.Enrol(fmt.Sprintf("lamp-%08d", i), "group")
			}
			before := s.Stats()
			b.ReportAllocs()
			b.ResetTimer()
			used := cpuTime()
			var next atomic.Int64
			var wg sync.WaitGroup
			for range workers {
				wg.Go(func() {
					for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
						storetest.Record(b, s, work[i])
					}
				})
			}
			wg.Wait()
			reportRate(b, used)
			b.ReportMetric(float64(s.Stats().Changes-before.Changes)/float64(s.Stats().Commits-before.Commits), "rec/commit")
		})
	}
}

// filled is a store with n certificates, and their serials and keys.
func filled(b *testing.B, n int) (*store.Store, []*ca.Certificate) {
	s := openFile(b, filepath.Join(b.TempDir(), "db"))
	m := storetest.NewMake(b, s, n)
	all := make([]*ca.Certificate, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				all[i] = storetest.Record(b, s, m.Enrol(fmt.Sprintf("lamp-%08d", i), ""))
			}
		})
	}
	wg.Wait()
	return s, all
}

func BenchmarkRead(b *testing.B) {
	s, all := filled(b, 20_000)
	for name, read := range map[string]func(*ca.Certificate) error{
		"Standing": func(c *ca.Certificate) error {
			_, err := s.Standing(b.Context(), c.Device, c.KeyID)
			return err
		},
		"Standing/new": func(c *ca.Certificate) error {
			key := c.KeyID
			key[31]++
			_, err := s.Standing(b.Context(), "never-seen", key)
			return err
		},
		"CertificateBySerial": func(c *ca.Certificate) error {
			_, err := s.CertificateBySerial(b.Context(), c.Serial)
			return err
		},
		"Device": func(c *ca.Certificate) error {
			_, err := s.Device(b.Context(), c.Device)
			return err
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := read(all[i*7919%len(all)]); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// The bare engine, for comparison in the same run: one insert of the same size
// into one table with the same three indexes, 64 to a transaction.
func BenchmarkBareInsert(b *testing.B) {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-65536)&_pragma=wal_autocheckpoint(4000)")
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("CREATE TABLE c (id INTEGER PRIMARY KEY, serial BLOB UNIQUE, key BLOB, body BLOB); CREATE INDEX k ON c (key)"); err != nil {
		b.Fatal(err)
	}
	insert, err := db.Prepare("INSERT INTO c (serial, key, body) VALUES (?, ?, ?)")
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 1500)
	b.ResetTimer()
	used := cpuTime()
	for i := 0; i < b.N; {
		tx, err := db.Begin()
		if err != nil {
			b.Fatal(err)
		}
		st := tx.Stmt(insert)
		for j := 0; j < 64 && i < b.N; j++ {
			key := make([]byte, 32)
			rand.Read(key)
			if _, err := st.Exec(key[:19], key, body); err != nil {
				b.Fatal(err)
			}
			i++
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	reportRate(b, used)
}

// cpuTime is what this process has used so far: on a machine that is shared it
// says more than the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportRate(b *testing.B, used time.Duration) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	b.ReportMetric(float64(b.N)/(cpuTime()-used).Seconds(), "rec/cpu-s")
}
