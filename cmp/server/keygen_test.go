package server_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// withProfiles adds profiles whose keys do more than sign.
func withProfiles(source []byte) []byte {
	source = bytes.Replace(source, []byte("\n  lamp:"), []byte(`
  made-ec:
    extends: device
    keys: [ecdsa-p256, ecdsa-p384]
    key_usage: [digitalSignature, keyAgreement]
    server_keygen: {allow: true}
  made-rsa:
    extends: device
    keys: [rsa-2048, ed25519]
    key_usage: [digitalSignature]
    server_keygen: {allow: true}
  rsa-too:
    extends: device
    keys: [rsa-2048]
    key_usage: [digitalSignature, keyEncipherment]
    eku: [emailProtection]
  approved:
    extends: made-ec
    approval: true
  vault-ec:
    extends: device
    keys: [ecdsa-p256, ecdsa-p384, ecdsa-p521]
    key_usage: [keyAgreement]
  vault-rsa:
    extends: device
    keys: [rsa-2048]
    key_usage: [keyEncipherment]
    eku: [emailProtection]
  vault-lamp:
    extends: vault-ec
    status: {no_rev_avail: true}
  vault-approved:
    extends: vault-ec
    approval: true

  lamp:`), 1)
	return bytes.ReplaceAll(source, []byte("profiles: [device, gateway, lamp]"),
		[]byte("profiles: [device, gateway, lamp, made-ec, made-rsa, rsa-too, approved, vault-ec, vault-rsa, vault-lamp, vault-approved]"))
}

// noKey asks for a certificate and leaves the key to the CA; spki says of which kind.
func noKey(cn string, spki []byte) *cmp.CertReqMsg {
	return &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: name(cn), PublicKey: spki}}
}

// kindOf is the publicKey of a template that prefers the kind of a key.
func kindOf(t testing.TB, key crypto.Signer) []byte {
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(must[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public())), &spki); err != nil {
		t.Fatal(err)
	}
	return cmp.KeyToGenerate(cmp.Algorithm{OID: spki.Algorithm.Algorithm, Params: spki.Algorithm.Parameters.FullBytes})
}

// opened opens the private key in an answer, as its requester does, and checks that it is the certificate's.
func (e *env) opened(answer *cmp.Message, by party) (crypto.Signer, *x509.Certificate) {
	e.t.Helper()
	cert := e.certificate(answer)
	private := answer.Body.(*cmp.CertResponses).Responses[0].KeyPair.PrivateKey
	if private == nil || answer.Header.Version != cmp.CMP2021 {
		e.t.Fatalf("no private key in %s of pvno %d", answer.Body.Type(), answer.Header.Version)
	}
	key := must[crypto.Signer](e.t)(private.OpenKey(by.opener(e.t), cmp.TrustKGA(e.roots, e.now)))
	if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(cert.PublicKey) {
		e.t.Error("the certificate is for another key")
	}
	return key, cert
}

func rsaKey(t testing.TB) *rsa.PrivateKey {
	return must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
}

func p384Key(t testing.TB) crypto.Signer {
	return must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
}

