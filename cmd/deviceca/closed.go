package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/ocsp"
)

// A home that was restored from a backup is closed until `deviceca recover --acknowledge`
// opens it: what was revoked, suspended, removed or spent since the snapshot is as it was
// before. While it is closed
//
//   - no device, registration authority or manufacturer is served: every protocol answers 503 in its terms;
//   - OCSP says revoked of what the snapshot says so, and tryLater of everything else;
//   - no CRL and no pack is published or handed out;
//   - the administrator on the host may do everything, remote ones nothing.
//
// See docs/decisions/0008-restore.md.

// closed is ca.Options.Closed.
func (s *system) closed(ctx context.Context) error {
	closed, _, err := s.store.Closed(ctx)
	if err == nil && closed {
		return ca.Closed()
	}
	return err
}

// closedHealth is what /readyz and status say of a closed home.
func (s *system) closedHealth(ctx context.Context) error {
	closed, snapshot, err := s.store.Closed(ctx)
	if err != nil || !closed {
		return nil // the database's health speaks of the error
	}
	return closedError{snapshot}
}

type closedError struct{ snapshot time.Time }

func (e closedError) Error() string {
	return fmt.Sprintf("closed: restored from a backup, whose ledger ends at %s; run deviceca recover on the host", e.snapshot.UTC().Format(time.RFC3339))
}

// closedSource is the ledger as the OCSP responder reads it. While the home is closed only "revoked" is known for sure.
type closedSource struct {
	ocsp.Source
	system *system
}

// Status is part of ocsp.Source. Unavailable becomes tryLater (RFC 6960 §2.3).
func (s closedSource) Status(ctx context.Context, issuer string, serial ca.Serial) (ocsp.Status, error) {
	st, err := s.Source.Status(ctx, issuer, serial)
	if err != nil || st.Revocation != nil {
		return st, err
	}
	return st, s.system.closed(ctx)
}

// unlessClosed answers 503 in place of next while the home is closed.
func (s *system) unlessClosed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.closed(r.Context()); err != nil {
			e := retryAfter(w, err)
			http.Error(w, e.Reason, http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// acmeUnlessClosed is that in ACME's terms. The directory and nonces say nothing of anyone.
func (s *system) acmeUnlessClosed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := s.closed(r.Context())
		if err == nil || r.URL.Path == acme.Prefix+"/directory" || r.URL.Path == acme.Prefix+"/new-nonce" {
			next.ServeHTTP(w, r)
			return
		}
		e := retryAfter(w, err)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusServiceUnavailable)
		json.NewEncoder(w).Encode(acme.Problem{Type: "urn:ietf:params:acme:error:serverInternal", Detail: e.Reason, Status: http.StatusServiceUnavailable})
	})
}

func retryAfter(w http.ResponseWriter, err error) *ca.Error {
	e := ca.AsError(err)
	w.Header().Set("Retry-After", strconv.Itoa(int(max(e.RetryAfter, time.Second)/time.Second)))
	w.Header().Set("Cache-Control", "no-store")
	return e
}

// remindEvery is how often a server that is closed says so in its log.
const remindEvery = 10 * time.Minute

// remindClosed says in the log why nobody is served.
func (s *server) remindClosed(ctx context.Context) {
	for {
		err := s.closedHealth(ctx)
		if err == nil {
			return
		}
		s.log.Warn("devices are refused, and no status is published", "reason", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(remindEvery):
		}
	}
}

// whenOpen runs what publishes once the home is open.
func (s *system) whenOpen(ctx context.Context, run func(context.Context)) {
	for s.closed(ctx) != nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(followEvery):
		}
	}
	run(ctx)
}
