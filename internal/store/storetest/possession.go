package storetest

import (
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp/server"
)

// A certificate owns its key when possession was proven: before, it hinders nobody who can
// prove it; a registration authority's word hinders another's.
func testPossession(t *testing.T, e Engine) {
	m := NewMake(t, e, 30)
	record := func(id string, key [32]byte, p ca.Possession, want error) *ca.Certificate {
		t.Helper()
		i := m.Enrol(id, "")
		i.Certificate.KeyID, i.Possession = key, p
		wantErr(t, e.Record(t.Context(), i), want)
		return i.Certificate
	}
	owner := func(id string, key [32]byte, want string, newest *ca.Certificate) {
		t.Helper()
		s := value[ca.Standing](t)(e.Standing(t.Context(), id, key))
		if s.KeyOwner != want || newest == nil && !s.Newest.IsZero() || newest != nil && s.Newest != newest.Serial {
			t.Errorf("for %s the owner is %q, want %q; newest %s", id, s.KeyOwner, want, s.Newest)
		}
	}

	later, vouched, proven := Key(), Key(), Key()
	a := record("a", later, ca.Later, nil)
	b := record("b", later, ca.Later, nil) // neither has proven anything
	owner("a", later, "", a)
	owner("b", later, "", b)
	record("v", vouched, ca.Vouched, nil)
	record("w", vouched, ca.Vouched, ca.ErrKeyTaken)
	pending := record("x", vouched, ca.Later, nil)
	v := record("v", vouched, ca.Vouched, nil)
	owner("v", vouched, "", v)

	// Settled, it owns the key, and the other's proof comes too late.
	wait := func(id byte, c *ca.Certificate) *server.Transaction {
		t.Helper()
		tr := transaction(id)
		tr.State, tr.Serial, tr.Deadline = server.Waiting, c.Serial, Start.Add(time.Minute)
		must(t, e.KeepTransaction(t.Context(), tr))
		return tr
	}
	first, second := wait(40, b), wait(41, a)
	if got := value[*server.Transaction](t)(e.WaitingTransaction(t.Context(), b.Serial)); got.ID != first.ID || !got.Deadline.Equal(first.Deadline) {
		t.Errorf("waits: %+v", got)
	}
	must(t, e.Settle(t.Context(), b.Serial))
	must(t, e.Settle(t.Context(), b.Serial))
	_, err := e.WaitingTransaction(t.Context(), b.Serial)
	wantErr(t, err, ca.ErrNoRecord)
	if n := len(value[[]server.Transaction](t)(e.OverdueTransactions(t.Context(), Start.Add(time.Hour), 10))); n != 1 {
		t.Errorf("%d transactions are overdue, want the other's alone", n)
	}
	owner("a", later, "b", a)
	second.State, second.ConfirmAnswer = server.Confirmed, []byte("pkiConf")
	wantErr(t, e.ConfirmTransaction(t.Context(), second), ca.ErrKeyTaken)
	if got := value[*server.Transaction](t)(e.Transaction(t.Context(), second.ID)); got.State != server.Waiting || got.ConfirmAnswer != nil {
		t.Errorf("a refused confirmation left %+v", got)
	}
	wantErr(t, e.Settle(t.Context(), a.Serial), ca.ErrKeyTaken)
	second.State, second.ConfirmAnswer = server.Rejected, nil
	must(t, e.ConfirmTransaction(t.Context(), second))
	first.State, first.ConfirmAnswer = server.Confirmed, []byte("pkiConf") // it may confirm by itself, later
	must(t, e.ConfirmTransaction(t.Context(), first))
	for _, p := range []ca.Possession{ca.Proven, ca.Vouched, ca.Later} {
		record("c", later, p, ca.ErrKeyTaken)
	}

	// A proof puts an end to a registration authority's word.
	repeated := transaction(42)
	repeated.State, repeated.Serial = server.Repeated, pending.Serial
	must(t, e.KeepTransaction(t.Context(), repeated))
	repeated.State, repeated.ConfirmAnswer = server.Confirmed, []byte("pkiConf")
	must(t, e.ConfirmTransaction(t.Context(), repeated))
	wantErr(t, e.ConfirmTransaction(t.Context(), repeated), ca.ErrNoRecord)
	owner("v", vouched, "x", v)
	record("x", vouched, ca.Proven, nil)
	record("v", vouched, ca.Vouched, ca.ErrKeyTaken)

	// The CA's own keys are nobody else's.
	own := m.Issuance("")
	own.Certificate.KeyID, own.NewDevice = proven, nil
	must(t, e.Record(t.Context(), own))
	record("c", proven, ca.Proven, ca.ErrKeyTaken)
}