// RFC 9483 §4.1.6, Table 3 CKeyGen: the key comes encrypted by the technique that
// goes with the protection of the request, and works.
func TestKeyGeneration(t *testing.T) {
	e := newEnv(t, withProfiles)
	shared := e.register("lamp-1", 100)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaOwn := rsaKey(t)
	ecCert := party{id: "lamp-1", key: newKey(t)}
	ecCert.crt = e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", ecCert.key, nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), shared))
	rsaCert := party{id: "lamp-1", key: rsaOwn}
	rsaCert.crt = e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, "lamp-1", rsaOwn, nil)), cmp.CertProfile("rsa-too"), cmp.ImplicitConfirm()), shared))
	for _, c := range []struct {
		name    string
		of      cmp.BodyType
		by      party
		profile string
		prefers []byte
		want    string // type of the key
		mods    bool
	}{
		{"§4.1.6.3 pwri, no preference", cmp.IR, shared, "made-ec", nil, "P-256", false},
		{"§4.1.6.3 pwri, P-384", cmp.CR, shared, "made-ec", kindOf(t, p384Key(t)), "P-384", false},
		{"§4.1.6.3 pwri, RSA", cmp.IR, shared, "made-rsa", kindOf(t, rsaOwn), "RSA", false},
		{"§4.1.6.3 pwri, Ed25519", cmp.IR, shared, "made-rsa", kindOf(t, ed), "Ed25519", false},
		{"§4.1.6.3 pwri, a kind that the profile does not have", cmp.IR, shared, "made-ec", kindOf(t, rsaOwn), "P-256", true},
		{"§4.1.6.2 kari, kur", cmp.KUR, ecCert, "", nil, "P-256", false},
		{"§4.1.6.2 kari, cr", cmp.CR, ecCert, "made-rsa", nil, "RSA", false},
		{"§4.1.6.1 ktri", cmp.IR, rsaCert, "made-ec", nil, "P-256", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			m := e.message(requests(c.of, noKey("lamp-1", c.prefers)))
			if c.profile != "" {
				m.Header.GeneralInfo = cmp.Infos{cmp.CertProfile(c.profile)}
			}
			raw := e.protected(m, c.by)
			first := e.postRaw("", raw)
			answer := e.verify(must[*cmp.Message](t)(cmp.Parse(first)), m, c.by)
			key, cert := e.opened(answer, c.by)
			got := "RSA"
			switch k := key.(type) {
			case *ecdsa.PrivateKey:
				got = k.Curve.Params().Name
			case ed25519.PrivateKey:
				got = "Ed25519"
			}
			if got != c.want {
				t.Errorf("a key of kind %s, want %s", got, c.want)
			}
			if mods := status(answer).Status == cmp.GrantedWithMods; mods != c.mods {
				t.Errorf("%v", status(answer))
			}
			if again := e.postRaw("", raw); !bytes.Equal(again, first) {
				t.Error("the same request got another answer")
			}
			conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, 0, nil))}}, e.now())
			if reply := e.ask(conf, c.by); reply.Body.Type() != cmp.PKIConf {
				t.Fatal(status(reply))
			}
			// The key that came protects what its device says next.
			own := party{id: "lamp-1", key: key, crt: cert}
			if c.want != "RSA" || c.of == cmp.IR {
				e.certificate(e.ask(e.message(requests(cmp.CR, crmf(t, "lamp-1", newKey(t), nil)), cmp.CertProfile("device"), cmp.ImplicitConfirm()), own))
			}
		})
	}
}

