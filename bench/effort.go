package main

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"
	"syscall"
	"time"
)

// effort is what some work in this process took.
type effort struct {
	n         int
	wall, cpu time.Duration
}

func (e effort) plus(o effort) effort { return effort{e.n + o.n, e.wall + o.wall, e.cpu + o.cpu} }

func (e effort) rates() (perSecond, perCPUSecond float64) {
	return float64(e.n) / e.wall.Seconds(), float64(e.n) / e.cpu.Seconds()
}

// spend shares n calls among the workers, a goroutine each. Nothing else may run in this process.
func spend(n int, workers []func() error) (effort, error) {
	errs := make([]error, len(workers))
	before, began := processorTime(), time.Now()
	var wg sync.WaitGroup
	for i, work := range workers {
		wg.Go(func() {
			for range (n + len(workers) - 1 - i) / len(workers) {
				if errs[i] = work(); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return effort{n, time.Since(began), processorTime() - before}, errors.Join(errs...)
}

// processorTime is what this process has used, user and system.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // RUSAGE_SELF cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// verifyRate is how many P-256 signatures Go verifies per CPU-second: the yardstick
// by which runs on different machines, and on one machine at different times, compare.
func verifyRate(limit time.Duration) (float64, error) {
	key, err := newKey()
	if err != nil {
		return 0, err
	}
	digest := sha256.Sum256([]byte("bench"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		return 0, err
	}
	var all effort
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		e, err := spend(turn, []func() error{func() error {
			if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
				return errors.New("a good signature does not verify")
			}
			return nil
		}})
		if err != nil {
			return 0, err
		}
		all = all.plus(e)
	}
	_, rate := all.rates()
	return rate, nil
}

// median of values; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
