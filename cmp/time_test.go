package cmp

import (
	"bytes"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// times are contents of messageTime: what comes of them, zero for what is no GeneralizedTime in DER.
var times = map[string]time.Time{
	"20260504120000Z":            noon,
	"20260504120000.5Z":          noon.Add(500 * time.Millisecond), // BouncyCastle writes fractions
	"20260504120000.123Z":        noon.Add(123 * time.Millisecond),
	"20260504120000.000000001Z":  noon.Add(time.Nanosecond),
	"20260504120000.50Z":         {}, // X.690 §11.7.3: no trailing zeros
	"20260504120000.0Z":          {},
	"20260504120000.Z":           {},
	"20260504120000,5Z":          {}, // X.690 §11.7.4: a point
	"20260504120000.0000000001Z": {},
	"20260504120000":             {}, // local time
	"20260504120000+0000":        {},
	"202605041200Z":              {},
	"20260504126000Z":            {},
	"00010101000000Z":            {},
}

func withTime(t testing.TB, content string) []byte {
	m := NewRequest(&Confirm{}, HeaderOptions{Time: noon})
	raw := must[[]byte](t)(m.Marshal())
	at := bytes.Index(raw, []byte("20260504120000Z"))
	if at < 0 {
		t.Fatal("no messageTime")
	}
	grow := byte(len(content) - len("20260504120000Z"))
	out := append(bytes.Clone(raw[:at]), content...)
	out = append(out, raw[at+len("20260504120000Z"):]...)
	for _, header := range []int{1, 3, at - 3, at - 1} { // PKIMessage, PKIHeader, [0], GeneralizedTime: all short
		out[header] += grow
	}
	return out
}

// TestTimes: messageTime is a GeneralizedTime of X.690 §11.7, not of RFC 5280 §4.1.2.5.2.
func TestTimes(t *testing.T) {
	for content, want := range times {
		raw := withTime(t, content)
		m, err := Parse(raw)
		if want.IsZero() {
			checkInfo(t, err, BadDataFormat)
			continue
		}
		if err != nil || !m.Header.Time.Equal(want) {
			t.Errorf("%s: %v", content, err)
			continue
		}
		if again, err := m.Marshal(); err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%s encoded anew as %x, %v", content, again, err)
		}
		if got := Reply(m, &Confirm{}, want).Header.Time; got.Nanosecond() != 0 {
			t.Errorf("an answer at %s", got)
		}
	}
}

// RFC 9483 §4.2: one reasonCode.
func TestReason(t *testing.T) {
	one := RevokeCert(nullDN, big.NewInt(1), 1).Entry[0]
	other := RevokeCert(nullDN, big.NewInt(1), 4).Entry[0]
	invalidity := pkix.Extension{Id: encasn1.ObjectIdentifier{2, 5, 29, 24}, Value: []byte{5, 0}}
	for _, c := range []struct {
		entry []pkix.Extension
		code  int
		found bool
		want  FailInfo
	}{
		{nil, 0, false, 0},
		{[]pkix.Extension{invalidity, other}, 4, true, 0},
		{[]pkix.Extension{one, other}, 0, true, BadRequest},
		{[]pkix.Extension{one, one}, 0, true, BadRequest},
		{[]pkix.Extension{{Id: one.Id, Value: []byte{2, 1, 1}}}, 0, true, BadDataFormat},
	} {
		code, found, err := (Revocation{Entry: c.entry}).Reason()
		if checkInfo(t, err, c.want); code != c.code || found != c.found {
			t.Errorf("%v: %d, %t", c.entry, code, found)
		}
	}
}

// RFC 9483 §3.1, §3.5: values of generalInfo that have another syntax.
func TestGeneralInfoSyntax(t *testing.T) {
	for _, c := range []struct {
		name string
		info Info
		want FailInfo
	}{
		{"implicitConfirm", ImplicitConfirm(), 0},
		{"implicitConfirm with a value", Info{OIDImplicitConfirm, []byte{2, 1, 0}}, BadRequest},
		{"confirmWaitTime", ConfirmWaitTime(noon), 0},
		{"confirmWaitTime with a fraction", Info{OIDConfirmWaitTime, append([]byte{24, 17}, "20260504120000.5Z"...)}, 0},
		{"confirmWaitTime as UTCTime", Info{OIDConfirmWaitTime, append([]byte{23, 13}, "260504120000Z"...)}, BadDataFormat},
		{"confirmWaitTime without a value", Info{Type: OIDConfirmWaitTime}, BadDataFormat},
		{"certProfile", CertProfile("x"), 0},
		{"certProfile that is no list", Info{OIDCertProfile, []byte{12, 1, 'x'}}, BadDataFormat},
		{"what is not known", Info{encasn1.ObjectIdentifier{1, 2, 3}, []byte{5, 0}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) { checkInfo(t, Infos{c.info}.CheckSyntax(), c.want) })
	}
}
