package server

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// oneAtATime is what newDerivations gives on two CPUs.
func oneAtATime() derivations {
	return derivations{
		all:      limit.NewGate(limit.GateOptions{Inside: 1, InsidePerKey: 1, Queue: 256, QueuePerKey: 64}),
		suspects: limit.NewGate(limit.GateOptions{Inside: 1, InsidePerKey: 1, Queue: 64, QueuePerKey: 8}),
	}
}

// Those who sent wrong secrets have one turn together, and turns among themselves: an honest requester
// waits for one of them, whether it comes from a network of its own or its reference is being guessed.
func TestSuspectsShareOneTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := oneAtATime()
		var order []string
		work := func(network string, suspect bool) {
			go func() {
				leave, err := d.enter(t.Context(), network, suspect)
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, network)
				time.Sleep(time.Millisecond)
				leave()
			}()
			synctest.Wait()
		}
		for range 5 {
			work("guesser 1", true)
			work("guesser 2", true)
		}
		work("victim", true)
		work("honest", false)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(order) != 12 {
			t.Fatalf("%v", order)
		}
		if i := slices.Index(order, "honest"); i != 1 {
			t.Errorf("honest at place %d of %v, want after one suspect", i, order)
		}
		if i := slices.Index(order, "victim"); i > 4 {
			t.Errorf("victim at place %d of %v, want after one turn of each guesser", i, order)
		}
	})
}

func TestDerivationsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := oneAtATime()
		leave, err := d.enter(t.Context(), "slow", true)
		if err != nil {
			t.Fatal(err)
		}
		results := make(chan error, 9)
		for range 9 {
			go func() {
				leave, err := d.enter(t.Context(), "guesser", true)
				if err == nil {
					leave()
				}
				results <- err
			}()
			synctest.Wait()
		}
		busy := func(err error) {
			t.Helper()
			if ca.KindOf(err) != ca.Unavailable || !errors.Is(err, limit.ErrBusy) {
				t.Errorf("%v, want Unavailable", err)
			}
		}
		busy(<-results) // the ninth that would wait
		time.Sleep(derivationWait)
		for range 8 {
			busy(<-results)
		}
		leave()
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if leave, err := d.enter(gone, "guesser", true); err == nil {
			leave()
		}
		again, err := d.enter(t.Context(), "guesser", true)
		if err != nil {
			t.Fatalf("a place was lost: %v", err)
		}
		again()
	})
}
