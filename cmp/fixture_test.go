package cmp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"math/big"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

// party is a key with a certificate of the CA below.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// hierarchy makes one root, one issuer below it, and parties of every key type.
var hierarchy = sync.OnceValue(func() (h struct {
	root, issuing     party
	ec, p384, rsa, ed party
}) {
	h.root = certify("Root", newEC(elliptic.P256()), nil, true)
	h.issuing = certify("Issuing", newEC(elliptic.P256()), &h.root, true)
	h.ec = certify("ec", newEC(elliptic.P256()), &h.issuing, false)
	h.p384 = certify("p384", newEC(elliptic.P384()), &h.issuing, false)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	h.rsa = certify("rsa", rsaKey, &h.issuing, false)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	h.ed = certify("ed", ed, &h.issuing, false)
	return h
})

func newEC(curve elliptic.Curve) crypto.Signer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func certify(name string, key crypto.Signer, by *party, isCA bool) party {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name)) + 77), Subject: pkix.Name{CommonName: name},
		NotBefore: noon.AddDate(-1, 0, 0), NotAfter: noon.AddDate(30, 0, 0), // openssl's mock server looks at the real clock
		BasicConstraintsValid: isCA, IsCA: isCA, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if isCA {
		tmpl.KeyUsage |= x509.KeyUsageCertSign
	} else {
		tmpl.SubjectKeyId = []byte(name + " key")
	}
	parent, signer := tmpl, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		panic(err)
	}
	return party{key, c}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ptr[T any](v T) *T { return &v }

// fullTemplate uses every field.
func fullTemplate(spki []byte) CertTemplate {
	return CertTemplate{
		Version: ptr(int64(2)), SerialNumber: big.NewInt(-129),
		SigningAlg: Algorithm{OID: oidEd25519},
		Issuer:     commonNameDN("CA"),
		Validity:   &OptionalValidity{NotBefore: Time{At: noon}, NotAfter: Time{At: noon.AddDate(40, 0, 0), Generalized: true}},
		Subject:    commonNameDN("device"), PublicKey: spki,
		IssuerUID: []byte{3, 2, 0, 0x55}, SubjectUID: []byte{3, 2, 4, 0x50},
		Extensions: []pkix.Extension{
			{Id: encasn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: []byte{3, 2, 7, 0x80}},
			{Id: encasn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 5, 0x82, 3, 'a', '.', 'b'}},
		},
	}
}

