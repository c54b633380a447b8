package main

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// turns keeps who is refused over and over (a device that loops, a program that tries secrets)
// from taking the CPU of all others: requests from such a network address are served one at a time with a rest
// after each, and of a few such addresses at once. They are served, not refused: the next may be good, and one
// address may be many devices.
type turns struct {
	often  func(netip.Addr) bool // Service.OftenRefused
	exempt []netip.Prefix        // reverse proxies
	gate   *limit.Gate
}

const (
	turnWait = 10 * time.Second      // how long a request waits for its turn
	turnRest = 20 * time.Millisecond // after a request: at most 50 a second from one address
)

func newTurns(often func(netip.Addr) bool, exempt []netip.Prefix) *turns {
	return &turns{often, exempt, limit.NewGate(limit.GateOptions{Inside: 4, InsidePerKey: 1, Queue: 1024, QueuePerKey: 64})}
}

// serve passes a request on, at once or in its turn. A request that would wait too long
// gets 503 with Retry-After, on every protocol.
func (t *turns) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	from := peer.Addr().Unmap()
	if err != nil || slices.ContainsFunc(t.exempt, func(p netip.Prefix) bool { return p.Contains(from) }) || !t.often(from) {
		next.ServeHTTP(w, r)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), turnWait)
	leave, err := t.gate.Enter(ctx, ca.Network(from))
	cancel()
	if err != nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, "too many requests from this address were refused, and too many of its requests wait: ask less often", http.StatusServiceUnavailable)
		return
	}
	defer func() { time.AfterFunc(turnRest, leave) }()
	next.ServeHTTP(w, r)
}
