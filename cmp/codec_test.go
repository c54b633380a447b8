package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

func TestRoundTripEveryBody(t *testing.T) {
	all := sampleMessages(t)
	for typ := IR; typ <= PollRep; typ++ {
		t.Run(typ.String(), func(t *testing.T) {
			built, ok := all[typ.String()]
			if !ok || built.Body.Type() != typ {
				t.Fatal("there is no sample")
			}
			m, err := Parse(built.Raw())
			if err != nil {
				t.Fatal(err)
			}
			again, err := m.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(again, built.Raw()) || !bytes.Equal(m.Raw(), built.Raw()) {
				t.Errorf("encoded anew\n%x\nwas\n%x", again, built.Raw())
			}
			var a, b bytes.Buffer
			if err := errors.Join(m.Describe(&a), built.Describe(&b)); err != nil {
				t.Fatal(err)
			}
			if a.String() != b.String() {
				t.Errorf("described differently:\n%s\n%s", &a, &b)
			}
			if strings.Contains(a.String(), "%!") || strings.Contains(a.String(), "cannot be read") && typ != RP && typ != GenP {
				t.Errorf("described as\n%s", &a)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	good := sampleMessages(t)["genm"].Raw()
	nest := func(levels int) []byte {
		m := NewRequest(&Confirm{}, HeaderOptions{})
		for range levels {
			m = NewRequest(&NestedMessages{Messages: []*Message{m}}, HeaderOptions{})
		}
		return must[[]byte](t)(m.Marshal())
	}
	many := func(n int) []byte {
		return must[[]byte](t)(NewRequest(&CertRequests{Of: IR, Requests: make10k(n)}, HeaderOptions{}).Marshal())
	}
	for _, c := range []struct {
		name   string
		raw    []byte
		limits Limits
		reason string
	}{
		{"empty", nil, Limits{}, "not DER"},
		{"trailing octet", append(bytes.Clone(good), 0), Limits{}, "not DER"},
		{"BER", append(append([]byte{0x30, 0x80}, good...), 0, 0), Limits{}, "not DER"},
		{"too long", good, Limits{Size: len(good) - 1}, "octets"},
		{"a megabyte and one", make([]byte, 1<<20+1), Limits{}, "octets"},
		{"10,000 requests", many(10_000), Limits{}, "more than 512 items"},
		{"13 requests of 12", many(13), Limits{Items: 12}, "more than 12 items"},
		{"nested in 3", nest(3), Limits{}, "nested deeper"},
		{"nested in 1000", nest(40), Limits{Nesting: 1000}, "not DER"},
		{"nested in 2 of 1", nest(2), Limits{Nesting: 1}, "nested deeper"},
		{"no request", replace(t, "ir", "a0023000"), Limits{}, "CertReqMessages"},
		{"unknown body", replace(t, "27", "bb023000"), Limits{}, "PKIBody"},
		{"two bodies in one", replace(t, "pkiconf", "b30405000500"), Limits{}, "PKIBody"},
		{"pkiconf of something", replace(t, "pkiconf", "b303050100"), Limits{}, "PKIConfirmContent"},
		{"fail bits with trailing zeros", replace(t, "error", "b70b3009300702010203020040"), Limits{}, "failInfo"},
		{"fail bits with the rest set", replace(t, "error", "b70b3009300702010203020641"), Limits{}, "failInfo"},
		{"40 fail bits", replace(t, "error", "b70f300d300b0201020306000102030401"), Limits{}, "failInfo"},
		{"negative status", replace(t, "error", "b707300530030201ff"), Limits{}, "status"},
		{"text that is not UTF-8", replace(t, "error", "b70c300a30080201023003 0c01ff"), Limits{}, "PKIFreeText"},
		{"longer integer than need be", replace(t, "pollReq", "b9083006300402020001"), Limits{}, "certReqId"},
		{"poll never", replace(t, "pollRep", "ba0b300930070201000202ffff"), Limits{}, "checkAfter"},
		{"false written out", replace(t, "rr", "ab163014 3012 3000 300e300c0603551d15010100 0402 0500"), Limits{}, "critical"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := c.limits.Parse(c.raw)
			if m != nil {
				t.Error("a message beside the error")
			}
			checkInfo(t, err, BadDataFormat)
			if !strings.Contains(err.Error(), c.reason) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := (Limits{}).Parse(nest(2)); err != nil {
		t.Errorf("nested in 2: %v", err)
	}
	if _, err := Parse(append(bytes.Clone(good), 0)); !errors.Is(err, der.ErrTrailing) {
		t.Errorf("the cause is lost: %v", err)
	}
}

func make10k(n int) []*CertReqMsg {
	list := make([]*CertReqMsg, n)
	for i := range list {
		list[i] = &CertReqMsg{ID: int64(i)}
	}
	return list
}

// replace makes a message with a body in hex; name is for the reader.
func replace(t *testing.T, _ string, body string) []byte {
	t.Helper()
	raw := must[[]byte](t)(hex.DecodeString(strings.ReplaceAll(body, " ", "")))
	h := NewRequest(nil, HeaderOptions{}).Header
	return must[[]byte](t)(encode(0, func(b *out) {
		b.AddASN1(0x30, func(b *out) {
			addHeader(b, &h)
			b.AddBytes(raw)
		})
	}))
}

// TestParseAccepts holds what is unusual and lawful.
func TestParseAccepts(t *testing.T) {
	for name, body := range map[string]string{
		"no fail bits":        "b70a3008300602010203 0100",
		"unnamed fail bits":   "b70d300b30090201020304010001 02",
		"empty certConf":      "b8023000",
		"empty genm":          "b5023000",
		"pollRep without ids": "ba023000",
		"empty extensions":    "ab08300630043002a900",
	} {
		t.Run(name, func(t *testing.T) {
			raw := replace(t, name, body)
			m, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if again := must[[]byte](t)(m.Marshal()); !bytes.Equal(again, raw) {
				t.Errorf("encoded anew\n%x\nwas\n%x", again, raw)
			}
		})
	}
}

func TestMarshalRefuses(t *testing.T) {
	for name, body := range map[string]Body{
		"no body":                   nil,
		"ir in cp's type":           &CertRequests{Of: CP, Requests: make10k(1)},
		"ip in ir's type":           &CertResponses{Of: IR},
		"ir without requests":       &CertRequests{Of: IR},
		"nested without messages":   &NestedMessages{},
		"rp without status":         &RevocationResults{},
		"p10cr without request":     &PKCS10{},
		"certificate missing":       &CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{}}}},
		"encrypted key missing":     &CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{EncryptedCert: &EncryptedKey{}}}}},
		"serial number missing":     &RevocationResults{Statuses: []StatusInfo{{}}, Certs: []CertID{{}}},
		"signature missing":         &CertRequests{Of: IR, Requests: []*CertReqMsg{{POP: &POP{Method: SignaturePOP}}}},
		"key part missing":          &CertRequests{Of: IR, Requests: []*CertReqMsg{{POP: &POP{Method: KeyAgreement}}}},
		"unknown method":            &CertRequests{Of: IR, Requests: []*CertReqMsg{{POP: &POP{Method: 9}}}},
		"unknown key method":        &CertRequests{Of: IR, Requests: []*CertReqMsg{{POP: &POP{Method: KeyAgreement, Key: &POPKey{Method: 9}}}}},
		"control without a value":   &CertRequests{Of: IR, Requests: []*CertReqMsg{{Controls: Attributes{{Type: OIDRegToken}}}}},
		"extension without a type":  &Revocations{List: []Revocation{{Entry: []pkix.Extension{{}}}}},
		"answer that is no integer": &ChallengeAnswers{List: make([]*big.Int, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewRequest(body, HeaderOptions{})
			if raw, err := m.Marshal(); err == nil {
				t.Errorf("encoded as %x", raw)
			}
			mac := must[*MAC](t)(NewMAC(nil, nil, MACParams{}))
			if err := m.Protect(mac); err == nil {
				t.Error("protected")
			}
		})
	}
}

