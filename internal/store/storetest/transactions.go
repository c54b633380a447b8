package storetest

import (
	"bytes"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/device"
)

func transaction(id byte) *server.Transaction {
	return &server.Transaction{ID: [32]byte{id}, Begun: Start, Expires: Start.Add(time.Hour), State: server.Working,
		Request: [32]byte{1, id}, Actor: "credential:abcdefghijklmnop", Signer: []byte("certificate")}
}

func testTransactions(t *testing.T, e Engine) {
	ctx, never := t.Context(), time.Time{}
	first := transaction(1)
	_, err := e.Transaction(ctx, first.ID)
	wantErr(t, err, ca.ErrNoRecord)
	there, resumed, err := e.BeginTransaction(ctx, first, never)
	if there != nil || resumed || err != nil {
		t.Fatalf("a new one: %v %v %v", there, resumed, err)
	}
	other := transaction(1)
	other.Request = [32]byte{9}
	for name, c := range map[string]struct {
		begin   *server.Transaction
		stale   time.Time
		resumed bool
	}{
		"the same, being worked on": {transaction(1), never, false},
		"another, long ago":         {other, Start.Add(time.Minute), false},
		"the same, abandoned":       {transaction(1), Start.Add(time.Minute), true},
	} {
		there, resumed, err := e.BeginTransaction(ctx, c.begin, c.stale)
		if err != nil || there == nil || resumed != c.resumed || there.Request != first.Request || !there.Begun.Equal(Start) {
			t.Errorf("%s: %+v %v %v", name, there, resumed, err)
		}
	}

	wantErr(t, e.ConfirmTransaction(ctx, first), ca.ErrNoRecord)

	// Finished, waiting for certConf.
	first.State, first.Answer, first.Nonce, first.ReqID = server.Waiting, []byte("answer"), []byte("nonce"), -1
	first.Serial, first.Deadline = ca.NewSerial(7, [12]byte{7}), Start.Add(time.Minute)
	must(t, e.FinishTransaction(ctx, first))
	wantErr(t, e.FinishTransaction(ctx, first), ca.ErrNoRecord)
	wantErr(t, e.DropTransaction(ctx, first.ID), ca.ErrNoRecord)
	got := value[*server.Transaction](t)(e.Transaction(ctx, first.ID))
	if got.State != first.State || string(got.Answer) != "answer" || string(got.Nonce) != "nonce" || got.ReqID != -1 || got.Serial != first.Serial ||
		!got.Deadline.Equal(first.Deadline) || got.Actor != first.Actor || !bytes.Equal(got.Signer, first.Signer) || got.ConfirmAnswer != nil {
		t.Errorf("read back %+v", got)
	}
	overdue := func(at time.Time) int {
		return len(value[[]server.Transaction](t)(e.OverdueTransactions(ctx, at, 10)))
	}
	if a, b := overdue(first.Deadline), overdue(first.Deadline.Add(time.Second)); a != 0 || b != 1 {
		t.Errorf("%d overdue at the deadline, %d after it; want 0 and 1", a, b)
	}
	if n := value[int64](t)(e.PruneTransactions(ctx, Start.Add(24*time.Hour))); n != 0 {
		t.Error("one that waits was forgotten")
	}

	first.State, first.Confirm, first.ConfirmAnswer = server.Confirmed, [32]byte{5}, []byte("pkiConf")
	must(t, e.ConfirmTransaction(ctx, first))
	wantErr(t, e.ConfirmTransaction(ctx, first), ca.ErrNoRecord)
	got = value[*server.Transaction](t)(e.Transaction(ctx, first.ID))
	if got.State != server.Confirmed || got.Confirm != first.Confirm || string(got.ConfirmAnswer) != "pkiConf" || string(got.Answer) != "answer" {
		t.Errorf("read back %+v", got)
	}
	if overdue(Start.Add(time.Hour)) != 0 {
		t.Error("a confirmed one is overdue")
	}

	// Dropped: the ID is free again.
	second := transaction(2)
	second.Signer = nil
	for range 2 {
		if there, _, err := e.BeginTransaction(ctx, second, never); there != nil || err != nil {
			t.Fatal(there, err)
		}
		if got := value[*server.Transaction](t)(e.Transaction(ctx, second.ID)); got.Signer != nil || !got.Serial.IsZero() || !got.Deadline.IsZero() {
			t.Errorf("read back %+v", got)
		}
		must(t, e.DropTransaction(ctx, second.ID))
	}
	if a, b := value[int64](t)(e.PruneTransactions(ctx, first.Expires)), value[int64](t)(e.PruneTransactions(ctx, first.Expires.Add(time.Second))); a != 0 || b != 1 {
		t.Errorf("pruned %d and %d, want 0 and 1", a, b)
	}
	_, err = e.Transaction(ctx, first.ID)
	wantErr(t, err, ca.ErrNoRecord)
}

