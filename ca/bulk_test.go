package ca_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// many gives a device n certificates more.
func (a *authority) many(id string, n int) {
	a.t.Helper()
	m, err := storetest.Reserve(a.t.Context(), a.store, n)
	if err != nil {
		a.t.Fatal(err)
	}
	done := make(chan error)
	for w := range 16 {
		go func() {
			var err error
			for i := w; i < n && err == nil; i += 16 {
				c := m.Issuance(id)
				c.Certificate.IssuedAt, c.Certificate.NotAfter = a.clock.Now(), a.clock.Now().Add(24*time.Hour)
				err = a.store.Record(a.t.Context(), c)
			}
			done <- err
		}()
	}
	for range 16 {
		if err := <-done; err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a *authority) live(id string) (n int) {
	a.t.Helper()
	no := false
	for after := int64(0); ; {
		page, err := a.store.Certificates(a.t.Context(), ca.CertificateFilter{Device: id, Revoked: &no}, after, 500)
		if err != nil {
			a.t.Fatal(err)
		}
		if n += len(page); len(page) < 500 {
			return n
		}
		after = page[len(page)-1].ID
	}
}

// frail is a ledger that ends after some pages of a retirement.
type frail struct {
	ca.Ledger
	pages int
}

func (f *frail) RevokeRetired(ctx context.Context, id string, at time.Time) ([]ca.Certificate, error) {
	if f.pages == 0 {
		return nil, errors.New("killed")
	}
	f.pages--
	return f.Ledger.RevokeRetired(ctx, id, at)
}

// A device with thousands of certificates is retired at once, and its certificates are
// revoked page by page, also over a crash in the middle.
func TestRetireInPages(t *testing.T) {
	a := newAuthority(t, nil)
	ctx := t.Context()
	r, g := a.grant("lamp-1", "software", 2)
	own := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	other, _ := a.grant("lamp-2", "software", 1)
	a.enroll(a.request(other, newCSR(t, newKey(t), named("lamp-2"))))
	a.many("lamp-1", 2600)

	var told []int // certificates told of as changed, at a time
	a.opts.Changed = func(_ context.Context, _ string, serials []ca.Serial) { told = append(told, len(serials)) }
	a.opts.Ledger = &frail{a.store, 2}
	a.reopen()
	revoked, err := a.MoveDevice(ctx, "LAMP-1", device.Retired, ca.ReasonKeyCompromise, "admin:test")
	if err != nil || revoked.Count != 1500 || len(revoked.First) != 500 {
		t.Fatalf("retired with %d revoked, %d returned, %v; want 1500 and 500 before the crash", revoked.Count, len(revoked.First), err)
	}
	// It is in force: what is not revoked yet is of no use.
	if _, err := a.AuthenticateSecret(ctx, g.Reference, g.Secret, localhost); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("the credential of a retired device: %v", err)
	}
	if n := a.live("lamp-1"); n != 1101 {
		t.Errorf("%d certificates live, want 1101", n)
	}

	a.opts.Ledger = a.store
	a.reopen() // the restart
	a.clock.Add(time.Hour)
	a.Work(ctx)
	if n := a.live("lamp-1"); n != 0 {
		t.Errorf("%d certificates live after the restart", n)
	}
	if n := a.live("lamp-2"); n != 1 {
		t.Errorf("%d certificates of another device live, want 1", n)
	}
	if !slices.Equal(told, []int{500, 500, 500, 500, 500, 101}) {
		t.Errorf("told of %v", told)
	}
	if r := storetest.Verify(t, a.store); r.Revocations != 2601 || r.Unnamed != 0 {
		t.Errorf("the audit log tells of %+v, want 2601 revocations, each by its serial", r)
	}
	c, err := a.store.CertificateBySerial(ctx, own.Certificate.Serial)
	if err != nil || c.Revocation == nil || c.Revocation.Reason != ca.ReasonKeyCompromise {
		t.Errorf("%+v, %v", c.Revocation, err)
	}
	events := a.events(ca.EventRevoked)
	if last := events[len(events)-1]; last.Actor != "admin:test" || last.Device != "lamp-1" || !contains(last.Reason, "keyCompromise") {
		t.Errorf("the event of the last page: %+v", last)
	}
	newest := func() int64 {
		id, err := a.store.NewestEvent(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := newest()
	a.Work(ctx)
	if newest() != before {
		t.Error("it goes on for ever")
	}
}

// What a rule revokes is counted, and not kept in memory.
func TestRevokeDeviceInPages(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 1)
	own := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	a.many("lamp-1", 1100)
	revoked, err := a.RevokeDevice(t.Context(), "lamp-1", 1, "rule:x", own.Certificate.Serial)
	if err != nil || revoked.Count != 1100 || len(revoked.First) != 500 || a.live("lamp-1") != 1 {
		t.Errorf("%d revoked, %d returned, %d live, %v", revoked.Count, len(revoked.First), a.live("lamp-1"), err)
	}
}
