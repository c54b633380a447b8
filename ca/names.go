package ca

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/policy"
)

// Limits of what a request may name. They are far above what a device needs
// and far below what costs us anything.
const (
	maxAttributes = 16
	maxSANs       = 32
	maxNameLength = 255 // characters, each
)

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// attributeNames are the attributes that policy files call by name.
var attributeNames = []struct {
	name string
	oid  asn1.ObjectIdentifier
}{
	{"cn", asn1.ObjectIdentifier{2, 5, 4, 3}},
	{"serialnumber", asn1.ObjectIdentifier{2, 5, 4, 5}},
	{"c", asn1.ObjectIdentifier{2, 5, 4, 6}},
	{"l", asn1.ObjectIdentifier{2, 5, 4, 7}},
	{"st", asn1.ObjectIdentifier{2, 5, 4, 8}},
	{"street", asn1.ObjectIdentifier{2, 5, 4, 9}},
	{"o", asn1.ObjectIdentifier{2, 5, 4, 10}},
	{"ou", asn1.ObjectIdentifier{2, 5, 4, 11}},
	{"dc", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}},
	{"uid", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}},
}

var attributeOf = func() map[string]string {
	names := map[string]string{}
	for _, a := range attributeNames {
		names[a.oid.String()] = a.name
	}
	return names
}()

func attributeName(oid string) string { return cmp.Or(attributeOf[oid], oid) }

func attributeOID(name string) (asn1.ObjectIdentifier, error) {
	for _, a := range attributeNames {
		if a.name == name {
			return a.oid, nil
		}
	}
	return parseOID(name)
}

func parseOID(dotted string) (asn1.ObjectIdentifier, error) {
	var oid asn1.ObjectIdentifier
	for part := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not an object identifier", dotted)
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 2 || oid[0] > 2 || oid[0] < 2 && oid[1] > 39 {
		return nil, fmt.Errorf("%q is not an object identifier", dotted)
	}
	return oid, nil
}

// CommonName is the first common name asked for, "" if none.
func (n Names) CommonName() string {
	for _, a := range n.Subject {
		if a.Attr == "cn" {
			return a.Value
		}
	}
	return ""
}

// List is every name, in the terms of policy.
func (n Names) List() []policy.Name {
	list := make([]policy.Name, 0, len(n.Subject)+len(n.SANs))
	for _, a := range n.Subject {
		list = append(list, policy.Name{Form: "subject." + a.Attr, Value: a.Value})
	}
	for _, s := range n.SANs {
		list = append(list, policy.Name{Form: s.Form, Value: s.Value})
	}
	return list
}

// Equal compares as RFC 5280 §7.1 does: string types do not matter, case and
// runs of white space fold; the order of SANs does not matter, that of the
// subject's attributes does.
func (n Names) Equal(o Names) bool {
	return n.sameSubject(o) && n.sameSANs(o)
}

func (n Names) sameSubject(o Names) bool {
	return slices.EqualFunc(n.Subject, o.Subject, func(a, b Attribute) bool {
		return a.Attr == b.Attr && foldSpace(a.Value) == foldSpace(b.Value)
	})
}

func (n Names) sameSANs(o Names) bool {
	return slices.Equal(sortedSANs(n.SANs), sortedSANs(o.SANs))
}

func sortedSANs(sans []SAN) []SAN {
	out := make([]SAN, len(sans))
	for i, s := range sans {
		out[i] = s.folded()
	}
	slices.SortFunc(out, func(a, b SAN) int {
		return strings.Compare(a.Form+"\x00"+a.Value, b.Form+"\x00"+b.Value)
	})
	return slices.Compact(out)
}

// folded is the same for names that are the same (RFC 5280 §7).
func (s SAN) folded() SAN { return SAN{s.Form, policy.FoldName(s.Form, s.Value)} }

// distinct leaves out names that came before, in whatever case; it keeps the order.
func distinct(sans []SAN) []SAN {
	var kept []SAN
	for _, s := range sans {
		if !slices.ContainsFunc(kept, func(k SAN) bool { return k.folded() == s.folded() }) {
			kept = append(kept, s)
		}
	}
	return kept
}

func foldSpace(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }

// ParseNames reads a certificate's or a request's subject (DER Name) and the
// value of its subjectAltName extension (nil if there is none).
func ParseNames(subject, san []byte) (Names, error) {
	var n Names
	var err error
	if n.Subject, err = parseSubject(subject); err != nil {
		return Names{}, fmt.Errorf("subject: %w", err)
	}
	if san != nil {
		if n.SANs, err = parseSANs(san); err != nil {
			return Names{}, fmt.Errorf("subjectAltName: %w", err)
		}
	}
	return n, nil
}

