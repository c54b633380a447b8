package ca_test

import (
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// BenchmarkStrangers is what a certificate costs that is nobody's, or the last
// manufacturer's, when many are registered.
func BenchmarkStrangers(b *testing.B) {
	for _, n := range []int{1, 100} {
		a := newAuthority(b, nil)
		var last *maker
		for i := range n {
			last = newMaker(b, fmt.Sprintf("Maker %d", i))
			a.addMaker(last, fmt.Sprintf("maker-%d", i), "software", ca.Constraints{})
		}
		for name, chain := range map[string][]*x509.Certificate{"stranger": newMaker(b, "Other").device("A1", nil), "idevid": last.device("A1", nil)} {
			b.Run(fmt.Sprintf("%s/manufacturers=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := a.AuthenticateCertificate(b.Context(), chain); (err == nil) != (name == "idevid") {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
