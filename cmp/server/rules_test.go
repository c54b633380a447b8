package server_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// extension makes an extension of a value.
func extension(oid asn1.ObjectIdentifier, v any) pkix.Extension {
	raw, err := asn1.Marshal(v)
	if err != nil {
		panic(err)
	}
	return pkix.Extension{Id: oid, Value: raw}
}

// TestRules breaks one rule at a time.
func TestRules(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 100)
	own := e.enrolled("lamp-2")
	foreign := newEnv(t).enrolled("lamp-2")
	key := newKey(t)
	kur := func(change func(*cmp.CertReqMsg)) cmp.Body { return requests(cmp.KUR, crmf(t, "lamp-2", key, change)) }
	ir := func(change func(*cmp.CertReqMsg)) cmp.Body { return requests(cmp.IR, crmf(t, "lamp-1", key, change)) }
	rr := func(c *x509.Certificate, reason int) cmp.Body {
		return &cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(c.RawIssuer, c.SerialNumber, reason)}}
	}
	header := func(change func(*cmp.Header)) func(*cmp.Message) { return func(m *cmp.Message) { change(&m.Header) } }
	for _, c := range []struct {
		name string
		by   party
		body cmp.Body
		edit func(*cmp.Message)
		want cmp.FailInfo
	}{
		{"RFC 9483 §3.5 pvno", lamp, ir(nil), header(func(h *cmp.Header) { h.Version = 1 }), cmp.UnsupportedVersion},
		{"RFC 9483 §3.5 transactionID absent", lamp, ir(nil), header(func(h *cmp.Header) { h.TransactionID = nil }), cmp.BadDataFormat},
		{"RFC 9483 §3.5 senderNonce absent", lamp, ir(nil), header(func(h *cmp.Header) { h.SenderNonce = nil }), cmp.BadSenderNonce},
		{"RFC 9483 §3.5 senderNonce of 64 bits", lamp, ir(nil), header(func(h *cmp.Header) { h.SenderNonce = h.SenderNonce[:8] }), cmp.BadSenderNonce},
		{"RFC 9483 §3.1 recipNonce in the first message", lamp, ir(nil), header(func(h *cmp.Header) { h.RecipNonce = h.SenderNonce }), cmp.BadRecipientNonce},
		{"RFC 9483 §3.5 messageTime absent", lamp, ir(nil), header(func(h *cmp.Header) { h.Time = time.Time{} }), cmp.BadTime},
		{"RFC 9483 §3.5 messageTime too old", lamp, ir(nil), header(func(h *cmp.Header) { h.Time = h.Time.Add(-6 * time.Minute) }), cmp.BadTime},
		{"RFC 9483 §3.5 messageTime in the future", lamp, ir(nil), header(func(h *cmp.Header) { h.Time = h.Time.Add(6 * time.Minute) }), cmp.BadTime},
		{"RFC 9483 §3.1 implicitConfirm with a value", lamp, ir(nil), header(func(h *cmp.Header) {
			h.GeneralInfo = cmp.Infos{{Type: cmp.OIDImplicitConfirm, Value: []byte{2, 1, 1}}}
		}), cmp.BadRequest},
		{"RFC 9483 §3.1 certProfile not known", lamp, ir(nil), header(func(h *cmp.Header) { h.GeneralInfo = cmp.Infos{cmp.CertProfile("nosuch")} }), cmp.NotAuthorized},
		{"RFC 9483 §3.5 foreign certificate", foreign, kur(nil), nil, cmp.SignerNotTrusted},
		{"RFC 9483 §4.1.3 kur by MAC", lamp, kur(nil), nil, cmp.WrongIntegrity},
		{"RFC 9483 §4.2 rr by MAC", lamp, rr(own.crt, 1), nil, cmp.WrongIntegrity},
		{"RFC 9483 §4.1.1 two requests", lamp, requests(cmp.IR, crmf(t, "lamp-1", key, nil), crmf(t, "lamp-1", key, nil)), nil, cmp.BadRequest},
		{"RFC 9483 §4.1.1 certReqId", lamp, ir(func(r *cmp.CertReqMsg) { r.ID = 1 }), nil, cmp.BadRequest},
		{"RFC 9483 §4.1.1 no POP", lamp, ir(func(r *cmp.CertReqMsg) {
			r.POP = &cmp.POP{Method: cmp.KeyEncipherment, Key: &cmp.POPKey{Method: cmp.SubsequentMessage}}
		}), nil, cmp.BadPOP},
		{"RFC 9483 §5.2.3 raVerified from a device", lamp, ir(func(r *cmp.CertReqMsg) { r.POP = &cmp.POP{Method: cmp.RAVerified} }), nil, cmp.NotAuthorized},
		{"RFC 4211 §4.1 POP of another key", lamp, ir(func(r *cmp.CertReqMsg) {
			other := crmf(t, "lamp-1", newKey(t), nil)
			r.POP = other.POP
		}), nil, cmp.BadPOP},
		{"RFC 9483 §4.1.6 key generation", lamp, requests(cmp.IR, &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: name("lamp-1")}}), nil, cmp.BadCertTemplate},
		{"RFC 4211 §5 serialNumber", lamp, ir(func(r *cmp.CertReqMsg) { r.Template.SerialNumber = big.NewInt(7) }), nil, cmp.BadCertTemplate},
		{"RFC 4211 §5 version", lamp, ir(func(r *cmp.CertReqMsg) { r.Template.Version = new(int64) }), nil, cmp.BadCertTemplate},
		{"RFC 4211 §5 issuer", lamp, ir(func(r *cmp.CertReqMsg) { r.Template.Issuer = name("other CA") }), nil, cmp.WrongAuthority},
		{"RFC 9483 §4.1.1 CA certificate", lamp, ir(func(r *cmp.CertReqMsg) {
			r.Template.Extensions = []pkix.Extension{extension(asn1.ObjectIdentifier{2, 5, 29, 19}, struct{ CA bool }{true})}
		}), nil, cmp.NotAuthorized},
		{"RFC 9483 §1.5 extended key usage of a CA", lamp, ir(func(r *cmp.CertReqMsg) {
			r.Template.Extensions = []pkix.Extension{extension(asn1.ObjectIdentifier{2, 5, 29, 37}, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 27}})}
		}), nil, cmp.NotAuthorized},
		{"another device's name", lamp, requests(cmp.IR, crmf(t, "lamp-2", key, nil)), nil, cmp.NotAuthorized},
		{"another device's key", lamp, requests(cmp.IR, crmf(t, "lamp-1", own.key, nil)), nil, cmp.BadCertTemplate},
		{"RFC 9483 §4.1.3 kur with another name", own, requests(cmp.KUR, crmf(t, "lamp-1", key, nil)), nil, cmp.NotAuthorized},
		{"RFC 9483 §4.1.3 oldCertId", own, kur(func(r *cmp.CertReqMsg) {
			r.Controls = cmp.Attributes{cmp.OldCertID(cmp.CertID{Issuer: cmp.DirectoryName(own.crt.RawIssuer), SerialNumber: big.NewInt(7)})}
		}), nil, cmp.BadCertID},
		{"RFC 9483 §4.2 rr of a certificate that is not there", own, &cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(own.crt.RawIssuer, big.NewInt(7), 1)}}, nil, cmp.BadCertID},
		{"RFC 9483 §4.2 rr of another device's certificate", own, rr(e.enrolled("lamp-3").crt, 1), nil, cmp.BadCertID},
		{"RFC 9483 §4.2 rr without serialNumber", own, &cmp.Revocations{List: []cmp.Revocation{{Template: cmp.CertTemplate{Issuer: own.crt.RawIssuer},
			Entry: cmp.RevokeCert(nil, big.NewInt(1), 1).Entry}}}, nil, cmp.AddInfoNotAvailable},
		{"RFC 9483 §4.2 rr without reason", own, &cmp.Revocations{List: []cmp.Revocation{{Template: cmp.CertTemplate{Issuer: own.crt.RawIssuer, SerialNumber: own.crt.SerialNumber}}}}, nil, cmp.BadRequest},
		{"RFC 9483 §5.3.2 release from hold by the device", own, rr(own.crt, 8), nil, cmp.NotAuthorized},
		{"RFC 9483 §4.1.1 certConf out of nowhere", lamp, &cmp.Confirmations{List: []cmp.CertStatus{{CertHash: make([]byte, 32)}}}, nil, cmp.BadRequest},
		{"RFC 9483 §4.4 pollReq out of nowhere", lamp, &cmp.PollRequests{CertReqIDs: []int64{0}}, nil, cmp.BadRequest},
		{"RFC 9483 §3.5 a body that only a CA sends", lamp, &cmp.Confirm{}, nil, cmp.BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			m := e.message(c.body)
			if c.edit != nil {
				c.edit(m)
			}
			before := e.core.Stats().Issued
			answer := e.post("", e.protected(m, c.by))
			if got := status(answer); got.FailInfo != c.want || got.Status != cmp.Rejection || len(got.Text) == 0 {
				t.Errorf("%s: %v, want %s", answer.Body.Type(), got, c.want)
			}
			if e.core.Stats().Issued != before {
				t.Error("a certificate was issued")
			}
		})
	}
	if e.t = t; e.revoked(own.crt) {
		t.Error("a refused rr revoked")
	}
}

