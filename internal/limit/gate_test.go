package limit

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func gate(inside, perKey, queue, queuePerKey int) *Gate {
	return NewGate(GateOptions{Inside: inside, InsidePerKey: perKey, Queue: queue, QueuePerKey: queuePerKey})
}

func enter(t *testing.T, g *Gate, key string) func() {
	t.Helper()
	leave, err := g.Enter(t.Context(), key)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	return leave
}

func TestGateTakesTurnsByKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1, 1, 100, 100)
		first := enter(t, g, "greedy")
		var order []string
		wait := func(key string) {
			go func() {
				leave := enter(t, g, key)
				order = append(order, key)
				leave()
			}()
			synctest.Wait()
		}
		for range 5 {
			wait("greedy")
		}
		wait("honest")
		first()
		synctest.Wait()
		if len(order) != 6 || order[1] != "honest" {
			t.Errorf("served %v, want honest after one turn of greedy", order)
		}
	})
}

func TestGateBoundsOneKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(4, 1, 100, 2)
		first := enter(t, g, "greedy")
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 3)
		for range 3 {
			go func() {
				leave, err := g.Enter(ctx, "greedy")
				if err == nil {
					leave()
				}
				errs <- err
			}()
			synctest.Wait()
		}
		if err := <-errs; !errors.Is(err, ErrBusy) {
			t.Errorf("the third of a key that may have two waiting: %v, want ErrBusy", err)
		}
		enter(t, g, "honest")() // others do not wait for it
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up waiting: %v", err)
			}
		}
		first()
		enter(t, g, "greedy")()
		if g.total != 0 || g.waiting != 0 || len(g.working)+len(g.queues)+len(g.turns) != 0 {
			t.Errorf("an empty gate remembers %+v", g)
		}
	})
}

func TestFullGateMakesRoomForAnotherKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate(1, 1, 3, 3)
		first := enter(t, g, "greedy")
		results := make(chan error, 4)
		for range 3 {
			go func() {
				leave, err := g.Enter(t.Context(), "greedy")
				if err == nil {
					leave()
				}
				results <- err
			}()
			synctest.Wait()
		}
		if _, err := g.Enter(t.Context(), "greedy"); !errors.Is(err, ErrBusy) {
			t.Errorf("a fourth of the same key: %v, want ErrBusy", err)
		}
		go func() { enter(t, g, "honest")(); results <- nil }()
		synctest.Wait()
		if err := <-results; !errors.Is(err, ErrBusy) {
			t.Errorf("the newest caller of the longest queue: %v, want ErrBusy", err)
		}
		first()
		for range 3 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
	})
}

// A caller that gives up at the moment of its turn leaves no place taken.
func TestGateLosesNoPlace(t *testing.T) {
	g := gate(2, 2, 1000, 1000)
	done := make(chan bool)
	for i := range 200 {
		go func() {
			ctx, cancel := context.WithCancel(t.Context())
			if i%2 == 0 {
				go cancel()
			}
			if leave, err := g.Enter(ctx, []string{"a", "b", "c"}[i%3]); err == nil {
				leave()
				leave() // once counts
			}
			cancel()
			done <- true
		}()
	}
	for range 200 {
		<-done
	}
	if g.total != 0 || g.waiting != 0 {
		t.Errorf("%d inside and %d waiting after all have gone", g.total, g.waiting)
	}
}
