package server_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// RFC 9483 §4.4: delayed delivery, with an administrator who approves or denies.
func TestPolling(t *testing.T) {
	e := newEnv(t, func(source []byte) []byte {
		return bytes.Replace(source, []byte("    backdate: 5m"), []byte("    approval: true\n    backdate: 5m"), 1)
	})
	for i, c := range []struct {
		name     string
		approve  bool
		implicit bool
	}{{"approved, certConf", true, false}, {"approved, implicitConfirm", true, true}, {"denied", false, false}} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			id := "lamp-" + string(rune('1'+i))
			lamp := e.register(id, 1)
			m := e.message(requests(cmp.IR, crmf(t, id, newKey(t), nil)))
			if c.implicit {
				m.Header.GeneralInfo = cmp.Infos{cmp.ImplicitConfirm()}
			}
			answer := e.ask(m, lamp)
			if got := status(answer); answer.Body.Type() != cmp.IP || got.Status != cmp.Waiting {
				t.Fatalf("%s: %v", answer.Body.Type(), got)
			}
			e.late.Store(int64(time.Hour)) // long after the first message's window
			defer e.late.Store(0)
			poll := func(ids ...int64) *cmp.Message { return cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: ids}, e.now()) }
			for _, wrong := range []struct {
				m    *cmp.Message
				want cmp.FailInfo
			}{{poll(1), cmp.BadRequest}, {poll(0, 0), cmp.BadRequest}} {
				if got := status(e.ask(wrong.m, lamp)).FailInfo; got != wrong.want {
					t.Errorf("%v: %s", wrong.m.Body, got)
				}
			}
			p := poll(0)
			raw := e.protected(p, lamp)
			first := e.postRaw("", raw)
			reply := e.verify(must[*cmp.Message](t)(cmp.Parse(first)), p, lamp)
			if b, ok := reply.Body.(*cmp.PollReplies); !ok || b.Replies[0].CheckAfter <= 0 || b.Replies[0].CertReqID != 0 {
				t.Fatalf("%s: %v", reply.Body.Type(), status(reply))
			}
			if again := e.postRaw("", raw); !bytes.Equal(again, first) {
				t.Error("the same pollReq got another answer")
			}
			if got := status(e.ask(poll(0), lamp)).FailInfo; got != cmp.BadRecipientNonce {
				t.Errorf("the nonce of the message before the last: %s", got)
			}
			if _, err := e.core.DecideRequest(t.Context(), int64(i+1), c.approve, "because", "admin:test"); err != nil {
				t.Fatal(err)
			}
			p = cmp.Reply(reply, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now())
			raw = e.protected(p, lamp)
			first = e.postRaw("", raw)
			answer = e.verify(must[*cmp.Message](t)(cmp.Parse(first)), p, lamp)
			if !c.approve {
				if got := status(answer); answer.Body.Type() != cmp.IP || got.FailInfo != cmp.NotAuthorized || !strings.Contains(got.String(), "because") {
					t.Errorf("%s: %v", answer.Body.Type(), got)
				}
				return
			}
			cert := e.certificate(answer)
			if again := e.postRaw("", raw); !bytes.Equal(again, first) {
				t.Error("the last pollReq again got another answer")
			}
			if granted := must[bool](t)(answer.Header.GeneralInfo.ImplicitConfirm()); granted != c.implicit {
				t.Errorf("implicitConfirm %v", granted)
			} else if granted {
				return
			}
			conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, 0, nil))}}, e.now())
			if reply := e.ask(conf, lamp); reply.Body.Type() != cmp.PKIConf {
				t.Errorf("%s: %v", reply.Body.Type(), status(reply))
			}
		})
	}
	if n := e.core.Stats().Issued; n != 3 { // and the signer's own
		t.Errorf("%d certificates", n)
	}
}