// RFC 9483 §3.5, §3.3: nothing but what is protected, and first in extraCerts.
func TestProtection(t *testing.T) {
	e := newEnv(t)
	lamp, own := e.register("lamp-1", 1), e.enrolled("lamp-2")
	unprotected := must[[]byte](t)(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))).Marshal())
	signed := e.message(requests(cmp.KUR, crmf(t, "lamp-2", newKey(t), nil)))
	e.protected(signed, own)
	signed.ExtraCerts = append([][]byte{e.enrolled("lamp-3").crt.Raw}, signed.ExtraCerts...)
	wrongFirst := must[[]byte](t)(signed.Marshal())
	for name, raw := range map[string][]byte{"unprotected": unprotected, "another certificate first": wrongFirst} {
		if got := status(e.post("", raw)).FailInfo; got != cmp.BadMessageCheck {
			t.Errorf("%s: %s", name, got)
		}
	}
	// Every octet is protected: a flipped bit is refused, wherever it is.
	whole := e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))), lamp)
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		if got := status(e.post("", flipped)); got.Status != cmp.Rejection {
			t.Errorf("bit %d of octet %d flipped: %v", i%8, i, got)
		}
	}
	if n := e.core.enrolled.Load(); n != 2 { // lamp-2 and lamp-3
		t.Errorf("%d requests reached the core", n)
	}
}

