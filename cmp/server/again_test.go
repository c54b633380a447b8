package server_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
)

// group makes a credential that many devices hold.
func (e *env) group(names ...string) party {
	e.t.Helper()
	g := must[*ca.Grant](e.t)(e.core.AddCredential(e.t.Context(), device.Credential{Group: "lamps", Names: names, Level: "software", Uses: 9}, 24*time.Hour, "admin:test"))
	return party{secret: []byte(g.Secret), mac: must[*cmp.MAC](e.t)(cmp.NewMAC([]byte(g.Reference), []byte(g.Secret), cmp.MACParams{}))}
}

// rejecting is the certConf that rejects a certificate.
func (e *env) rejecting(answer *cmp.Message, cert []byte) *cmp.Message {
	no := &cmp.StatusInfo{Status: cmp.Rejection, FailInfo: cmp.BadCertTemplate}
	return cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](e.t)(cmp.Confirmation(cert, 0, no))}}, e.now())
}

// RFC 9483 §4.1.1: that a certificate is confirmed is the duty of the transaction that issued it. Another
// transaction that gets it again, be it a device whose answer was lost or another holder of the same secret
// who replays the request, must not lead to its revocation.
func TestRepeatedInAnotherTransaction(t *testing.T) {
	const none, accepts, rejects = "no certConf", "an accepting certConf", "a rejecting certConf"
	for _, c := range []struct {
		name          string
		first, second []cmp.Info
		firstDoes     string // before the second begins
		secondDoes    string
		lateFirst     string // what the first does after the second
		granted       bool   // implicitConfirm to the second
		revoked       bool   // an hour later
	}{
		{name: "confirmed, and then never", firstDoes: accepts, secondDoes: none},
		{name: "confirmed, and then rejected", firstDoes: accepts, secondDoes: rejects},
		{name: "implicitly confirmed, and then never", first: []cmp.Info{cmp.ImplicitConfirm()}, secondDoes: none},
		{name: "implicitly confirmed, and then rejected", first: []cmp.Info{cmp.ImplicitConfirm()}, secondDoes: rejects},
		{name: "implicitly confirmed twice", first: []cmp.Info{cmp.ImplicitConfirm()}, second: []cmp.Info{cmp.ImplicitConfirm()}, secondDoes: none, granted: true},
		{name: "the answer was lost, and the second confirms", firstDoes: none, secondDoes: accepts},
		{name: "the answer was lost, and the second may not go without", firstDoes: none, second: []cmp.Info{cmp.ImplicitConfirm()}, secondDoes: none, revoked: true},
		{name: "nobody confirms", firstDoes: none, secondDoes: none, revoked: true},
		{name: "the second rejects, the first confirms", firstDoes: none, secondDoes: rejects, lateFirst: accepts},
		{name: "the second rejects, the first never confirms", firstDoes: none, secondDoes: rejects, revoked: true},
		{name: "both confirm", firstDoes: none, secondDoes: accepts, lateFirst: accepts},
		{name: "the second confirms, the first rejects", firstDoes: none, secondDoes: accepts, lateFirst: rejects, revoked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t)
			lamps, key := e.group("lamp-*"), newKey(t)
			request := crmf(t, "lamp-1", key, nil)
			ask := func(infos []cmp.Info) *cmp.Message {
				return e.ask(e.message(requests(cmp.IR, request), infos...), lamps)
			}
			first := ask(c.first)
			cert := e.certificate(first)
			conf := func(answer *cmp.Message, does string) {
				t.Helper()
				m := e.confirming(answer, cert.Raw)
				switch does {
				case rejects:
					m = e.rejecting(answer, cert.Raw)
				case none, "":
					return
				}
				if reply := e.ask(m, lamps); reply.Body.Type() != cmp.PKIConf {
					t.Errorf("%s: %s %v", does, reply.Body.Type(), status(reply))
				}
			}
			conf(first, c.firstDoes)
			second := ask(c.second)
			if again := e.certificate(second); !again.Equal(cert) {
				t.Fatal("the second got another certificate")
			}
			if granted := must[bool](t)(second.Header.GeneralInfo.ImplicitConfirm()); granted != c.granted {
				t.Errorf("implicitConfirm granted: %v", granted)
			}
			conf(second, c.secondDoes)
			if e.revoked(cert) {
				t.Error("the second had it revoked")
			}
			conf(first, c.lateFirst)
			e.late.Store(int64(time.Hour))
			if err := e.server.Sweep(t.Context()); err != nil || e.revoked(cert) != c.revoked {
				t.Errorf("an hour later revoked: %v, want %v (%v)", e.revoked(cert), c.revoked, err)
			}
		})
	}
}

