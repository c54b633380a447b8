package store_test

import (
	"crypto/rand"
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite"
)

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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
}
