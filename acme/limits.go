package acme

import (
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// Limits bound what clients may ask for in a minute; zero fields have the defaults named.
type Limits struct {
	AccountsPerAddress int // new accounts; 60
	OrdersPerAccount   int // new orders; 60
	OrdersPerDevice    int // new orders, of all accounts of the device; 60
	OrdersPerAddress   int // new orders, of all accounts there; 6000
	FailuresPerAccount int // challenges that fail; 30
}

// limiter counts in windows of a minute. It is each server's own: two servers let twice as much through.
type limiter struct {
	Limits
	mu     sync.Mutex
	window time.Time
	count  map[string]int
}

const (
	limitWindow = time.Minute
	// maxLimitKeys bounds the memory of one window (about 10 MB). When it is full, what is not yet
	// counted has to wait until the window ends.
	maxLimitKeys = 100_000
)

func newLimiter(l Limits) *limiter {
	for _, f := range []struct {
		value *int
		def   int
	}{{&l.AccountsPerAddress, 60}, {&l.OrdersPerAccount, 60}, {&l.OrdersPerDevice, 60}, {&l.OrdersPerAddress, 6000}, {&l.FailuresPerAccount, 30}} {
		if *f.value <= 0 {
			*f.value = f.def
		}
	}
	return &limiter{Limits: l, count: map[string]int{}}
}

// counted is one key with its limit, as in "orders of account 7".
type counted struct {
	key, what string
	limit     int
}

// take counts one of each, and refuses if that is one too many of any; what is refused counts too.
func (l *limiter) take(now time.Time, of ...counted) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn(now)
	var over *counted
	for i, c := range of {
		if _, known := l.count[c.key]; !known && len(l.count) >= maxLimitKeys {
			over = &of[i]
			continue
		}
		if l.count[c.key]++; l.count[c.key] > c.limit {
			over = &of[i]
		}
	}
	if over == nil {
		return nil
	}
	return l.refusal(*over, now)
}

// full refuses if the limit is reached, and counts nothing.
func (l *limiter) full(now time.Time, c counted) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turn(now); l.count[c.key] < c.limit {
		return nil
	}
	return l.refusal(c, now)
}

func (l *limiter) turn(now time.Time) {
	if now.Sub(l.window).Abs() >= limitWindow {
		l.window = now
		clear(l.count)
	}
}

func (l *limiter) refusal(c counted, now time.Time) error {
	p := problem("rateLimited", "more than %d %s in a minute: wait, and come back less often", c.limit, c.what)
	p.retryAfter = l.window.Add(limitWindow).Sub(now)
	return p
}

func (l *limiter) newAccount(from netip.Addr, now time.Time) error {
	return l.take(now, counted{"a:" + ca.Network(from), "new accounts from one address", l.AccountsPerAddress})
}

func (l *limiter) newOrder(account int64, deviceID string, from netip.Addr, now time.Time) error {
	return l.take(now,
		counted{"o:" + strconv.FormatInt(account, 10), "orders of one account", l.OrdersPerAccount},
		counted{"d:" + device.Fold(deviceID), "orders of one device", l.OrdersPerDevice},
		counted{"n:" + ca.Network(from), "orders from one address", l.OrdersPerAddress})
}

func (l *limiter) failures(account int64) counted {
	return counted{"f:" + strconv.FormatInt(account, 10), "failed challenges of one account", l.FailuresPerAccount}
}

// mayTry refuses an account whose challenges have failed too often.
func (l *limiter) mayTry(account int64, now time.Time) error { return l.full(now, l.failures(account)) }

// failed counts a challenge that failed.
func (l *limiter) failed(account int64, now time.Time) { _ = l.take(now, l.failures(account)) }