// What was issued over EST waits for no certConf, whoever asks for it again by CMP; and what EST hands out again
// waits for none any more.
func TestRepeatedOverAnotherProtocol(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 9)
	shown := e.message(&cmp.General{})
	e.protected(shown, lamp)
	overEST := func(key crypto.Signer) *ca.Issued {
		t.Helper()
		requester, _, err := e.core.CredentialSecret(t.Context(), string(shown.Reference()))
		if err != nil {
			t.Fatal(err)
		}
		raw := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "lamp-1"}}, key))
		csr := must[*ca.CSR](t)(ca.ParseCSR(raw))
		return must[*ca.Issued](t)(e.core.Service.Enroll(t.Context(), ca.Request{Protocol: "est", Requester: requester, PublicKey: csr.PublicKey, SPKI: csr.SPKI, Names: csr.Names}))
	}
	key := newKey(t)
	issued := overEST(key)
	answer := e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", key, nil))), lamp)
	cert := e.certificate(answer)
	if !bytes.Equal(cert.Raw, issued.Certificate.DER) {
		t.Fatal("CMP gave another certificate")
	}
	key = newKey(t)
	waiting := e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", key, nil))), lamp))
	if issued := overEST(key); !issued.Again || !bytes.Equal(waiting.Raw, issued.Certificate.DER) {
		t.Fatal("EST gave another certificate")
	}
	e.late.Store(int64(time.Hour))
	if err := e.server.Sweep(t.Context()); err != nil || e.revoked(cert) || e.revoked(waiting) {
		t.Errorf("revoked: %v, %v (%v)", e.revoked(cert), e.revoked(waiting), err)
	}
}

// A kur in another transaction, since the answer to the first was lost, gets the certificate that is there, and its
// certConf confirms that. One that was rejected is not handed out again.
func TestKeyUpdateRepeated(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	kur := func(key crypto.Signer) *cmp.Message {
		return e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", key, nil))), own)
	}
	key, rejected := newKey(t), newKey(t)
	first := e.certificate(kur(key))
	second := kur(key)
	if !e.certificate(second).Equal(first) {
		t.Fatal("the repeated kur got a second certificate")
	}
	if reply := e.ask(e.confirming(second, first.Raw), own); reply.Body.Type() != cmp.PKIConf {
		t.Fatal(status(reply))
	}
	if third := e.kur(own, key); !e.certificate(third).Equal(first) { // with implicitConfirm
		t.Error("confirmed, and then there was a second certificate")
	}
	answer := kur(rejected)
	bad := e.certificate(answer)
	if reply := e.ask(e.rejecting(answer, bad.Raw), own); reply.Body.Type() != cmp.PKIConf {
		t.Fatal(status(reply))
	}
	if e.certificate(kur(rejected)).Equal(bad) {
		t.Error("a certificate that its device rejected was handed out again")
	}
	e.late.Store(int64(11 * time.Minute))
	if err := e.server.Sweep(t.Context()); err != nil || e.revoked(first) {
		t.Errorf("the confirmed certificate was revoked (%v)", err)
	}
}

// A certConf for a certificate that was handed out again, and is overdue or revoked by then.
func TestRepeatedTooLate(t *testing.T) {
	e := newEnv(t)
	lamps, request := e.group("lamp-*"), crmf(t, "lamp-1", newKey(t), nil)
	cert := e.certificate(e.ask(e.message(requests(cmp.IR, request)), lamps))
	e.late.Store(int64(9 * time.Minute))
	second := e.ask(e.message(requests(cmp.IR, request)), lamps)
	e.late.Store(int64(10*time.Minute + 10*time.Second)) // not swept yet
	if got := status(e.ask(e.confirming(second, cert.Raw), lamps)).FailInfo; got != cmp.CertRevoked {
		t.Errorf("overdue: %s", got)
	}
	e.late.Store(int64(11 * time.Minute))
	if err := e.server.Sweep(t.Context()); err != nil || !e.revoked(cert) {
		t.Fatal("not revoked", err)
	}
	if got := status(e.ask(e.confirming(second, cert.Raw), lamps)).FailInfo; got != cmp.CertRevoked {
		t.Errorf("revoked: %s", got)
	}
}

