package store_test

import (
	"path/filepath"
	"sync"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// BenchmarkVerify is what audit verify costs for each certificate, its event and its revocation.
func BenchmarkVerify(b *testing.B) {
	s, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "db"), store.Options{Batch: 1000})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const n = 20_000
	m := storetest.NewMake(b, s, n)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range n / 100 {
				i := m.Issuance("")
				if err := s.Record(b.Context(), i); err != nil {
					b.Error(err)
				}
				if _, err := s.Revoke(b.Context(), []ca.Serial{i.Certificate.Serial}, ca.Revocation{Time: storetest.Start, Reason: 1}, storetest.Event(ca.EventRevoked, "")); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.ReportAllocs()
	for b.Loop() {
		if r := storetest.Verify(b, s); r.Certificates != n || r.Revocations != n {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/certificate")
}
