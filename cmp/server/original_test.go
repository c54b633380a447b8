package server_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// RFC 9483 §5.2.3, RFC 9810 §5.1.1.3: an RA that replaces the protection shows the
// message as it got it.
func TestOrigPKIMessage(t *testing.T) {
	e := newEnv(t)
	ra := e.registerRA("line-1", "lamp-*", "station-*")
	own, gone := e.enrolled("lamp-1"), e.enrolled("lamp-9")
	must[*ca.Certificate](t)(e.core.Revoke(t.Context(), serialOf(gone), 1, nil, "admin:test"))
	secret := party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte("known to the RA alone"), []byte("secret"), cmp.MACParams{}))}
	makerKey, deviceKey := newKey(t), newKey(t)
	maker := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	foreign := party{key: deviceKey, crt: issue(t, &x509.Certificate{Subject: pkix.Name{SerialNumber: "station-1"}}, maker, deviceKey.Public(), makerKey)}
	cr := func(id string) cmp.Body { return requests(cmp.CR, crmf(t, id, newKey(t), nil)) }
	raVerified := requests(cmp.CR, crmf(t, "lamp-1", newKey(t), func(r *cmp.CertReqMsg) { r.POP = &cmp.POP{Method: cmp.RAVerified} }))
	// Without a subject the proof names the sender, who is the device and not the RA (RFC 4211 §4.1).
	nameless := func(sender cmp.GeneralName) cmp.Body {
		r := &cmp.CertReqMsg{Template: cmp.CertTemplate{Extensions: []pkix.Extension{{Id: []int{2, 5, 29, 17}, Value: []byte("\x30\x08\x82\x06lamp-1")}}}}
		if err := r.SignPOP(newKey(t), cmp.POPAuth{Sender: sender}); err != nil {
			t.Fatal(err)
		}
		return requests(cmp.CR, r)
	}
	for _, c := range []struct {
		name     string
		original *cmp.Message
		body     cmp.Body // what the RA makes of it; nil: the same
		edit     func(*cmp.Message)
		times    int // origPKIMessage holds it so often; 0: once
		want     cmp.FailInfo
	}{
		{name: "by a secret that only the RA knows", original: e.sent(secret, cr("lamp-2"))},
		{name: "by the device's certificate", original: e.sent(own, cr("lamp-1"))},
		{name: "by the device's certificate, raVerified", original: e.sent(own, cr("lamp-1")), body: raVerified},
		{name: "by a certificate that only the RA knows", original: e.sent(foreign, cr("station-1"))},
		{name: "RFC 4211 §4.1 poposkInput with the device as sender", original: e.sent(own, nameless(cmp.DirectoryName(own.crt.RawSubject)))},
		{name: "RFC 4211 §4.1 poposkInput with another sender", original: e.sent(own, nameless(cmp.CommonName("lamp-7"))), want: cmp.BadPOP},
		{name: "for another device than that which has signed", original: e.sent(own, cr("lamp-1")), body: cr("lamp-2"), want: cmp.NotAuthorized},
		{name: "by a certificate that is revoked", original: e.sent(gone, cr("lamp-9")), want: cmp.SignerNotTrusted},
		{name: "a wrong signature", original: func() *cmp.Message {
			m := e.sent(own, cr("lamp-1"))
			m.Protection[len(m.Protection)-1] ^= 1
			return must[*cmp.Message](t)(cmp.Parse(must[[]byte](t)(m.Marshal())))
		}(), want: cmp.BadMessageCheck},
		{name: "unprotected", original: must[*cmp.Message](t)(cmp.Parse(must[[]byte](t)(e.message(cr("lamp-1")).Marshal()))), want: cmp.BadMessageCheck},
		{name: "RFC 9483 §5.2.3 a kur", original: e.sent(own, e.kurFor("lamp-1")), body: cr("lamp-1"), want: cmp.NotAuthorized},
		{name: "RFC 9483 §5.2.3 a request for a key", original: e.sent(own, requests(cmp.CR, &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: name("lamp-1")}})),
			body: cr("lamp-1"), want: cmp.NotAuthorized},
		{name: "RFC 9483 §5.2.3 another transactionID", original: e.sent(own, cr("lamp-1")),
			edit: func(m *cmp.Message) { m.Header.TransactionID = make([]byte, 16) }, want: cmp.BadRequest},
		{name: "RFC 9483 §5.2.3 another senderNonce", original: e.sent(own, cr("lamp-1")),
			edit: func(m *cmp.Message) { m.Header.SenderNonce = make([]byte, 16) }, want: cmp.BadSenderNonce},
		{name: "RFC 9810 §5.1.1.3 two messages", original: e.sent(own, cr("lamp-1")), times: 2, want: cmp.BadRequest},
		{name: "RFC 9810 §5.1.1.3 no message", original: e.sent(own, cr("lamp-1")), times: -1, want: cmp.BadDataFormat},
		{name: "rr for another device than that which has signed", original: e.sent(own, e.revocation(own, 1).Body),
			body: e.revocation(e.enrolled("lamp-3"), 1).Body, want: cmp.BadCertID},
		{name: "rr", original: e.sent(own, e.revocation(own, 1).Body)}, // the last: it revokes
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			m := e.message(c.body, cmp.ImplicitConfirm())
			if c.body == nil {
				m.Body = c.original.Body
			}
			m.Header.TransactionID, m.Header.SenderNonce = c.original.Header.TransactionID, c.original.Header.SenderNonce
			m.Header.GeneralInfo = append(m.Header.GeneralInfo, shown(c.original, c.times))
			if c.edit != nil {
				c.edit(m)
			}
			if got := status(e.ask(m, ra)); got.FailInfo != c.want || got.Status.Granted() != (c.want == 0) {
				t.Errorf("%v, want %s", got, c.want)
			}
		})
	}
	e.t = t
	// In the message of a device it is nothing but a field of the header.
	lamp := e.enrolled("lamp-4")
	m := e.message(cr("lamp-4"), cmp.ImplicitConfirm(), shown(e.sent(gone, cr("lamp-9")), 2))
	e.certificate(e.ask(m, lamp))
}

// shown is an origPKIMessage that holds a message so often; -1: an empty one.
func shown(m *cmp.Message, times int) cmp.Info {
	info := cmp.OrigPKIMessage(m)
	switch times {
	case -1:
		info.Value = []byte{0x30, 0}
	case 2:
		info.Value = sequence(append(append([]byte{}, m.Raw()...), m.Raw()...))
	}
	return info
}

// sequence wraps more than 256 octets.
func sequence(content []byte) []byte {
	return append([]byte{0x30, 0x82, byte(len(content) >> 8), byte(len(content))}, content...)
}
