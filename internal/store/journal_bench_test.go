package store_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// BenchmarkRevoked reads what a complete CRL is made of.
func BenchmarkRevoked(b *testing.B) {
	const n = 20_000
	s := openFile(b, filepath.Join(b.TempDir(), "db"))
	m := storetest.NewMake(b, s, n)
	var serials []ca.Serial
	for i := range n {
		serials = append(serials, storetest.Record(b, s, m.Enrol(fmt.Sprintf("lamp-%d", i), "")).Serial)
		if len(serials) == 1000 {
			if _, err := s.Revoke(b.Context(), serials, ca.Revocation{Time: time.Now(), Reason: 4}, storetest.Event(ca.EventRevoked, "")); err != nil {
				b.Fatal(err)
			}
			serials = serials[:0]
		}
	}
	used := cpuTime()
	b.ReportAllocs()
	read := 0
	for b.Loop() {
		for _, err := range s.Journal().Revoked(b.Context(), storetest.Issuer, crl.Query{To: math.MaxUint64}) {
			if err != nil {
				b.Fatal(err)
			}
			read++
		}
	}
	b.ReportMetric(float64((cpuTime()-used).Nanoseconds())/float64(read), "cpu-ns/entry")
}
