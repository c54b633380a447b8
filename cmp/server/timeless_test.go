package server_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/internal/store"
)

// withoutClocks lets devices of level software leave out messageTime.
func withoutClocks(source []byte) []byte {
	return bytes.Replace(source, []byte("\n  software:"), []byte("\n  software:\n    cmp: {message_time: optional}"), 1)
}

// timeless is a message without messageTime.
func (e *env) timeless(body cmp.Body, infos ...cmp.Info) *cmp.Message {
	m := e.message(body, infos...)
	m.Header.Time = time.Time{}
	return m
}

// later moves the clock on, and forgets what may be forgotten.
func (e *env) later(d time.Duration) {
	e.t.Helper()
	e.late.Store(int64(d))
	if err := e.server.Sweep(e.t.Context()); err != nil {
		e.t.Fatal(err)
	}
}

// RFC 9483 §3.1 has messageTime OPTIONAL: devices without a clock may leave it out if their level says so. What
// they send cannot be replayed for as long as what protects it is worth anything.
func TestTimeless(t *testing.T) {
	e := newEnv(t, withoutClocks)
	lamp, own := e.register("lamp-1", 9), e.enrolled("lamp-2")
	sent := map[string]struct {
		by  party
		raw []byte
	}{}
	for name, c := range map[string]struct {
		by   party
		body cmp.Body
	}{
		"ir by MAC":     {lamp, requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))},
		"kur":           {own, e.kurFor("lamp-2")},
		"p10cr, signed": {own, &cmp.PKCS10{Request: csrOf(t, "lamp-2", newKey(t), 0)}},
	} {
		m := e.timeless(c.body)
		raw := e.protected(m, c.by)
		answer := e.verify(e.post("", raw), m, c.by)
		cert := e.certificate(answer)
		if again := e.post("", raw); !bytes.Equal(again.Raw(), answer.Raw()) {
			t.Errorf("%s again: another answer", name)
		}
		id := int64(0)
		if c.body.Type() == cmp.P10CR {
			id = -1
		}
		conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, id, nil))}}, time.Time{})
		if reply := e.ask(conf, c.by); reply.Body.Type() != cmp.PKIConf {
			t.Errorf("%s: certConf without messageTime: %v", name, status(reply))
		}
		sent[name] = struct {
			by  party
			raw []byte
		}{c.by, raw}
	}
	if answer := e.ask(e.timeless(&cmp.General{}), own); answer.Body.Type() != cmp.GenP {
		t.Errorf("genm: %v", status(answer))
	}
	// The time that is there counts.
	m := e.message(&cmp.General{})
	m.Header.Time = m.Header.Time.Add(-time.Hour)
	if got := status(e.ask(m, own)).FailInfo; got != cmp.BadTime {
		t.Errorf("a wrong messageTime: %s", got)
	}
	// The answers are forgotten after minutes, the transactionIDs are not.
	issued := e.core.Stats().Issued
	for _, d := range []time.Duration{time.Hour, 20 * time.Hour} {
		e.later(d)
		for name, c := range sent {
			answer := e.post("", c.raw)
			if got := status(answer).FailInfo; got != cmp.TransactionIDInUse {
				t.Errorf("%s after %s: %v", name, d, status(answer))
			}
		}
	}
	// A certificate that has lapsed may renew for a month; then nothing is worth anything, and nothing is kept.
	for _, d := range []time.Duration{25 * time.Hour, 29 * 24 * time.Hour} {
		e.later(d)
		if got := status(e.post("", sent["kur"].raw)).FailInfo; got != cmp.TransactionIDInUse {
			t.Errorf("kur after %s: %s", d, got)
		}
	}
	e.later(60 * 24 * time.Hour)
	for name, c := range sent {
		got := status(e.post("", c.raw)).FailInfo
		if got != cmp.BadMessageCheck && got != cmp.SignerNotTrusted {
			t.Errorf("%s after its end: %s", name, got)
		}
		m := must[*cmp.Message](t)(cmp.Parse(c.raw))
		if seen, _, err := e.store.SeenTransaction(t.Context(), sha(m.Header.TransactionID), "", 1); seen || err != nil {
			t.Errorf("%s is remembered after its end: %v", name, err)
		}
	}
	if n := e.core.Stats().Issued - issued; n != 0 {
		t.Errorf("%d certificates by replays", n)
	}
}

