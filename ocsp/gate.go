package ocsp

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// errBusy says that a budget is used up.
var errBusy = errors.New("over budget")

// gate bounds work three ways: how much at once, how much per second, and how
// many may wait for it and how long.
type gate struct {
	slots    chan struct{}
	rate     *rate.Limiter // nil: no bound
	waiting  atomic.Int64
	queue    int64
	patience time.Duration
}

func newGate(atOnce, queue int, perSecond float64, patience time.Duration) *gate {
	g := &gate{slots: make(chan struct{}, atOnce), queue: int64(queue), patience: patience}
	if perSecond > 0 {
		g.rate = rate.NewLimiter(rate.Limit(perSecond), max(int(perSecond/10), atOnce))
	}
	return g
}

// enter waits for a slot; leave gives it back. The error is errBusy or ctx's.
func (g *gate) enter(ctx context.Context, now time.Time) error {
	if g.rate != nil && !g.rate.AllowN(now, 1) {
		return errBusy
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	if g.waiting.Add(1) > g.queue {
		g.waiting.Add(-1)
		return errBusy
	}
	defer g.waiting.Add(-1)
	timer := time.NewTimer(g.patience)
	defer timer.Stop()
	select {
	case g.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) leave() { <-g.slots }
