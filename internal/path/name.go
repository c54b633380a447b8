package path

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// rdn is a RelativeDistinguishedName: a set of attributes.
type rdn []attribute

type attribute struct {
	oid   []byte // contents octets
	value string // of a string: its text, folded; else the DER of the value
	text  bool
}

const oidEmailAddress = "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01"

var errName = errors.New("has a distinguished name that cannot be read")

// parseName reads a Name (RFC 5280 §4.1.2.4).
func parseName(in []byte) ([]rdn, error) {
	s := cryptobyte.String(in)
	var list cryptobyte.String
	if !s.ReadASN1(&list, asn1.SEQUENCE) || !s.Empty() {
		return nil, errName
	}
	var name []rdn
	for !list.Empty() {
		var set cryptobyte.String
		if !list.ReadASN1(&set, asn1.SET) || set.Empty() {
			return nil, errName
		}
		var one rdn
		for !set.Empty() {
			var pair, oid, value, element cryptobyte.String
			var tag asn1.Tag
			if !set.ReadASN1(&pair, asn1.SEQUENCE) || !pair.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) {
				return nil, errName
			}
			element = pair
			if !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return nil, errName
			}
			a := attribute{oid: oid, value: string(element)}
			if text, ok := textOf(tag, value); ok {
				a.value, a.text = fold(text), true
			}
			one = append(one, a)
		}
		name = append(name, one)
	}
	return name, nil
}

// String types that cryptobyte has no name for.
const (
	teletexString   = asn1.Tag(20)
	universalString = asn1.Tag(28)
	bmpString       = asn1.Tag(30)
)

// textOf reads a string of any type, so that another type is no way round an exclusion.
func textOf(tag asn1.Tag, value []byte) (string, bool) {
	switch tag {
	case asn1.UTF8String, asn1.PrintableString, asn1.IA5String:
		return string(value), true
	case teletexString: // as Latin-1, like everybody
		runes := make([]rune, len(value))
		for i, c := range value {
			runes[i] = rune(c)
		}
		return string(runes), true
	case bmpString:
		if len(value)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(value[2*i:])
		}
		return string(utf16.Decode(units)), true
	case universalString:
		if len(value)%4 != 0 {
			return "", false
		}
		runes := make([]rune, len(value)/4)
		for i := range runes {
			runes[i] = rune(binary.BigEndian.Uint32(value[4*i:]))
		}
		return string(runes), true
	}
	return "", false
}

// fold prepares text for comparison: case and insignificant spaces (RFC 5280 §7.1).
func fold(s string) string { return strings.ToLower(strings.Join(strings.Fields(s), " ")) }

func (a attribute) same(b attribute) bool {
	return bytes.Equal(a.oid, b.oid) && a.text == b.text && a.value == b.value
}

// sameRDN: as many attributes, and each of a has its like in b (RFC 5280 §7.1).
func sameRDN(a, b rdn) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(x attribute) bool { return !slices.ContainsFunc(b, x.same) })
}

// isWithin reports whether a name lies in a subtree: it has at least its RDNs, in order (RFC 5280 §7.1).
func isWithin(name, tree []rdn) bool {
	return len(name) >= len(tree) && slices.EqualFunc(name[:len(tree)], tree, sameRDN)
}

func emailsOf(name []rdn) (emails []string) {
	for _, one := range name {
		for _, a := range one {
			if string(a.oid) == oidEmailAddress {
				emails = append(emails, a.value)
			}
		}
	}
	return emails
}

// nameText shows a name in an error, as it is compared.
func nameText(name []rdn) string {
	var parts []string
	for _, one := range name {
		for _, a := range one {
			if a.text {
				parts = append(parts, a.value)
			}
		}
	}
	return fmt.Sprintf("%.100q", strings.Join(parts, ", "))
}