// parseSubject reads
//
//	Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }
func parseSubject(name []byte) ([]Attribute, error) {
	input, rdns := cryptobyte.String(name), cryptobyte.String(nil)
	if !input.ReadASN1(&rdns, cbasn1.SEQUENCE) || !input.Empty() {
		return nil, errors.New("not a Name")
	}
	var attrs []Attribute
	for !rdns.Empty() {
		var set cryptobyte.String
		if !rdns.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, errors.New("not a relative distinguished name")
		}
		for !set.Empty() {
			var pair, value cryptobyte.String
			var tag cbasn1.Tag
			oid, ok := "", set.ReadASN1(&pair, cbasn1.SEQUENCE)
			if ok {
				oid, ok = der.OID(&pair)
			}
			if !ok || !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return nil, errors.New("not an attribute: a type and one value (RFC 5280 §4.1.2.4)")
			}
			text, err := directoryString(tag, value)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", attributeName(oid), err)
			}
			attrs = append(attrs, Attribute{attributeName(oid), text})
		}
		if len(attrs) > maxAttributes {
			return nil, fmt.Errorf("more than %d attributes", maxAttributes)
		}
	}
	return attrs, nil
}

// Tags of string types that cryptobyte does not name.
const (
	tagNumericString   = cbasn1.Tag(18)
	tagUniversalString = cbasn1.Tag(28)
	tagBMPString       = cbasn1.Tag(30)
)

// directoryString reads the string types that subjects use in the field (RFC 5280 §4.1.2.4). A
// PrintableString may hold any ASCII: clients write "_", "@" and "*" into it, and what is issued is encoded anew.
func directoryString(tag cbasn1.Tag, value []byte) (string, error) {
	if len(value) > 4*maxNameLength {
		return "", fmt.Errorf("%d octets long, and %d characters are allowed", len(value), maxNameLength)
	}
	s := string(value)
	switch tag {
	case cbasn1.UTF8String:
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String, tagNumericString:
		for _, b := range value {
			if b >= 0x80 { // no two programs agree on the rest of T.61
				return "", errors.New("a PrintableString, IA5String, NumericString or TeletexString with other than ASCII; use UTF8String")
			}
		}
	case tagBMPString:
		if len(value)%2 != 0 {
			return "", errors.New("a BMPString of odd length")
		}
		units := make([]uint16, 0, len(value)/2)
		for i := 0; i < len(value); i += 2 {
			units = append(units, binary.BigEndian.Uint16(value[i:]))
		}
		s = string(utf16.Decode(units)) // pairs of surrogates too, which Windows writes
	case tagUniversalString:
		if len(value)%4 != 0 {
			return "", errors.New("a UniversalString whose length is no multiple of 4")
		}
		s = ""
		for i := 0; i < len(value); i += 4 {
			s += string(rune(min(binary.BigEndian.Uint32(value[i:]), utf8.MaxRune+1)))
		}
	default:
		return "", fmt.Errorf("%s, where a string is wanted (RFC 5280 §4.1.2.4); use UTF8String", tagName(tag))
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f || r == utf8.RuneError }) {
		return "", errors.New("control characters or invalid UTF-8")
	}
	if n := utf8.RuneCountInString(s); n > maxNameLength || n == 0 {
		return "", fmt.Errorf("%d characters long, 1 to %d allowed", n, maxNameLength)
	}
	return s, nil
}

func tagName(tag cbasn1.Tag) string {
	switch tag {
	case cbasn1.BIT_STRING:
		return "a BIT STRING"
	case cbasn1.OCTET_STRING:
		return "an OCTET STRING"
	case cbasn1.INTEGER:
		return "an INTEGER"
	case cbasn1.NULL:
		return "NULL"
	case cbasn1.SEQUENCE:
		return "a SEQUENCE"
	case cbasn1.SET:
		return "a SET"
	}
	return fmt.Sprintf("an element with tag 0x%02x", uint8(tag))
}

// Tags of GeneralName (RFC 5280 §4.2.1.6).
const (
	tagOtherName = 0
	tagEmail     = 1
	tagDNS       = 2
	tagDirectory = 4
	tagURI       = 6
	tagIP        = 7
)

func parseSANs(der []byte) ([]SAN, error) {
	input, names := cryptobyte.String(der), cryptobyte.String(nil)
	if !input.ReadASN1(&names, cbasn1.SEQUENCE) || !input.Empty() || names.Empty() {
		return nil, errors.New("not GeneralNames")
	}
	var sans []SAN
	for !names.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return nil, errors.New("not a GeneralName")
		}
		san, err := parseSAN(tag, value)
		if err != nil {
			return nil, err
		}
		if sans = append(sans, san); len(sans) > maxSANs {
			return nil, fmt.Errorf("more than %d names", maxSANs)
		}
	}
	return sans, nil
}

