package server_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http/httptest"
	"testing"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// direct hands octets to the server without a connection.
func (e *env) direct(raw []byte) *cmp.Message {
	e.t.Helper()
	r := httptest.NewRequest("POST", server.Prefix, bytes.NewReader(raw))
	r.Header.Set("Content-Type", "application/pkixcmp")
	w := httptest.NewRecorder()
	e.server.ServeHTTP(w, r)
	if w.Code != 200 {
		e.t.Fatalf("HTTP %d: %s", w.Code, w.Body)
	}
	return must[*cmp.Message](e.t)(cmp.Parse(w.Body.Bytes()))
}

// wholeMessages are messages of every kind that a CA answers, none of which was sent yet.
func (e *env) wholeMessages() map[string]*cmp.Message {
	t := e.t
	own, lamp, ra := e.enrolled("lamp-1"), e.register("lamp-2", 9), e.registerRA("line-1", "lamp-*")
	pbmac1 := party{mac: must[*cmp.MAC](t)(cmp.NewMAC(lamp.mac.Reference(), lamp.secret, cmp.MACParams{Kind: cmp.PBMAC1, Iterations: 100, OWF: crypto.SHA512}))}
	csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}}, newKey(t)))
	cr := func() cmp.Body {
		return requests(cmp.CR, crmf(t, "lamp-1", newKey(t), func(r *cmp.CertReqMsg) { r.Controls = cmp.Attributes{cmp.RegToken("x")} }))
	}
	answer := e.ask(e.message(e.kurFor("lamp-1")), own)
	conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(e.certificate(answer).Raw, 0, nil))}}, e.now())
	e.protected(conf, own)
	original := e.sent(own, cr())
	replaced := e.message(original.Body, cmp.OrigPKIMessage(original))
	replaced.Header.TransactionID, replaced.Header.SenderNonce = original.Header.TransactionID, original.Header.SenderNonce
	e.protected(replaced, ra)
	question := must[cmp.Info](t)(cmp.CRLStatusList(cmp.CRLStatus{Issuer: []cmp.GeneralName{cmp.DirectoryName(own.crt.RawIssuer)}}))
	vault := newKey(t)
	challenged := e.message(requests(cmp.CR, later(t, "lamp-2", vault, cmp.ChallengeResp)), cmp.CertProfile("vault-ec"))
	proof := e.popdecr(e.ask(challenged, lamp), vault, nil)
	e.protected(proof, lamp)
	newer := newKey(t)
	second := party{id: "lamp-1", key: newer, crt: e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newer, nil)), cmp.ImplicitConfirm()), own))}
	return map[string]*cmp.Message{
		"ir for a key":   e.sent(lamp, requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()),
		"cr, encrCert":   e.sent(lamp, requests(cmp.CR, later(t, "lamp-2", newKey(t), cmp.EncrCert)), cmp.CertProfile("vault-ec")),
		"popdecr":        proof,
		"ir, PBM":        e.sent(lamp, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil)), cmp.ImplicitConfirm()),
		"ir, PBMAC1":     e.sent(pbmac1, requests(cmp.IR, crmf(t, "lamp-2", newKey(t), nil))),
		"cr":             e.sent(own, cr(), cmp.CertProfile("device")),
		"p10cr":          e.sent(own, &cmp.PKCS10{Request: csr}),
		"kur":            e.sent(own, e.kurFor("lamp-1")),
		"rr":             e.sent(second, e.revocation(second, 4).Body),
		"genm":           e.sent(own, &cmp.General{Infos: cmp.Infos{question, must[cmp.Info](t)(cmp.CACerts())}}),
		"certConf":       conf,
		"nested":         e.nest(ra, e.sent(own, e.kurFor("lamp-1"))),
		"batch":          e.nest(ra, e.sent(own, e.kurFor("lamp-1")), e.sent(lamp, &cmp.General{})),
		"origPKIMessage": replaced,
	}
}

// refused reports whether an answer is a refusal of some kind.
func refused(m *cmp.Message) bool {
	switch m.Body.(type) {
	case *cmp.ErrorBody, *cmp.CertResponses, *cmp.RevocationResults:
		return status(m).Status == cmp.Rejection
	}
	return false
}

// TestDamaged cuts every message at every seventh octet and flips a bit in each
// octet: only what is outside of the protection may change without a refusal.
func TestDamaged(t *testing.T) {
	e := newEnv(t, withProfiles)
	e.server.Lists = lists{}
	for kind, m := range e.wholeMessages() {
		t.Run(kind, func(t *testing.T) {
			e.t = t
			raw := m.Raw()
			before := e.core.Stats().Issued
			for n := 0; n < len(raw); n += 7 {
				if got := status(e.direct(raw[:n])).FailInfo; got != cmp.BadDataFormat {
					t.Errorf("%d octets: %s", n, got)
				}
			}
			covered := bare(t, m)
			flips := 0
			for i := range raw {
				flipped := bytes.Clone(raw)
				flipped[i] ^= 1 << (i % 8)
				// What the protection does not cover may do no harm, or all of it.
				if d, err := cmp.Parse(flipped); err == nil && bytes.Equal(bare(t, d), covered) {
					continue
				}
				flips++
				if answer := e.direct(flipped); !refused(answer) {
					t.Fatalf("bit %d of octet %d flipped: %s", i%8, i, answer.Body.Type())
				}
			}
			if flips < 200 || e.core.Stats().Issued != before {
				t.Errorf("%d flips, %d certificates issued", flips, e.core.Stats().Issued-before)
			}
			if answer := e.direct(raw); refused(answer) {
				t.Errorf("and whole: %s %v", answer.Body.Type(), status(answer))
			}
		})
	}
}

// bare is a message without its extraCerts.
func bare(t *testing.T, m *cmp.Message) []byte {
	t.Helper()
	copied := *m
	copied.ExtraCerts = nil
	return must[[]byte](t)(copied.Marshal())
}
