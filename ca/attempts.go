package ca

import (
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/internal/limit"
)

// attempts limits wrong secrets per reference and per address. It never stands
// in the way of a right secret; it only turns floods of wrong ones into a cheap
// answer. A flood of made-up references empties no bucket of an address.
type attempts struct {
	perReference, perAddress limit.Rate
	references, addresses    *limit.Buckets
}

// maxKeys bounds each table of buckets to about 30 MB.
const maxKeys = 100_000

func newAttempts(perReference, perAddress int) *attempts {
	return &attempts{limit.PerMinute(perReference), limit.PerMinute(perAddress), limit.NewBuckets(maxKeys), limit.NewBuckets(maxKeys)}
}

// wrong notes one wrong secret and says how long to wait if it was one too
// many, else 0.
func (a *attempts) wrong(reference string, from netip.Addr, now time.Time) time.Duration {
	return max(a.references.Take(reference[:min(len(reference), 64)], a.perReference, now),
		a.addresses.Take(Network(from), a.perAddress, now))
}

// limited reports whether one more wrong secret would be one too many. It takes nothing.
func (a *attempts) limited(reference string, from netip.Addr, now time.Time) bool {
	return a.references.Wait(reference[:min(len(reference), 64)], a.perReference, now) > 0 ||
		a.limitedFrom(Network(from), now)
}

// limitedFrom is limited for what is known of the network alone, whatever the reference.
func (a *attempts) limitedFrom(network string, now time.Time) bool {
	return a.addresses.Wait(network, a.perAddress, now) > 0
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