func parseSAN(tag cbasn1.Tag, value cryptobyte.String) (SAN, error) {
	ia5 := func(form string) (SAN, error) {
		for _, b := range value {
			if b <= 0x20 || b >= 0x7f {
				return SAN{}, fmt.Errorf("a %s name with other than visible ASCII", form)
			}
		}
		if len(value) == 0 || len(value) > maxNameLength {
			return SAN{}, fmt.Errorf("a %s name of %d octets, 1 to %d allowed", form, len(value), maxNameLength)
		}
		return SAN{form, string(value)}, nil
	}
	switch tag {
	case cbasn1.Tag(tagEmail).ContextSpecific():
		return ia5("email")
	case cbasn1.Tag(tagDNS).ContextSpecific():
		return ia5("dns")
	case cbasn1.Tag(tagURI).ContextSpecific():
		return ia5("uri")
	case cbasn1.Tag(tagIP).ContextSpecific():
		addr, ok := netip.AddrFromSlice(value)
		if !ok {
			return SAN{}, fmt.Errorf("an IP address of %d octets", len(value))
		}
		return SAN{"ip", addr.String()}, nil
	case cbasn1.Tag(tagOtherName).ContextSpecific().Constructed():
		form, text, err := der.DeviceName(value)
		return SAN{form, text}, err
	}
	return SAN{"other", fmt.Sprintf("GeneralName [%d]", tag&0x1f)}, nil
}

// marshalSANs is the reverse of parseSANs.
func marshalSANs(sans []SAN) ([]byte, error) {
	var b cryptobyte.Builder
	var fault error
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, s := range sans {
			if err := addSAN(b, s); err != nil && fault == nil {
				fault = fmt.Errorf("subjectAltName %s %q: %w", s.Form, s.Value, err)
			}
		}
	})
	out, err := b.Bytes()
	return out, errors.Join(fault, err)
}

func addSAN(b *cryptobyte.Builder, s SAN) error {
	plain := func(tag uint8, value []byte) {
		b.AddASN1(cbasn1.Tag(tag).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(value) })
	}
	switch s.Form {
	case "dns":
		plain(tagDNS, []byte(s.Value))
	case "uri":
		plain(tagURI, []byte(s.Value))
	case "email":
		plain(tagEmail, []byte(s.Value))
	case "ip":
		addr, err := netip.ParseAddr(s.Value)
		if err != nil {
			return err
		}
		plain(tagIP, addr.AsSlice())
	case "permanent-identifier", "hardware-module":
		return addOtherName(b, s)
	default:
		return errors.New("this form is never issued")
	}
	return nil
}

func addOtherName(b *cryptobyte.Builder, s SAN) error {
	id, dotted, qualified := strings.Cut(s.Value, "/")
	if _, err := x509.ParseOID(dotted); qualified && err != nil {
		return fmt.Errorf("%q is not an object identifier", dotted)
	} else if !qualified && s.Form == "hardware-module" {
		return errors.New("a hardware module name is serial/type, with the type's object identifier")
	}
	b.AddASN1(cbasn1.Tag(tagOtherName).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
		form := der.OIDPermanentIdentifier
		if s.Form == "hardware-module" {
			form = der.OIDHardwareModuleName
		}
		b.AddASN1ObjectIdentifier(form)
		b.AddASN1(cbasn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
				if s.Form == "hardware-module" {
					der.AddOID(b, dotted)
					b.AddASN1OctetString([]byte(id))
					return
				}
				b.AddASN1(cbasn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(id)) })
				if qualified {
					der.AddOID(b, dotted)
				}
			})
		})
	})
	return nil
}

// marshalSubject encodes each attribute as an RDN of its own: PrintableString
// where it fits and for country and serialNumber, which must be (RFC 5280
// appendix A.1), else UTF8String; domainComponent and email as IA5String.
func marshalSubject(attrs []Attribute) ([]byte, error) {
	var b cryptobyte.Builder
	var fault error
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, a := range attrs {
			oid, err := attributeOID(a.Attr)
			if err != nil {
				fault = errors.Join(fault, err)
				continue
			}
			tag := cbasn1.UTF8String
			switch {
			case a.Attr == "dc":
				tag = cbasn1.IA5String
			case printable(a.Value):
				tag = cbasn1.PrintableString
			case a.Attr == "c" || a.Attr == "serialnumber":
				fault = errors.Join(fault, fmt.Errorf("subject %s %q: only A-Z a-z 0-9 space ' ( ) + , - . / : = ? can be encoded here", a.Attr, a.Value))
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(oid)
					b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.Value)) })
				})
			})
		}
	})
	out, err := b.Bytes()
	return out, errors.Join(fault, err)
}

func printable(s string) bool {
	const marks = " '()+,-./:=?"
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || bytes.IndexByte([]byte(marks), c) >= 0) {
			return false
		}
	}
	return true
}