func TestFailInfo(t *testing.T) {
	for i, name := range failNames {
		f := FailInfo(1) << i
		if f.String() != name {
			t.Errorf("bit %d is %s, not %s", i, f, name)
		}
		raw := must[[]byte](t)(encode(0, func(b *out) { addStatusInfo(b, StatusInfo{FailInfo: f | BadAlg}) }))
		got, err := parseValue(raw, "", readStatusInfo)
		if err != nil || got.FailInfo != f|BadAlg {
			t.Errorf("%s came back as %s, %v", name, got.FailInfo, err)
		}
	}
	// RFC 9810 appendix F names the last bit.
	if DuplicateCertReq != 1<<26 || BadPOP != 1<<9 || SystemFailure != 1<<25 {
		t.Error("bits are off")
	}
	if got := (BadAlg | 1<<31).String(); got != "badAlg, bit 31" {
		t.Error(got)
	}
}

func TestStatusOf(t *testing.T) {
	e := refuse(BadPOP, "RFC 0 §0", "why")
	wrapped := fmt.Errorf("at the door: %w", e)
	if got := StatusOf(wrapped); got.Status != Rejection || got.FailInfo != BadPOP || got.Text[0] != "why" {
		t.Error(got)
	}
	if got := StatusOf(errors.New("disk on fire")); got.FailInfo != SystemFailure || got.Text != nil {
		t.Errorf("tells a stranger %s", got)
	}
	if got := e.Status().String(); got != `rejection (badPOP) "why"` {
		t.Error(got)
	}
}

