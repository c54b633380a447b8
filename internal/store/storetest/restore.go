package storetest

import (
	"crypto/sha256"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/store"
)

func testRestore(t *testing.T, e Engine) {
	ctx := t.Context()
	m := NewMake(t, e, 10)
	Record(t, e, m.Enrol("lamp-1", ""))
	must(t, e.AddIssuer(ctx, ca.IssuerRecord{Name: "quarantine-1", Role: "quarantine", Cert: []byte{}}, Event(ca.EventIssuerAdded, "")))
	first := value[store.Instance](t)(e.Instance(ctx))
	if len(first.ID) != 32 || first.Restored() || first.Opened == nil || first.FirstEvent != 1 {
		t.Errorf("the first instance: %+v", first)
	}
	if closed, _, err := e.Closed(ctx); closed || err != nil {
		t.Errorf("a ledger that was never restored is closed: %v", err)
	}
	if err := e.Open(ctx, Event("x", "")); ca.KindOf(err) != ca.Conflict {
		t.Errorf("opened what is open: %v", err)
	}
	newest := value[int64](t)(e.NewestEvent(ctx))
	head := value[int64](t)(e.Journal().NextNumber(ctx, Issuer))
	snapshot := func() time.Time { h, err := e.Head(ctx); must(t, err); return h.Time }()

	next := value[map[string]uint64](t)(e.Restore(ctx, 1000, Start, ca.Event{Time: Start, Kind: ca.EventIndexMoved, Actor: "system", Reason: "restored"}))
	if len(next) != 2 || next[Issuer] < 1010 || next["quarantine-1"] < 1000 || next[Issuer] >= 1010+1<<38+1 || next[Issuer] == 1010 {
		t.Errorf("next indexes %v", next)
	}
	for issuer, want := range next {
		if first := value[uint64](t)(e.ReserveIndexes(ctx, issuer, 5)); first != want {
			t.Errorf("%s goes on at %d, want %d", issuer, first, want)
		}
	}
	gaps := value[[]crl.Gap](t)(e.Journal().Gaps(ctx, Issuer))
	if len(gaps) != 1 || gaps[0].First != 10 || gaps[0].Next != next[Issuer] {
		t.Errorf("gaps %v", gaps)
	}
	if _, after, err := e.Journal().Indexes(ctx, Issuer, Start); err != nil || after != next[Issuer] {
		t.Errorf("the next index to publish is %d, want %d (%v)", after, next[Issuer], err)
	}
	events := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Kind: ca.EventIndexMoved}, 0, 10))
	if len(events) != 2 || events[0].Issuer != Issuer || events[0].ID <= newest+1<<32 || events[0].ID >= 1<<53 {
		t.Errorf("events %+v", events)
	}
	if got := value[int64](t)(e.Journal().NextNumber(ctx, Issuer)); got <= head+1<<32 {
		t.Errorf("CRL number %d after %d", got, head)
	}
	a := Account("")
	if there, err := e.AddAccount(ctx, a, Event(ca.EventAccountAdded, "")); err != nil || there != nil || a.ID < 1<<32 {
		t.Errorf("the first account after a restore is %d (%v)", a.ID, err)
	}

	now := value[store.Instance](t)(e.Instance(ctx))
	if now.ID == first.ID || !now.Restored() || !now.Snapshot.Equal(snapshot) || now.KnownEvent != newest || now.FirstEvent != events[0].ID || now.Opened != nil {
		t.Errorf("the second instance: %+v, want snapshot %s, event %d", now, snapshot, newest)
	}
	if closed, at, err := e.Closed(ctx); !closed || !at.Equal(snapshot) || err != nil {
		t.Errorf("closed %v as of %s (%v)", closed, at, err)
	}
	must(t, e.Open(ctx, Event("store.acknowledged", "")))
	if closed, _, err := e.Closed(ctx); closed || err != nil {
		t.Errorf("closed after it was opened (%v)", err)
	}
	if all := value[[]store.Instance](t)(e.Instances(ctx)); len(all) != 2 || all[0].ID != first.ID || all[1].Opened == nil {
		t.Errorf("instances %+v", all)
	}
	if _, err := e.Restore(ctx, ca.MaxIndex, Start, ca.Event{}); ca.KindOf(err) != ca.Conflict {
		t.Errorf("too far: %v", err)
	}
	must(t, e.RaiseCounter(ctx, "crl", Issuer, 1<<60))
	must(t, e.RaiseCounter(ctx, "crl", Issuer, 7))
	if got := value[int64](t)(e.Journal().NextNumber(ctx, Issuer)); got != 1<<60+1 {
		t.Errorf("CRL number %d after one of 2^60 was seen", got)
	}
	Verify(t, e)
}

