package server_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// later is a request whose proof of possession follows.
func later(t testing.TB, cn string, key crypto.Signer, how int64) *cmp.CertReqMsg {
	return crmf(t, cn, key, func(r *cmp.CertReqMsg) {
		if err := r.LaterPOP(how); err != nil {
			t.Fatal(err)
		}
	})
}

// vaults are the keys that do not sign, with their profiles.
func vaults(t testing.TB) map[string]crypto.Signer {
	return map[string]crypto.Signer{"vault-rsa": rsaKey(t), "vault-ec": newKey(t)}
}

// encrypted opens the certificate in an answer that has it encrypted only.
func (e *env) encrypted(answer *cmp.Message, key crypto.Signer) *x509.Certificate {
	e.t.Helper()
	if !status(answer).Status.Granted() {
		e.t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
	}
	pair := answer.Body.(*cmp.CertResponses).Responses[0].KeyPair
	if pair.EncryptedCert == nil || pair.Certificate != nil || answer.Header.Version != cmp.CMP2021 {
		e.t.Fatal("the certificate is not encrypted")
	}
	return must[*x509.Certificate](e.t)(pair.EncryptedCert.OpenCertificate(must[cmp.Opener](e.t)(cmp.WithKey(key))))
}

// confirming is the certConf for a certificate.
func (e *env) confirming(answer *cmp.Message, cert []byte) *cmp.Message {
	return cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](e.t)(cmp.Confirmation(cert, 0, nil))}}, e.now())
}

// RFC 9810 §5.2.8.3.2, RFC 4211 §4.2, §4.3: the certificate comes encrypted, and is
// confirmed by who can decrypt it.
func TestIndirectPOP(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, other := e.register("lamp-1", 100), e.enrolled("lamp-7").crt
	for profile, key := range vaults(t) {
		t.Run(profile, func(t *testing.T) {
			e.t = t
			// implicitConfirm is not granted: the confirmation is the proof.
			m := e.message(requests(cmp.IR, later(t, "lamp-1", key, cmp.EncrCert)), cmp.CertProfile(profile), cmp.ImplicitConfirm())
			raw := e.protected(m, lamp)
			first := e.postRaw("", raw)
			answer := e.verify(must[*cmp.Message](t)(cmp.Parse(first)), m, lamp)
			if granted := must[bool](t)(answer.Header.GeneralInfo.ImplicitConfirm()); granted {
				t.Error("implicitConfirm was granted")
			}
			cert := e.encrypted(answer, key)
			if bytes.Contains(first, cert.Raw) || bytes.Contains(first, cert.RawTBSCertificate) {
				t.Error("the certificate is in the answer in clear")
			}
			if again := e.postRaw("", raw); !bytes.Equal(again, first) {
				t.Error("the same request got another answer")
			}
			wrong := e.confirming(answer, other.Raw)
			if got := status(e.ask(wrong, lamp)).FailInfo; got != cmp.BadPOP {
				t.Errorf("another hash: %s, want badPOP", got)
			}
			if reply := e.ask(e.confirming(answer, cert.Raw), lamp); reply.Body.Type() != cmp.PKIConf {
				t.Fatal(status(reply))
			}
			if e.late.Store(int64(time.Hour)); e.server.Sweep(t.Context()) != nil || e.revoked(cert) {
				t.Error("revoked though it was confirmed")
			}
			e.late.Store(0)
		})
	}
}

// RFC 9810 §5.2.8.3.2: who cannot decrypt the certificate has none.
func TestIndirectPOPUnproven(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, key := e.register("lamp-1", 100), newKey(t)
	answer := e.ask(e.message(requests(cmp.IR, later(t, "lamp-1", key, cmp.EncrCert)), cmp.CertProfile("vault-ec")), lamp)
	cert := e.encrypted(answer, key)
	e.late.Store(int64(11 * time.Minute))
	if err := e.server.Sweep(t.Context()); err != nil || !e.revoked(cert) {
		t.Errorf("not revoked: %v", err)
	}
}

