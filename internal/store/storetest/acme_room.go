package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
)

// Orders without a certificate make room for new ones, the oldest first, with the authorizations that only they
// have; those that wait for an administrator, that are fulfilled, or another account's, do not.
func testOrderRoom(t *testing.T, e Engine) {
	ctx, m := t.Context(), NewMake(t, e, 64)
	account, other := addAccount(t, e, Account("")).ID, addAccount(t, e, Account("")).ID
	add := func(account int64, reused ...int64) *acme.Order {
		o, a := acmeOrder(account)
		o.Authorizations = reused
		must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 4))
		return o
	}
	there := func(o *acme.Order) bool {
		_, err := e.Order(ctx, o.ID)
		return err == nil
	}
	theirs := add(other)
	fulfilled := add(account)
	i := m.Enrol("lamp-1", "")
	i.Credential, i.With = "", acme.Fulfilment{Order: fulfilled.ID}
	must(t, e.Record(ctx, i))
	held := add(account)
	must(t, e.HoldOrder(ctx, held.ID, []byte("csr")))
	failed := add(account)
	must(t, e.FailOrder(ctx, failed.ID, &acme.Problem{Type: "unauthorized"}))
	first := add(account)
	second := add(account, first.Authorizations[0])
	for name, o := range map[string]*acme.Order{"another account's": theirs, "a fulfilled one": fulfilled, "one that waits": held, "the first": first, "the second": second} {
		if !there(o) {
			t.Errorf("%s was forgotten", name)
		}
	}
	third := add(account)
	if there(failed) || !there(first) {
		t.Errorf("the fifth: failed %t, first %t; want the failed one forgotten alone", there(failed), there(first))
	}
	add(account)
	if there(first) || !there(second) || !there(third) || !there(held) {
		t.Errorf("the sixth: first %t, second %t, third %t, held %t", there(first), there(second), there(third), there(held))
	}
	if _, err := e.Authorization(ctx, first.Authorizations[0]); err != nil {
		t.Errorf("an authorization that the second order has: %v", err)
	}
	_, err := e.Authorization(ctx, failed.Authorizations[0])
	wantErr(t, err, ca.ErrNoRecord)

	// Where all wait, there is no room.
	for range 4 {
		must(t, e.HoldOrder(ctx, add(other).ID, []byte("csr")))
	}
	o, a := acmeOrder(other)
	wantErr(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 4), acme.ErrFull)
	if ids := value[[]int64](t)(e.Orders(ctx, other, 0, 10)); len(ids) != 4 {
		t.Errorf("the orders %v, want the four that wait", ids)
	}
}

// An account that got nothing, and can get nothing any more, gives its use of the credential to another.
func testIdleAccounts(t *testing.T, e Engine) {
	ctx, m := t.Context(), NewMake(t, e, 64)
	must(t, e.AddCredential(ctx, Credential("abc", 1), Event(ca.EventCredentialAdded, "")))
	late := 0 * time.Second
	try := func() (*ca.Account, error) {
		a := Account("abc")
		a.Created = Start.Add(late)
		_, err := e.AddAccount(ctx, a, Event(ca.EventAccountAdded, ""))
		return a, err
	}
	valid := func(want *ca.Account) {
		t.Helper()
		all := value[[]ca.Account](t)(e.Accounts(ctx, ca.AccountFilter{Credential: "abc", Status: "valid"}, 0, 10))
		if len(all) != 1 || all[0].ID != want.ID {
			t.Errorf("accounts %+v, want %d alone", all, want.ID)
		}
	}
	first := value[*ca.Account](t)(try())
	late = acme.IdleAccount - time.Second
	_, err := try()
	wantErr(t, err, ca.ErrSpent) // it may be about to order
	late = acme.IdleAccount
	second := value[*ca.Account](t)(try())
	valid(second)
	events := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Kind: ca.EventAccountEnded}, 0, 10))
	if len(events) != 1 || events[0].Account != first.ID || events[0].Reason == "" {
		t.Errorf("events %+v", events)
	}

	// One with an order that may still be fulfilled keeps its use, until that can no longer be.
	o, a := acmeOrder(second.ID)
	must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
	late = 2 * acme.IdleAccount
	_, err = try()
	wantErr(t, err, ca.ErrSpent)
	a.Status = acme.Invalid
	must(t, e.SaveAuthorization(ctx, a))
	third := value[*ca.Account](t)(try())
	valid(third)
	_, err = e.Order(ctx, o.ID)
	wantErr(t, err, ca.ErrNoRecord)

	// One that got a certificate keeps it for good, also when its order is forgotten.
	o, a = acmeOrder(third.ID)
	must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
	i := m.Enrol("lamp-1", "")
	i.Credential, i.With = "", acme.Fulfilment{Order: o.ID}
	must(t, e.Record(ctx, i))
	late = 100 * 365 * 24 * time.Hour
	value[int64](t)(e.PruneACME(ctx, Start.Add(late)))
	_, err = try()
	wantErr(t, err, ca.ErrSpent)

	// A credential that was revoked lets nobody take a place.
	must(t, e.AddCredential(ctx, Credential("def", 1), Event(ca.EventCredentialAdded, "")))
	idle := Account("def")
	addAccount(t, e, idle)
	must(t, e.RevokeCredential(ctx, "def", Start, Event(ca.EventCredentialRevoked, "")))
	next := Account("def")
	next.Created = Start.Add(time.Hour)
	_, err = e.AddAccount(ctx, next, Event(ca.EventAccountAdded, ""))
	wantErr(t, err, ca.ErrSpent)
}

// Accounts that nothing vouches for are forgotten when they have no orders; those of a credential are not.
func testUnboundAccounts(t *testing.T, e Engine) {
	ctx := t.Context()
	must(t, e.AddCredential(ctx, Credential("abc", 1), Event(ca.EventCredentialAdded, "")))
	bound := addAccount(t, e, Account("abc"))
	busy := addAccount(t, e, Account(""))
	o, a := acmeOrder(busy.ID)
	must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
	var wg sync.WaitGroup
	for range 50 { // 2500 are more than two pages
		wg.Go(func() {
			for range 50 {
				if _, err := e.AddAccount(ctx, Account(""), Event(ca.EventAccountAdded, "")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := value[int64](t)(e.PruneAccounts(ctx, Start)); n != 0 {
		t.Errorf("%d forgotten before their time", n)
	}
	if n := value[int64](t)(e.PruneAccounts(ctx, Start.Add(time.Second))); n != 2500 {
		t.Errorf("%d forgotten, want 2500", n)
	}
	var ids []int64
	for _, got := range value[[]ca.Account](t)(e.Accounts(ctx, ca.AccountFilter{}, 0, 10)) {
		ids = append(ids, got.ID)
	}
	if !slices.Equal(ids, []int64{bound.ID, busy.ID}) {
		t.Errorf("left are %v, want %d and %d", ids, bound.ID, busy.ID)
	}
}