// sampleBodies has every alternative of PKIBody, with every optional field
// somewhere.
func sampleBodies(t testing.TB) map[string]Body {
	h := hierarchy()
	spki := h.ec.cert.RawSubjectPublicKeyInfo
	cert := h.ec.cert.Raw
	enveloped := []byte{0x30, 3, 2, 1, 2}
	mac := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	signed := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device")}}
	if err := signed.SignPOP(h.ec.key, POPAuth{}); err != nil {
		t.Fatal(err)
	}
	bySender, byMAC := &CertReqMsg{}, &CertReqMsg{}
	if err := bySender.SignPOP(h.ec.key, POPAuth{Sender: CommonName("me")}); err != nil {
		t.Fatal(err)
	}
	if err := byMAC.SignPOP(h.ec.key, POPAuth{MAC: mac}); err != nil {
		t.Fatal(err)
	}
	key := func(method POPMethod, k POPKey) *CertReqMsg {
		return &CertReqMsg{ID: 1, Template: fullTemplate(spki), POP: &POP{Method: method, Key: &k}}
	}
	inner := NewRequest(&General{}, HeaderOptions{Time: noon})
	if err := inner.Protect(mac); err != nil {
		t.Fatal(err)
	}
	place := PublicationInfo{Publish: true, Places: []PublicationPlace{{Method: 2, Location: CommonName("x")}, {Method: 0}}}
	rejected := StatusInfo{Status: Rejection, Text: []string{"no", "nein"}, FailInfo: BadPOP | DuplicateCertReq}
	info := must[Info](t)
	return map[string]Body{
		"ir": &CertRequests{Of: IR, Requests: []*CertReqMsg{signed, bySender, byMAC,
			{ID: 7, Template: fullTemplate(spki), POP: &POP{Method: RAVerified}, RegInfo: Attributes{{OIDRegInfoUTF8Pairs, []byte{12, 1, 'x'}}},
				Controls: Attributes{RegToken("token"), Authenticator("hush"), OldCertID(CertID{CommonName("CA"), big.NewInt(5)}),
					ProtocolEncrKey(spki), Publication(place), KeySpecRSA(3072), KeySpecAlgorithm(Algorithm{OID: oidEd25519})}}}},
		"cr": &CertRequests{Of: CR, Requests: []*CertReqMsg{
			key(KeyEncipherment, POPKey{Method: SubsequentMessage, Subsequent: EncrCert}),
			key(KeyAgreement, POPKey{Method: SubsequentMessage, Subsequent: ChallengeResp}),
			key(KeyEncipherment, POPKey{Method: ThisMessage, Value: []byte{3, 2, 0, 1}}),
			key(KeyAgreement, POPKey{Method: DHMAC, Value: []byte{3, 2, 0, 1}}),
			key(KeyAgreement, POPKey{Method: AgreeMAC, Value: []byte{0x30, 0}}),
			key(KeyEncipherment, POPKey{Method: EncryptedKeyPOP, Value: enveloped})}},
		"kur": &CertRequests{Of: KUR, Requests: []*CertReqMsg{{ID: -1}}},
		"krr": &CertRequests{Of: KRR, Requests: []*CertReqMsg{signed}},
		"ccr": &CertRequests{Of: CCR, Requests: []*CertReqMsg{signed}},
		"ip": &CertResponses{Of: IP, CAPubs: [][]byte{h.root.cert.Raw}, Responses: []CertResponse{
			{CertReqID: 0, Status: StatusInfo{Status: GrantedWithMods}, KeyPair: &KeyPair{Certificate: cert,
				PrivateKey: &EncryptedKey{EnvelopedData: enveloped}, Publication: &place}, Info: []byte{}}}},
		"cp": &CertResponses{Of: CP, Responses: []CertResponse{
			{CertReqID: -1, KeyPair: &KeyPair{EncryptedCert: &EncryptedKey{EncryptedValue: []byte{0x30, 3, 3, 1, 0}}}},
			{CertReqID: 1, KeyPair: &KeyPair{EncryptedCert: &EncryptedKey{EnvelopedData: enveloped}}, Info: []byte("a%b")}}},
		"kup":     &CertResponses{Of: KUP, Responses: []CertResponse{{Status: rejected}}},
		"ccp":     &CertResponses{Of: CCP},
		"p10cr":   &PKCS10{Request: vector(t, "openssl-msg/pkcs10.der")},
		"popdecc": &Challenges{List: []Challenge{{OWF: Algorithm{OID: oidSHA1}, Witness: []byte{1}, Challenge: []byte{2}}, {EncryptedRand: enveloped}}},
		"popdecr": &ChallengeAnswers{List: []*big.Int{big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 200)}},
		"krp":     &OpaqueBody{Of: KRP, Content: []byte{0x30, 0}},
		"rr":      &Revocations{List: []Revocation{RevokeCert(commonNameDN("CA"), big.NewInt(1), 1), {Template: fullTemplate(spki)}}},
		"rp": &RevocationResults{Statuses: []StatusInfo{{}, rejected}, Certs: []CertID{{CommonName("CA"), big.NewInt(9)}},
			CRLs: [][]byte{{0x30, 0}}},
		"ckuann":  &OpaqueBody{Of: CKUAnn, Content: []byte{0x30, 0}},
		"cann":    &OpaqueBody{Of: CAnn, Content: cert},
		"rann":    &OpaqueBody{Of: RAnn, Content: []byte{0x30, 0}},
		"crlann":  &OpaqueBody{Of: CRLAnn, Content: []byte{0x30, 0}},
		"pkiconf": &Confirm{},
		"nested":  &NestedMessages{Messages: []*Message{inner, inner}},
		"genm": &General{Infos: Infos{ImplicitConfirm(), ConfirmWaitTime(noon), CertProfile("device"), SupportedLangTags("de", "en"),
			OrigPKIMessage(inner), RootCACert(h.root.cert.Raw), info(CACerts()), CurrentCRL(nil),
			info(CRLStatusList(CRLStatus{Issuer: []GeneralName{CommonName("CA")}, ThisUpdate: Time{At: noon}},
				CRLStatus{FullName: []GeneralName{append([]byte{0x86, 4}, "http"...)}, ThisUpdate: Time{At: noon, Generalized: true}},
				CRLStatus{Relative: []byte{0x30, 0}}))}},
		"genp": &General{Response: true, Infos: Infos{info(CACerts(h.root.cert.Raw, h.issuing.cert.Raw)),
			info((&RootCAKeyUpdate{NewWithNew: cert, OldWithNew: cert}).Info()),
			info((&CertReqTemplate{Template: CertTemplate{Subject: nullDN, Extensions: []pkix.Extension{{Id: oidReasonCode, Value: []byte{}}}},
				KeySpec: Attributes{KeySpecRSA(2048), KeySpecAlgorithm(Algorithm{OID: oidEd25519})}}).Info()),
			info(CRLs([]byte{0x30, 0})), info(SignKeyPairTypes(Algorithm{OID: oidEd25519})), info(EncKeyPairTypes(Algorithm{OID: oidMGF1, Params: derNull})),
			PreferredSymmAlg(Algorithm{OID: oidSHA1}), info(UnsupportedOIDs(oidSHA1, encasn1.ObjectIdentifier{1, 2, 3})),
			{encasn1.ObjectIdentifier{1, 2, 3, 4}, []byte{4, 2, 1, 2}}}},
		"error":    &ErrorBody{Status: rejected, Code: big.NewInt(-7), Details: []string{"why"}},
		"certConf": &Confirmations{List: []CertStatus{{CertHash: []byte{1}}, {CertHash: []byte{2}, CertReqID: 3, Status: &rejected, HashAlg: Algorithm{OID: oidSHA1}}}},
		"pollReq":  &PollRequests{CertReqIDs: []int64{0, -1}},
		"pollRep":  &PollReplies{Replies: []PollReply{{CertReqID: 0, CheckAfter: 90 * time.Second, Reason: []string{"busy"}}, {}}},
	}
}

// sampleMessages are sampleBodies with full headers, protected by turns.
func sampleMessages(t testing.TB) map[string]*Message {
	h := hierarchy()
	mac := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{Kind: PBMAC1, Iterations: 100}))
	signer := must[*Signer](t)(NewSigner(h.ec.key, h.ec.cert, SignerOptions{Chain: []*x509.Certificate{h.issuing.cert, h.root.cert}}))
	all := map[string]*Message{}
	for name, body := range sampleBodies(t) {
		m := NewRequest(body, HeaderOptions{Recipient: CommonName("CA"), Time: noon, Infos: Infos{ImplicitConfirm()}})
		m.Header.RecipKID, m.Header.RecipNonce, m.Header.FreeText = []byte{}, []byte("nonce"), []string{"free", "text"}
		var p Protector = mac
		if body.Type()%2 == 1 {
			p = signer
		}
		if err := m.Protect(p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all[name] = m
	}
	return all
}