// popdecr answers popdecc with what the key decrypts it to.
func (e *env) popdecr(answer *cmp.Message, key crypto.Signer, change func(*big.Int)) *cmp.Message {
	e.t.Helper()
	b, ok := answer.Body.(*cmp.Challenges)
	if !ok || len(b.List) != 1 || answer.Header.Version != cmp.CMP2021 {
		e.t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
	}
	number := must[*big.Int](e.t)(b.List[0].Open(must[cmp.Opener](e.t)(cmp.WithKey(key)), answer.Header.Sender))
	if change != nil {
		change(number)
	}
	return cmp.Reply(answer, &cmp.ChallengeAnswers{List: []*big.Int{number}}, e.now())
}

// RFC 9810 §5.2.8.3.3: a challenge, its answer, and only then a certificate; by MAC and by signature.
func TestChallengePOP(t *testing.T) {
	e := newEnv(t, withProfiles)
	for _, by := range []party{e.register("lamp-1", 100), e.enrolled("lamp-2")} {
		for profile, key := range vaults(t) {
			t.Run(by.id+" "+profile, func(t *testing.T) {
				e.t = t
				issued := e.core.Stats().Issued
				m := e.message(requests(cmp.CR, later(t, by.id, key, cmp.ChallengeResp)), cmp.CertProfile(profile))
				raw := e.protected(m, by)
				first := e.postRaw("", raw)
				challenge := e.verify(must[*cmp.Message](t)(cmp.Parse(first)), m, by)
				if again := e.postRaw("", raw); !bytes.Equal(again, first) {
					t.Error("the same request got another challenge")
				}
				if e.core.Stats().Issued != issued {
					t.Error("a certificate was issued before possession was proven")
				}
				reply := e.popdecr(challenge, key, nil)
				raw = e.protected(reply, by)
				answers := make([][]byte, 4)
				var wg sync.WaitGroup
				for i := range answers { // at once, on many connections
					wg.Go(func() { answers[i] = e.postRaw("", raw) })
				}
				wg.Wait()
				answer := e.verify(must[*cmp.Message](t)(cmp.Parse(answers[0])), reply, by)
				cert := e.certificate(answer)
				if answer.Body.Type() != cmp.CP || cert.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
					t.Errorf("%s with key usage %b", answer.Body.Type(), cert.KeyUsage)
				}
				for _, other := range append(answers, e.postRaw("", raw)) {
					if !bytes.Equal(other, answers[0]) {
						t.Errorf("the same popdecr got another answer: %v", status(must[*cmp.Message](t)(cmp.Parse(other))))
					}
				}
				if n := e.core.Stats().Issued - issued; n != 1 {
					t.Errorf("%d certificates", n)
				}
				if reply := e.ask(e.confirming(answer, cert.Raw), by); reply.Body.Type() != cmp.PKIConf {
					t.Fatal(status(reply))
				}
			})
		}
	}
}

