package ca_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

// total is how many refusals the audit log knows of.
func total(events []store.LoggedEvent) (n int64) {
	for _, e := range events {
		n += max(1, e.Count)
	}
	return n
}

// Thousands of refusals of one requester are a handful of events, and all are counted.
func TestRefusalsAreCounted(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	wrong := a.request(r, newCSR(t, newKey(t), named("lamp-9"))) // names another device
	refuse := func(n int) {
		t.Helper()
		for range n {
			if _, err := a.Enroll(t.Context(), wrong); ca.KindOf(err) != ca.Denied {
				t.Fatal(err)
			}
		}
	}
	expect := func(events int, refusals int64) {
		t.Helper()
		got := a.events(ca.EventRefused)
		if len(got) != events || total(got) != refusals {
			t.Fatalf("%d events for %d refusals, want %d for %d", len(got), total(got), events, refusals)
		}
	}
	refuse(1)
	expect(1, 1) // at once
	refuse(2000)
	expect(1, 1)
	if n := a.Stats().Refused; n != 2001 {
		t.Errorf("the metrics count %d refusals, want 2001", n)
	}
	a.clock.Add(time.Minute)
	a.Work(t.Context())
	expect(2, 2001)
	last := a.events(ca.EventRefused)[1]
	if last.Count != 2000 || last.Actor != r.Actor() || last.Outcome != "denied" || !contains(last.Reason, "2000 more refusals since 2026-07-01T12:00:00Z, the last: ") {
		t.Errorf("the sum: %+v", last)
	}
	// Another kind of refusal, and another requester's, are recorded at once.
	bad := wrong
	bad.Requester, _ = a.grant("lamp-2", "software", 1)
	if _, err := a.Enroll(t.Context(), bad); ca.KindOf(err) != ca.Denied {
		t.Fatal(err)
	}
	expect(3, 2002)

	// The windows get longer while it goes on: two minutes, four, …, an hour.
	refuse(10)
	a.clock.Add(time.Minute)
	a.Work(t.Context())
	expect(3, 2002)
	a.clock.Add(time.Minute)
	refuse(1) // which begins the next window, without Work
	expect(4, 2012)
	a.clock.Add(4 * time.Minute)
	a.Work(t.Context())
	expect(5, 2013)
	for range 10 {
		refuse(1)
		a.clock.Add(time.Hour)
		a.Work(t.Context())
	}
	if n := total(a.events(ca.EventRefused)); n != 2023 {
		t.Errorf("%d refusals are known, want 2023", n)
	}
	// A window without any ends the run: the next is recorded at once.
	a.clock.Add(2 * time.Hour)
	a.Work(t.Context())
	before := len(a.events(ca.EventRefused))
	refuse(1)
	if after := len(a.events(ca.EventRefused)); after != before+1 {
		t.Errorf("%d events after the first refusal of a new run, want %d", after, before+1)
	}
}

// Stopping records what is counted.
func TestRefusalsAtShutdown(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	wrong := a.request(r, newCSR(t, newKey(t), named("lamp-9")))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan bool)
	go func() { a.Run(ctx); close(done) }()
	for range 7 {
		if _, err := a.Enroll(t.Context(), wrong); ca.KindOf(err) != ca.Denied {
			t.Fatal(err)
		}
	}
	stop()
	<-done
	if got := a.events(ca.EventRefused); len(got) != 2 || total(got) != 7 {
		t.Errorf("%d events for %d refusals, want 2 for 7", len(got), total(got))
	}
}

// memory is a ledger of which only events are asked for.
type memory struct {
	ca.Ledger
	events []ca.Event
}

func (m *memory) RecordEvent(_ context.Context, e ca.Event) error {
	m.events = append(m.events, e)
	return nil
}

// Whoever has many names to be refused under pushes counts out of memory, into the log.
func TestRefusalsOfMany(t *testing.T) {
	a := newAuthority(t, nil)
	m := &memory{Ledger: a.store}
	a.opts.Ledger = m
	a.reopen()
	refuse := func(reference string) {
		a.Enroll(t.Context(), ca.Request{Protocol: "est", Requester: ca.Requester{Kind: "credential", Credential: &device.Credential{Reference: reference}}})
	}
	refuse("first")
	refuse("first")
	for i := range 10_000 {
		refuse(fmt.Sprint(i))
	}
	refused := m.events
	if n := len(refused); n != 10_002 {
		t.Fatalf("%d events, want one for each and one for the count that had to go", n)
	}
	found := false
	for _, e := range refused {
		found = found || e.Actor == "credential:first" && e.Count == 1
	}
	if !found {
		t.Error("the count that had to go is lost")
	}
}

// An address whose requests are refused often is known, an IPv6 one by its network; others are not.
func TestOftenRefused(t *testing.T) {
	a := budgeted(t, ca.Budgets{RefusalsPerAddress: 3})
	r, _ := a.grant("lamp-1", "software", 1)
	wrong := a.request(r, newCSR(t, newKey(t), named("lamp-9")))
	wrong.Address = "[2001:db8::1]:4711"
	noisy, neighbour, other := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::1")
	for i := range 4 {
		if got := a.OftenRefused(noisy); got != (i >= 3) {
			t.Errorf("after %d refusals: %v", i, got)
		}
		if _, err := a.Enroll(t.Context(), wrong); ca.KindOf(err) != ca.Denied {
			t.Fatal(err)
		}
	}
	if !a.OftenRefused(neighbour) || a.OftenRefused(other) {
		t.Errorf("the same network %v, another %v", a.OftenRefused(neighbour), a.OftenRefused(other))
	}
	a.clock.Add(20 * time.Second)
	if a.OftenRefused(noisy) {
		t.Error("it is held against the address for longer than a third of a minute")
	}
	for range 1000 {
		a.WrongSecret("nobody", other)
	}
	if !a.OftenRefused(other) {
		t.Error("wrong secrets do not count")
	}
	for range 1000 {
		a.WrongSecret("", other) // as HTTP Basic without a user name
	}
	if a.OftenRefused(netip.MustParseAddr("192.0.2.7")) {
		t.Error("wrong secrets without a reference are held against all addresses")
	}
}
