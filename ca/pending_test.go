package ca_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// approve makes the profile `device` one that an administrator must approve.
func approve(source string) string {
	return strings.Replace(source, "    renew_at: 0.5 ", "    approval: true\n    renew_at: 0.5 ", 1)
}

// waits expects a request to be told to wait, and returns what the ledger has of it.
func (a *authority) waits(r ca.Request) ca.PendingRequest {
	a.t.Helper()
	_, err := a.Enroll(a.t.Context(), r)
	if e := ca.AsError(err); err == nil || e.Kind != ca.Pending || e.RetryAfter <= 0 {
		a.t.Fatalf("got %v, want pending with a time to wait", err)
	}
	all := a.pendings(ca.PendingFilter{State: ca.PendingWaiting})
	return all[len(all)-1]
}

func (a *authority) pendings(f ca.PendingFilter) []ca.PendingRequest {
	a.t.Helper()
	all, err := a.store.Pendings(a.t.Context(), f, 0, 100)
	if err != nil {
		a.t.Fatal(err)
	}
	return all
}

func (a *authority) rule(id int64, approve bool, reason string) {
	a.t.Helper()
	if _, err := a.DecideRequest(a.t.Context(), id, approve, reason, "admin:alice"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) events(kind ca.EventKind) []store.LoggedEvent {
	a.t.Helper()
	events, err := a.store.EventLog(a.t.Context(), store.EventFilter{Kind: kind}, 0, 100)
	if err != nil {
		a.t.Fatal(err)
	}
	return events
}

// One request through its life: asked, asked again, decided after a restart,
// fetched, and its approval spent.
func TestApproval(t *testing.T) {
	a := newAuthority(t, approve)
	_, g := a.grant("Lamp-1", "software", 2)
	key := newKey(t)
	ask := func() ca.Request { return a.request(a.bySecret(g), newCSR(t, key, named("lamp-1"))) }
	request := ask()
	request.Address = "192.0.2.1"

	p := a.waits(request)
	if p.State != ca.PendingWaiting || p.Device != "Lamp-1" || p.Profile != "device" || p.Actor != "credential:"+g.Reference || p.Address != "192.0.2.1" ||
		p.Credential != g.Reference || len(p.KeySHA256) != 64 || p.Algorithm != "ecdsa-p256" || !slices.Equal(p.Names, []policy.Name{{Form: "subject.cn", Value: "lamp-1"}}) {
		t.Errorf("what is shown: %+v", p)
	}
	if !p.Expires.Equal(g.Expires.UTC().Truncate(time.Microsecond)) {
		t.Errorf("it expires at %s, and its credential at %s", p.Expires, g.Expires)
	}
	a.reopen()
	if again := a.waits(ask()); again.ID != p.ID || len(a.pendings(ca.PendingFilter{})) != 1 {
		t.Errorf("a new CSR by the same key is request %d, want %d", again.ID, p.ID)
	}
	other := ask()
	other.Protocol = "cmp"
	if again := a.waits(other); again.ID != p.ID {
		t.Errorf("on another protocol it is request %d, want %d", again.ID, p.ID)
	}
	if events := a.events(ca.EventRequestPending); len(events) != 1 || events[0].Request != p.ID || events[0].Device != "Lamp-1" {
		t.Errorf("events %+v, want one", events)
	}
	if len(a.events(ca.EventRefused)) != 0 || a.Stats().Refused != 0 {
		t.Error("waiting counts as refusal")
	}
	if c, err := a.store.Credential(t.Context(), g.Reference); err != nil || c.Used != 0 {
		t.Errorf("waiting spent %d uses, %v", c.Used, err)
	}

	a.rule(p.ID, true, "")
	a.reopen()
	issued := a.enroll(ask())
	if issued.Certificate.Profile != "device" || issued.Again {
		t.Errorf("issued %+v", issued.Certificate)
	}
	if done := a.pendings(ca.PendingFilter{State: ca.PendingIssued}); len(done) != 1 || done[0].Serial != issued.Certificate.Serial || done[0].By != "admin:alice" {
		t.Errorf("the request is now %+v", done)
	}
	if events := a.events(ca.EventIssued); events[len(events)-1].Request != p.ID {
		t.Errorf("the issuance does not name the request: %+v", events)
	}

	// The same request within the hour has the same certificate; later it waits anew.
	if again := a.enroll(ask()); !again.Again || again.Certificate.Serial != issued.Certificate.Serial {
		t.Error("the lost reply was not given again")
	}
	a.clock.Add(61 * time.Minute)
	if next := a.waits(ask()); next.ID == p.ID {
		t.Error("one approval served twice")
	}
}

func TestApprovalOutcomes(t *testing.T) {
	tests := []struct {
		name string
		then func(a *authority, id int64) // between the first asking and the second
		kind ca.Kind                      // of the second's refusal
		part string
	}{
		{"nothing happens", func(*authority, int64) {}, ca.Pending, "request 1 waits"},
		{"denied", func(a *authority, id int64) { a.rule(id, false, " not ours ") }, ca.Denied, "request 1: not ours"},
		{"denied, and forgotten", func(a *authority, id int64) { a.rule(id, false, "not ours"); a.clock.Add(8 * 24 * time.Hour) }, ca.Pending, "request 2 waits"},
		{"not decided in time", func(a *authority, id int64) { a.clock.Add(7 * 24 * time.Hour) }, ca.Pending, "request 2 waits"},
		{"approved, and fetched too late", func(a *authority, id int64) { a.rule(id, true, ""); a.clock.Add(7 * 24 * time.Hour) }, ca.Pending, "request 2 waits"},
		{"approved, and policy denies now", func(a *authority, id int64) {
			a.rule(id, true, "")
			a.apply(func(s string) string { return strings.Replace(approve(s), "keys: [ecdsa-p256,", "keys: [", 1) })
		}, ca.BadKey, "ecdsa-p256"},
		{"approved, and the device is suspended", func(a *authority, id int64) {
			a.rule(id, true, "")
			if _, err := a.MoveDevice(a.t.Context(), "lamp-1", device.Suspended, 0, "admin:test"); err != nil {
				a.t.Fatal(err)
			}
		}, ca.Denied, "suspended"},
		{"approved for another profile", func(a *authority, id int64) {
			a.rule(id, true, "")
			a.apply(func(s string) string {
				return strings.ReplaceAll(approve(s), "profiles: [device, gateway, lamp]", "profiles: [lamp, device]")
			})
		}, ca.Pending, "request 2 waits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := newAuthority(t, approve)
			g, err := a.AddDevice(t.Context(), device.Device{ID: "lamp-1", Level: "software"}, 1, 30*24*time.Hour, "admin:test")
			if err != nil {
				t.Fatal(err)
			}
			csr := newCSR(t, newKey(t), named("lamp-1"))
			p := a.waits(a.request(a.bySecret(g), csr))
			if life := p.Expires.Sub(p.Created); life != 7*24*time.Hour {
				t.Errorf("it waits for %s", life)
			}
			tt.then(a, p.ID)
			a.refused(a.request(a.bySecret(g), csr), tt.kind, tt.part)
			if len(a.events(ca.EventIssued)) != 0 {
				t.Error("something was issued")
			}
		})
	}
	t.Run("policy asks no more", func(t *testing.T) {
		a := newAuthority(t, approve)
		r, _ := a.grant("lamp-1", "software", 1)
		request := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
		a.waits(request)
		a.apply(nil)
		a.enroll(request)
	})
}

