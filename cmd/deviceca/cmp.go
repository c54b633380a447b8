package main

import (
	"context"
	"time"

	cmpserver "github.com/deviceca/deviceca/cmp/server"
)

// newCMP makes the CMP responder, which both listeners serve.
func (s *server) newCMP(ctx context.Context) (*cmpserver.Server, error) {
	return cmpserver.New(ctx, cmpserver.Options{Authority: s.service, Ledger: s.store, Logger: s.log,
		BodyTimeout: time.Duration(s.cfg.Limits.ReadTimeout), Observe: s.metrics.observe("cmp")})
}