// RFC 9483 §4.1.5: who guesses learns nothing from the answer.
func TestNoOracle(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	secret := func(reference, secret string) party {
		return party{mac: must[*cmp.MAC](t)(cmp.NewMAC([]byte(reference), []byte(secret), cmp.MACParams{}))}
	}
	gone := e.register("lamp-9", 1)
	if err := e.core.RevokeCredential(t.Context(), string(gone.mac.Reference()), "admin:test"); err != nil {
		t.Fatal(err)
	}
	var first cmp.StatusInfo
	for i, p := range []party{secret(string(lamp.mac.Reference()), "wrong"), secret("nobody", "wrong"), secret("", "wrong"), secret(string(gone.mac.Reference()), "wrong")} {
		answer := e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-1", newKey(t), nil))), p))
		if got := status(answer); i == 0 {
			first = got
		} else if got.String() != first.String() || got.FailInfo != cmp.BadMessageCheck {
			t.Errorf("%v, and %v to a wrong secret", got, first)
		}
	}
	// Whoever has the secret is told.
	if got := status(e.post("", e.protected(e.message(requests(cmp.IR, crmf(t, "lamp-9", newKey(t), nil))), gone))); !strings.Contains(got.String(), "revoked") {
		t.Errorf("a revoked credential: %v", got)
	}
}

// RFC 9811 §3.
func TestHTTP(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	genm := func() []byte { return e.protected(e.message(&cmp.General{}), own) }
	for _, c := range []struct {
		name, method, path, mediaType string
		body                          []byte
		status                        int
	}{
		{"well-known URI", "POST", "", "application/pkixcmp", genm(), 200},
		{"trailing slash", "POST", "/", "application/pkixcmp", genm(), 200},
		{"parameters of the media type", "POST", "/getcacerts", "Application/PKIXCMP; x=y", genm(), 200},
		{"profile and operation", "POST", "/p/device/getcacerts", "application/pkixcmp", genm(), 200},
		{"garbage is answered by CMP", "POST", "", "application/pkixcmp", []byte("garbage"), 200},
		{"nothing is answered by CMP", "POST", "", "application/pkixcmp", nil, 200},
		{"GET", "GET", "", "application/pkixcmp", nil, 405},
		{"media type", "POST", "", "application/octet-stream", genm(), 415},
		{"unknown operation", "POST", "/nosuch", "application/pkixcmp", genm(), 404},
		{"empty profile", "POST", "/p//getcacerts", "application/pkixcmp", genm(), 404},
		{"longer word", "POST", "x", "application/pkixcmp", genm(), 404},
		{"too large", "POST", "", "application/pkixcmp", make([]byte, server.MaxBody+1), 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := must[*http.Request](t)(http.NewRequest(c.method, e.http.URL+server.Prefix+c.path, bytes.NewReader(c.body)))
			r.Header.Set("Content-Type", c.mediaType)
			resp := must[*http.Response](t)(http.DefaultClient.Do(r))
			resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("%s, want %d", resp.Status, c.status)
			}
		})
	}
	if got := status(e.post("/keyupdate", genm())).FailInfo; got != cmp.BadRequest {
		t.Errorf("genm to keyupdate: %s", got)
	}
	kur := e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.CertProfile("device"))
	if got := status(e.post("/p/gateway", e.protected(kur, own))).FailInfo; got != cmp.BadRequest {
		t.Errorf("two profiles: %s", got)
	}
	answer := e.post("/p/gateway/keyupdate", e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))
	if cert := e.certificate(answer); len(cert.ExtKeyUsage) != 2 {
		t.Errorf("not of profile gateway: %v", cert.ExtKeyUsage)
	}
}

