package server_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

// sent is a message, protected by its sender.
func (e *env) sent(p party, body cmp.Body, infos ...cmp.Info) *cmp.Message {
	e.t.Helper()
	m := e.message(body, infos...)
	e.protected(m, p)
	return m
}

// nest wraps messages.
func (e *env) nest(by party, messages ...*cmp.Message) *cmp.Message {
	e.t.Helper()
	m := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, messages...)
	e.protected(m, by)
	return m
}

func (e *env) kurFor(id string) cmp.Body { return requests(cmp.KUR, crmf(e.t, id, newKey(e.t), nil)) }

// RFC 9483 §5.2.2.1: an RA adds its protection, and the answer is that to the message within.
func TestNested(t *testing.T) {
	e := newEnv(t, withProfiles)
	ra, gates, stranger := e.registerRA("line-1", "lamp-*"), e.registerRA("gates", "gate-*"), e.registerRA("stranger", "lamp-*")
	if err := e.core.RemoveRA(t.Context(), "stranger", "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.core.AddRA(t.Context(), ca.RA{Name: "hsm-line", Cert: stranger.crt.Raw, Names: []string{"lamp-*"}, Levels: []string{"hsm"}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	own, gate, byMAC := e.enrolled("lamp-1"), e.enrolled("gate-1"), e.register("lamp-2", 9)
	group := must[*ca.Grant](t)(e.core.AddCredential(t.Context(), device.Credential{Group: "gates", Names: []string{"gate-*"}, Level: "software", Uses: 9}, time.Hour, "admin:test"))
	byGroup := party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte(group.Reference), []byte(group.Secret), cmp.MACParams{}))}
	ir := func(id string) cmp.Body { return requests(cmp.IR, crmf(t, id, newKey(t), nil)) }
	genm := &cmp.General{Infos: cmp.Infos{must[cmp.Info](t)(cmp.CACerts())}}
	for _, c := range []struct {
		name string
		by   party // the outer protection
		of   party // the inner one
		body cmp.Body
		want cmp.FailInfo
	}{
		{"ir by MAC", ra, byMAC, ir("lamp-2"), 0},
		{"kur", ra, own, e.kurFor("lamp-1"), 0},
		{"genm", ra, own, genm, 0},
		{"RFC 9483 §5.2.2 a device nests", own, own, e.kurFor("lamp-1"), cmp.NotAuthorized},
		{"RFC 9483 §4.1.5 the outer protection is a MAC", byMAC, own, e.kurFor("lamp-1"), cmp.WrongIntegrity},
		{"RFC 9483 §5.2.2.1 kur beyond the RA's bounds", ra, gate, e.kurFor("gate-1"), cmp.NotAuthorized},
		{"RFC 9483 §5.2.2.1 genm beyond the RA's bounds", gates, own, genm, cmp.NotAuthorized},
		{"RFC 9483 §5.2.2.1 a level beyond the RA's bounds", stranger, own, e.kurFor("lamp-1"), cmp.NotAuthorized},
		{"RFC 9483 §5.2.2.1 rr beyond the RA's bounds", ra, gate, e.revocation(gate, 1).Body, cmp.NotAuthorized},
		{"RFC 9483 §5.2.2.1 rr of a level beyond the RA's bounds", stranger, own, e.revocation(own, 1).Body, cmp.NotAuthorized},
		{"RFC 9483 §5.2.2.1 a group credential beyond the RA's bounds", ra, byGroup, ir("gate-7"), cmp.NotAuthorized},
		{"a group credential within them", gates, byGroup, ir("gate-8"), 0},
		{"an approval adds nothing: another device's name", ra, own, requests(cmp.IR, crmf(t, "lamp-3", newKey(t), nil)), cmp.NotAuthorized},
		{"an approval adds nothing: raVerified by the device", ra, byMAC, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), func(r *cmp.CertReqMsg) {
			r.POP = &cmp.POP{Method: cmp.RAVerified}
		})), cmp.NotAuthorized},
		{"the inner protection counts: kur by MAC", ra, byMAC, e.kurFor("lamp-2"), cmp.WrongIntegrity},
		{"a message that no CA answers", ra, own, &cmp.Confirm{}, cmp.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			inner := e.sent(c.of, c.body)
			before := e.core.Stats().Issued
			answer := e.post("/nested", e.nest(c.by, inner).Raw())
			if answer.Body.Type() == cmp.Nested {
				t.Fatal("the answer is wrapped")
			}
			if got := status(answer); got.FailInfo != c.want {
				t.Fatalf("%v, want %s", got, c.want)
			}
			if c.want != 0 {
				if e.core.Stats().Issued != before {
					t.Error("a certificate was issued")
				}
				return
			}
			e.verify(answer, inner, c.of) // protected in kind: as the inner message is
			// Sent again without the RA it is the same message.
			if inner.Body.Type() != cmp.GenM && !bytes.Equal(e.postRaw("", inner.Raw()), answer.Raw()) {
				t.Error("the inner message by itself gets another answer")
			}
		})
	}
	e.t = t
	if e.revoked(own.crt) || e.revoked(gate.crt) {
		t.Error("a refused rr revoked")
	}

	t.Run("certConf and the audit log", func(t *testing.T) {
		e.t = t
		inner := e.sent(own, e.kurFor("lamp-1"))
		answer := e.verify(e.post("", e.nest(ra, inner).Raw()), inner, own)
		cert := e.certificate(answer)
		conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, 0, nil))}}, e.now())
		e.protected(conf, own)
		if reply := e.verify(e.post("", e.nest(ra, conf).Raw()), conf, own); reply.Body.Type() != cmp.PKIConf {
			t.Errorf("%s: %v", reply.Body.Type(), status(reply))
		}
		events := must[[]store.LoggedEvent](t)(e.store.EventLog(t.Context(), store.EventFilter{Kind: ca.EventIssued, Device: "lamp-1"}, 0, 100))
		if last := events[len(events)-1]; last.Serial != serialOf(party{crt: cert}) || last.Reason != "approved by ra:line-1" {
			t.Errorf("the last event is %+v", last)
		}
	})
	t.Run("RFC 9483 §5.2.3 central key generation is approved by nesting alone", func(t *testing.T) {
		e.t = t
		inner := e.sent(byMAC, requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm())
		e.opened(e.verify(e.post("", e.nest(ra, inner).Raw()), inner, byMAC), byMAC)
	})
	t.Run("one RA behind the other", func(t *testing.T) {
		e.t = t
		both := e.registerRA("region", "lamp-*", "gate-*")
		inner := e.sent(own, e.kurFor("lamp-1"))
		e.certificate(e.verify(e.post("", e.nest(both, e.nest(ra, inner)).Raw()), inner, own))
		inner = e.sent(own, e.kurFor("lamp-1"))
		if got := status(e.post("", e.nest(both, e.nest(gates, inner)).Raw())).FailInfo; got != cmp.NotAuthorized {
			t.Errorf("the inner RA is beyond its bounds: %s", got)
		}
		deep := e.nest(both, e.nest(both, e.nest(ra, inner)))
		if got := status(e.post("", deep.Raw())).FailInfo; got != cmp.BadDataFormat {
			t.Errorf("three deep: %s", got)
		}
	})
	t.Run("the outer header", func(t *testing.T) {
		e.t = t
		for name, c := range map[string]struct {
			edit func(*cmp.Header)
			want cmp.FailInfo
		}{
			"RFC 9483 §5.2.2.1 no messageTime":           {func(h *cmp.Header) { h.Time = time.Time{} }, 0},
			"RFC 9483 §5.2.2.1 senderNonce not copied":   {func(h *cmp.Header) { h.SenderNonce = make([]byte, 16) }, cmp.BadSenderNonce},
			"RFC 9483 §3.5 messageTime off":              {func(h *cmp.Header) { h.Time = h.Time.Add(-time.Hour) }, cmp.BadTime},
			"RFC 9483 §3.5 pvno":                         {func(h *cmp.Header) { h.Version = 4 }, cmp.UnsupportedVersion},
			"RFC 9483 §5.2.2.2 a batch without its time": {func(h *cmp.Header) { h.TransactionID, h.Time = make([]byte, 16), time.Time{} }, cmp.BadTime},
		} {
			m := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, e.sent(own, e.kurFor("lamp-1")))
			c.edit(&m.Header)
			if got := status(e.post("", e.protected(m, ra))).FailInfo; got != c.want {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
		m := e.nest(ra, e.sent(own, e.kurFor("lamp-1")))
		if got := status(e.post("/keyupdate", m.Raw())).FailInfo; got != cmp.BadRequest {
			t.Errorf("RFC 9811 §3.3 nested to keyupdate: %s", got)
		}
		m.Protection[len(m.Protection)-1] ^= 1
		if got := status(e.post("", must[[]byte](t)(m.Marshal()))).FailInfo; got != cmp.BadMessageCheck {
			t.Errorf("RFC 9483 §3.5 a flipped outer signature: %s", got)
		}
	})
}

