package acme_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/internal/dnstest"
)

// names are DNS names of a gateway.
func names(n int, id string) (ids []acme.Identifier) {
	for i := range n {
		ids = append(ids, dns(fmt.Sprintf("%s.n%d.internal", id, i)))
	}
	return ids
}

// say says of each challenge of an order that it is met.
func (a *account) say(o orderDoc, kind string) {
	a.t.Helper()
	for _, url := range o.Authorizations {
		a.post(a.authorization(url).challenge(kind).URL, map[string]any{}).want(200)
	}
}

// A tarpit takes its own account's share of the validators and no more: another account is validated meanwhile.
func TestTarpit(t *testing.T) {
	released := make(chan struct{})
	var inside, most atomic.Int64
	v := &validator{say: func(ctx context.Context, r acme.ValidationRequest) error {
		if strings.HasPrefix(r.Identifier.Value, "gw-1.") {
			for now := inside.Add(1); now > most.Load(); {
				most.Store(now)
			}
			defer inside.Add(-1)
			select {
			case <-released:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}}
	e := newEnv(t, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v} })
	e.run()
	defer sync.OnceFunc(func() { close(released) })()
	greedy, honest := e.device("gw-1"), e.device("gw-2")
	slow := greedy.ordered(names(32, "gw-1")...)
	greedy.say(slow, "http-01")
	eventually(t, "the tarpit", func() bool { return inside.Load() > 0 })
	o := honest.ordered(names(4, "gw-2")...)
	start := time.Now()
	honest.meet(o, "http-01")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("beside a tarpit, the honest account was validated in %s", took)
	}
	if got := honest.fetchOrder(o.url).Status; got != "ready" {
		t.Errorf("the honest order is %s", got)
	}
	if most.Load() > 4 {
		t.Errorf("one account had %d validations at once, want 4 at most", most.Load())
	}
	if got := greedy.fetchOrder(slow.url).Status; got != "pending" {
		t.Errorf("the tarpit's order is %s", got)
	}
}

// An account whose queue is full is refused by itself, and its challenge stays as it was.
func TestFullQueue(t *testing.T) {
	v := &validator{say: func(ctx context.Context, r acme.ValidationRequest) error {
		if strings.HasPrefix(r.Identifier.Value, "gw-1.") {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	e := newEnv(t, func(o *acme.Options) { o.Validators = map[string]acme.Validator{"http-01": v} })
	e.run()
	greedy, honest := e.device("gw-1"), e.device("gw-2")
	for range 8 {
		greedy.say(greedy.ordered(names(32, "gw-1")...), "http-01")
	}
	o := greedy.ordered(names(1, "gw-1")...)
	c := greedy.authorization(o.Authorizations[0]).challenge("http-01")
	if r := greedy.post(c.URL, map[string]any{}); r.problem(429, "rateLimited").Detail == "" || r.header.Get("Retry-After") != "15" {
		t.Errorf("headers %v", r.header)
	}
	if got := greedy.authorization(o.Authorizations[0]); got.challenge("http-01").Status != "pending" {
		t.Errorf("refused, and the challenge is %+v", got)
	}
	honest.meet(honest.ordered(names(1, "gw-2")...), "http-01")
}

// However many accounts point at one address, it gets a bounded number of connections at once, and each its turn.
func TestConnectionsToOneAddress(t *testing.T) {
	var inside, most, served atomic.Int64
	full := make(chan struct{})
	opened := sync.OnceFunc(func() { close(full) })
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := inside.Add(1)
		defer inside.Add(-1)
		for {
			if was := most.Load(); now <= was || most.CompareAndSwap(was, now) {
				break
			}
		}
		if now >= 8 {
			opened()
		}
		<-full // the first eight are there together
		served.Add(1)
		fmt.Fprint(w, validationKey)
	}))
	defer web.Close()
	resolver := dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body { return dnstest.Records(q, dnstest.A("127.0.0.1")) })
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: portOf(t, web.Listener.Addr()), Resolver: resolver.Address, AllowNetworks: networks("127.0.0.0/8")})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			if err := v.Validate(t.Context(), httpRequest("dns", fmt.Sprintf("n%d.example", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if served.Load() != 32 || most.Load() != 8 {
		t.Errorf("%d served, %d at once; want 32, and 8 at once", served.Load(), most.Load())
	}
}

// A target that drips its answer octet by octet costs no more than one that says nothing.
func TestDrip(t *testing.T) {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"))
				for {
					if _, err := c.Write([]byte("x")); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		}
	}()
	resolver := dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body { return dnstest.Records(q, dnstest.A("127.0.0.1")) })
	v := newValidator(t, "http-01", acme.ValidatorOptions{HTTPPort: portOf(t, l.Addr()), Resolver: resolver.Address, AllowNetworks: networks("127.0.0.0/8"), Timeout: 300 * time.Millisecond})
	start := time.Now()
	wantFault(t, v.Validate(t.Context(), httpRequest("dns", "a.example")), "connection", "300ms")
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
}
