package server

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/internal/limit"
)

// Deriving a key from a shared secret is work that any stranger can ask for, and it
// comes before we know whether the secret is right. derivations bounds how much of
// it is done at once; requesters that wait take turns by network address.
//
// A requester whose network, or whose reference, has lately sent too many wrong secrets
// is not refused: the next secret may be right. Its work goes through a second gate, one
// at a time, and all that come through it share one turn of the first. So strangers who guess slow each
// other down, and a requester from another network waits for one derivation of theirs at most.
type derivations struct{ all, suspects *limit.Gate }

// cheapWork needs no gate: it takes less than the verification of a
// signature. The PBM of OpenSSL and most other clients is below.
const cheapWork = 2000

// derivationWait is how long a requester waits for its turn before systemUnavail.
const derivationWait = 10 * time.Second

func newDerivations() derivations {
	half := max(1, runtime.GOMAXPROCS(0)/2)
	return derivations{
		// A waiting message takes up to MaxBody of memory, twice.
		all:      limit.NewGate(limit.GateOptions{Inside: half, InsidePerKey: (half + 1) / 2, Queue: 256, QueuePerKey: 64}),
		suspects: limit.NewGate(limit.GateOptions{Inside: 1, InsidePerKey: 1, Queue: 64, QueuePerKey: 8}),
	}
}

// suspectKey is no network address.
const suspectKey = "suspects"

// enter waits until the work may begin. Errors are of kind Unavailable.
func (d derivations) enter(ctx context.Context, network string, suspect bool) (leave func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, derivationWait, limit.ErrBusy)
	defer cancel()
	if !suspect {
		leave, err := d.all.Enter(ctx, network)
		return leave, busyDeriving(err)
	}
	one, err := d.suspects.Enter(ctx, network)
	if err != nil {
		return nil, busyDeriving(err)
	}
	shared, err := d.all.Enter(ctx, suspectKey)
	if err != nil {
		one()
		return nil, busyDeriving(err)
	}
	return func() { shared(); one() }, nil
}

func busyDeriving(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, limit.ErrBusy):
		return &ca.Error{Kind: ca.Unavailable, Err: err, RetryAfter: derivationWait,
			Reason: "too many messages wait for their MAC to be checked: send it again later, with fewer iterations"}
	}
	return ca.Away("the client", err)
}

// macPolicy is the server's, with the work bounded for this requester.
func (x *exchange) macPolicy(ctx context.Context) cmp.MACPolicy {
	policy := x.MAC
	policy.Begin = func(work int64) (func(), error) {
		if work <= cheapWork {
			return func() {}, nil
		}
		from := remoteAddr(x.address)
		return x.derivations.enter(ctx, ca.Network(from), x.Authority.SecretsLimited(string(x.in.Reference()), from))
	}
	return policy
}