// RFC 9483 §5.2.2.2: a batch of messages is answered by a batch of as many answers, in their order.
func TestBatch(t *testing.T) {
	e := newEnv(t)
	lra := e.registerRA("lra", "none-*") // what it bundles it does not approve of
	own, gate, byMAC := e.enrolled("lamp-1"), e.enrolled("gate-1"), e.register("lamp-2", 9)
	wrong := party{mac: must[*cmp.MAC](t)(cmp.NewMAC(byMAC.mac.Reference(), []byte("wrong"), cmp.MACParams{}))}
	ra := e.registerRA("line-1", "lamp-*")
	approved := e.sent(own, e.kurFor("lamp-1"), cmp.ImplicitConfirm())
	kinds := []struct {
		m    *cmp.Message // as it is in the batch
		of   *cmp.Message // what is answered
		by   party
		body cmp.BodyType
		want cmp.FailInfo
	}{
		{m: e.sent(own, e.kurFor("lamp-1"), cmp.ImplicitConfirm()), by: own, body: cmp.KUP},
		{m: e.sent(byMAC, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil)), cmp.ImplicitConfirm()), by: byMAC, body: cmp.IP},
		{m: e.sent(gate, e.revocation(gate, 4).Body), by: gate, body: cmp.RP},
		{m: e.sent(own, &cmp.General{Infos: cmp.Infos{must[cmp.Info](t)(cmp.CACerts())}}), by: own, body: cmp.GenP},
		{m: e.sent(wrong, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil))), body: cmp.ErrorMsg, want: cmp.BadMessageCheck},
		{m: e.sent(own, requests(cmp.CR, crmf(t, "gate-1", newKey(t), nil))), by: own, body: cmp.CP, want: cmp.NotAuthorized},
		{m: e.sent(own, &cmp.PollRequests{CertReqIDs: []int64{0}}), by: own, body: cmp.ErrorMsg, want: cmp.BadRequest},
		{m: e.nest(ra, approved), of: approved, by: own, body: cmp.KUP},
	}
	var messages []*cmp.Message
	for _, k := range kinds {
		messages = append(messages, k.m)
	}
	batch := e.nest(lra, messages...)
	answer := e.verify(e.post("/nested", batch.Raw()), batch, lra)
	b, ok := answer.Body.(*cmp.NestedMessages)
	if !ok || len(b.Messages) != len(kinds) {
		t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
	}
	for i, k := range kinds {
		got, to := b.Messages[i], k.m
		if k.of != nil {
			to = k.of
		}
		if got.Body.Type() != k.body || status(got).FailInfo != k.want || !bytes.Equal(got.Header.TransactionID, to.Header.TransactionID) {
			t.Errorf("answer %d: %s %v, want %s %s", i, got.Body.Type(), status(got), k.body, k.want)
		}
		if k.by.id != "" {
			e.verify(got, to, k.by)
		}
	}
	if !e.revoked(gate.crt) {
		t.Error("the rr in the batch did not revoke")
	}
	// Again: the same answers, and no second certificate.
	issued := e.core.Stats().Issued
	again := e.post("", batch.Raw()).Body.(*cmp.NestedMessages)
	for i, k := range kinds {
		if k.want == 0 && k.body != cmp.GenP && !bytes.Equal(again.Messages[i].Raw(), b.Messages[i].Raw()) {
			t.Errorf("answer %d is another the second time", i)
		}
	}
	if e.core.Stats().Issued != issued {
		t.Error("a second certificate was issued")
	}

	genm := func() *cmp.Message { return e.sent(own, &cmp.General{}) }
	many := func(n int) (list []*cmp.Message) {
		one := genm()
		for range n {
			list = append(list, one)
		}
		return list
	}
	one := genm()
	used := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, genm(), genm())
	used.Header.TransactionID = messages[0].Header.TransactionID
	e.protected(used, lra)
	same := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, genm(), one)
	same.Header.TransactionID = one.Header.TransactionID
	e.protected(same, lra)
	// RFC 9483 §3.6.3: what is wrong with the batch is answered by one error.
	for _, c := range []struct {
		name string
		m    *cmp.Message
		want cmp.FailInfo
	}{
		{"by a device", e.nest(own, genm(), genm()), cmp.NotAuthorized},
		{"65 messages", e.nest(lra, many(65)...), cmp.BadDataFormat},
		{"a batch in a batch", e.nest(lra, e.nest(lra, genm(), genm()), genm()), 0},
		{"a transactionID in use", used, cmp.TransactionIDInUse},
		{"the transactionID of a message in it", same, cmp.BadRequest},
	} {
		answer := e.post("", c.m.Raw())
		if c.want == 0 { // the inner batch alone is refused
			b, ok := answer.Body.(*cmp.NestedMessages)
			if !ok || status(b.Messages[0]).FailInfo != cmp.BadRequest || b.Messages[1].Body.Type() != cmp.GenP {
				t.Errorf("%s: %s %v", c.name, answer.Body.Type(), status(answer))
			}
			continue
		}
		if got := status(answer); answer.Body.Type() != cmp.ErrorMsg || got.FailInfo != c.want {
			t.Errorf("%s: %s %v, want %s", c.name, answer.Body.Type(), got, c.want)
		}
	}
	full := e.post("", e.nest(lra, many(64)...).Raw()).Body.(*cmp.NestedMessages)
	if len(full.Messages) != 64 {
		t.Errorf("%d answers to 64 messages", len(full.Messages))
	}
	alone := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, one)
	alone.Header.TransactionID = make([]byte, 16)
	e.protected(alone, lra)
	if b, ok := e.post("", alone.Raw()).Body.(*cmp.NestedMessages); !ok || len(b.Messages) != 1 {
		t.Error("a batch of one is not answered by a batch of one")
	}
}

