package server_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
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
	p10cr := func(version int, asked ...pkix.Extension) cmp.Body {
		return &cmp.PKCS10{Request: csrOf(t, "lamp-1", key, version, asked...)}
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
		{"RFC 9483 §3.5 pvno 4", lamp, ir(nil), header(func(h *cmp.Header) { h.Version = 4 }), cmp.UnsupportedVersion},
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
		{"RFC 9483 §4.2 rr with another issuer", own, &cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(name("CA"), own.crt.SerialNumber, 1)}}, nil, cmp.BadCertID},
		{"RFC 9483 §4.2 two RevDetails", own, &cmp.Revocations{List: append(rr(own.crt, 1).(*cmp.Revocations).List, rr(own.crt, 1).(*cmp.Revocations).List...)}, nil, cmp.BadRequest},
		{"RFC 5280 §5.3.1 rr with reason 7", own, rr(own.crt, 7), nil, cmp.BadRequest},
		{"RFC 9483 §4.2 rr with a reason that is none", own, &cmp.Revocations{List: []cmp.Revocation{{Template: rr(own.crt, 1).(*cmp.Revocations).List[0].Template,
			Entry: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 21}, Value: []byte{2, 1, 1}}}}}}, nil, cmp.BadDataFormat},
		{"RFC 9483 §4.2 rr with two reasons", own, &cmp.Revocations{List: []cmp.Revocation{{Template: rr(own.crt, 1).(*cmp.Revocations).List[0].Template,
			Entry: append(rr(own.crt, 1).(*cmp.Revocations).List[0].Entry, rr(own.crt, 4).(*cmp.Revocations).List[0].Entry...)}}}, nil, cmp.BadRequest},
		{"RFC 4211 §5 notAfter before notBefore", lamp, ir(func(r *cmp.CertReqMsg) {
			r.Template.Validity = &cmp.OptionalValidity{NotBefore: cmp.Time{At: e.now().Add(time.Hour)}, NotAfter: cmp.Time{At: e.now().Add(time.Minute)}}
		}), nil, cmp.BadCertTemplate},
		{"RFC 4211 §5 notAfter has passed", lamp, ir(func(r *cmp.CertReqMsg) {
			r.Template.Validity = &cmp.OptionalValidity{NotAfter: cmp.Time{At: e.now().Add(-time.Hour)}}
		}), nil, cmp.BadCertTemplate},
		{"RFC 5280 §4.2 an extension twice", lamp, ir(func(r *cmp.CertReqMsg) {
			usage := extension(asn1.ObjectIdentifier{2, 5, 29, 15}, asn1.BitString{Bytes: []byte{0x80}, BitLength: 1})
			r.Template.Extensions = []pkix.Extension{usage, usage}
		}), nil, cmp.BadCertTemplate},
		{"RFC 9483 §4.1.4 CA certificate by p10cr", lamp, p10cr(0, extension(asn1.ObjectIdentifier{2, 5, 29, 19}, struct{ CA bool }{true})), nil, cmp.NotAuthorized},
		{"RFC 9483 §4.1.4 PKCS#10 version", lamp, p10cr(1), nil, cmp.BadDataFormat},
		{"RFC 9483 §4.1.1 POP algorithm of another kind of key", lamp, ir(func(r *cmp.CertReqMsg) {
			r.POP = crmf(t, "lamp-1", key, nil).POP
			r.POP.Signature.Algorithm = cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}}
		}), nil, cmp.BadPOP},
		{"RFC 9481 §3 POP algorithm that is not accepted", lamp, ir(func(r *cmp.CertReqMsg) {
			r.POP = crmf(t, "lamp-1", key, nil).POP
			r.POP.Signature.Algorithm = cmp.Algorithm{OID: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}}
		}), nil, cmp.BadAlg},
		{"RFC 9483 §3.1 confirmWaitTime as UTCTime", lamp, ir(nil), header(func(h *cmp.Header) {
			h.GeneralInfo = cmp.Infos{{Type: cmp.OIDConfirmWaitTime, Value: append([]byte{23, 13}, "260504120000Z"...)}}
		}), cmp.BadDataFormat},
		{"RFC 9483 §3.1 certProfile that is no list", own, &cmp.General{}, header(func(h *cmp.Header) {
			h.GeneralInfo = cmp.Infos{{Type: cmp.OIDCertProfile, Value: []byte{12, 1, 'x'}}}
		}), cmp.BadDataFormat},
		{"RFC 9483 §5.3.2 release from hold by the device", own, rr(own.crt, 8), nil, cmp.NotAuthorized},
		{"RFC 9483 §4.1.1 certConf out of nowhere", lamp, &cmp.Confirmations{List: []cmp.CertStatus{{CertHash: make([]byte, 32)}}}, nil, cmp.BadRequest},
		{"RFC 9483 §4.4 pollReq out of nowhere", lamp, &cmp.PollRequests{CertReqIDs: []int64{0}}, nil, cmp.BadRequest},
		{"RFC 9483 §3.5 krr", lamp, requests(cmp.KRR, crmf(t, "lamp-1", key, nil)), nil, cmp.BadRequest},
		{"RFC 9483 §3.5 ccr", own, requests(cmp.CCR, crmf(t, "lamp-2", key, nil)), nil, cmp.BadRequest},
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