func testLost(t *testing.T, e Engine) {
	ctx := t.Context()
	m := NewMake(t, e, 10)
	known := Record(t, e, m.Enrol("lamp-1", ""))
	value[map[string]uint64](t)(e.Restore(ctx, 1000, Start, Event(ca.EventRestored, "")))
	lost := func(index uint64, tail byte) *ca.Certificate {
		return &ca.Certificate{Serial: ca.NewSerial(index, [12]byte{9, 11: tail}), Issuer: Issuer, Device: "lamp-1", Profile: ca.ProfileLost,
			IssuedAt: Start, NotBefore: Start, NotAfter: Start.Add(24 * time.Hour)}
	}
	c := lost(500, 1)
	r := ca.Revocation{Time: Start, Reason: ca.ReasonKeyCompromise}
	must(t, e.RecordLost(ctx, c, r, Event(ca.EventRevoked, "lamp-1")))
	if c.ID == 0 || c.Revocation == nil || c.Revocation.Reason != ca.ReasonKeyCompromise {
		t.Errorf("recorded %+v", c)
	}
	if err := e.RecordLost(ctx, lost(500, 1), r, Event(ca.EventRevoked, "")); !errors.Is(err, ca.ErrRecorded) {
		t.Errorf("twice: %v", err)
	}
	for name, wrong := range map[string]*ca.Certificate{
		"the index of another":          lost(500, 2),
		"the index of one on record":    lost(known.Serial.Index(), 1),
		"an index not given out":        lost(ca.MaxIndex, 1),
		"an issuer that issued nothing": func() *ca.Certificate { c := lost(3, 1); c.Issuer = "issuing-9"; return c }(),
	} {
		if err := e.RecordLost(ctx, wrong, r, Event(ca.EventRevoked, "")); ca.KindOf(err) != ca.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	st, err := e.Journal().Status(ctx, Issuer, c.Serial)
	if err != nil || !st.Issued || st.Revocation == nil {
		t.Errorf("status %+v (%v)", st, err)
	}
	if at := value[ca.Serial](t)(e.CertificateAtIndex(ctx, Issuer, 500)); at != c.Serial {
		t.Errorf("at index 500: %s", at)
	}
	if _, err := e.CertificateAtIndex(ctx, Issuer, 501); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("at index 501: %v", err)
	}
	// Of one the pack told the index; later its serial becomes known. A pack has the index once.
	only := lost(600, 0)
	only.Serial = ca.IndexOnly(600)
	must(t, e.RecordLost(ctx, only, r, Event(ca.EventRevoked, "")))
	must(t, e.RecordLost(ctx, lost(600, 7), r, Event(ca.EventRevoked, "")))
	var indexes []uint64
	for index, err := range (store.Packs{Journal: e.Journal()}).Revoked(ctx, Issuer, 0) {
		must(t, err)
		indexes = append(indexes, index)
	}
	if len(indexes) != 2 || indexes[0] != 500 || indexes[1] != 600 {
		t.Errorf("indexes in the pack: %v", indexes)
	}
	var serials int
	for _, err := range e.Journal().Revoked(ctx, Issuer, crl.Query{To: math.MaxUint64}) {
		must(t, err)
		serials++
	}
	if serials != 3 {
		t.Errorf("%d serials on the CRL", serials)
	}
	if r := Verify(t, e); r.Revocations != 3 {
		t.Errorf("the audit log tells of %d revocations, want 3", r.Revocations)
	}
	// A use of a credential that a log tells of counts once.
	cred := Credential("ref-1", 5)
	must(t, e.AddCredential(ctx, cred, Event(ca.EventCredentialAdded, "")))
	key := sha256.Sum256([]byte("x"))
	for i, fresh := range []bool{true, false} {
		if got := value[bool](t)(e.NoteLost(ctx, key[:], Issuer, "lamp-9", cred.Reference, Start)); got != fresh {
			t.Errorf("note %d: new %v", i, got)
		}
	}
	if after, err := e.Credential(ctx, cred.Reference); err != nil || after.Used != cred.Used+1 {
		t.Errorf("uses %+v (%v)", after, err)
	}
	Verify(t, e)
}