// Entered with its answer, and taken further from the state that it has.
func testKeptTransactions(t *testing.T, e Engine) {
	ctx := t.Context()
	kept := transaction(4)
	kept.State, kept.Message, kept.Profile = server.Challenged, []byte("message"), "gateway"
	kept.Answer, kept.Nonce, kept.ReqID = []byte("popdecc"), []byte("nonce"), -1
	must(t, e.KeepTransaction(ctx, kept))
	wantErr(t, e.KeepTransaction(ctx, kept), ca.ErrAnswered)

	for _, answer := range []string{"waiting", "pollRep"} {
		kept = value[*server.Transaction](t)(e.Transaction(ctx, kept.ID))
		kept.State, kept.MadeKey, kept.SealedKey = server.Polling, []byte("public"), []byte("sealed")
		kept.Confirm, kept.ConfirmAnswer = [32]byte{4}, []byte(answer)
		must(t, e.KeepTransaction(ctx, kept))
		got := value[*server.Transaction](t)(e.Transaction(ctx, kept.ID))
		if got.State != server.Polling || got.Was != got.State || string(got.Answer) != "popdecc" || string(got.Nonce) != "nonce" || got.ReqID != -1 ||
			string(got.Message) != "message" || got.Profile != "gateway" || string(got.MadeKey) != "public" || string(got.SealedKey) != "sealed" ||
			string(got.ConfirmAnswer) != answer || got.Confirm != kept.Confirm || !bytes.Equal(got.Signer, kept.Signer) || !got.Begun.Equal(Start) {
			t.Errorf("read back %+v", got)
		}
	}
	late := *kept
	late.Was = server.Challenged
	wantErr(t, e.KeepTransaction(ctx, &late), ca.ErrAnswered)

	done := value[*server.Transaction](t)(e.Transaction(ctx, kept.ID))
	done.State, done.Serial, done.Deadline = server.Waiting, ca.NewSerial(8, [12]byte{8}), Start.Add(time.Minute)
	done.Message, done.MadeKey, done.SealedKey = nil, nil, nil
	must(t, e.KeepTransaction(ctx, done))
	got := value[*server.Transaction](t)(e.Transaction(ctx, kept.ID))
	if got.Serial != done.Serial || !got.Deadline.Equal(done.Deadline) || got.Message != nil || got.MadeKey != nil || got.SealedKey != nil {
		t.Errorf("read back %+v", got)
	}
	wantErr(t, e.DropTransaction(ctx, kept.ID), ca.ErrNoRecord)

	gone := transaction(5)
	gone.State = server.Challenged
	must(t, e.KeepTransaction(ctx, gone))
	must(t, e.DropTransaction(ctx, gone.ID))
}

// IDs that are remembered outlive their transactions.
func testSeenTransactions(t *testing.T, e Engine) {
	ctx, owner := t.Context(), "credential:abcdefghijklmnop"
	until := Start.Add(48 * time.Hour)
	enter := map[string]func(*server.Transaction) error{
		"kept": func(tr *server.Transaction) error { return e.KeepTransaction(ctx, tr) },
		"begun": func(tr *server.Transaction) error {
			_, _, err := e.BeginTransaction(ctx, tr, time.Time{})
			return err
		},
	}
	look := func(id [32]byte, limit int) (bool, int) {
		t.Helper()
		seen, owned, err := e.SeenTransaction(ctx, id, owner, limit)
		if err != nil {
			t.Fatal(err)
		}
		return seen, owned
	}
	n := byte(20)
	for name, put := range enter {
		n++
		tr := transaction(n)
		if name == "kept" {
			tr.State = server.Done
		}
		tr.Seen = &server.Seen{Owner: owner, Until: until}
		must(t, put(tr))
		if name == "begun" {
			tr.State = server.Done
			must(t, e.FinishTransaction(ctx, tr))
		}
		value[int64](t)(e.PruneTransactions(ctx, tr.Expires.Add(time.Second)))
		_, err := e.Transaction(ctx, tr.ID)
		wantErr(t, err, ca.ErrNoRecord)
		if seen, owned := look(tr.ID, 10); !seen || owned != int(n-20) {
			t.Errorf("%s: seen %t, owned %d", name, seen, owned)
		}
		again := transaction(n)
		again.Seen = tr.Seen
		wantErr(t, put(again), ca.ErrAnswered)
		_, err = e.Transaction(ctx, tr.ID)
		wantErr(t, err, ca.ErrNoRecord) // both or neither
	}
	if _, owned := look([32]byte{99}, 1); owned != 1 {
		t.Errorf("counted %d up to 1", owned)
	}
	// What came to nothing may come again.
	dropped := transaction(30)
	dropped.Seen = &server.Seen{Owner: owner, Until: until}
	for range 2 {
		must(t, enter["begun"](dropped))
		must(t, e.DropTransaction(ctx, dropped.ID))
	}
	value[int64](t)(e.PruneTransactions(ctx, until))
	if seen, _ := look([32]byte{21}, 10); !seen {
		t.Error("forgotten too early")
	}
	value[int64](t)(e.PruneTransactions(ctx, until.Add(time.Second)))
	if seen, owned := look([32]byte{21}, 10); seen || owned != 0 {
		t.Errorf("not forgotten: %t, %d", seen, owned)
	}
}

