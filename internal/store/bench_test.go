package store_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

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
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
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
			_, err := s.Standing(b.Context(), "never-seen", c.Request)
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
