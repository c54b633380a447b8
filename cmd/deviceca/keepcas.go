package main

import (
	"context"
	"time"
)

const (
	// lookAtCAs is how often the server looks at its CAs when nothing is due: whether the last certificate of one
	// has expired, or one nears its end.
	lookAtCAs = time.Hour
	// remindOfEnds is how often a warning about a CA is repeated.
	remindOfEnds = 24 * time.Hour
)

// keepCAs activates CAs that are published when their time has come, keeps the home's certificate files current, and
// warns of CAs that near their end, until ctx ends.
func (s *server) keepCAs(ctx context.Context) {
	warned := map[string]time.Time{}
	for ctx.Err() == nil {
		s.warnOfEnds(warned)
		wait, next := lookAtCAs, s.service.NextActivation()
		if !next.IsZero() {
			wait = min(wait, max(time.Until(next), 0)+time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.casMoved:
			continue
		case <-time.After(wait):
		}
		if next.IsZero() || time.Now().Before(next) {
			if err := s.writeCAFiles(); err != nil {
				s.log.Error("the files with the CA certificates in the home are not up to date", "err", err)
			}
			continue
		}
		if err := s.service.Reload(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("a CA should issue from now on, and the CAs could not be read anew; trying again", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Second):
			}
			continue
		}
		s.log.Info("a CA that was published issues from now on", "issuing", s.service.Named("issuing"), "quarantine", s.service.Named("quarantine"))
	}
}

// warnOfEnds logs what nears its end, once a day.
func (s *server) warnOfEnds(warned map[string]time.Time) {
	for _, g := range s.service.Generations() {
		if text := s.service.Warning(g.Name); text != "" && time.Since(warned[g.Name]) > remindOfEnds {
			warned[g.Name] = time.Now()
			s.log.Warn("a CA nears its end", "ca", g.Name, "not_after", g.NotAfter, "what", text)
		}
	}
}
