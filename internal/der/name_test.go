package der

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/dertest"
)

type value = dertest.Value

const (
	oidCN  = dertest.CommonName
	oidSN  = dertest.SerialNumber
	oidO   = dertest.Organization
	oidBig = dertest.UUID
)

func at(oid, content string, tag cbasn1.Tag) value {
	return value{Type: oid, Content: content, Tag: tag}
}
func cn(text string) value      { return dertest.CN(text) }
func dn(rdns ...[]value) []byte { return dertest.DN(rdns...) }
func one(v value) []byte        { return dn([]value{v}) }

func TestSameName(t *testing.T) {
	in := func(tag cbasn1.Tag, text string) []byte { return one(at(oidCN, text, tag)) }
	for _, c := range []struct {
		name string
		a, b []byte
		want bool
	}{
		{"string types", in(cbasn1.PrintableString, "Foo"), one(cn("Foo")), true},
		{"case and space", one(cn("foo  bar ")), one(cn("Foo Bar")), true},
		{"case beyond ASCII", one(cn("STRASSE Ωmega")), one(cn("strasse ωMEGA")), true},
		{"final sigma", one(cn("ΣΣ")), one(cn("σς")), true},
		{"Kelvin", one(cn("\u212a")), one(cn("K")), true},
		{"BMPString", in(bmpString, "\x00F\x01\x31"), one(cn("Fı")), true},
		{"UniversalString", in(universalString, "\x00\x00\x00F\x00\x01\xf6\x00"), one(cn("f😀")), true},
		{"TeletexString", in(cbasn1.T61String, "Stra\xdfe"), one(cn("straße")), true},
		{"PrintableString with an underscore", in(cbasn1.PrintableString, "a_b"), one(cn("A_B")), true},
		{"NumericString", in(numericString, "12 3"), one(cn("12  3")), true},
		{"several in an RDN, in any order", dn([]value{cn("a"), at(oidO, "b", cbasn1.UTF8String)}), dn([]value{at(oidO, "B", cbasn1.PrintableString), cn("A")}), true},
		{"several in an RDN are not several RDNs", dn([]value{cn("a"), cn("b")}), dn([]value{cn("a")}, []value{cn("b")}), false},
		{"order of RDNs", dn([]value{cn("a")}, []value{cn("b")}), dn([]value{cn("b")}, []value{cn("a")}), false},
		{"repeated in an RDN", dn([]value{cn("a"), cn("a"), cn("b")}), dn([]value{cn("a"), cn("b"), cn("b")}), false},
		{"other value", one(cn("foo")), one(cn("fop")), false},
		{"other type", one(cn("foo")), one(at(oidO, "foo", cbasn1.UTF8String)), false},
		{"prefix", one(cn("foo")), one(cn("foo bar")), false},
		{"space within a word", one(cn("foo bar")), one(cn("foobar")), false},
		{"a BIT STRING", in(cbasn1.BIT_STRING, "\x00a"), in(cbasn1.BIT_STRING, "\x00A"), false},
		{"a BIT STRING, the same", in(cbasn1.BIT_STRING, "\x00a"), in(cbasn1.BIT_STRING, "\x00a"), true},
		{"invalid UTF-8", one(cn("\xff")), one(cn("\xfe")), false},
		{"half a surrogate", in(bmpString, "\xd8\x00"), in(bmpString, "\xd8\x01"), false},
		{"nothing", []byte{0x30, 0}, one(cn("foo")), false},
		{"both nothing", []byte{0x30, 0}, []byte{0x30, 0}, true},
		{"nonsense", []byte{1}, one(cn("foo")), false},
		{"the same nonsense", []byte{1}, []byte{1}, true},
	} {
		if SameName(c.a, c.b) != c.want || SameName(c.b, c.a) != c.want || (NameKey(c.a) == NameKey(c.b)) != c.want {
			t.Errorf("%s: not %t", c.name, c.want)
		}
	}
}

func TestWithin(t *testing.T) {
	parse := func(in []byte) Name {
		n, err := ParseName(in)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	name := parse(dn([]value{at(oidO, "Acme", cbasn1.PrintableString)}, []value{cn("lamp"), at(oidSN, "1", cbasn1.PrintableString)}))
	for _, c := range []struct {
		tree []byte
		want bool
	}{
		{[]byte{0x30, 0}, true},
		{dn([]value{at(oidO, "ACME", cbasn1.UTF8String)}), true},
		{dn([]value{at(oidO, "acme", cbasn1.UTF8String)}, []value{at(oidSN, "1", cbasn1.UTF8String), cn("LAMP")}), true},
		{dn([]value{at(oidO, "acme", cbasn1.UTF8String)}, []value{cn("LAMP")}), false},
		{dn([]value{cn("lamp")}), false},
		{dn([]value{at(oidO, "Acme", cbasn1.PrintableString)}, []value{cn("lamp"), at(oidSN, "1", cbasn1.PrintableString)}, []value{cn("x")}), false},
	} {
		if got := name.Within(parse(c.tree)); got != c.want {
			t.Errorf("%x: %t", c.tree, got)
		}
	}
}

// What is written anew is what encoding/asn1 reads.
func TestPlainName(t *testing.T) {
	plain, err := PlainName(dn(
		[]value{at(oidO, "A_B", cbasn1.PrintableString)}, []value{at(oidSN, "\x00\x01\x02", cbasn1.BIT_STRING)}, []value{at(oidBig, "x", cbasn1.UTF8String)},
		[]value{at(oidCN, "\x00\x00\x00l", universalString), at(oidBig, "y", cbasn1.UTF8String)}))
	if err != nil {
		t.Fatal(err)
	}
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(plain, &rdns); err != nil || len(rest) > 0 || rdns.String() != "CN=l,O=A_B" {
		t.Error(rdns.String(), err)
	}
	if _, err := PlainName([]byte{0x30, 1, 0}); err == nil {
		t.Error("nonsense is a Name")
	}
}

// The longest name that a certificate of 64 KiB may have is compared at once.
func TestNameCost(t *testing.T) {
	var many []value
	for range 4000 {
		many = append(many, cn("aa"))
	}
	long := dn(many)
	began := time.Now()
	if SameName(long, one(cn(strings.Repeat("ſ ", 20_000)))) {
		t.Error("they are not the same")
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

// SameName is an equivalence that NameKey stands for, and what PlainName writes can be read.
func FuzzSameName(f *testing.F) {
	f.Add(one(cn("foo  bar")), one(at(oidCN, "FOO BAR", cbasn1.PrintableString)))
	f.Add(one(at(oidCN, "\xd8\x00", bmpString)), one(at(oidBig, "\x00\x11\x00\x00", universalString)))
	f.Add(dn([]value{cn("a"), cn("b")}), dn([]value{at(oidSN, "\x00a", cbasn1.BIT_STRING)}))
	f.Add([]byte{0x30, 0}, []byte{0x30, 2, 0x31, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if !SameName(a, a) || SameName(a, b) != SameName(b, a) || SameName(a, b) != (NameKey(a) == NameKey(b)) {
			t.Fatal("not an equivalence")
		}
		n, err := ParseName(a)
		if err != nil {
			return
		}
		if !n.Within(n) {
			t.Error("not within itself")
		}
		plain, err := PlainName(a)
		if err != nil {
			t.Fatal(err)
		}
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(plain, &rdns); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v", plain, err)
		}
		if again, err := PlainName(plain); err != nil || !bytes.Equal(again, plain) && !SameName(again, plain) {
			t.Errorf("%x becomes %x, %v", plain, again, err)
		}
	})
}