func TestInfos(t *testing.T) {
	l := Infos{ImplicitConfirm(), CertProfile("a")}
	if on, err := l.ImplicitConfirm(); !on || err != nil {
		t.Error(on, err)
	}
	if on, err := l.Without(OIDImplicitConfirm).ImplicitConfirm(); on || err != nil {
		t.Error(on, err)
	}
	_, err := Infos{{OIDImplicitConfirm, []byte{2, 1, 0}}}.ImplicitConfirm()
	checkInfo(t, err, BadRequest)
	_, err = Infos{{OIDImplicitConfirm, nil}}.ImplicitConfirm()
	checkInfo(t, err, BadRequest)
	_, _, err = Infos{{OIDConfirmWaitTime, append([]byte{23, 13}, "260504120000Z"...)}}.ConfirmWaitTime()
	checkInfo(t, err, BadDataFormat)
	if until, found, err := (Infos{ConfirmWaitTime(noon.Add(time.Millisecond))}).ConfirmWaitTime(); !until.Equal(noon) || !found || err != nil {
		t.Error(until, found, err)
	}
	if names, found, err := l.With(CertProfile("b")).CertProfile(); len(names) != 1 || names[0] != "b" || !found || err != nil {
		t.Error(names, found, err)
	}
	_, found, err := Infos{{OIDCertProfile, nil}}.CertProfile()
	if checkInfo(t, err, BadDataFormat); !found {
		t.Error("not found")
	}
	for _, oid := range []Info{{Type: OIDCACerts}, {Type: OIDCRLs}} {
		certs, found, err := Infos{oid}.CACerts()
		if certs != nil || err != nil || found != oid.Type.Equal(OIDCACerts) {
			t.Error(certs, found, err)
		}
	}
	orig := sampleMessages(t)["ir"]
	list, found, err := Infos{OrigPKIMessage(orig)}.OrigPKIMessage(Limits{})
	if err != nil || !found || !bytes.Equal(list[0].Raw(), orig.Raw()) {
		t.Errorf("origPKIMessage: %t, %v", found, err)
	}
}

func TestURIName(t *testing.T) {
	n := URIName("http://a/b.crl")
	if uri, ok := n.URI(); uri != "http://a/b.crl" || !ok || n.String() != `URI:"http://a/b.crl"` {
		t.Error(uri, ok, n)
	}
	if _, ok := CommonName("x").URI(); ok {
		t.Error("a directory name is a URI")
	}
}

func TestSameName(t *testing.T) {
	printableCN := []byte{0x30, 0x0e, 0x31, 0x0c, 0x30, 0x0a, 6, 3, 0x55, 4, 3, 0x13, 3, 'F', 'o', 'o'}
	for _, c := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"string types", printableCN, commonNameDN("Foo"), true},
		{"case and space", commonNameDN("foo  bar "), commonNameDN("Foo Bar"), true},
		{"other value", commonNameDN("foo"), commonNameDN("fop"), false},
		{"prefix", commonNameDN("foo"), commonNameDN("foo bar"), false},
		{"nothing", nullDN, commonNameDN("foo"), false},
		{"nonsense", []byte{1}, commonNameDN("foo"), false},
		{"both nothing", nullDN, []byte{0x30, 0}, true},
	} {
		if SameName(c.a, c.b) != c.want || SameName(c.b, c.a) != c.want {
			t.Errorf("%s: not %t", c.name, c.want)
		}
	}
	if got := CommonName("ref").CommonName(); got != "ref" {
		t.Error(got)
	}
	if NullName().CommonName() != "" || !NullName().IsNull() || GeneralName(nil).IsNull() {
		t.Error("NULL-DN")
	}
}

func TestDescribeTrustsNothing(t *testing.T) {
	evil := "\x1b[2J\u202egnp.exe\n%s"
	m := NewRequest(&ErrorBody{Status: StatusInfo{Text: []string{evil}}, Details: []string{evil}},
		HeaderOptions{Recipient: CommonName(evil), Infos: Infos{CertProfile(evil)}})
	m.Header.FreeText, m.Header.SenderKID = []string{evil}, []byte(evil)
	m.Header.Sender = append([]byte{0x82, byte(len(evil))}, evil...)
	var text strings.Builder
	if err := m.Describe(&text); err != nil {
		t.Fatal(err)
	}
	for i, r := range text.String() {
		if r != '\n' && (r < 0x20 || r > 0x7e) {
			t.Fatalf("%U at %d in\n%q", r, i, text.String())
		}
	}
	if strings.Contains(text.String(), "\n%s") {
		t.Error("a line of the sender's own")
	}
}