// apply puts an edited default policy in force.
func (a *authority) apply(edit func(string) string) {
	a.t.Helper()
	if err := a.Apply(a.t.Context(), parsePolicy(a.t, edit), "admin:test"); err != nil {
		a.t.Fatal(err)
	}
}

// What an approval is for: the one key, names, device, profile and requester.
func TestApprovalIsForOneRequest(t *testing.T) {
	a := newAuthority(t, approve)
	r, g := a.grant("lamp-1", "software", 9)
	key := newKey(t)
	p := a.waits(a.request(r, newCSR(t, key, named("lamp-1"))))
	a.rule(p.ID, true, "")

	withName := named("lamp-1")
	withName.DNSNames = []string{"lamp-1"}
	second, err := a.AddCredential(t.Context(), device.Credential{Device: "lamp-1"}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	for name, request := range map[string]ca.Request{
		"another key":        a.request(a.bySecret(g), newCSR(t, newKey(t), named("lamp-1"))),
		"another name":       a.request(a.bySecret(g), newCSR(t, key, withName)),
		"another credential": a.request(a.bySecret(second), newCSR(t, key, named("lamp-1"))),
	} {
		if got := a.waits(request); got.ID == p.ID {
			t.Errorf("%s: used the approval", name)
		}
	}
	a.enroll(a.request(a.bySecret(g), newCSR(t, key, named("lamp-1"))))
}

// A renewal is approved too. Its lost reply is given again, and an hour later the request waits anew.
func TestApprovalOfRenewal(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	key := newKey(t)
	csr := newCSR(t, key, named("lamp-1"))
	first := a.enroll(a.request(r, csr))
	a.apply(approve)
	renew := func() ca.Request {
		request := a.request(a.byCertificate(first.Certificate.DER), csr)
		request.Renew = true
		return request
	}
	p := a.waits(renew())
	if p.Operation != "renew" || p.Actor != "device:lamp-1" || p.Expires.Sub(p.Created) != 7*24*time.Hour {
		t.Errorf("got %+v", p)
	}
	a.rule(p.ID, true, "")
	renewed := a.enroll(renew())
	if again := a.enroll(renew()); again.Certificate.Serial != renewed.Certificate.Serial {
		t.Error("the repeated request used the same approval for a second certificate")
	}
	a.clock.Add(time.Hour)
	if again := a.waits(renew()); again.ID == p.ID {
		t.Error("the replayed request used the same approval")
	}
}

// Many connections with one approved request: one certificate.
func TestApprovalRace(t *testing.T) {
	for _, by := range []string{"credential", "certificate"} {
		t.Run(by, func(t *testing.T) {
			a := newAuthority(t, nil)
			r, _ := a.grant("lamp-1", "software", 9)
			csr := newCSR(t, newKey(t), named("lamp-1"))
			request := a.request(r, csr)
			if by == "certificate" {
				request.Requester = a.byCertificate(a.enroll(request).Certificate.DER)
			}
			a.apply(approve)
			a.rule(a.waits(request).ID, true, "")
			before := len(a.events(ca.EventIssued))
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					if _, err := a.Enroll(context.Background(), request); err != nil && ca.KindOf(err) != ca.Pending {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := len(a.events(ca.EventIssued)) - before; n != 1 {
				t.Errorf("one approval gave %d certificates", n)
			}
		})
	}
}

// Two administrators, sixteen times: the first decision stands, and the others are told.
func TestDecisionRace(t *testing.T) {
	a := newAuthority(t, approve)
	r, _ := a.grant("lamp-1", "software", 1)
	p := a.waits(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := a.DecideRequest(context.Background(), p.ID, i%2 == 0, "no", fmt.Sprintf("admin:%d", i))
			switch e := ca.AsError(err); {
			case err == nil:
				won.Add(1)
			case e.Kind != ca.Conflict || !contains(e.Reason, "by admin:"):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(a.events(ca.EventRequestApproved)) + len(a.events(ca.EventRequestDenied)); won.Load() != 1 || n != 1 {
		t.Errorf("%d decisions stand, %d are on the log", won.Load(), n)
	}
}

func TestDecideRequest(t *testing.T) {
	a := newAuthority(t, approve)
	r, _ := a.grant("lamp-1", "software", 1)
	p := a.waits(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	for _, tt := range []struct {
		name    string
		id      int64
		approve bool
		reason  string
		kind    ca.Kind
		part    string
	}{
		{"unknown", 99, true, "", ca.NotFound, "no request 99"},
		{"denial without reason", p.ID, false, " ", ca.Malformed, "needs a reason"},
		{"long reason", p.ID, false, strings.Repeat("x", 501), ca.Malformed, "500 octets"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.DecideRequest(t.Context(), tt.id, tt.approve, tt.reason, "admin:test")
			if e := ca.AsError(err); e.Kind != tt.kind || !contains(e.Reason, tt.part) {
				t.Errorf("got %v", err)
			}
		})
	}
	a.clock.Add(25 * time.Hour)
	if _, err := a.DecideRequest(t.Context(), p.ID, true, "", "admin:test"); ca.KindOf(err) != ca.Conflict || !contains(err.Error(), "expired") {
		t.Errorf("an expired one: %v", err)
	}
}

// As many requests wait as are allowed, and no more.
func TestWaitingIsBounded(t *testing.T) {
	a := newAuthority(t, approve)
	a.opts.Approval = ca.ApprovalOptions{MaxWaiting: 6, RetryAfter: 7 * time.Second}
	a.reopen()
	r, g := a.grant("lamp-1", "software", 1)
	var first ca.PendingRequest
	for i := range 4 {
		if p := a.waits(a.request(r, newCSR(t, newKey(t), named("lamp-1")))); i == 0 {
			first = p
		}
	}
	fifth := a.request(a.bySecret(g), newCSR(t, newKey(t), named("lamp-1")))
	_, err := a.Enroll(t.Context(), fifth)
	if e := ca.AsError(err); e.Kind != ca.RateLimited || e.RetryAfter != 7*time.Second {
		t.Errorf("a fifth of one device: %v", err)
	}
	for _, id := range []string{"lamp-2", "lamp-3"} {
		r, _ := a.grant(id, "software", 1)
		a.waits(a.request(r, newCSR(t, newKey(t), named(id))))
	}
	// A full table takes from who has most, the newest first, until all have as much.
	for i, id := range []string{"lamp-4", "lamp-5", "lamp-6"} {
		r, _ = a.grant(id, "software", 1)
		a.waits(a.request(r, newCSR(t, newKey(t), named(id))))
		if void := a.pendings(ca.PendingFilter{State: ca.PendingVoid}); len(void) != i+1 || void[i].Device != "lamp-1" || void[i].ID == first.ID {
			t.Fatalf("void: %+v", void)
		}
	}
	r, _ = a.grant("lamp-7", "software", 1)
	a.refused(a.request(r, newCSR(t, newKey(t), named("lamp-7"))), ca.RateLimited, "too many")
	a.refused(fifth, ca.RateLimited, "too many")
	a.rule(first.ID, false, "no")
	a.waits(fifth)
}

// A group's credential has a share of the places and no more, whatever accounts are bound
// to it, and what was queued with it ends with it.
func TestOneRequesterCannotFillTheQueue(t *testing.T) {
	a := newAuthority(t, approve)
	a.opts.Approval = ca.ApprovalOptions{MaxWaiting: 100}
	a.reopen()
	ctx := t.Context()
	group, err := a.AddCredential(ctx, device.Credential{Group: "lamps", Names: []string{"lamp-*"}, Level: "software", Uses: 1}, 0, "admin:test")
	if err != nil {
		t.Fatal(err)
	}
	ask := func(i int) ca.Request {
		id := fmt.Sprintf("lamp-%d", i)
		return a.request(a.bySecret(group), newCSR(t, newKey(t), named(id)))
	}
	ids := map[int64]bool{}
	for i := range 9 {
		ids[a.waits(ask(i)).ID] = true
	}
	byAccount, err := a.AccountRequester(ctx, 7, group.Reference, []ca.SAN{{Form: "permanent-identifier", Value: "lamp-9"}})
	if err != nil {
		t.Fatal(err)
	}
	ids[a.waits(a.request(byAccount, newCSR(t, newKey(t), named("lamp-9")))).ID] = true
	a.refused(ask(10), ca.RateLimited, "too many requests wait for approval: of this requester")
	honest, _ := a.grant("gate-1", "software", 1)
	other := a.waits(a.request(honest, newCSR(t, newKey(t), named("gate-1"))))

	if err := a.RevokeCredential(ctx, group.Reference, "admin:alice"); err != nil {
		t.Fatal(err)
	}
	void := a.pendings(ca.PendingFilter{State: ca.PendingVoid})
	for _, p := range void {
		if !ids[p.ID] || p.By != "admin:alice" || p.Reason != "its credential was revoked" || p.Decided == nil {
			t.Errorf("void: %+v", p)
		}
	}
	if waiting := a.pendings(ca.PendingFilter{State: ca.PendingWaiting}); len(void) != 10 || len(waiting) != 1 || waiting[0].ID != other.ID {
		t.Errorf("%d are void and %d wait; want 10 and the one of another credential", len(void), len(waiting))
	}
	if events := a.events(ca.EventRequestVoid); len(events) != 1 || events[0].Count != 10 || events[0].Actor != "admin:alice" {
		t.Errorf("events %+v", events)
	}
	if _, err := a.DecideRequest(ctx, void[0].ID, true, "", "admin:test"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("a void request was approved: %v", err)
	}
}

// Whatever ends a requester or its device ends what waits, or is approved and not yet fetched.
func TestQueuedRequestsEnd(t *testing.T) {
	for name, end := range map[string]func(a *authority) error{
		"suspended": func(a *authority) error {
			_, err := a.MoveDevice(a.t.Context(), "lamp-1", device.Suspended, 0, "admin:test")
			return err
		},
		"retired": func(a *authority) error {
			_, err := a.MoveDevice(a.t.Context(), "lamp-1", device.Retired, 5, "admin:test")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, approve)
			r, _ := a.grant("lamp-1", "software", 9)
			first := a.waits(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
			a.rule(first.ID, true, "")
			a.waits(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
			if err := end(a); err != nil {
				t.Fatal(err)
			}
			void := a.pendings(ca.PendingFilter{State: ca.PendingVoid})
			if len(void) != 2 || void[0].Reason != "the device was "+name {
				t.Errorf("void: %+v", void)
			}
		})
	}
	t.Run("a suspended device asks anew", func(t *testing.T) {
		a := newAuthority(t, approve)
		r, _ := a.grant("lamp-1", "software", 9)
		request := a.request(r, newCSR(t, newKey(t), named("lamp-1")))
		first := a.waits(request)
		a.rule(first.ID, true, "")
		for _, state := range []device.State{device.Suspended, device.Active} {
			if _, err := a.MoveDevice(t.Context(), "lamp-1", state, 0, "admin:test"); err != nil {
				t.Fatal(err)
			}
		}
		if again := a.waits(request); again.ID == first.ID {
			t.Error("an approval outlived the suspension")
		}
	})
}