// RFC 9483 §4.4, §5.2.2.2: what must be approved is polled for in batches, as well as alone.
func TestBatchPolling(t *testing.T) {
	e := newEnv(t, func(source []byte) []byte {
		return bytes.Replace(source, []byte("    backdate: 5m"), []byte("    approval: true\n    backdate: 5m"), 1)
	})
	lra, lamp := e.registerRA("lra", "lamp-*"), e.register("lamp-1", 1)
	other := e.sent(lamp, &cmp.General{})
	in := func(m *cmp.Message) *cmp.Message {
		t.Helper()
		b := e.post("", e.nest(lra, m, other).Raw()).Body.(*cmp.NestedMessages)
		return e.verify(b.Messages[0], m, lamp)
	}
	answer := in(e.sent(lamp, requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()))
	if got := status(answer); got.Status != cmp.Waiting {
		t.Fatal(got)
	}
	poll := func(to *cmp.Message) *cmp.Message {
		m := cmp.Reply(to, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now())
		e.protected(m, lamp)
		return m
	}
	reply := in(poll(answer))
	if _, ok := reply.Body.(*cmp.PollReplies); !ok {
		t.Fatalf("%s: %v", reply.Body.Type(), status(reply))
	}
	must[*ca.PendingRequest](t)(e.core.DecideRequest(t.Context(), 1, true, "", "admin:test"))
	if cert := e.certificate(in(poll(reply))); !strings.Contains(cert.Subject.String(), "lamp-1") {
		t.Errorf("subject %s", cert.Subject)
	}
}