// RFC 9483 §4.2: a device revokes itself, and a lost rp is sent again.
func TestRevoke(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	m := e.message(&cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(own.crt.RawIssuer, own.crt.SerialNumber, 1)}})
	raw := e.protected(m, own)
	first := e.postRaw("", raw)
	if got := status(e.verify(must[*cmp.Message](t)(cmp.Parse(first)), m, own)); got.Status != cmp.Accepted {
		t.Fatal(got)
	}
	if !e.revoked(own.crt) {
		t.Error("not revoked")
	}
	if again := e.postRaw("", raw); !bytes.Equal(again, first) {
		t.Error("the same rr got another answer")
	}
	if got := status(e.post("", e.protected(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil))), own))).FailInfo; got != cmp.SignerNotTrusted {
		t.Errorf("a revoked certificate: %s", got)
	}
	other := e.enrolled("lamp-2")
	rr := func() cmp.Body {
		return &cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(other.crt.RawIssuer, other.crt.SerialNumber, 4)}}
	}
	newer := newKey(t)
	second := party{id: "lamp-2", key: newer, crt: e.certificate(e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-2", newer, nil)), cmp.ImplicitConfirm()), other))}
	if got := status(e.ask(e.message(rr()), second)); got.Status != cmp.Accepted {
		t.Error(got)
	}
	if got := status(e.ask(e.message(rr()), second)).FailInfo; got != cmp.CertRevoked {
		t.Errorf("twice: %s", got)
	}
}

// RFC 9483 §4.3.
func TestGeneral(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	ask := func(infos ...cmp.Info) cmp.Infos {
		t.Helper()
		answer := e.ask(e.message(&cmp.General{Infos: infos}), own)
		b, ok := answer.Body.(*cmp.General)
		if !ok || !b.Response {
			t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
		}
		return b.Infos
	}
	question := must[cmp.Info](t)(cmp.CACerts())
	certs, found, err := ask(question).CACerts()
	if err != nil || !found || len(certs) != 3 {
		t.Errorf("§4.3.1 caCerts: %d, %v", len(certs), err)
	}
	root, _ := e.core.CACert("root")
	if update, found, err := ask(cmp.RootCACert(root)).RootCAKeyUpdate(); err != nil || !found || update != nil {
		t.Errorf("§4.3.2 rootCaCert of the newest: %v %v %v", update, found, err)
	}
	if update, _, err := ask(cmp.RootCACert(own.crt.Raw)).RootCAKeyUpdate(); err != nil || update == nil || !bytes.Equal(update.NewWithNew, root) {
		t.Errorf("§4.3.2 rootCaCert of another: %v %v", update, err)
	}
	template, found, err := ask(must[cmp.Info](t)((*cmp.CertReqTemplate)(nil).Info())).CertReqTemplate()
	if err != nil || !found || template == nil || !cmp.SameName(template.Template.Subject, name("lamp-1")) || len(template.KeySpec) == 0 {
		t.Errorf("§4.3.3 certReqTemplate: %+v %v", template, err)
	}
	if list, found, err := ask(must[cmp.Info](t)(cmp.SignKeyPairTypes())).Algorithms(cmp.OIDSignKeyPairTypes); err != nil || !found || len(list) == 0 {
		t.Errorf("RFC 9810 §5.3.19.2 signKeyPairTypes: %v %v", list, err)
	}
	// Without key usages for it there is no key for encryption; the symmetric algorithm is that of EnvelopedData.
	if list, found, err := ask(must[cmp.Info](t)(cmp.EncKeyPairTypes())).Algorithms(cmp.OIDEncKeyPairTypes); err != nil || !found || len(list) != 0 {
		t.Errorf("RFC 9810 §5.3.19.3 encKeyPairTypes of a profile that signs: %v %v", list, err)
	}
	if alg, _, err := ask(cmp.Info{Type: cmp.OIDPreferredSymmAlg}).PreferredSymmAlg(); err != nil || alg.OID.String() != "2.16.840.1.101.3.4.1.42" {
		t.Errorf("RFC 9810 §5.3.19.4 preferredSymmAlg: %v %v", alg, err)
	}
	if info, found := ask(cmp.Info{Type: cmp.OIDCAProtEncCert}).Get(cmp.OIDCAProtEncCert); !found || info.Value != nil {
		t.Errorf("RFC 9810 §5.3.19.1 caProtEncCert: %v", info)
	}
	if tags, _, err := ask(cmp.SupportedLangTags("de", "en-GB")).SupportedLangTags(); err != nil || len(tags) != 1 || tags[0] != "en-GB" {
		t.Errorf("RFC 9810 §5.3.19.13 suppLangTags: %v %v", tags, err)
	}
	if got := status(e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.SupportedLangTags("de")}}), own)).FailInfo; got != cmp.BadRequest {
		t.Errorf("RFC 9810 §5.3.19.13 a language that is not written here: %s", got)
	}
	if _, found := ask().Get(cmp.OIDSignKeyPairTypes); !found {
		t.Error("RFC 9810 Appendix D.5: nothing is told to who asks for everything")
	}
	unknown := ask(cmp.CurrentCRL(nil), question)
	if list, _, err := unknown.UnsupportedOIDs(); err != nil || len(list) != 1 || !list[0].Equal(cmp.OIDCurrentCRL) || len(unknown) != 2 {
		t.Errorf("RFC 9810 §5.3.19.7 unsupportedOIDs: %v %v", list, err)
	}
}

