package cmp

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	encasn1 "encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// TestPOP has the three cases of RFC 4211 §4.1 and what is wrong with each.
func TestPOP(t *testing.T) {
	h := hierarchy()
	mac := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	me := POPRules{Sender: CommonName("me")}
	for _, c := range []struct {
		name    string
		subject []byte
		auth    POPAuth
		rules   POPRules
		spoil   func(*CertReqMsg)
		want    FailInfo
	}{
		{"subject and key", commonNameDN("device"), POPAuth{}, POPRules{}, nil, 0},
		{"no subject, sender", nil, POPAuth{Sender: CommonName("me")}, me, nil, 0},
		{"no subject, sender in other case", nil, POPAuth{Sender: CommonName("ME")}, me, nil, 0},
		{"no subject, another sender", nil, POPAuth{Sender: CommonName("you")}, me, nil, BadPOP},
		{"no subject, sender unknown to us", nil, POPAuth{Sender: CommonName("me")}, POPRules{}, nil, BadPOP},
		{"no subject, NULL-DN", nil, POPAuth{Sender: NullName()}, POPRules{Sender: NullName()}, nil, BadPOP},
		{"no subject, MAC", nil, POPAuth{MAC: mac}, POPRules{Secret: []byte("secret")}, nil, 0},
		{"no subject, MAC of another secret", nil, POPAuth{MAC: mac}, POPRules{Secret: []byte("other")}, nil, BadPOP},
		{"no subject, MAC without a secret", nil, POPAuth{MAC: mac}, me, nil, BadPOP},
		{"no subject, MAC out of policy", nil, POPAuth{MAC: mac}, POPRules{Secret: []byte("secret"), MAC: MACPolicy{MinIterations: 5000}}, nil, BadAlg},
		{"subject changed", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Template.Subject = commonNameDN("other") }, BadPOP},
		{"control added", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Controls = Attributes{RegToken("x")} }, BadPOP},
		{"key changed", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Template.PublicKey = h.p384.cert.RawSubjectPublicKeyInfo }, BadPOP},
		{"key of another kind", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Template.PublicKey = h.ed.cert.RawSubjectPublicKeyInfo }, BadPOP},
		{"RFC 9483 §4.1.1 an algorithm for another kind of key", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) {
			m.POP.Signature.Algorithm = Algorithm{OID: encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}} // SHA-256 with RSA
		}, BadPOP},
		{"an algorithm that is not accepted", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) {
			m.POP.Signature.Algorithm = Algorithm{OID: encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}} // SHA-1 with ECDSA
		}, BadAlg},
		{"key gone", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Template.PublicKey = nil }, BadCertTemplate},
		{"key unreadable", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.Template.PublicKey = []byte{0x30, 0} }, BadCertTemplate},
		{"poposkInput about another key", nil, POPAuth{Sender: CommonName("me")}, me, func(m *CertReqMsg) { m.Template.PublicKey = h.p384.cert.RawSubjectPublicKeyInfo }, BadPOP},
		{"poposkInput beside subject and key", nil, POPAuth{Sender: CommonName("me")}, me, func(m *CertReqMsg) { m.Template.Subject = nullDN }, BadPOP},
		{"poposkInput changed", nil, POPAuth{Sender: CommonName("you")}, me, func(m *CertReqMsg) { m.POP.Signature.Input.Sender = CommonName("me") }, BadPOP},
		{"raVerified", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.POP = &POP{Method: RAVerified} }, BadPOP},
		{"none", commonNameDN("device"), POPAuth{}, POPRules{}, func(m *CertReqMsg) { m.POP = nil }, BadPOP},
	} {
		t.Run(c.name, func(t *testing.T) {
			q := &CertReqMsg{Template: CertTemplate{Subject: c.subject}}
			if err := q.SignPOP(h.ec.key, c.auth); err != nil {
				t.Fatal(err)
			}
			if c.spoil != nil {
				c.spoil(q)
			}
			m := NewRequest(&CertRequests{Of: IR, Requests: []*CertReqMsg{q}}, HeaderOptions{})
			got := must[*Message](t)(Parse(must[[]byte](t)(m.Marshal()))).Body.(*CertRequests).Requests[0]
			checkInfo(t, got.VerifyPOP(c.rules), c.want)
		})
	}
}

func TestPOPKeyTypes(t *testing.T) {
	h := hierarchy()
	for _, key := range []crypto.Signer{h.ec.key, h.p384.key, h.rsa.key, h.ed.key} {
		q := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device")}}
		if err := q.SignPOP(key, POPAuth{}); err != nil {
			t.Fatal(err)
		}
		checkInfo(t, q.VerifyPOP(POPRules{}), 0)
		pub := must[any](t)(x509.ParsePKIXPublicKey(q.Template.PublicKey))
		if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(pub) {
			t.Errorf("%T: another key in the template", pub)
		}
	}
	if err := new(CertReqMsg).SignPOP(h.ec.key, POPAuth{}); err == nil {
		t.Error("poposkInput of nobody")
	}
	checkInfo(t, (&CertReqMsg{POP: &POP{Method: SignaturePOP, Signature: &POPSignature{}}}).VerifyPOP(POPRules{}), BadPOP)
}

// TestMonstrousKey: an RSA key that fills the message costs next to nothing.
func TestMonstrousKey(t *testing.T) {
	n := new(big.Int).Lsh(big.NewInt(1), 4_000_000)
	n.SetBit(n, 0, 1)
	q := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device")}}
	if err := q.SignPOP(hierarchy().rsa.key, POPAuth{}); err != nil {
		t.Fatal(err)
	}
	q.Template.PublicKey = must[[]byte](t)(x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n, E: 65537}))
	start := time.Now()
	checkInfo(t, q.VerifyPOP(POPRules{}), BadAlg)
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %s", took)
	}
}

func TestKeyGeneration(t *testing.T) {
	ed := Algorithm{OID: oidEd25519}
	for _, c := range []struct {
		name  string
		spki  []byte
		alg   Algorithm
		asked bool
	}{
		{"no key", nil, Algorithm{}, true},
		{"empty key", KeyToGenerate(ed), ed, true},
		{"a key", hierarchy().ed.cert.RawSubjectPublicKeyInfo, Algorithm{}, false},
		{"nonsense", []byte{0x30, 0}, Algorithm{}, false},
	} {
		alg, asked := (&CertTemplate{PublicKey: c.spki}).KeyGeneration()
		if asked != c.asked || !alg.Equal(c.alg) {
			t.Errorf("%s: %v, %t", c.name, alg, asked)
		}
	}
	q := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device"), PublicKey: KeyToGenerate(ed)}}
	if m := NewRequest(&CertRequests{Of: IR, Requests: []*CertReqMsg{q}}, HeaderOptions{}); m.Header.Version != CMP2021 {
		t.Errorf("pvno %d", m.Header.Version)
	}
}
