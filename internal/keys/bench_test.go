//go:build cgo

package keys_test

import (
	"crypto"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// BenchmarkSign compares P-256 signatures through the pool with bare miekg/pkcs11
// on one session for each goroutine, handles looked up before. The rate of the
// machine drifts more than they differ: /ratio alternates them in short turns and
// reports the median of pool/raw (1 is no cost).
func BenchmarkSign(b *testing.B) {
	uri, _ := keystest.SoftHSM(b)
	p := open(b, uri, keys.Options{})
	k, err := p.Generate(b.Context(), "k", "")
	if err != nil {
		b.Fatal(err)
	}
	for _, goroutines := range []int{1, 2} {
		raw := rawSigners(b, goroutines)
		pool := make([]func() error, goroutines)
		for i := range pool {
			pool[i] = func() error { _, err := k.Sign(nil, digest[:], crypto.SHA256); return err }
		}
		b.Run(fmt.Sprintf("raw/%d", goroutines), func(b *testing.B) { share(b, b.N, raw) })
		b.Run(fmt.Sprintf("pool/%d", goroutines), func(b *testing.B) { share(b, b.N, pool) })
		b.Run(fmt.Sprintf("ratio/%d", goroutines), func(b *testing.B) {
			const turn = 100 // some 10 ms: shorter than what disturbs the machine
			var ratios []float64
			for b.Loop() {
				// Pool in the middle, so that a drift hits both alike.
				before := share(b, turn, raw)
				p := share(b, 2*turn, pool)
				after := share(b, turn, raw)
				ratios = append(ratios, (before+after).Seconds()/p.Seconds())
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "pool/raw")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// share spreads n calls over the signers, a goroutine each.
func share(b *testing.B, n int, signers []func() error) time.Duration {
	b.Helper()
	began := time.Now()
	var wg sync.WaitGroup
	for i, sign := range signers {
		calls := n / len(signers)
		if i < n%len(signers) {
			calls++
		}
		wg.Go(func() {
			for range calls {
				if err := sign(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func rawSigners(b *testing.B, n int) []func() error {
	b.Helper()
	signers := make([]func() error, n)
	for i := range signers {
		ctx, s := rawSession(b)
		if err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY)}); err != nil {
			b.Fatal(err)
		}
		found, _, err := ctx.FindObjects(s, 2)
		if err != nil || len(found) != 1 {
			b.Fatalf("%d keys, %v", len(found), err)
		}
		if err := ctx.FindObjectsFinal(s); err != nil {
			b.Fatal(err)
		}
		signers[i] = func() error {
			if err := ctx.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, found[0]); err != nil {
				return err
			}
			_, err := ctx.Sign(s, digest[:])
			return err
		}
	}
	return signers
}
