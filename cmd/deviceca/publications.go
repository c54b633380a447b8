package main

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/deviceca/deviceca/ca"
)

// publications is the revocation service of the CAs as they are now. When one
// is added or revoked, another service takes the place of the one before: files
// that it published go on being served, and the new one begins where it ended.
type publications struct {
	system  *system
	current atomic.Pointer[revocation]
	renewed chan struct{} // has room for one
}

func newPublications(ctx context.Context, s *system) (*publications, error) {
	p := &publications{system: s, renewed: make(chan struct{}, 1)}
	r, err := newRevocation(ctx, s)
	p.current.Store(r)
	return p, err
}

// casChanged is ca.Options.Reloaded.
func (p *publications) casChanged([]ca.IssuerRecord) {
	r, err := newRevocation(context.Background(), p.system)
	if err != nil {
		p.system.log.Error("the status of the new CA's certificates is not published; restart the server", "err", err)
		return
	}
	p.current.Store(r)
	select {
	case p.renewed <- struct{}{}:
	default:
	}
}

// run publishes until ctx ends. One service at a time: two would write the same files.
func (p *publications) run(ctx context.Context) {
	for ctx.Err() == nil {
		turn, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		for _, task := range p.current.Load().run() {
			running.Go(func() { task(turn) })
		}
		select {
		case <-ctx.Done():
		case <-p.renewed:
		}
		stop()
		running.Wait()
	}
}

func (p *publications) handler(path string) http.Handler { return p.current.Load().handler(path) }

func (p *publications) changed(ctx context.Context, issuer string, serials []ca.Serial) {
	p.current.Load().changed(ctx, issuer, serials)
}

func (p *publications) publish(ctx context.Context, name string) ([]string, error) {
	return p.current.Load().publish(ctx, name)
}