// The wrong number ends the transaction, and nothing was issued.
func TestChallengeRefused(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, other, key := e.register("lamp-1", 100), e.enrolled("lamp-2"), newKey(t)
	ask := func() *cmp.Message {
		return e.ask(e.message(requests(cmp.IR, later(t, "lamp-1", key, cmp.ChallengeResp)), cmp.CertProfile("vault-ec")), lamp)
	}
	answered := e.popdecr(ask(), key, nil) // and its certificate asked for below
	e.certificate(e.ask(answered, lamp))
	challenge := ask()
	twice := e.popdecr(challenge, key, nil)
	twice.Body = &cmp.ChallengeAnswers{List: []*big.Int{big.NewInt(1), big.NewInt(2)}}
	nonce := e.popdecr(challenge, key, nil)
	nonce.Header.RecipNonce = make([]byte, 16)
	issued := e.core.Stats().Issued
	for _, c := range []struct {
		name string
		m    *cmp.Message
		by   party
		want cmp.FailInfo
	}{
		{"RFC 9483 §3.5 recipNonce", nonce, lamp, cmp.BadRecipientNonce},
		{"RFC 9483 §3.1 protection switched", e.popdecr(challenge, key, nil), other, cmp.WrongIntegrity},
		{"two answers", twice, lamp, cmp.BadRequest},
		{"the wrong number", e.popdecr(challenge, key, func(n *big.Int) { n.Add(n, big.NewInt(1)) }), lamp, cmp.BadPOP},
		{"the right one after it", e.popdecr(challenge, key, nil), lamp, cmp.BadRequest},
		{"once more", cmp.Reply(challenge, &cmp.ChallengeAnswers{List: []*big.Int{big.NewInt(1)}}, e.now()), lamp, cmp.BadRequest},
		{"out of nowhere", e.message(&cmp.ChallengeAnswers{List: []*big.Int{big.NewInt(1)}}), lamp, cmp.BadRequest},
	} {
		answer := e.post("", e.protected(c.m, c.by))
		if got := status(answer); got.FailInfo != c.want || got.Status != cmp.Rejection {
			t.Errorf("%s: %s %v, want %s", c.name, answer.Body.Type(), got, c.want)
		}
	}
	if e.core.Stats().Issued != issued {
		t.Error("a certificate was issued")
	}
	// Too late, and then forgotten.
	challenge = ask()
	e.late.Store(int64(12 * time.Minute))
	if got := status(e.ask(e.popdecr(challenge, key, nil), lamp)).FailInfo; got != cmp.BadTime {
		t.Errorf("too late: %s", got)
	}
	if err := e.server.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := status(e.ask(e.popdecr(challenge, key, nil), lamp)).FailInfo; got != cmp.BadRequest {
		t.Errorf("after it was forgotten: %s", got)
	}
}

// An administrator approves after possession is proven; a core that is away does
// not cost the proof.
func TestChallengeApproval(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, key := e.register("lamp-1", 100), newKey(t)
	answer := e.ask(e.message(requests(cmp.IR, later(t, "lamp-1", key, cmp.ChallengeResp)), cmp.CertProfile("vault-approved")), lamp)
	reply := e.popdecr(answer, key, nil)
	e.core.before = func() error { return ca.Away("the token", nil) }
	if got := status(e.ask(reply, lamp)).FailInfo; got != cmp.SystemUnavail {
		t.Fatal(got)
	}
	e.core.before = nil
	answer = e.ask(reply, lamp)
	if got := status(answer); answer.Body.Type() != cmp.IP || got.Status != cmp.Waiting {
		t.Fatalf("%s: %v", answer.Body.Type(), got)
	}
	list := must[[]ca.PendingRequest](t)(e.store.Pendings(t.Context(), ca.PendingFilter{}, 0, 10))
	if _, err := e.core.DecideRequest(t.Context(), list[0].ID, true, "", "admin:test"); err != nil {
		t.Fatal(err)
	}
	answer = e.ask(cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now()), lamp)
	cert := e.certificate(answer)
	if reply := e.ask(e.confirming(answer, cert.Raw), lamp); reply.Body.Type() != cmp.PKIConf {
		t.Fatal(status(reply))
	}
}

