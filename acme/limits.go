package acme

import (
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/limit"
)

// Limits bound what clients may cause. All but OpenOrders are token buckets: so many at once, and as many again
// spread evenly over each minute. Zero fields have the defaults named.
type Limits struct {
	AccountsPerAddress    int // new accounts; 60
	OrdersPerAccount      int // new orders; 60
	OrdersPerDevice       int // new orders, of all accounts of the device; 60
	OrdersPerAddress      int // new orders, of all accounts there; 6000
	FailuresPerAccount    int // challenges that fail; 30
	NoncesPerAddress      int // nonces given to those who have shown no account; 6000
	RenewalInfoPerAddress int // questions about renewal; 6000
	// OpenOrders is how many orders without a certificate an account may have. A new one takes the place of the oldest. 300
	OpenOrders int
}

// requestsPerOrder is how many messages of an account may come with each order that it may make: an order
// with every identifier that it can have, each looked at thrice.
const requestsPerOrder = 100

// bucketKeys is how many keys of each kind are remembered, about 6 MB. Of more, those that were not
// seen for longest begin anew.
const bucketKeys = 1 << 15

// limiter holds the buckets of one server: two servers let twice as much through.
type limiter struct {
	Limits
	accounts, orders, deviceOrders, addressOrders, failures, nonces, renewals, requests *budget
}

// budget is the buckets of one kind, in a table of their own: who can make up many keys of one kind
// changes nothing for other kinds.
type budget struct {
	what    string // "orders of one account"
	perMin  int
	rate    limit.Rate
	buckets *limit.Buckets
}

func newLimiter(l Limits) *limiter {
	made := &limiter{}
	for _, f := range []struct {
		to    **budget
		value *int
		def   int
		what  string
	}{
		{&made.accounts, &l.AccountsPerAddress, 60, "new accounts from one address"},
		{&made.orders, &l.OrdersPerAccount, 60, "orders of one account"},
		{&made.deviceOrders, &l.OrdersPerDevice, 60, "orders of one device"},
		{&made.addressOrders, &l.OrdersPerAddress, 6000, "orders from one address"},
		{&made.failures, &l.FailuresPerAccount, 30, "failed challenges of one account"},
		{&made.nonces, &l.NoncesPerAddress, 6000, "nonces for one address"},
		{&made.renewals, &l.RenewalInfoPerAddress, 6000, "questions about renewal from one address"},
	} {
		if *f.value <= 0 {
			*f.value = f.def
		}
		*f.to = newBudget(f.what, *f.value)
	}
	if l.OpenOrders <= 0 {
		l.OpenOrders = 300
	}
	made.requests = newBudget("requests of one account", l.OrdersPerAccount*requestsPerOrder)
	made.Limits = l
	return made
}

func newBudget(what string, perMinute int) *budget {
	return &budget{what, perMinute, limit.PerMinute(perMinute), limit.NewBuckets(bucketKeys)}
}

// take takes one from the bucket of key, or refuses.
func (b *budget) take(key string, now time.Time) error {
	return b.refusal(b.buckets.Take(key, b.rate, now))
}

// left refuses if the bucket of key is empty, and takes nothing.
func (b *budget) left(key string, now time.Time) error {
	return b.refusal(b.buckets.Wait(key, b.rate, now))
}

func (b *budget) refusal(wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	p := problem("rateLimited", "more than %d %s in a minute: wait, and come back less often", b.perMin, b.what)
	p.retryAfter = wait
	return p
}

func (l *limiter) newAccount(from netip.Addr, now time.Time) error {
	return l.accounts.take(ca.Network(from), now)
}

func (l *limiter) newOrder(account int64, deviceID string, from netip.Addr, now time.Time) error {
	for _, of := range []struct {
		*budget
		key string
	}{{l.orders, ca.AccountActor(account)}, {l.deviceOrders, device.Fold(deviceID)}, {l.addressOrders, ca.Network(from)}} {
		if err := of.take(of.key, now); err != nil {
			return err
		}
	}
	return nil
}

// request counts a message that an account has signed.
func (l *limiter) request(account int64, now time.Time) error {
	return l.requests.take(ca.AccountActor(account), now)
}

// nonce counts a nonce for somebody who has shown no account.
func (l *limiter) nonce(from netip.Addr, now time.Time) error {
	return l.nonces.take(ca.Network(from), now)
}

func (l *limiter) renewalInfo(from netip.Addr, now time.Time) error {
	return l.renewals.take(ca.Network(from), now)
}

// mayTry refuses an account whose challenges have failed too often.
func (l *limiter) mayTry(account int64, now time.Time) error {
	return l.failures.left(ca.AccountActor(account), now)
}

// failed counts a challenge that failed.
func (l *limiter) failed(account int64, now time.Time) {
	_ = l.failures.take(ca.AccountActor(account), now)
}
