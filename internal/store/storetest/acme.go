package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// Account is an account with a new key, bound to a credential ("": to none).
func Account(credential string) *ca.Account {
	return &ca.Account{Key: []byte("key"), Thumbprint: Key(), Status: "valid", Contact: []string{"mailto:a@example.com"}, Agreed: true,
		Credential: credential, Created: Start}
}

func addAccount(t *testing.T, e Engine, a *ca.Account) *ca.Account {
	t.Helper()
	there, err := e.AddAccount(t.Context(), a, Event(ca.EventAccountAdded, a.Device))
	if err != nil || there != nil {
		t.Fatal(there, err)
	}
	return a
}

var acmeName = acme.Identifier{Type: "permanent-identifier", Value: "lamp-1"}

func acmeOrder(account int64) (*acme.Order, *acme.Authorization) {
	return &acme.Order{Account: account, Status: acme.Open, Identifiers: []acme.Identifier{acmeName}, Profile: "device", Created: Start, Expires: Start.Add(time.Hour)},
		&acme.Authorization{Account: account, Identifier: acmeName, Device: "lamp-1", Status: acme.Pending, Created: Start, Expires: Start.Add(time.Hour),
			Challenges: []acme.Challenge{{Type: "http-01", Token: "token", Status: acme.Pending}}}
}

func testAccounts(t *testing.T, e Engine) {
	ctx := t.Context()
	_, err := e.Account(ctx, 1)
	wantErr(t, err, ca.ErrNoRecord)
	must(t, e.AddCredential(ctx, Credential("abc", 1), Event(ca.EventCredentialAdded, "")))
	a := Account("abc")
	a.Device = "Lamp-1"
	addAccount(t, e, a)
	for _, got := range []*ca.Account{value[*ca.Account](t)(e.Account(ctx, a.ID)), value[*ca.Account](t)(e.AccountByKey(ctx, a.Thumbprint))} {
		if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *a) {
			t.Errorf("read back\n%+v, want\n%+v", *got, *a)
		}
	}
	same := *a
	same.ID, same.Contact = 0, nil
	if there, err := e.AddAccount(ctx, &same, Event(ca.EventAccountAdded, "")); err != nil || there == nil || there.ID != a.ID || same.ID != 0 {
		t.Errorf("the same key: %+v %v", there, err)
	}
	_, err = e.AddAccount(ctx, Account("abc"), Event(ca.EventAccountAdded, ""))
	wantErr(t, err, ca.ErrSpent)
	_, err = e.AddAccount(ctx, Account("nobody"), Event(ca.EventAccountAdded, ""))
	wantErr(t, err, ca.ErrSpent)
	b := addAccount(t, e, Account(""))
	events := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Kind: ca.EventAccountAdded}, 0, 10))
	if len(events) != 2 || events[0].Account != a.ID || events[1].Account != b.ID {
		t.Errorf("events %+v", events)
	}

	must(t, e.SetContact(ctx, a.ID, []string{"mailto:b@example.com"}))
	wantErr(t, e.SetContact(ctx, 99, nil), ca.ErrNoRecord)
	next := Key()
	change := func(id int64, old, new [32]byte) error {
		return e.ChangeKey(ctx, id, old, []byte("next"), new, Event(ca.EventAccountChanged, ""))
	}
	wantErr(t, change(a.ID, next, Key()), ca.ErrNoRecord)
	wantErr(t, change(a.ID, a.Thumbprint, b.Thumbprint), ca.ErrRecorded)
	must(t, change(a.ID, a.Thumbprint, next))
	_, err = e.AccountByKey(ctx, a.Thumbprint)
	wantErr(t, err, ca.ErrNoRecord)
	if got := value[*ca.Account](t)(e.AccountByKey(ctx, next)); got.ID != a.ID || string(got.Key) != "next" || got.Contact[0] != "mailto:b@example.com" {
		t.Errorf("after a change of key: %+v", got)
	}
	must(t, e.DeactivateAccount(ctx, a.ID, Event(ca.EventAccountEnded, "")))
	wantErr(t, e.DeactivateAccount(ctx, a.ID, Event(ca.EventAccountEnded, "")), ca.ErrNoRecord)
	wantErr(t, change(a.ID, next, Key()), ca.ErrNoRecord)

	for name, c := range map[string]struct {
		f     ca.AccountFilter
		after int64
		limit int
		want  []int64
	}{
		"all":          {ca.AccountFilter{}, 0, 10, []int64{a.ID, b.ID}},
		"a page":       {ca.AccountFilter{}, a.ID, 1, []int64{b.ID}},
		"device":       {ca.AccountFilter{Device: "lamp-1"}, 0, 10, []int64{a.ID}},
		"credential":   {ca.AccountFilter{Credential: "abc"}, 0, 10, []int64{a.ID}},
		"valid":        {ca.AccountFilter{Status: "valid"}, 0, 10, []int64{b.ID}},
		"of no device": {ca.AccountFilter{Device: "lamp-2"}, 0, 10, nil},
	} {
		var ids []int64
		for _, got := range value[[]ca.Account](t)(e.Accounts(ctx, c.f, c.after, c.limit)) {
			ids = append(ids, got.ID)
		}
		if !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, want %v", name, ids, c.want)
		}
	}
}