// RFC 9810 §5.2.8: which proof goes with which key and profile.
func TestLaterPOPRefused(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp, ec := e.register("lamp-1", 100), newKey(t)
	rsa, p521 := rsaKey(t), must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pop := func(method cmp.POPMethod, key cmp.POPKey) func(*cmp.CertReqMsg) {
		return func(r *cmp.CertReqMsg) { r.POP = &cmp.POP{Method: method, Key: &key} }
	}
	subsequent := func(method cmp.POPMethod, how int64) func(*cmp.CertReqMsg) {
		return pop(method, cmp.POPKey{Method: cmp.SubsequentMessage, Subsequent: how})
	}
	for _, c := range []struct {
		name, profile string
		key           crypto.Signer
		change        func(*cmp.CertReqMsg)
		want          cmp.FailInfo
		says          string
	}{
		{"§5.2.8.4 a profile for keys that sign", "device", ec, subsequent(cmp.KeyAgreement, cmp.EncrCert), cmp.BadPOP, "signature"},
		{"§5.2.8.4 the same, challenge", "made-ec", ec, subsequent(cmp.KeyAgreement, cmp.ChallengeResp), cmp.BadPOP, "signature"},
		{"a key that signs", "vault-ec", ed, subsequent(cmp.KeyAgreement, cmp.EncrCert), cmp.BadPOP, "signature"},
		{"RSA where the profile agrees on keys", "vault-ec", rsa, subsequent(cmp.KeyEncipherment, cmp.EncrCert), cmp.BadPOP, "keyEncipherment"},
		{"EC where the profile enciphers", "vault-rsa", ec, subsequent(cmp.KeyAgreement, cmp.EncrCert), cmp.BadPOP, "keyAgreement"},
		{"RFC 4211 §4.3 EC by keyEncipherment", "vault-ec", ec, subsequent(cmp.KeyEncipherment, cmp.EncrCert), cmp.BadPOP, "keyAgreement"},
		{"RFC 4211 §4.2 RSA by keyAgreement", "vault-rsa", rsa, subsequent(cmp.KeyAgreement, cmp.ChallengeResp), cmp.BadPOP, "keyEncipherment"},
		{"§5.2.8.3.1 the private key", "vault-rsa", rsa, pop(cmp.KeyEncipherment, cmp.POPKey{Method: cmp.EncryptedKeyPOP, Value: []byte{0x30, 0}}), cmp.BadPOP, "encryptedKey"},
		{"an agreed MAC", "vault-ec", ec, pop(cmp.KeyAgreement, cmp.POPKey{Method: cmp.AgreeMAC, Value: []byte{0x30, 0}}), cmp.BadPOP, "agreeMAC"},
		{"no such subsequentMessage", "vault-ec", ec, subsequent(cmp.KeyAgreement, 2), cmp.BadPOP, "2"},
		{"RFC 9608 §4 what cannot be taken back", "vault-lamp", ec, subsequent(cmp.KeyAgreement, cmp.EncrCert), cmp.BadPOP, "challengeResp"},
		{"a curve that is not encrypted to", "vault-ec", p521, subsequent(cmp.KeyAgreement, cmp.ChallengeResp), cmp.BadAlg, "P-384"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			before := e.core.Stats().Issued
			answer := e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", c.key, c.change)), cmp.CertProfile(c.profile)), lamp))
			if got := status(answer); got.FailInfo != c.want || got.Status != cmp.Rejection || !strings.Contains(got.String(), c.says) {
				t.Errorf("%s: %v, want %s and %q", answer.Body.Type(), got, c.want, c.says)
			}
			if e.core.Stats().Issued != before {
				t.Error("a certificate was issued")
			}
		})
	}
	e.t = t
	m := version2(e.message(requests(cmp.IR, later(t, "lamp-1", ec, cmp.EncrCert)), cmp.CertProfile("vault-ec")))
	if got := status(e.post("", e.protected(m, lamp))); got.FailInfo != cmp.BadRequest || !strings.Contains(got.String(), "pvno 3") {
		t.Errorf("pvno 2: %v", got)
	}
	// A challenge does what encrCert cannot, with implicitConfirm as RFC 9608 wants it.
	challenge := e.ask(e.message(requests(cmp.IR, later(t, "lamp-1", ec, cmp.ChallengeResp)), cmp.CertProfile("vault-lamp"), cmp.ImplicitConfirm()), lamp)
	answer := e.ask(e.popdecr(challenge, ec, nil), lamp)
	if e.certificate(answer); !must[bool](t)(answer.Header.GeneralInfo.ImplicitConfirm()) {
		t.Error("implicitConfirm was not granted")
	}
}