// A level that does not say so, a registration authority and a batch need a messageTime. A refusal is not remembered.
func TestTimelessRefused(t *testing.T) {
	e := newEnv(t, withoutClocks)
	brown := e.registerAt("lamp-3", "brownfield", 9)
	ra := e.registerRA("line-1", "lamp-*")
	for name, c := range map[string]struct {
		by   party
		body cmp.Body
	}{
		"a level that requires it": {brown, requests(cmp.IR, crmf(t, "lamp-3", newKey(t), nil))},
		"genm there":               {brown, &cmp.General{}},
		"an RA":                    {ra, requests(cmp.CR, crmf(t, "lamp-4", newKey(t), nil))},
		"a batch":                  {ra, &cmp.NestedMessages{Messages: []*cmp.Message{e.sent(brown, &cmp.General{}), e.sent(brown, &cmp.General{})}}},
	} {
		if got := status(e.ask(e.timeless(c.body), c.by)).FailInfo; got != cmp.BadTime {
			t.Errorf("%s: %s", name, got)
		}
	}
	lamp := e.register("lamp-1", 1)
	raw := e.protected(e.timeless(requests(cmp.IR, crmf(t, "lamp-9", newKey(t), nil))), lamp)
	for range 2 {
		if got := status(e.post("", raw)).FailInfo; got != cmp.NotAuthorized {
			t.Errorf("refused, and again: %s", got)
		}
	}
	// There is an end to what is remembered: beyond, messageTime is needed.
	e.server.Ledger = full{e.store}
	ir := func() cmp.Body { return requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)) }
	if got := status(e.ask(e.timeless(ir()), lamp)); got.FailInfo != cmp.SystemUnavail || !strings.Contains(got.Text[0], "give a messageTime") {
		t.Errorf("too many: %v", got)
	}
	e.certificate(e.ask(e.message(ir()), lamp))
}

// full is a ledger in which every owner has as many transactionIDs as it may.
type full struct{ *store.Store }

func (f full) SeenTransaction(ctx context.Context, id [32]byte, owner string, limit int) (bool, int, error) {
	seen, _, err := f.Store.SeenTransaction(ctx, id, owner, limit)
	return seen, limit, err
}

// By the manufacturer's certificate, which outlives everything; a revocation, too.
func TestTimelessIDevID(t *testing.T) {
	e := newEnv(t, withoutClocks)
	makerKey, key := newKey(t), newKey(t)
	maker := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	must[*ca.Manufacturer](t)(e.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "maker", Level: "software", Anchors: [][]byte{maker.Raw}}, "admin:test"))
	station := party{id: "station-1", key: key, crt: issue(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: "station-1"}}, maker, key.Public(), makerKey)}
	newer := newKey(t)
	first := party{id: "station-1", key: newer, crt: e.certificate(e.ask(e.timeless(requests(cmp.IR, crmf(t, "station-1", newer, nil)), cmp.ImplicitConfirm()), station))}
	rr := e.timeless(e.revocation(first, 6).Body)
	raw := e.protected(rr, station)
	if got := status(e.verify(e.post("", raw), rr, station)); got.Status != cmp.Accepted || !e.revoked(first.crt) {
		t.Fatal(got)
	}
	must[*ca.Certificate](t)(e.core.Release(t.Context(), serialOf(first), "admin:test"))
	e.later(time.Hour)
	if got := status(e.post("", raw)).FailInfo; got != cmp.TransactionIDInUse || e.revoked(first.crt) {
		t.Errorf("the hold replayed: %s", got)
	}
}

// A rr that a server died over is finished by who sends it again; two at once get the same answer.
func TestTimelessResumed(t *testing.T) {
	e := newEnv(t, withoutClocks)
	own := e.enrolled("lamp-1")
	m := e.timeless(e.revocation(own, 1).Body)
	raw := e.protected(m, own)
	dead := &server.Transaction{ID: sha(m.Header.TransactionID), Request: sha(raw), State: server.Working, Actor: "device:lamp-1", Signer: own.crt.Raw,
		Begun: e.now().Add(-2 * time.Minute), Expires: e.now().Add(time.Hour), Seen: &server.Seen{Owner: "certificate", Until: e.now().Add(time.Hour)}}
	if there, _, err := e.store.BeginTransaction(t.Context(), dead, time.Time{}); there != nil || err != nil {
		t.Fatal(there, err)
	}
	if got := status(e.verify(e.post("", raw), m, own)); got.Status != cmp.Accepted || !e.revoked(own.crt) {
		t.Errorf("resumed: %v", got)
	}
	other := e.enrolled("lamp-2")
	raw = e.protected(e.timeless(e.kurFor("lamp-2"), cmp.ImplicitConfirm()), other)
	answers := make([][]byte, 6)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = e.postRaw("", raw) })
	}
	wg.Wait()
	for _, a := range answers {
		if !bytes.Equal(a, answers[0]) {
			t.Errorf("different answers: %v", status(must[*cmp.Message](t)(cmp.Parse(a))))
		}
	}
}