// RFC 9483 §5.2.2.1: of the header around an approved message, senderNonce and transactionID count, and the rest can be ignored;
// a messageTime that is there must be near all the same. The header within counts whole.
func TestApprovalHeader(t *testing.T) {
	e := newEnv(t)
	ra, own := e.registerRA("line-1", "lamp-*"), e.enrolled("lamp-1")
	for _, c := range []struct {
		name string
		edit func(outer *cmp.Header)
		want cmp.FailInfo
	}{
		{"as it should be", func(*cmp.Header) {}, 0},
		{"no messageTime", func(h *cmp.Header) { h.Time = time.Time{} }, 0},
		{"a recipNonce", func(h *cmp.Header) { h.RecipNonce = h.SenderNonce }, 0},
		{"an old messageTime", func(h *cmp.Header) { h.Time = h.Time.Add(-time.Hour) }, cmp.BadTime},
		{"another senderNonce", func(h *cmp.Header) { h.SenderNonce = make([]byte, 16) }, cmp.BadSenderNonce},
	} {
		m := cmp.NewNested(cmp.HeaderOptions{Time: e.now()}, e.sent(own, e.kurFor("lamp-1")))
		c.edit(&m.Header)
		if got := status(e.post("", e.protected(m, ra))); got.FailInfo != c.want || got.Status.Granted() != (c.want == 0) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
	inner := e.timeless(e.kurFor("lamp-1"))
	e.protected(inner, own)
	if got := status(e.post("", e.nest(ra, inner).Raw())).FailInfo; got != cmp.BadTime {
		t.Errorf("no messageTime within: %s", got)
	}
}
