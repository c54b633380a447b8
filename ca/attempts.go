package ca

import (
	"net/netip"
	"sync"
	"time"
)

// attempts counts wrong secrets per reference and per address in windows of a
// minute. It never stands in the way of a right secret; it only turns floods of
// wrong ones into a cheap answer.
type attempts struct {
	perReference, perAddress int

	mu     sync.Mutex
	window time.Time
	count  map[string]int
}

// maxAttemptKeys bounds the memory of one window (about 10 MB). When it is
// full, every wrong secret is one too many until the window ends.
const maxAttemptKeys = 100_000

const attemptWindow = time.Minute

func newAttempts(perReference, perAddress int) *attempts {
	return &attempts{perReference: perReference, perAddress: perAddress, count: map[string]int{}}
}

// wrong notes one wrong secret and says how long to wait if it was one too
// many, else 0.
func (a *attempts) wrong(reference string, from netip.Addr, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now.Sub(a.window) >= attemptWindow {
		a.window = now
		clear(a.count)
	}
	over := a.add("r:"+reference[:min(len(reference), 64)], a.perReference)
	if a.add("a:"+Network(from), a.perAddress) || over {
		return a.window.Add(attemptWindow).Sub(now)
	}
	return 0
}

// limited reports whether one more wrong secret would be one too many. It counts nothing.
func (a *attempts) limited(reference string, from netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Sub(a.window) < attemptWindow &&
		(a.count["r:"+reference[:min(len(reference), 64)]] >= a.perReference || a.count["a:"+Network(from)] >= a.perAddress)
}

func (a *attempts) add(key string, limit int) (over bool) {
	if _, known := a.count[key]; !known && len(a.count) >= maxAttemptKeys {
		return true
	}
	a.count[key]++
	return a.count[key] > limit
}

// Network is what one host can pick its address from: itself, or its IPv6 /64.
func Network(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}
