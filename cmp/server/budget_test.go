package server_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// approving makes the profile device one that an administrator must approve.
func approving(source []byte) []byte {
	return bytes.Replace(source, []byte("    backdate: 5m"), []byte("    approval: true\n    backdate: 5m"), 1)
}

// A device that renews in a loop is told systemUnavail, and, since CMP has no field for it, in words how long to wait.
func TestRenewalLoop(t *testing.T) {
	e := newEnv(t)
	lamp := e.enrolled("lamp-1")
	e.reopen(func(o *ca.Options) { o.Budgets.CertificatesPerDevice = 3 })
	renew := func() *cmp.Message {
		return e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), lamp)
	}
	for range 3 {
		e.certificate(renew())
	}
	got := status(renew())
	if got.FailInfo != cmp.SystemUnavail || !strings.Contains(got.String(), "device lamp-1 has used its budget of 3 certificates") || !strings.Contains(got.String(), "ask again in ") {
		t.Errorf("the fourth: %v", got)
	}
}

// Revocations and holds of one device are bounded, and so is what they add to the journal.
func TestHoldLoop(t *testing.T) {
	e := newEnv(t, mayBeReleased)
	lamp, ra := e.enrolled("lamp-1"), e.registerRA("line-1", "lamp-*")
	e.reopen(func(o *ca.Options) { o.Budgets.ActsPerDevice = 4 })
	for i := range 5 {
		got := status(e.ask(e.revocation(lamp, []int{6, 8}[i%2]), ra)).FailInfo
		if want := []cmp.FailInfo{0, cmp.SystemUnavail}[i/4]; got != want {
			t.Errorf("act %d: %s, want %s", i+1, got, want)
		}
	}
	if n := len(must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))); n != 1 {
		t.Errorf("%d certificates", n)
	}
	e.late.Store(int64(time.Minute))
	if got := status(e.ask(e.revocation(lamp, 6), ra)).FailInfo; got != 0 {
		t.Errorf("a minute later: %s", got)
	}
}

// What waits keeps its message: a device has 16 transactions of that kind, of bounded
// size, for as long as its request for approval lives.
func TestWaitingTransactionsAreBounded(t *testing.T) {
	e := newEnv(t, approving)
	lamp := e.register("lamp-1", 1)
	request := crmf(t, "lamp-1", newKey(t), nil)
	var answers []*cmp.Message
	for range 18 {
		answer := e.ask(e.message(requests(cmp.IR, request)), lamp)
		if got := status(answer); got.Status != cmp.Waiting {
			t.Fatalf("%v", got)
		}
		answers = append(answers, answer)
	}
	poll := func(answer *cmp.Message) *cmp.Message {
		return e.ask(cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now()), lamp)
	}
	for i, answer := range answers {
		got := poll(answer)
		if forgotten := got.Body.Type() != cmp.PollRep; forgotten != (i < 2) {
			t.Errorf("transaction %d: %s %v; want the two oldest forgotten", i+1, got.Body.Type(), status(got))
		}
	}
	kept := must[*server.Transaction](t)(e.store.Transaction(t.Context(), idOf(answers[17])))
	p := must[[]ca.PendingRequest](t)(e.store.Pendings(t.Context(), ca.PendingFilter{}, 0, 10))
	if len(p) != 1 || kept.Expires.Before(p[0].Expires) || kept.Expires.After(p[0].Expires.Add(2*time.Minute)) {
		t.Errorf("the transaction is kept until %s, the request until %s", kept.Expires, p[0].Expires)
	}

	// A message that is too large to be kept is refused, and nothing is.
	big := e.message(requests(cmp.IR, request), cmp.Info{Type: []int{1, 3, 6, 1, 4, 1, 55555, 9}, Value: append([]byte{4, 0x82, 0x80, 0}, make([]byte, 0x8000)...)})
	if got := status(e.ask(big, lamp)); got.FailInfo != cmp.BadRequest || !strings.Contains(got.String(), "one that has to wait may have 32768") {
		t.Errorf("a message of 32 KiB and more: %v", got)
	}
	if _, err := e.store.Transaction(t.Context(), idOf(big)); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("it was kept: %v", err)
	}
	// A credential that is revoked takes with it what it queued.
	if err := e.core.RevokeCredential(t.Context(), string(lamp.mac.Reference()), "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.store.Transaction(t.Context(), idOf(answers[17])); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("a transaction outlives its credential: %v", err)
	}
}

// A loop of requests that only wait, of polls, of challenges, and of repeated requests
// in new transactions costs acts.
func TestTransactionLoops(t *testing.T) {
	t.Run("waiting", func(t *testing.T) {
		e := newEnv(t, approving)
		lamp := e.register("lamp-1", 1)
		e.reopen(func(o *ca.Options) { o.Budgets.ActsPerDevice = 3 })
		request := crmf(t, "lamp-1", newKey(t), nil)
		first := e.ask(e.message(requests(cmp.IR, request)), lamp)
		e.ask(e.message(requests(cmp.IR, request)), lamp)
		poll := cmp.Reply(first, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now())
		raw := e.protected(poll, lamp)
		reply := e.verify(must[*cmp.Message](t)(cmp.Parse(e.postRaw("", raw))), poll, lamp)
		for range 3 { // the same message again costs nothing
			if again := e.post("", raw); again.Body.Type() != cmp.PollRep {
				t.Errorf("%s: %v", again.Body.Type(), status(again))
			}
		}
		next := func() *cmp.Message {
			return e.ask(cmp.Reply(reply, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now()), lamp)
		}
		if got := status(next()).FailInfo; got != cmp.SystemUnavail {
			t.Errorf("the fourth act in a minute: %s", got)
		}
		e.late.Store(int64(20 * time.Second))
		if got := next(); got.Body.Type() != cmp.PollRep {
			t.Errorf("20 s later: %s %v", got.Body.Type(), status(got))
		}
	})
	t.Run("repeated", func(t *testing.T) {
		e := newEnv(t)
		lamp := e.register("lamp-1", 1)
		e.reopen(func(o *ca.Options) { o.Budgets.ActsPerDevice = 2 })
		request := crmf(t, "lamp-1", newKey(t), nil)
		for i := range 4 {
			got := status(e.ask(e.message(requests(cmp.IR, request), cmp.ImplicitConfirm()), lamp)).FailInfo
			if want := []cmp.FailInfo{0, 0, 0, cmp.SystemUnavail}[i]; got != want {
				t.Errorf("request %d: %s, want %s", i+1, got, want)
			}
		}
	})
}

// idOf is the ledger's name for the transaction of a message.
func idOf(m *cmp.Message) [32]byte { return sha256.Sum256(m.Header.TransactionID) }