// One use, 32 accounts.
func testAccountRace(t *testing.T, e Engine) {
	must(t, e.AddCredential(t.Context(), Credential("abc", 1), Event(ca.EventCredentialAdded, "")))
	var made atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			if _, err := e.AddAccount(t.Context(), Account("abc"), Event(ca.EventAccountAdded, "")); err == nil {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d accounts of one use", made.Load())
	}
}

func testOrders(t *testing.T, e Engine) {
	ctx := t.Context()
	account := addAccount(t, e, Account("")).ID
	_, err := e.Order(ctx, 1)
	wantErr(t, err, ca.ErrNoRecord)
	o, a := acmeOrder(account)
	o.NotBefore, o.NotAfter, o.Replaces = Start.Add(-time.Minute), Start.Add(time.Minute), "AA.BB"
	must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
	if o.ID == 0 || a.ID == 0 || !slices.Equal(o.Authorizations, []int64{a.ID}) {
		t.Fatalf("order %+v, authorization %+v", o, a)
	}
	if got := value[*acme.Order](t)(e.Order(ctx, o.ID)); fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *o) {
		t.Errorf("read back\n%+v, want\n%+v", *got, *o)
	}
	if got := value[*acme.Authorization](t)(e.Authorization(ctx, a.ID)); fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *a) {
		t.Errorf("read back\n%+v, want\n%+v", *got, *a)
	}

	// Another with an authorization that is there, and one of its own.
	again, fresh := acmeOrder(account)
	again.Authorizations = []int64{a.ID}
	again.Replaces = "AA.BB"
	wantErr(t, e.AddOrder(ctx, again, []*acme.Authorization{fresh}, 300), ca.ErrRecorded)
	again.Replaces = ""
	must(t, e.AddOrder(ctx, again, []*acme.Authorization{fresh}, 300))
	if !slices.Equal(again.Authorizations, []int64{a.ID, fresh.ID}) {
		t.Errorf("authorizations %v", again.Authorizations)
	}

	must(t, e.HoldOrder(ctx, again.ID, []byte("csr")))
	wantErr(t, e.HoldOrder(ctx, again.ID, []byte("csr")), acme.ErrStale)
	if got := value[*acme.Order](t)(e.Order(ctx, again.ID)); got.Status != acme.Processing || string(got.CSR) != "csr" {
		t.Errorf("held: %+v", got)
	}
	must(t, e.FailOrder(ctx, again.ID, &acme.Problem{Type: "unauthorized", Detail: "no"}))
	wantErr(t, e.FailOrder(ctx, again.ID, &acme.Problem{}), acme.ErrStale)
	if got := value[*acme.Order](t)(e.Order(ctx, again.ID)); got.Status != acme.Invalid || got.CSR != nil || got.Error == nil || got.Error.Detail != "no" {
		t.Errorf("failed: %+v", got)
	}
	if ids := value[[]int64](t)(e.Orders(ctx, account, 0, 10)); !slices.Equal(ids, []int64{o.ID}) {
		t.Errorf("listed %v", ids)
	}
	if ids := value[[]int64](t)(e.Orders(ctx, account, o.ID, 10)); len(ids) != 0 {
		t.Errorf("listed %v", ids)
	}

	// One that can no longer be fulfilled replaces nothing.
	a.Status = acme.Deactivated
	must(t, e.SaveAuthorization(ctx, a))
	instead, more := acmeOrder(account)
	instead.Replaces = "AA.BB"
	must(t, e.AddOrder(ctx, instead, []*acme.Authorization{more}, 300))

	if n := value[int64](t)(e.PruneACME(ctx, Start.Add(time.Hour))); n != 0 {
		t.Errorf("%d forgotten before their time", n)
	}
	if n := value[int64](t)(e.PruneACME(ctx, Start.Add(time.Hour+time.Second))); n != 6 {
		t.Errorf("%d forgotten, want three orders and three authorizations", n)
	}
	next, after := acmeOrder(account)
	must(t, e.AddOrder(ctx, next, []*acme.Authorization{after}, 300))
	if next.ID <= instead.ID || after.ID <= more.ID {
		t.Error("an ID was given twice")
	}
}