// A key made by a server that goes away before it has recorded is gone with it; the
// next attempt makes another, and the private key lies nowhere in clear.
func TestKeyGenerationDurable(t *testing.T) {
	e := newEnv(t, withProfiles)
	shared := e.register("lamp-1", 100)
	issued := e.core.Stats().Issued
	raw := e.protected(e.message(requests(cmp.IR, noKey("lamp-1", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), shared)
	e.core.after = func() error { return ca.Away("the database", os.ErrDeadlineExceeded) }
	if got := status(e.post("", raw)).FailInfo; got != cmp.SystemUnavail {
		t.Fatal(got)
	}
	e.core.after = nil
	answer := e.post("", raw)
	key, _ := e.opened(answer, shared)
	if n := e.core.Stats().Issued - issued; n != 2 { // and the KGA's own
		t.Errorf("%d certificates", n)
	}
	d := key.(*ecdsa.PrivateKey).D.FillBytes(make([]byte, 32))
	files := must[[]string](t)(filepath.Glob(filepath.Join(filepath.Dir(e.path), "*")))
	seen := 0
	for _, file := range files {
		content := must[[]byte](t)(os.ReadFile(file))
		seen += len(content)
		if bytes.Contains(content, d) {
			t.Errorf("the private key lies in %s", file)
		}
	}
	if seen < 10_000 {
		t.Errorf("only %d octets of the ledger were looked at", seen)
	}
}

// A key whose certificate must be approved first is made once, and handed out when it is.
func TestKeyGenerationPolling(t *testing.T) {
	e := newEnv(t, withProfiles)
	shared := e.register("lamp-1", 100)
	answer := e.ask(e.message(requests(cmp.IR, noKey("lamp-1", nil)), cmp.CertProfile("approved"), cmp.ImplicitConfirm()), shared)
	if got := status(answer); got.Status != cmp.Waiting {
		t.Fatal(got)
	}
	answer = e.ask(cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now()), shared)
	if answer.Body.Type() != cmp.PollRep {
		t.Fatal(status(answer))
	}
	list := must[[]ca.PendingRequest](t)(e.store.Pendings(t.Context(), ca.PendingFilter{}, 0, 10))
	if len(list) != 1 {
		t.Fatalf("%d requests are waiting: each poll makes another key", len(list))
	}
	if _, err := e.core.DecideRequest(t.Context(), list[0].ID, true, "", "admin:test"); err != nil {
		t.Fatal(err)
	}
	answer = e.ask(cmp.Reply(answer, &cmp.PollRequests{CertReqIDs: []int64{0}}, e.now()), shared)
	e.opened(answer, shared)
}

// RFC 9483 §4.1.6: who gets no key.
func TestKeyGenerationRefused(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp := e.register("lamp-1", 100)
	own := e.enrolled("lamp-3") // its key usage is digitalSignature alone
	weak := maker(e, "weak-1", must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), x509.KeyUsageKeyAgreement)
	ra := e.registerRA("line-1", "lamp-*")
	made := cmp.CertProfile("made-ec")
	issued := e.core.Stats().Issued
	for _, c := range []struct {
		name string
		by   party
		m    *cmp.Message
		want cmp.FailInfo
		says string
	}{
		{"the profile does not allow it", lamp, e.message(requests(cmp.IR, noKey("lamp-1", nil))), cmp.BadCertTemplate, "profile device"},
		{"a profile that is not there", lamp, e.message(requests(cmp.IR, noKey("lamp-1", nil)), cmp.CertProfile("nosuch")), cmp.NotAuthorized, "nosuch"},
		{"the key usage of the certificate", own, e.message(requests(cmp.CR, noKey("lamp-3", nil)), made), cmp.NotAuthorized, "keyAgreement"},
		{"a weak key", weak, e.message(requests(cmp.IR, noKey("weak-1", nil)), made), cmp.BadAlg, "P-224"},
		{"a proof of possession", lamp, e.message(requests(cmp.IR, &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: name("lamp-1")}, POP: &cmp.POP{Method: cmp.RAVerified}}), made), cmp.BadPOP, "no proof"},
		{"a registration authority", ra, e.message(requests(cmp.IR, noKey("lamp-1", nil)), made), cmp.NotAuthorized, "registration authority"},
		{"an EC key without curve", lamp, e.message(requests(cmp.IR, noKey("lamp-1", cmp.KeyToGenerate(cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}}))), made), cmp.BadCertTemplate, "curve"},
		{"another device's name", lamp, e.message(requests(cmp.IR, noKey("lamp-2", nil)), made), cmp.NotAuthorized, ""},
		{"pvno 2", lamp, version2(e.message(requests(cmp.IR, noKey("lamp-1", nil)), made)), cmp.BadRequest, "pvno 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			answer := e.post("", e.protected(c.m, c.by))
			if got := status(answer); got.FailInfo != c.want || got.Status != cmp.Rejection || !strings.Contains(got.String(), c.says) {
				t.Errorf("%s: %v, want %s and %q", answer.Body.Type(), got, c.want, c.says)
			}
		})
	}
	if n := e.core.Stats().Issued - issued; n != 1 { // the KGA's own, for the other device's name
		t.Errorf("%d certificates were issued", n)
	}
}

func version2(m *cmp.Message) *cmp.Message {
	m.Header.Version = cmp.CMP2000
	return m
}

// maker registers a manufacturer whose certificate for a device has a key and a key usage.
func maker(e *env, id string, key crypto.Signer, usage x509.KeyUsage) party {
	e.t.Helper()
	makerKey := newKey(e.t)
	root := issue(e.t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker of " + id}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	if _, err := e.core.AddManufacturer(e.t.Context(), ca.Manufacturer{Name: "maker-" + id, Level: "software", Anchors: [][]byte{root.Raw}}, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
	return party{id: id, key: key, crt: issue(e.t, &x509.Certificate{Subject: pkix.Name{SerialNumber: id}, KeyUsage: usage}, root, key.Public(), makerKey)}
}

// When the clock was ahead, the certificate of who makes keys begins in the future: it is made anew when the clock came back.
func TestKeygenClockCameBack(t *testing.T) {
	e := newEnv(t, withProfiles)
	lamp := e.register("lamp-1", 9)
	made := func() {
		t.Helper()
		e.opened(e.ask(e.message(requests(cmp.IR, noKey("lamp-1", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), lamp), lamp)
	}
	e.late.Store(int64(time.Hour))
	made()
	e.late.Store(0)
	made()
}