// Open transactions keep messages: each actor has a share of them, and all together a bound.
func testOpenTransactions(t *testing.T, e Engine) {
	ctx := t.Context()
	n := 0
	begin := func(actor string, share int, state server.State) [32]byte {
		t.Helper()
		n++
		id := [32]byte{7, byte(n), byte(n >> 8)}
		must(t, e.KeepTransaction(ctx, &server.Transaction{ID: id, Begun: Start.Add(time.Duration(n) * time.Second), Expires: Start.Add(24 * time.Hour),
			State: state, Actor: actor, Message: []byte("message"), Share: share}))
		return id
	}
	there := func(id [32]byte) bool {
		t.Helper()
		_, err := e.Transaction(ctx, id)
		if err != nil {
			wantErr(t, err, ca.ErrNoRecord)
		}
		return err == nil
	}
	done, other := begin("device:lamp-1", 2, server.Done), begin("device:lamp-2", 2, server.Polling)
	first, second := begin("device:lamp-1", 2, server.Polling), begin("device:lamp-1", 2, server.Challenged)
	if !there(first) || !there(second) {
		t.Error("two of two are not there")
	}
	third := begin("device:lamp-1", 2, server.Polling)
	if there(first) || !there(second) || !there(third) || !there(other) || !there(done) {
		t.Error("of three open transactions of one actor with a share of two, the oldest is to be forgotten, and no other")
	}
	// All of an actor's go with what it is: a retired device's, a credential's that is revoked.
	must(t, e.AddCredential(ctx, Credential("abc", 1), Event(ca.EventCredentialAdded, "")))
	queued := begin("credential:abc", 2, server.Polling)
	must(t, e.RevokeCredential(ctx, "abc", Start, Event(ca.EventCredentialRevoked, "")))
	value[[]error](t)(e.AddDevices(ctx, []device.Device{Device("lamp-1")}, Event(ca.EventDeviceAdded, "")))
	value[[]ca.Certificate](t)(e.MoveDevice(ctx, "LAMP-1", device.Suspended, ca.Revocation{}, Event(ca.EventDeviceMoved, "lamp-1")))
	if there(queued) || there(second) || there(third) || !there(other) || !there(done) {
		t.Error("open transactions outlive the credential or the suspension")
	}
	// Beyond the bound of all, whoever has most has less.
	var greedy [][32]byte
	for range server.MaxOpen {
		greedy = append(greedy, begin("ra:line", server.MaxOpen, server.Polling))
	}
	if there(greedy[0]) || !there(greedy[1]) || !there(other) {
		t.Error("the oldest of the actor with most is to be forgotten")
	}
	last := begin("device:lamp-3", 2, server.Polling)
	if there(greedy[1]) || !there(greedy[2]) || !there(other) || !there(last) {
		t.Error("a newcomer is to have a place of the actor with most")
	}
}

// A certificate and the transaction that hands it out are recorded together or not at all.
func testRecordWithTransaction(t *testing.T, e Engine) {
	ctx := t.Context()
	m := NewMake(t, e, 3)
	must(t, e.AddCredential(ctx, Credential("group", 3), Event(ca.EventCredentialAdded, "")))
	first := m.Enrol("with-1", "group")
	kept := transaction(6)
	kept.State, kept.Answer, kept.Serial = server.Done, []byte("answer"), first.Certificate.Serial
	first.With = kept
	must(t, e.Record(ctx, first))
	if got := value[*server.Transaction](t)(e.Transaction(ctx, kept.ID)); string(got.Answer) != "answer" || got.Serial != first.Certificate.Serial {
		t.Errorf("read back %+v", got)
	}
	second := m.Enrol("with-2", "group")
	second.With = kept
	wantErr(t, e.Record(ctx, second), ca.ErrAnswered)
	_, err := e.CertificateBySerial(ctx, second.Certificate.Serial)
	wantErr(t, err, ca.ErrNoRecord)
	if c := value[*device.Credential](t)(e.Credential(ctx, "group")); c.Used != 1 {
		t.Errorf("the credential was used %d times", c.Used)
	}
	second.With = "something else"
	if err := e.Record(ctx, second); err == nil {
		t.Error("recorded with something that the ledger does not know")
	}
}

// The same message on many connections begins one transaction.
func testTransactionRace(t *testing.T, e Engine) {
	var began atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			there, resumed, err := e.BeginTransaction(t.Context(), transaction(3), time.Time{})
			if err != nil || resumed {
				t.Error(resumed, err)
			}
			if there == nil {
				began.Add(1)
			}
		})
	}
	wg.Wait()
	if began.Load() != 1 {
		t.Errorf("begun %d times", began.Load())
	}
}