func testAuthorizations(t *testing.T, e Engine) {
	ctx := t.Context()
	account := addAccount(t, e, Account("")).ID
	o, a := acmeOrder(account)
	must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
	busy := func() int { return len(value[[]acme.Authorization](t)(e.BusyAuthorizations(ctx, 0, 10))) }
	if busy() != 0 {
		t.Error("one is busy with nothing")
	}
	stale := *a
	a.Challenges[0].Status = acme.Processing
	must(t, e.SaveAuthorization(ctx, a))
	if busy() != 1 || a.Version != 1 {
		t.Errorf("%d busy, version %d", busy(), a.Version)
	}
	wantErr(t, e.SaveAuthorization(ctx, &stale), acme.ErrStale)
	find := func(since, now time.Time) error {
		_, err := e.ValidAuthorization(ctx, account, acmeName, false, since, now)
		return err
	}
	wantErr(t, find(Start, Start), ca.ErrNoRecord)
	at := Start.Add(time.Minute)
	a.Status, a.Way, a.Validated, a.Expires = acme.Valid, "http-01", at, Start.Add(2*time.Hour)
	a.Challenges[0].Status, a.Challenges[0].Validated, a.SPKI = acme.Valid, &at, []byte("spki")
	a.Evidence = &policy.Evidence{Kind: "tpm", Facts: map[string]any{"quote_age": time.Minute, "n": int64(1)}, Vector: policy.Vector{"hardware": 2}}
	must(t, e.SaveAuthorization(ctx, a))
	got := value[*acme.Authorization](t)(e.Authorization(ctx, a.ID))
	if busy() != 0 || got.Evidence == nil || got.Evidence.Facts["quote_age"] != time.Minute || !bytes.Equal(got.SPKI, a.SPKI) || !got.Validated.Equal(at) || got.Version != 2 ||
		got.Challenges[0].Validated == nil {
		t.Errorf("read back %+v", got)
	}
	must(t, find(at, Start.Add(time.Hour)))
	wantErr(t, find(at.Add(time.Second), Start.Add(time.Hour)), ca.ErrNoRecord)
	wantErr(t, find(at, a.Expires), ca.ErrNoRecord)
	for name, c := range map[string]struct {
		account  int64
		id       acme.Identifier
		wildcard bool
	}{
		"another account": {account + 1, acmeName, false}, "another name": {account, acme.Identifier{Type: "dns", Value: "lamp-1"}, false}, "a wildcard": {account, acmeName, true},
	} {
		_, err := e.ValidAuthorization(ctx, c.account, c.id, c.wildcard, at, Start)
		if wantErr(t, err, ca.ErrNoRecord); t.Failed() {
			t.Fatal(name)
		}
	}
	_, err := e.Authorization(ctx, 99)
	wantErr(t, err, ca.ErrNoRecord)
}

// An order becomes valid with its certificate, once, and not for an account that has ended.
func testFulfil(t *testing.T, e Engine) {
	ctx, m := t.Context(), NewMake(t, e, 64)
	must(t, e.AddCredential(ctx, Credential("abc", 9), Event(ca.EventCredentialAdded, "")))
	account := addAccount(t, e, Account("abc"))
	issue := func(order int64) *ca.Issuance {
		i := m.Enrol("lamp-1", "")
		i.Credential, i.With = "", acme.Fulfilment{Order: order}
		return i
	}
	add := func(account int64) *acme.Order {
		o, a := acmeOrder(account)
		must(t, e.AddOrder(ctx, o, []*acme.Authorization{a}, 300))
		return o
	}
	o := add(account.ID)
	must(t, e.HoldOrder(ctx, o.ID, []byte("csr")))
	first := issue(o.ID)
	must(t, e.Record(ctx, first))
	got := value[*acme.Order](t)(e.Order(ctx, o.ID))
	if got.Status != acme.Valid || got.Serial != first.Certificate.Serial || got.CSR != nil || !got.Expires.Equal(first.Certificate.NotAfter) {
		t.Errorf("fulfilled: %+v", got)
	}
	wantErr(t, e.Record(ctx, issue(o.ID)), ca.ErrAnswered)
	wantErr(t, e.Record(ctx, issue(99)), ca.ErrAnswered)
	wantErr(t, e.HoldOrder(ctx, o.ID, nil), acme.ErrStale)

	race := add(account.ID)
	var won atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		i := issue(race.ID)
		wg.Go(func() {
			if err := e.Record(ctx, i); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("an order was fulfilled %d times", won.Load())
	}

	// A certificate that was revoked can be replaced by an order.
	if _, err := e.Revoke(ctx, []ca.Serial{first.Certificate.Serial}, ca.Revocation{Time: Start, Reason: 4}, Event(ca.EventRevoked, "lamp-1")); err != nil {
		t.Fatal(err)
	}
	renewal := issue(add(account.ID).ID)
	renewal.Certificate.Replaces = first.Certificate.Serial
	must(t, e.Record(ctx, renewal))

	late, later := add(account.ID), add(account.ID)
	must(t, e.RevokeCredential(ctx, "abc", Start, Event(ca.EventCredentialRevoked, "")))
	wantErr(t, e.Record(ctx, issue(late.ID)), ca.ErrAccountGone)
	must(t, e.DeactivateAccount(ctx, account.ID, Event(ca.EventAccountEnded, "")))
	wantErr(t, e.Record(ctx, issue(later.ID)), ca.ErrAccountGone)
	if got := value[*acme.Order](t)(e.Order(ctx, later.ID)); got.Status != acme.Open {
		t.Errorf("refused, and the order is %s", got.Status)
	}
	if n := len(value[[]ca.Certificate](t)(e.Certificates(ctx, ca.CertificateFilter{}, 0, 100))); n != 3 {
		t.Errorf("%d certificates, want 3", n)
	}
}