// RFC 9810 §5.2.8.3.2: until it is confirmed, a certificate that came encrypted proves nothing, and its key is not
// the device's against whoever can prove that it has it.
func TestUnprovenOwnsNoKey(t *testing.T) {
	e := newEnv(t, withProfiles)
	thief, lamp, third := e.register("lamp-1", 9), e.register("lamp-2", 9), e.register("lamp-3", 9)
	profile := cmp.CertProfile("vault-ec")
	encrypted := func(by party, key crypto.Signer) *cmp.Message {
		return e.ask(e.message(requests(cmp.IR, later(t, by.id, key, cmp.EncrCert)), profile), by)
	}
	signed := func(by party, key crypto.Signer) cmp.StatusInfo {
		return status(e.ask(e.message(requests(cmp.IR, crmf(t, by.id, key, nil)), cmp.ImplicitConfirm()), by))
	}

	// The holder asks after somebody else has asked for its key, in the same way.
	key := newKey(t)
	stolen := encrypted(thief, key)
	mine := encrypted(lamp, key)
	cert := e.encrypted(mine, key)
	if reply := e.ask(e.confirming(mine, cert.Raw), lamp); reply.Body.Type() != cmp.PKIConf {
		t.Fatalf("the holder confirms: %v", status(reply))
	}
	// Proven, it is the holder's: neither a new request nor a late proof gets past that.
	if got := status(encrypted(third, key)).FailInfo; got != cmp.BadCertTemplate {
		t.Errorf("of a key that is proven: %s", got)
	}
	late := e.encrypted(stolen, key)
	if got := status(e.ask(e.confirming(stolen, late.Raw), thief)).FailInfo; got != cmp.BadCertTemplate || !e.revoked(late) {
		t.Errorf("proven after another: %s, revoked: %v", got, e.revoked(late))
	}

	// The holder signs.
	key = newKey(t)
	encrypted(thief, key)
	if got := signed(lamp, key); !got.Status.Granted() {
		t.Errorf("the holder signs: %v", got)
	}
	if got := status(encrypted(thief, key)).FailInfo; got != cmp.BadCertTemplate {
		t.Errorf("of a key that is proven: %s", got)
	}

	// Nobody confirms: revoked, and the key is free.
	key = newKey(t)
	never := e.encrypted(encrypted(thief, key), key)
	e.late.Store(int64(time.Hour))
	if err := e.server.Sweep(t.Context()); err != nil || !e.revoked(never) {
		t.Fatal("not revoked", err)
	}
	if got := signed(lamp, key); !got.Status.Granted() {
		t.Errorf("after the revocation: %v", got)
	}
}

// An encrypted certificate whose answer was lost is confirmed in the next transaction, and that is the proof.
func TestUnprovenConfirmedAgain(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, other, key := e.register("lamp-1", 1), e.register("lamp-2", 9), newKey(t)
	ask := func(by party) *cmp.Message {
		return e.ask(e.message(requests(cmp.IR, later(t, by.id, key, cmp.EncrCert)), cmp.CertProfile("vault-ec")), by)
	}
	cert := e.encrypted(ask(lamp), key)
	ask(other) // of the same key, in between
	second := ask(lamp)
	if again := e.encrypted(second, key); !again.Equal(cert) {
		t.Fatal("another certificate")
	}
	if reply := e.ask(e.confirming(second, cert.Raw), lamp); reply.Body.Type() != cmp.PKIConf {
		t.Fatal(status(reply))
	}
	if got := status(ask(other)).FailInfo; got != cmp.BadCertTemplate {
		t.Errorf("the key is proven, and another device got it: %s", got)
	}
	e.late.Store(int64(time.Hour))
	if err := e.server.Sweep(t.Context()); err != nil || e.revoked(cert) {
		t.Errorf("revoked though it was confirmed: %v", err)
	}
}

// RFC 4211 §4: raVerified is a registration authority's word. It keeps another RA's word off, not the device that proves that it has the key.
func TestVouchedKeyYieldsToProof(t *testing.T) {
	e := newEnv(t)
	ra, lamp, key := e.registerRA("line-1", "bulb-*"), e.register("lamp-1", 9), newKey(t)
	vouched := func(id string) cmp.StatusInfo {
		return status(e.ask(e.message(requests(cmp.CR, crmf(t, id, key, func(r *cmp.CertReqMsg) { r.POP = &cmp.POP{Method: cmp.RAVerified} })), cmp.ImplicitConfirm()), ra))
	}
	for id, want := range map[string]cmp.FailInfo{"bulb-1": 0} {
		if got := vouched(id); got.FailInfo != want {
			t.Fatal(got)
		}
	}
	if got := vouched("bulb-2"); got.FailInfo != cmp.BadCertTemplate {
		t.Errorf("vouched for two devices: %v", got)
	}
	if got := vouched("bulb-1"); got.FailInfo != 0 {
		t.Errorf("vouched again: %v", got)
	}
	if got := status(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", key, nil)), cmp.ImplicitConfirm()), lamp)); !got.Status.Granted() {
		t.Errorf("proven: %v", got)
	}
	if got := vouched("bulb-1"); got.FailInfo != cmp.BadCertTemplate {
		t.Errorf("vouched for after it was proven: %v", got)
	}
}
