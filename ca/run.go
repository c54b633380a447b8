package ca

import (
	"context"
	"time"
)

// workEvery is how often Run looks for work.
const workEvery = 5 * time.Second

// Run does what no request waits for, until ctx ends: it records refusals that were
// counted, and goes on with the retirement of devices where a crash or an
// impatient client has interrupted it. What fails is tried again at the next turn.
func (s *Service) Run(ctx context.Context) {
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		s.Work(ctx)
		select {
		case <-ctx.Done():
			s.recordRefusals(context.WithoutCancel(ctx), s.refusals.due(s.now(), true))
			return
		case <-tick.C:
		}
	}
}

// Work is one turn of Run.
func (s *Service) Work(ctx context.Context) {
	s.recordRefusals(ctx, s.refusals.due(s.now(), false))
	s.keepPolicy(ctx)
	if err := s.finishRetiring(ctx); err != nil && ctx.Err() == nil {
		s.log.Error("certificates of retired devices are not revoked yet; trying again", "err", err)
	}
}
