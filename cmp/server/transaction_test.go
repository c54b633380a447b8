package server_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// RFC 9483 §3.5: the same message gets the same answer, and never a second certificate.
func TestRepeated(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	issued := e.core.Stats().Issued
	kur := func() *cmp.Message { return e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))) }
	m := kur()
	raw := e.protected(m, own)
	first := e.postRaw("", raw)
	if again := e.postRaw("", raw); !bytes.Equal(again, first) {
		t.Error("the same kur got another answer")
	}
	other := kur()
	other.Header.TransactionID = m.Header.TransactionID
	if got := status(e.post("", e.protected(other, own))).FailInfo; got != cmp.TransactionIDInUse {
		t.Errorf("the same transactionID with other octets: %s", got)
	}
	answer := must[*cmp.Message](t)(cmp.Parse(first))
	cert := e.certificate(answer)
	conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, 0, nil))}}, e.now())
	rawConf := e.protected(conf, own)
	confirmed := e.postRaw("", rawConf)
	if again := e.postRaw("", rawConf); !bytes.Equal(again, confirmed) {
		t.Error("the same certConf got another answer")
	}
	if again := e.postRaw("", raw); !bytes.Equal(again, first) {
		t.Error("after certConf the same kur got another answer")
	}

	// At once, on many connections.
	raw = e.protected(kur(), own)
	answers := make([][]byte, 8)
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
	if n := e.core.Stats().Issued - issued; n != 2 {
		t.Errorf("%d certificates for two requests", n)
	}

	// When the window has passed it is no longer accepted, so it may be forgotten.
	e.late.Store(int64(12 * time.Minute))
	if err := e.server.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.store.Transaction(t.Context(), sha256.Sum256(m.Header.TransactionID)); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("not forgotten: %v", err)
	}
	if got := status(e.post("", raw)).FailInfo; got != cmp.BadTime {
		t.Errorf("replayed later: %s", got)
	}
}

// A refusal leaves nothing behind: the same message may succeed later.
func TestRefusedIsForgotten(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	raw := e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), own)
	e.core.before = func() error { return ca.Away("the token", errors.New("unplugged")) }
	if got := status(e.post("", raw)).FailInfo; got != cmp.SystemUnavail {
		t.Fatal(got)
	}
	e.core.before = nil
	e.certificate(e.post("", raw))
}

// A server that went away between issuing and answering: the next one sends the
// answer that was recorded with the certificate, and issues nothing.
func TestResumed(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	issued := e.core.Stats().Issued
	m := e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm())
	raw := e.protected(m, own)
	e.core.after = func() error { return ca.Away("the database", errors.New("gone before it said yes")) }
	if got := status(e.post("", raw)).FailInfo; got != cmp.SystemUnavail {
		t.Fatal(got)
	}
	e.core.after = nil
	e.certificate(e.verify(e.post("", raw), m, own))
	if n := e.core.Stats().Issued - issued; n != 1 {
		t.Errorf("%d certificates for one request", n)
	}
}

// Two servers at the same message: one records, and both send its answer.
func TestTwoServers(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	issued := e.core.Stats().Issued
	raw := e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own)
	var quicker []byte
	e.core.before = func() error { // the other is done between our look and our record
		e.core.before = nil
		quicker = e.postRaw("", raw)
		return nil
	}
	if answer := e.postRaw("", raw); !bytes.Equal(answer, quicker) || quicker == nil {
		t.Error("the two answers differ")
	}
	if n := e.core.Stats().Issued - issued; n != 1 {
		t.Errorf("%d certificates for one request", n)
	}
	if n := len(must[[]ca.Certificate](t)(e.store.Certificates(t.Context(), ca.CertificateFilter{Device: "lamp-1"}, 0, 10))); n != 2 {
		t.Errorf("%d certificates recorded for lamp-1, want its first and one more", n)
	}
}

