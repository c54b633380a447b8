package est_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	encasn1 "encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

func TestFullCMC(t *testing.T) {
	e := newKeygenEnv(t)
	e.credentials["lamp-ref"].Uses = 100
	own := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour), "lamp-1")
	proven := func(key *ecdsa.PrivateKey, requests ...[]byte) *pkiMessage {
		m := &pkiMessage{requests: requests, signer: byKey(key)}
		m.prove("lamp-ref", lampSecret)
		return m
	}
	key := newKey(t)
	nonce, transaction := octetString([]byte("0123456789abcdef")), integer(4711)

	t.Run("initial, PKCS#10", func(t *testing.T) {
		m := proven(key, tcr(1, newCSR(t, key, "lamp-1")))
		m.controls = append(m.controls, cmcControl(3, cmcOID(5), transaction), cmcControl(4, cmcOID(6), nonce))
		r := e.cmc(t, "fullcmc", m.seal(t))
		a := e.wantIssued(t, r, key, 1)
		r.wantHeader(t, est.OutcomeHeader, "issue")
		if !bytes.Equal(a.controls[cmcOID(5).String()], transaction) || !bytes.Equal(a.controls[cmcOID(7).String()], nonce) ||
			len(a.controls[cmcOID(6).String()]) != 18 || bytes.Equal(a.controls[cmcOID(6).String()], nonce) {
			t.Errorf("controls %x", a.controls)
		}
		asked := e.last(t)
		if asked.Renew || asked.Requester.Kind != policy.ByCredential || asked.Protocol != "est" {
			t.Errorf("the core was asked %+v", asked)
		}
		if got := e.lastObserved(); got != "fullcmc issue" {
			t.Errorf("observed %q", got)
		}
	})
	t.Run("without transaction", func(t *testing.T) {
		a := e.wantIssued(t, e.cmc(t, "device/fullcmc", proven(key, tcr(7, newCSR(t, key, "lamp-1"))).seal(t)), key, 7)
		if len(a.controls) != 1 {
			t.Errorf("controls %x", a.controls)
		}
	})
	t.Run("initial, CRMF", func(t *testing.T) {
		e.wantIssued(t, e.cmc(t, "fullcmc", proven(key, crm(t, key, certReq(t, key.Public(), "lamp-1"))).seal(t)), key, 1)
	})
	t.Run("POP link witness, PKCS#10", func(t *testing.T) {
		random := bytes.Repeat([]byte("R"), 64)
		m := proven(key, tcr(1, csrWith(t, key, "lamp-1", attribute{cmcOID(33), witness(lampSecret, "", random)})))
		m.controls = append(m.controls, cmcControl(9, cmcOID(22), octetString(random)))
		e.wantIssued(t, e.cmc(t, "bound/fullcmc", m.seal(t)), key, 1)
	})
	t.Run("POP link witness, CRMF", func(t *testing.T) {
		random := bytes.Repeat([]byte("R"), 64)
		control := sequence(build(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(cmcOID(33)) }), witness(lampSecret, "", random))
		m := proven(key, crm(t, key, certReq(t, key.Public(), "lamp-1", control)))
		m.controls = append(m.controls, cmcControl(9, cmcOID(22), octetString(random)))
		e.wantIssued(t, e.cmc(t, "bound/fullcmc", m.seal(t)), key, 1)
	})
	t.Run("channel binding instead", func(t *testing.T) {
		// The message is made once the connection stands.
		config := &tls.Config{MinVersion: tls.VersionTLS13}
		r := e.postOver(t, config, "bound/fullcmc", "application/pkcs7-mime", func(s tls.ConnectionState) []byte {
			return proven(key, tcr(1, csrWith(t, key, "lamp-1", challengePassword(exporter(t, s, nil))))).seal(t)
		})
		e.wantIssued(t, r, key, 1)
	})
	t.Run("renewal, signed by openssl", func(t *testing.T) {
		dir, next := t.TempDir(), newKey(t)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(own.key)
		if err != nil {
			t.Fatal(err)
		}
		m := pkiMessage{requests: [][]byte{tcr(1, newCSR(t, next, "lamp-1", "lamp-1"))}}
		for name, content := range map[string][]byte{"data": m.data(), "cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.cert.DER}),
			"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "openssl", "cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-md", "sha256",
			"-econtent_type", "1.3.6.1.5.5.7.12.2", "-in", "data", "-signer", "cert.pem", "-inkey", "key.pem")
		cmd.Dir = dir
		msg, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		r := e.cmc(t, "fullcmc", msg)
		e.wantIssued(t, r, next, 1)
		if asked := e.last(t); !asked.Renew || asked.Requester.Kind != policy.ByCertificate {
			t.Errorf("the core was asked %+v", asked)
		}
		// And openssl verifies the answer.
		answer, err := base64.StdEncoding.DecodeString(strings.TrimSpace(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "root.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.root.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
		verify := exec.CommandContext(t.Context(), "openssl", "cms", "-verify", "-inform", "DER", "-binary", "-CAfile", "root.pem", "-purpose", "any")
		verify.Dir, verify.Stdin = dir, bytes.NewReader(answer)
		if out, err := verify.CombinedOutput(); err != nil {
			t.Errorf("openssl: %v\n%s", err, out)
		}
	})
	t.Run("renewal, CRMF, TLS identity does not count", func(t *testing.T) {
		foreign := e.newIdentity(t, "lamp-2", time.Now().Add(time.Hour))
		plain := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
		next := newKey(t)
		m := pkiMessage{requests: [][]byte{crm(t, next, certReq(t, next.Public(), "lamp-1"))}, signer: byCertificate(t, plain)}
		r := e.do(t, call{path: "fullcmc", body: base64Body(m.seal(t)), contentType: "application/pkcs7-mime", as: &foreign, user: "x", pass: "y"})
		e.wantIssued(t, r, next, 1)
	})
	t.Run("DER", func(t *testing.T) {
		msg := proven(key, tcr(1, newCSR(t, key, "lamp-1"))).seal(t)
		r := e.do(t, call{path: "fullcmc", body: bytes.NewReader(msg), contentType: "application/pkcs7-mime"})
		e.wantIssued(t, r, key, 1)
	})
}

// What goes wrong is told in a Full PKI Response, with the status that HTTP has for it.
func TestFullCMCRefusals(t *testing.T) {
	e := newKeygenEnv(t)
	e.credentials["lamp-ref"].Uses = 100
	own := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	revoked := e.newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	revoked.cert.Revocation = &ca.Revocation{Reason: 1}
	foreign := newEnv(t).newIdentity(t, "lamp-1", time.Now().Add(time.Hour))
	key, other := newKey(t), newKey(t)
	csr := newCSR(t, key, "lamp-1")
	badCSR := bytes.Clone(csr)
	badCSR[len(badCSR)-2] ^= 1
	nonce, transaction := cmcControl(50, cmcOID(6), octetString([]byte("0123456789abcdef"))), cmcControl(51, cmcOID(5), integer(4711))
	random := bytes.Repeat([]byte("R"), 64)
	link := cmcControl(9, cmcOID(22), octetString(random))
	weak := build(func(b *cryptobyte.Builder) {
		b.AddBytes(sequence(algorithmOf(oidSHA1), algorithmOf(oidHMACSHA256), octetString(random)))
	})
	request := certReq(t, key.Public(), "lamp-1")
	type change func(*pkiMessage)
	proof := func(reference, secret string) change { return func(m *pkiMessage) { m.prove(reference, secret) } }
	with := func(requests ...[]byte) change {
		return func(m *pkiMessage) {
			m.requests = requests
			m.prove("lamp-ref", lampSecret)
		}
	}
	control := func(c ...[]byte) change {
		return func(m *pkiMessage) {
			m.prove("lamp-ref", lampSecret)
			m.controls = append(m.controls, c...)
		}
	}
	signed := func(id identity) change {
		return func(m *pkiMessage) { m.signer = byCertificate(t, id) }
	}
	tests := []struct {
		name   string
		change change
		http   int
		fail   int64
		part   int64
		says   string
	}{
		{"wrong secret", proof("lamp-ref", "wrong"), 403, 7, 102, "unknown reference or wrong secret"},
		{"unknown reference", proof("nobody", lampSecret), 403, 7, 102, "unknown reference or wrong secret"},
		{"expired credential", proof("old-ref", lampSecret), 403, 7, 0, "expired"},
		{"expired credential, wrong secret", proof("old-ref", "wrong"), 403, 7, 102, "unknown reference or wrong secret"},
		{"spent credential", proof("spent-ref", lampSecret), 403, 7, 1, "no uses left"},
		{"another credential's device", proof("gone-ref", lampSecret), 403, 2, 1, ""},
		{"nobody", func(*pkiMessage) {}, 403, 7, 0, "nobody is shown"},
		{"proof over other requests", func(m *pkiMessage) {
			m.prove("lamp-ref", lampSecret)
			m.requests = [][]byte{tcr(1, newCSR(t, key, "lamp-1"))}
		}, 403, 7, 102, "wrong secret"},
		{"proof without identification", func(m *pkiMessage) {
			m.controls = [][]byte{cmcControl(102, cmcOID(34), witness(lampSecret, "", sequence(m.requests...)))}
		}, 400, 2, 102, "identification"},
		{"identification without proof", func(m *pkiMessage) { m.controls = [][]byte{cmcControl(101, cmcOID(2), utf8String("lamp-ref"))} }, 400, 2, 101, "mean nothing"},
		{"weak proof", func(m *pkiMessage) {
			m.controls = [][]byte{cmcControl(101, cmcOID(2), utf8String("lamp-ref")), cmcControl(102, cmcOID(34), weak)}
		}, 400, 0, 102, "SHA-256"},
		{"proof of no form", func(m *pkiMessage) {
			m.controls = [][]byte{cmcControl(101, cmcOID(2), utf8String("lamp-ref")), cmcControl(102, cmcOID(34), integer(1))}
		}, 400, 2, 102, "identityProofV2"},
		{"signed with another key", func(m *pkiMessage) { m.prove("lamp-ref", lampSecret); m.signer = byKey(other) }, 401, 1, 0, "not signed with the key"},
		{"foreign certificate", signed(foreign), 403, 7, 0, "not issued by this CA"},
		{"revoked certificate", signed(revoked), 403, 7, 0, "revoked"},
		{"certificate of another key", func(m *pkiMessage) { m.signer = byCertificate(t, own); m.signer.Key = other }, 401, 1, 0, "does not verify"},
		{"renewal with other names", func(m *pkiMessage) {
			m.signer = byCertificate(t, own)
			m.requests = [][]byte{tcr(1, newCSR(t, key, "lamp-1", "lamp-1"))}
		}, 403, 2, 1, "keeps the names"},
		{"another device's name", with(tcr(1, newCSR(t, key, "lamp-2"))), 403, 2, 1, "(rule names)"},
		{"no request", with(), 400, 2, 0, "no certification request"},
		{"two requests", with(tcr(1, csr), tcr(2, csr)), 400, 2, 1, "more than one"},
		{"request of another kind", with(tagged(2, integer(5), build(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidSHA1) }), integer(1))), 400, -1, 5, "another kind"},
		{"request of no kind", with(tagged(3, integer(5))), 400, 2, 0, "no kind"},
		{"bad proof of possession", with(tcr(1, badCSR)), 400, 9, 1, "signature"},
		{"unreadable PKCS#10", with(tcr(1, sequence(integer(1)))), 400, 2, 1, "PKCS#10"},
		{"part 0", with(tcr(0, csr)), 400, 2, 0, "body part"},
		{"part of a control", with(tcr(101, csr)), 400, 2, 101, "body part"},
		{"nested messages", func(m *pkiMessage) { m.prove("lamp-ref", lampSecret); m.messages = integer(1) }, 400, 2, 0, "nested"},
		{"unknown control", control(cmcControl(70, cmcOID(99), integer(1))), 400, 2, 70, "not known"},
		{"control not taken", control(cmcControl(70, cmcOID(17), integer(1))), 400, 2, 70, "not known"},
		{"recipientNonce in a request", control(cmcControl(70, cmcOID(7), octetString(random))), 400, 2, 70, "not known"},
		{"control twice", control(cmcControl(70, cmcOID(5), integer(1)), cmcControl(71, cmcOID(5), integer(1))), 400, 2, 71, "twice"},
		{"control part twice", control(cmcControl(70, cmcOID(5), integer(1)), cmcControl(70, cmcOID(6), integer(1))), 400, 2, 70, "twice"},
		{"control with two values", control(cmcControl(70, cmcOID(5), integer(1), integer(2))), 400, 2, 70, "one value"},
		{"nonce of no form", control(cmcControl(70, cmcOID(6), integer(1))), 400, 2, 70, "OCTET STRING"},
		{"transaction of no form", control(cmcControl(70, cmcOID(5), utf8String("x"))), 400, 2, 70, "INTEGER"},
		{"link random without witness", control(link), 400, 9, 1, "go together"},
		{"witness without link random", with(tcr(1, csrWith(t, key, "lamp-1", attribute{cmcOID(33), witness(lampSecret, "", random)}))), 400, 9, 1, "go together"},
		{"wrong witness", func(m *pkiMessage) {
			m.requests = [][]byte{tcr(1, csrWith(t, key, "lamp-1", attribute{cmcOID(33), witness("wrong", "", random)}))}
			control(link)(m)
		}, 400, 9, 1, "does not verify"},
		{"weak witness", func(m *pkiMessage) {
			m.requests = [][]byte{tcr(1, csrWith(t, key, "lamp-1", attribute{cmcOID(33), weak}))}
			control(link)(m)
		}, 400, 9, 1, "popLinkWitnessV2"},
		{"wrong channel binding", with(tcr(1, csrWith(t, key, "lamp-1", challengePassword("AAAA")))), 400, 9, 1, "channel binding"},

		{"CRMF: another key signs", with(crm(t, other, request)), 400, 9, 1, "does not verify"},
		{"CRMF: no proof", with(tagged(1, request)), 400, 9, 1, "no proof"},
		{"CRMF: raVerified", with(tagged(1, request, []byte{0x80, 0})), 400, 9, 1, "no proof"},
		{"CRMF: poposkInput", with(tagged(1, request, tagged(1, tagged(0, integer(1))))), 400, 9, 1, "poposkInput"},
		{"CRMF: regInfo", with(crm(t, key, request, sequence())), 400, 2, 1, "regInfo"},
		{"CRMF: no key", with(crm(t, key, certReq(t, nil, "lamp-1"))), 400, 2, 1, "publicKey"},
		{"CRMF: another control", with(crm(t, key, certReq(t, key.Public(), "lamp-1", sequence(build(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(cmcOID(1)) }), integer(1))))), 400, 2, 1, "control"},
		{"CRMF: serial number", with(crm(t, key, sequence(integer(1), sequence([]byte{0x81, 1, 5})))), 400, 2, 1, "serial number"},
		{"CRMF: fields out of order", with(crm(t, key, sequence(integer(1), sequence(tagged(5, sequence()), tagged(4))))), 400, 2, 1, "order"},
		{"CRMF: no template", with(crm(t, key, sequence(integer(1)))), 400, 2, 1, "CertTemplate"},
		{"CRMF: no form", with(tagged(1, integer(1))), 400, 2, 0, "CertReqMsg"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &pkiMessage{requests: [][]byte{tcr(1, csr)}, signer: byKey(key)}
			tt.change(m)
			issued := len(e.issued)
			r := e.cmc(t, "fullcmc", m.seal(t))
			want := tt.http
			if want == 401 {
				want = 403 // HTTP authentication would not help
			}
			if r.status != want {
				t.Fatalf("status %d, want %d: %+v", r.status, want, e.pkiAnswer(t, r))
			}
			a := e.pkiAnswer(t, r)
			if (tt.fail < 0) != (a.status == 4) || a.status != 4 && a.status != 2 || a.fail != tt.fail || !slices.Equal(a.parts, []int64{tt.part}) || !strings.Contains(a.says, tt.says) || len(a.certs) != 0 {
				t.Errorf("answer %+v, want failInfo %d at %d with %q", a, tt.fail, tt.part, tt.says)
			}
			if r.header.Get("WWW-Authenticate") != "" || len(e.issued) != issued {
				t.Error("asked for HTTP authentication, or issued")
			}
		})
	}
	t.Run("the transaction is told", func(t *testing.T) {
		m := &pkiMessage{requests: [][]byte{tcr(1, csr)}, signer: byKey(key), controls: [][]byte{nonce, transaction}}
		m.prove("lamp-ref", "wrong")
		a := e.pkiAnswer(t, e.cmc(t, "fullcmc", m.seal(t)))
		if !bytes.Equal(a.controls[cmcOID(5).String()], integer(4711)) || !bytes.Equal(a.controls[cmcOID(7).String()], octetString([]byte("0123456789abcdef"))) {
			t.Errorf("controls %x", a.controls)
		}
	})
	t.Run("demanded link", func(t *testing.T) {
		m := &pkiMessage{requests: [][]byte{tcr(1, csr)}, signer: byKey(key)}
		m.prove("lamp-ref", lampSecret)
		if a := e.pkiAnswer(t, e.cmc(t, "bound/fullcmc", m.seal(t))); a.fail != 9 || !strings.Contains(a.says, "linking of identity") {
			t.Errorf("answer %+v", a)
		}
	})
	good := &pkiMessage{requests: [][]byte{tcr(1, csr)}, signer: byKey(key)}
	good.prove("lamp-ref", lampSecret)
	msg := good.seal(t)
	var unsigned = sequence(build(func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(encasn1.ObjectIdentifier(cms.TypeEnveloped)) }), tagged(0, sequence()))
	for name, body := range map[string][]byte{"empty": {}, "garbage": []byte("certainly nothing!"), "cut short": msg[:len(msg)-1], "trailing": append(bytes.Clone(msg), 0),
		"certs-only": cms.CertsOnly(e.root.Raw), "not SignedData": unsigned, "PKCS#10": csr, "not DER": bytes.Replace(msg, good.data()[:20], make([]byte, 20), 1)} {
		t.Run(name, func(t *testing.T) {
			r := e.do(t, call{path: "fullcmc", body: bytes.NewReader(body), contentType: "application/pkcs7-mime"})
			if a := e.pkiAnswer(t, r); r.status != 400 || a.status != 2 || a.fail != 2 || !slices.Equal(a.parts, []int64{0}) {
				t.Errorf("status %d, answer %+v", r.status, a)
			}
		})
	}
	for _, contentType := range []string{"none", "application/pkcs10", "application/pkcs7-mime; smime-type=certs-only", "application/pkcs7-mime; smime-type"} {
		r := e.do(t, call{path: "fullcmc", body: bytes.NewReader(msg), contentType: contentType})
		r.wantRefusal(t, 415, "application/pkcs7-mime")
	}
	t.Run("every kind", func(t *testing.T) {
		for _, kind := range ca.Kinds() {
			e.before = func(context.Context, ca.Request) error {
				return &ca.Error{Kind: kind, Reason: "so it is", RetryAfter: time.Minute}
			}
			r := e.cmc(t, "fullcmc", msg)
			if kind == ca.Pending {
				r.wantRefusal(t, 202, "so it is")
				r.wantHeader(t, "Retry-After", "60")
				continue
			}
			a := e.pkiAnswer(t, r)
			if a.status != 2 || r.status < 400 || r.status == 401 || (kind == ca.Internal) != (a.fail == 11) || strings.Contains(a.says, "so it is") == (kind == ca.Internal) {
				t.Errorf("%s: status %d, answer %+v", kind, r.status, a)
			}
			if wait := kind == ca.RateLimited || kind == ca.Unavailable; wait != (a.fail == 12) || wait != (r.header.Get("Retry-After") == "60") {
				t.Errorf("%s: %+v, %v", kind, a, r.header)
			}
		}
		e.before = nil
	})
	t.Run("responder away", func(t *testing.T) {
		e := newKeygenEnv(t, func(o *est.Options) {
			o.Responder = func(context.Context) (est.Responder, error) {
				return est.Responder{}, ca.Away("the token", io.ErrUnexpectedEOF)
			}
		})
		r := e.do(t, call{path: "fullcmc", body: strings.NewReader("x"), contentType: "application/pkcs7-mime"})
		r.wantRefusal(t, 503, "the token")
	})
	if slices.ContainsFunc(e.observed, func(s string) bool { return s == "fullcmc " }) {
		t.Error("an outcome without a name")
	}
}
