package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The files of testdata/vectors come from the projects in its SOURCES.tsv.

func vector(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata/vectors", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func certificate(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	raw := vector(t, name)
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseVector(t testing.TB, name string) *Message {
	t.Helper()
	m, err := Parse(vector(t, name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return m
}

// messageVectors are all vectors that are a PKIMessage.
func messageVectors(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for name := range vectorTypes {
		all[name] = vector(t, name)
	}
	return all
}

var vectorTypes = map[string]BodyType{
	"go-pkicmp/ir_golden.der":                   IR,
	"go-pkicmp/cr_golden.der":                   CR,
	"go-pkicmp/kur_golden.der":                  KUR,
	"go-pkicmp/p10cr_golden.der":                P10CR,
	"rustcrypto/ir_req_01.bin":                  IR,
	"rustcrypto/cr_req_01.bin":                  CR,
	"rustcrypto/p10cr_req_01.bin":               P10CR,
	"rustcrypto/kur_req_01.bin":                 KUR,
	"rustcrypto/rr_req_01.bin":                  RR,
	"rustcrypto/genm_req_01.bin":                GenM,
	"rustcrypto/ir_rsp_01.bin":                  IP,
	"rustcrypto/cr_rsp_01.bin":                  CP,
	"rustcrypto/failed_kur_rsp_01.bin":          ErrorMsg,
	"rustcrypto/p10cr_rsp_01.bin":               CP,
	"rustcrypto/kur_rsp_01.bin":                 KUP,
	"rustcrypto/rr_rsp_01.bin":                  RP,
	"rustcrypto/genm_rsp_01.bin":                GenP,
	"openssl-protect/IP_PBM.der":                IP,
	"openssl-protect/GENM_protected_Ed.der":     GenM,
	"openssl-protect/IR_protected.der":          IR,
	"openssl-protect/IR_unprotected.der":        IR,
	"openssl-vfy/IR_protected.der":              IR,
	"openssl-vfy/IR_protected_0_extraCerts.der": IR,
	"openssl-vfy/IR_protected_2_extraCerts.der": IR,
	"openssl-vfy/IP_waitingStatus_PBM.der":      IP,
	"openssl-vfy/IR_unprotected.der":            IR,
	"openssl-vfy/IR_rmprotection.der":           IP,
	"openssl-server/CR_protected_PBM_1234.der":  CR,
}

func TestVectorsAllListed(t *testing.T) {
	notMessages := []string{"crt", "pem", "txt", "tsv"}
	others := map[string]bool{"openssl-msg/pkcs10.der": true, "siemens-ra/CertTemplate.der": true,
		"rustcrypto/ec384-ee-key.der": true, "rustcrypto/ec384-server-key.der": true}
	seen := 0
	err := fs.WalkDir(os.DirFS("testdata/vectors"), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "rustcrypto-crmf/") || others[name] {
			return err
		}
		for _, ext := range notMessages {
			if strings.HasSuffix(name, "."+ext) {
				return nil
			}
		}
		if _, ok := vectorTypes[name]; !ok {
			t.Errorf("%s is not in the table", name)
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(vectorTypes) || seen < 28 {
		t.Errorf("%d files, %d in the table", seen, len(vectorTypes))
	}
}

func TestVectorsRoundTrip(t *testing.T) {
	for name, body := range vectorTypes {
		t.Run(name, func(t *testing.T) {
			raw := vector(t, name)
			m, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got := m.Body.Type(); got != body {
				t.Errorf("body %s, want %s", got, body)
			}
			again, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, raw) {
				t.Errorf("encoded anew:\n%x\nwas\n%x", again, raw)
			}
			var text bytes.Buffer
			if err := m.Describe(&text); err != nil {
				t.Error(err)
			}
			if !strings.Contains(text.String(), "body "+body.String()) || strings.Contains(text.String(), "%!") {
				t.Errorf("described as\n%s", &text)
			}
		})
	}
}

func TestVectorsMAC(t *testing.T) {
	weak := MACPolicy{RefuseSHA1: true}
	for _, c := range []struct {
		name, secret, reference string
		policy                  MACPolicy
		want                    FailInfo // 0: accept
	}{
		{"go-pkicmp/ir_golden.der", "pass", "myref", MACPolicy{}, 0},
		{"go-pkicmp/cr_golden.der", "pass", "myref", MACPolicy{}, 0},
		{"go-pkicmp/p10cr_golden.der", "pass", "myref", MACPolicy{}, 0},
		{"go-pkicmp/kur_golden.der", "pass", "myref", MACPolicy{}, WrongIntegrity},
		{"go-pkicmp/ir_golden.der", "Pass", "myref", MACPolicy{}, BadMessageCheck},
		{"go-pkicmp/ir_golden.der", "pass", "myref", weak, BadAlg},
		{"go-pkicmp/ir_golden.der", "pass", "myref", MACPolicy{MinIterations: 501}, BadAlg},
		{"go-pkicmp/ir_golden.der", "pass", "myref", MACPolicy{MaxWork: 499}, BadAlg},
		{"rustcrypto/ir_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, 0},
		{"rustcrypto/cr_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, 0},
		{"rustcrypto/p10cr_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, 0},
		{"rustcrypto/genm_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, 0},
		{"rustcrypto/kur_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, WrongIntegrity},
		{"rustcrypto/rr_req_01.bin", "1234-5678-1234-5678", "1234", MACPolicy{}, WrongIntegrity},
		{"rustcrypto/p10cr_rsp_01.bin", "1234-5678-1234-5678", "ABCD", MACPolicy{}, 0},
		{"rustcrypto/kur_rsp_01.bin", "1234-5678-1234-5678", "ABCD", MACPolicy{}, 0},
		{"rustcrypto/rr_rsp_01.bin", "1234-5678-1234-5678", "ABCD", MACPolicy{}, 0},
		{"rustcrypto/genm_rsp_01.bin", "1234-5678-1234-5678", "ABCD", MACPolicy{}, 0},
		{"openssl-protect/IP_PBM.der", "insta", "3078", MACPolicy{}, 0},
		{"openssl-protect/IP_PBM.der", "insta", "3078", weak, BadAlg},
		{"openssl-vfy/IP_waitingStatus_PBM.der", "9pp8-b35i-Xd3Q-udNR", "4787", MACPolicy{}, 0},
		{"openssl-server/CR_protected_PBM_1234.der", "1234", "", MACPolicy{}, 0},
		{"openssl-vfy/IR_unprotected.der", "x", "", MACPolicy{}, BadMessageCheck},
		{"openssl-vfy/IR_rmprotection.der", "x", "", MACPolicy{}, BadMessageCheck},
		{"openssl-protect/IR_unprotected.der", "x", "", MACPolicy{}, BadMessageCheck},
		{"openssl-vfy/IR_protected.der", "x", "", MACPolicy{}, WrongIntegrity},
	} {
		t.Run(c.name+" "+c.want.String(), func(t *testing.T) {
			m := parseVector(t, c.name)
			var asked []byte
			got, err := m.Verify(VerifyOptions{MAC: c.policy, Secret: func(reference []byte) ([]byte, error) {
				asked = reference
				return []byte(c.secret), nil
			}})
			checkInfo(t, err, c.want)
			if c.want != 0 {
				return
			}
			if got.MAC == nil || got.Certificate != nil {
				t.Fatal("not verified by MAC")
			}
			if c.reference != "" && string(asked) != c.reference {
				t.Errorf("reference %q, want %q", asked, c.reference)
			}
			if err := got.MAC.Verify(m); err != nil {
				t.Errorf("with the key derived: %v", err)
			}
		})
	}
}

// checkInfo wants an Error with one bit, or none at all.
func checkInfo(t testing.TB, err error, want FailInfo) {
	t.Helper()
	if want == 0 {
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("got %v, want %s", err, want)
	}
	if e.Info != want || e.Section == "" || e.Reason == "" {
		t.Fatalf("got %v, want %s", e, want)
	}
}

func TestVectorsSignature(t *testing.T) {
	at := func(day string) func() time.Time {
		when, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		return func() time.Time { return when }
	}
	server := certificate(t, "openssl-vfy/server.crt")
	insta, instaCA := certificate(t, "openssl-vfy/insta.cert.pem"), certificate(t, "openssl-vfy/insta_ca.cert.pem")
	for _, c := range []struct {
		name     string
		file     string
		known    []*x509.Certificate
		root     *x509.Certificate
		now      func() time.Time
		anyOrder bool
		want     FailInfo
	}{
		{"in time", "openssl-vfy/IR_protected.der", []*x509.Certificate{server}, server, at("2018-02-18"), false, 0},
		{"expired", "openssl-vfy/IR_protected.der", []*x509.Certificate{server}, server, at("2028-02-18"), false, SignerNotTrusted},
		{"signer unknown", "openssl-vfy/IR_protected.der", nil, server, at("2018-02-18"), false, BadMessageCheck},
		{"trap 5: NULL added to protectionAlg", "openssl-protect/IR_protected.der", []*x509.Certificate{server}, server, at("2018-02-18"), false, BadMessageCheck},
		{"without extraCerts, known", "openssl-vfy/IR_protected_0_extraCerts.der", []*x509.Certificate{insta}, instaCA, at("2018-02-18"), false, 0},
		{"without extraCerts, unknown", "openssl-vfy/IR_protected_0_extraCerts.der", nil, instaCA, at("2018-02-18"), false, BadMessageCheck},
		{"second in extraCerts", "openssl-vfy/IR_protected_2_extraCerts.der", nil, instaCA, at("2018-02-18"), false, BadMessageCheck},
		{"second in extraCerts, any order", "openssl-vfy/IR_protected_2_extraCerts.der", nil, instaCA, at("2018-02-18"), true, 0},
		{"any order, expired at messageTime", "openssl-vfy/IR_protected_2_extraCerts.der", nil, instaCA, at("2019-12-09"), true, SignerNotTrusted},
		{"unprotected", "openssl-vfy/IR_unprotected.der", []*x509.Certificate{server}, server, at("2018-02-18"), false, BadMessageCheck},
		{"a MAC", "openssl-protect/IP_PBM.der", []*x509.Certificate{server}, server, at("2018-02-18"), false, WrongIntegrity},
	} {
		t.Run(c.name, func(t *testing.T) {
			roots := x509.NewCertPool()
			roots.AddCert(c.root)
			trust := TrustRoots(roots, c.now)
			if c.root == instaCA {
				// Issuer and subject are in different string types, and Go compares octets.
				trust = func(signer *x509.Certificate, _ []*x509.Certificate) error {
					if now := c.now(); now.After(signer.NotAfter) || now.Before(signer.NotBefore) {
						return errors.New("expired")
					}
					return signer.CheckSignatureFrom(instaCA)
				}
			}
			got, err := parseVector(t, c.file).Verify(VerifyOptions{Known: c.known, AnyOrder: c.anyOrder, Trust: trust})
			checkInfo(t, err, c.want)
			if c.want == 0 && got.Certificate == nil {
				t.Error("no certificate")
			}
		})
	}
}

func TestVectorsKey(t *testing.T) {
	spki, err := hex.DecodeString("302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1")
	if err != nil {
		t.Fatal(err)
	}
	ed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	ec := certificate(t, "rustcrypto/ec384-server-key.der").PublicKey
	rsa := certificate(t, "openssl-vfy/server.crt").PublicKey
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		want FailInfo
	}{
		{"openssl-protect/GENM_protected_Ed.der", ed, 0},
		{"openssl-protect/GENM_protected_Ed.der", ec, BadAlg},
		{"rustcrypto/ir_rsp_01.bin", ec, 0},
		{"rustcrypto/cr_rsp_01.bin", ec, 0},
		{"rustcrypto/failed_kur_rsp_01.bin", ec, 0},
		{"rustcrypto/failed_kur_rsp_01.bin", rsa, BadAlg},
		{"rustcrypto/genm_rsp_01.bin", ec, WrongIntegrity},
		{"openssl-vfy/IR_unprotected.der", rsa, BadMessageCheck},
		{"openssl-vfy/IR_protected.der", rsa, 0},
		{"openssl-protect/IR_protected.der", rsa, BadMessageCheck},
	} {
		t.Run(c.name, func(t *testing.T) { checkInfo(t, parseVector(t, c.name).VerifyKey(c.key), c.want) })
	}
}

func TestVectorsContent(t *testing.T) {
	waiting := parseVector(t, "openssl-vfy/IP_waitingStatus_PBM.der").Body.(*CertResponses)
	if got := waiting.Responses[0].Status.Status; got != Waiting {
		t.Errorf("status %s", got)
	}
	failed := parseVector(t, "rustcrypto/failed_kur_rsp_01.bin").Body.(*ErrorBody)
	if got := failed.Status; got.Status != Rejection || got.FailInfo != BadRequest || got.Text[0] != "wrong certid" || failed.Code.Int64() != 0x1d0000bd {
		t.Errorf("error: %s, code %x", got, failed.Code)
	}
	kur := parseVector(t, "rustcrypto/kur_req_01.bin").Body.(*CertRequests)
	if id, found, err := kur.Requests[0].Controls.OldCertID(); err != nil || !found || id.SerialNumber.Sign() == 0 {
		t.Errorf("oldCertID %v, %t, %v", id, found, err)
	}
	rr := parseVector(t, "rustcrypto/rr_req_01.bin").Body.(*Revocations)
	if v := rr.List[0].Template; v.SerialNumber == nil || v.Issuer == nil {
		t.Errorf("rr without a certificate: %+v", v)
	}
}

func TestVectorsPOP(t *testing.T) {
	for name, body := range vectorTypes {
		reqs, ok := parseVector(t, name).Body.(*CertRequests)
		if !ok {
			continue
		}
		t.Run(name+" "+body.String(), func(t *testing.T) {
			for _, r := range reqs.Requests {
				checkInfo(t, r.VerifyPOP(POPRules{}), 0)
				r.raw = bytes.Clone(r.raw)
				r.raw[len(r.raw)-1] ^= 1
				checkInfo(t, r.VerifyPOP(POPRules{}), BadPOP)
			}
		})
	}
}

func TestVectorsCRMF(t *testing.T) {
	msgs := vector(t, "rustcrypto-crmf/certreqmsgs.bin")
	list, err := ParseCertReqMessages(msgs)
	if err != nil || len(list) == 0 {
		t.Fatal(len(list), err)
	}
	again, err := encode(0, func(b *out) { addList(b, list, addCertReqMsg) })
	if err != nil || !bytes.Equal(again, msgs) {
		t.Errorf("CertReqMessages do not come back: %v", err)
	}
	one, err := parseValue(vector(t, "rustcrypto-crmf/certreqmsg.bin"), "CertReqMsg", readCertReqMsg)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.raw, vector(t, "rustcrypto-crmf/certrequest.bin")) {
		t.Error("the CertRequest differs")
	}
	for _, name := range []string{"rustcrypto-crmf/certtemplate.bin"} {
		raw := vector(t, name)
		v, err := parseValue(raw, name, readTemplate)
		if err != nil {
			t.Fatal(err)
		}
		again, err := encode(0, func(b *out) { addTemplate(b, &v) })
		if err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s does not come back: %v", name, err)
		}
	}
}

// TestVectorsSupport uses the root update and the template as answers of a genp.
func TestVectorsSupport(t *testing.T) {
	newWithNew, oldWithNew := certificate(t, "siemens-ra/newWithNew.pem"), certificate(t, "siemens-ra/oldWithNew.pem")
	update := &RootCAKeyUpdate{newWithNew.Raw, certificate(t, "siemens-ra/newWithOld.pem").Raw, oldWithNew.Raw}
	info, err := update.Info()
	if err != nil {
		t.Fatal(err)
	}
	got, found, err := Infos{info}.RootCAKeyUpdate()
	if err != nil || !found {
		t.Fatal(found, err)
	}
	if !bytes.Equal(got.NewWithNew, update.NewWithNew) || !bytes.Equal(got.NewWithOld, update.NewWithOld) || !bytes.Equal(got.OldWithNew, update.OldWithNew) {
		t.Error("the update differs")
	}
	if err := oldWithNew.CheckSignatureFrom(newWithNew); err != nil {
		t.Error(err)
	}
	tmpl, found, err := Infos{{OIDCertReqTemplate, vector(t, "siemens-ra/CertTemplate.der")}}.CertReqTemplate()
	if err != nil || !found {
		t.Fatal(found, err)
	}
	back, err := tmpl.Info()
	if err != nil || !bytes.Equal(back.Value, vector(t, "siemens-ra/CertTemplate.der")) {
		t.Errorf("the template differs: %x, %v", back.Value, err)
	}
	p10 := NewRequest(&PKCS10{Request: vector(t, "openssl-msg/pkcs10.der")}, HeaderOptions{})
	if _, err := p10.Marshal(); err != nil {
		t.Error(err)
	}
	if err := p10.Describe(io.Discard); err != nil {
		t.Error(err)
	}
}