// RFC 9483 §4.1.1: certConf and its rules.
func TestCertConf(t *testing.T) {
	e := newEnv(t)
	own, other := e.enrolled("lamp-1"), e.enrolled("lamp-2")
	shared := e.register("lamp-3", 100)
	hash := func(c *x509.Certificate, id int64, info *cmp.StatusInfo) cmp.CertStatus {
		return must[cmp.CertStatus](t)(cmp.Confirmation(c.Raw, id, info))
	}
	rejection := &cmp.StatusInfo{Status: cmp.Rejection, FailInfo: cmp.BadCertTemplate}
	for _, c := range []struct {
		name    string
		by      party // who confirms; own if empty
		list    func(*x509.Certificate) []cmp.CertStatus
		edit    func(*cmp.Message)
		want    cmp.FailInfo // 0: pkiConf
		revoked bool
		late    time.Duration
	}{
		{name: "accepted", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil)} }},
		{name: "accepted expressly", list: func(c *x509.Certificate) []cmp.CertStatus {
			return []cmp.CertStatus{hash(c, 0, &cmp.StatusInfo{Status: cmp.Accepted})}
		}},
		{name: "rejected", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, rejection)} }, revoked: true},
		{name: "RFC 9483 §4.1.1 none", list: func(c *x509.Certificate) []cmp.CertStatus { return nil }, want: cmp.BadRequest},
		{name: "RFC 9483 §4.1.1 two", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil), hash(c, 0, nil)} }, want: cmp.BadRequest},
		{name: "RFC 9483 §4.1.1 certReqId", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 1, nil)} }, want: cmp.BadRequest},
		{name: "RFC 9483 §4.1.1 certHash", list: func(*x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(own.crt, 0, nil)} }, want: cmp.BadCertID},
		{name: "RFC 9483 §3.5 recipNonce", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil)} },
			edit: func(m *cmp.Message) { m.Header.RecipNonce = make([]byte, 16) }, want: cmp.BadRecipientNonce},
		{name: "RFC 9483 §3.1 another certificate", by: other, list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil)} }, want: cmp.BadMessageCheck},
		{name: "RFC 9483 §3.1 protection switched", by: shared, list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil)} }, want: cmp.WrongIntegrity},
		{name: "RFC 9810 §5.1.1.2 too late", list: func(c *x509.Certificate) []cmp.CertStatus { return []cmp.CertStatus{hash(c, 0, nil)} }, want: cmp.CertRevoked, late: 10 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			defer e.late.Store(0)
			answer := e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own)
			cert := e.certificate(answer)
			e.late.Store(int64(c.late))
			conf := cmp.Reply(answer, &cmp.Confirmations{List: c.list(cert)}, e.now())
			if c.edit != nil {
				c.edit(conf)
			}
			by := c.by
			if by.id == "" {
				by = own
			}
			reply := e.post("", e.protected(conf, by))
			if got := status(reply); got.FailInfo != c.want || (reply.Body.Type() == cmp.PKIConf) != (c.want == 0) {
				t.Errorf("%s: %v, want %s", reply.Body.Type(), got, c.want)
			}
			if got := e.revoked(cert); got != c.revoked {
				t.Errorf("revoked: %v", got)
			}
			if c.want == 0 {
				again := cmp.Reply(answer, conf.Body, e.now())
				if got := status(e.ask(again, own)).FailInfo; got != cmp.CertConfirmed {
					t.Errorf("RFC 9483 §4.1.1 certConf again: %s", got)
				}
			}
		})
	}
}

// RFC 9483 §3.3: certConf may leave out the certificate that its request showed.
func TestCertConfWithoutCerts(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	answer := e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own)
	conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(e.certificate(answer).Raw, 0, nil))}}, e.now())
	if err := conf.Protect(must[*cmp.Signer](t)(cmp.NewSigner(own.key, own.crt, cmp.SignerOptions{WithoutCerts: true}))); err != nil {
		t.Fatal(err)
	}
	if reply := e.verify(e.post("", conf.Raw()), conf, own); reply.Body.Type() != cmp.PKIConf {
		t.Error(status(reply))
	}
}

// RFC 9810 §5.1.1.2: who does not confirm in time has no certificate.
func TestUnconfirmed(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	confirm := e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))
	implicit := e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), own))
	for _, step := range []struct {
		late    time.Duration
		revoked bool
	}{{0, false}, {9 * time.Minute, false}, {11 * time.Minute, true}, {12 * time.Minute, true}} {
		e.late.Store(int64(step.late))
		if err := e.server.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := e.revoked(confirm); got != step.revoked {
			t.Errorf("after %s revoked: %v", step.late, got)
		}
	}
	if e.revoked(implicit) {
		t.Error("a certificate with implicitConfirm was revoked")
	}
}

// RFC 9608 §4: what cannot be revoked is not waited for.
func TestNoRevAvail(t *testing.T) {
	e := newEnv(t)
	lamp, profile := e.register("lamp-1", 2), cmp.CertProfile("lamp")
	if got := status(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), profile), lamp)).FailInfo; got != cmp.BadRequest {
		t.Errorf("with certConf: %s", got)
	}
	e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil)), profile, cmp.ImplicitConfirm()), lamp))
}
