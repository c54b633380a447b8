package server_test

import (
	"crypto/x509/pkix"
	"testing"

	"github.com/deviceca/deviceca/cmp"
)

// RFC 4211 §4.1, §6.1, §6.2: the proof of possession covers the controls; a
// template without subject names who asks.
func TestPOP(t *testing.T) {
	e := newEnv(t)
	own, lamp := e.enrolled("lamp-1"), e.register("lamp-2", 20)
	otherSecret := must[*cmp.MAC](t)(cmp.NewMAC(lamp.mac.Reference(), []byte("other"), cmp.MACParams{}))
	controls := func(r *cmp.CertReqMsg) { r.Controls = cmp.Attributes{cmp.RegToken("token"), cmp.Authenticator("hush")} }
	nameless := func(dns string, auth cmp.POPAuth) *cmp.CertReqMsg {
		san := append([]byte{0x30, byte(len(dns) + 2), 0x82, byte(len(dns))}, dns...)
		r := &cmp.CertReqMsg{Template: cmp.CertTemplate{Extensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}, Value: san}}}}
		if err := r.SignPOP(newKey(t), auth); err != nil {
			t.Fatal(err)
		}
		return r
	}
	signed := crmf(t, "lamp-2", newKey(t), controls)
	changed := crmf(t, "lamp-2", newKey(t), controls)
	changed.Controls[0] = cmp.RegToken("other")
	removed := crmf(t, "lamp-2", newKey(t), controls)
	removed.Controls = nil
	for _, c := range []struct {
		name string
		by   party
		r    *cmp.CertReqMsg
		want cmp.FailInfo
	}{
		{"RFC 4211 §6 regToken and authenticator", lamp, signed, 0},
		{"RFC 4211 §6.1 another regToken than was signed", lamp, changed, cmp.BadPOP},
		{"RFC 4211 §6 controls taken away", lamp, removed, cmp.BadPOP},
		{"RFC 4211 §4.1 poposkInput with the shared secret", lamp, nameless("lamp-2", cmp.POPAuth{MAC: lamp.mac}), 0},
		{"RFC 4211 §4.4 poposkInput with another secret", lamp, nameless("lamp-2", cmp.POPAuth{MAC: otherSecret}), cmp.BadPOP},
		{"RFC 4211 §4.1 poposkInput with the sender", own, nameless("lamp-1", cmp.POPAuth{Sender: cmp.DirectoryName(own.crt.RawSubject)}), 0},
		{"RFC 4211 §4.1 poposkInput with another sender", own, nameless("lamp-1", cmp.POPAuth{Sender: cmp.CommonName("lamp-2")}), cmp.BadPOP},
		{"RFC 4211 §4.1 poposkInput with a secret, and signed", own, nameless("lamp-1", cmp.POPAuth{MAC: lamp.mac}), cmp.BadPOP},
	} {
		answer := e.ask(e.message(requests(cmp.CR, c.r), cmp.ImplicitConfirm()), c.by)
		if got := status(answer); got.FailInfo != c.want || got.Status.Granted() != (c.want == 0) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
	}
}