// TestVectors: messages of other implementations, at the time they were made.
func TestVectors(t *testing.T) {
	e := newEnv(t)
	for file, want := range map[string]cmp.FailInfo{
		"go-pkicmp/ir_golden.der":                   cmp.BadMessageCheck, // unknown reference
		"go-pkicmp/cr_golden.der":                   cmp.BadMessageCheck,
		"go-pkicmp/p10cr_golden.der":                cmp.BadMessageCheck,
		"go-pkicmp/kur_golden.der":                  cmp.WrongIntegrity,
		"rustcrypto/ir_req_01.bin":                  cmp.BadMessageCheck,
		"rustcrypto/genm_req_01.bin":                cmp.BadMessageCheck,
		"rustcrypto/kur_req_01.bin":                 cmp.WrongIntegrity,
		"rustcrypto/rr_req_01.bin":                  cmp.WrongIntegrity,
		"openssl-protect/IR_protected.der":          cmp.BadMessageCheck,
		"openssl-vfy/IR_protected.der":              cmp.BadMessageCheck,
		"openssl-vfy/IR_protected_0_extraCerts.der": cmp.BadMessageCheck,
		"openssl-vfy/IR_protected_2_extraCerts.der": cmp.BadMessageCheck,
		"openssl-vfy/IR_unprotected.der":            cmp.BadMessageCheck,
		"openssl-server/CR_protected_PBM_1234.der":  cmp.BadMessageCheck,
		"rustcrypto/ir_rsp_01.bin":                  cmp.BadMessageCheck,
	} {
		raw := must[[]byte](t)(os.ReadFile(filepath.Join("../testdata/vectors", file)))
		m := must[*cmp.Message](t)(cmp.Parse(raw))
		if got := status(e.post("", raw)).FailInfo; got != cmp.BadTime {
			t.Errorf("%s today: %s", file, got)
		}
		e.late.Store(int64(time.Until(m.Header.Time)))
		if got := status(e.post("", raw)).FailInfo; got != want {
			t.Errorf("%s: %s, want %s", file, got, want)
		}
		e.late.Store(0)
	}
	if _, err := e.store.Transaction(t.Context(), [32]byte{}); err != ca.ErrNoRecord {
		t.Error(err)
	}
}
