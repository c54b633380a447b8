package der

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Name is a Name (RFC 5280 §4.1.2.4) taken apart, to be compared.
type Name []RDN

// RDN is a RelativeDistinguishedName, a set of attributes: in one order, whichever they came in.
type RDN []Attribute

// Attribute is a type and a value of a Name.
type Attribute struct {
	Type   []byte // contents octets of the OBJECT IDENTIFIER
	Value  []byte // the element
	Text   string // of a string of any type, what it says
	IsText bool

	key string // what is compared
}

var errName = errors.New("not a Name (RFC 5280 §4.1.2.4)")

// ParseName takes a Name apart. A value need not be a string, nor what its string type allows.
// The cost is that of reading it, and of sorting the attributes of an RDN.
func ParseName(in []byte) (Name, error) {
	s := cryptobyte.String(in)
	var list cryptobyte.String
	if !s.ReadASN1(&list, cbasn1.SEQUENCE) || !s.Empty() {
		return nil, errName
	}
	var name Name
	for !list.Empty() {
		var set cryptobyte.String
		if !list.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, errName
		}
		var rdn RDN
		for !set.Empty() {
			a, err := readAttribute(&set)
			if err != nil {
				return nil, err
			}
			rdn = append(rdn, a)
		}
		slices.SortFunc(rdn, func(a, b Attribute) int { return strings.Compare(a.key, b.key) })
		name = append(name, rdn)
	}
	return name, nil
}

func readAttribute(set *cryptobyte.String) (a Attribute, err error) {
	var pair, oid, value cryptobyte.String
	var tag cbasn1.Tag
	if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) {
		return a, errName
	}
	a.Type, a.Value = oid, pair
	if !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
		return a, errName
	}
	compared := "=" + string(a.Value)
	if a.Text, a.IsText = textOf(tag, value); a.IsText {
		compared = "~" + fold(a.Text)
	}
	a.key = sized(string(a.Type)) + sized(compared)
	return a, nil
}

// sized makes texts that follow each other one text that can be read in one way only.
func sized(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }

// String types that cryptobyte has no name for.
const (
	numericString   = cbasn1.Tag(18)
	visibleString   = cbasn1.Tag(26)
	universalString = cbasn1.Tag(28)
	bmpString       = cbasn1.Tag(30)
)

// textOf reads a string of any type. One that holds what is no character is no text, and
// compared as it stands.
func textOf(tag cbasn1.Tag, value []byte) (string, bool) {
	var runes []rune
	switch tag {
	case cbasn1.UTF8String:
		return string(value), utf8.Valid(value)
	case cbasn1.PrintableString, cbasn1.IA5String, cbasn1.T61String, numericString, visibleString:
		if tag != cbasn1.T61String && utf8.Valid(value) {
			return string(value), true
		}
		for _, c := range value { // as Latin-1, like everybody
			runes = append(runes, rune(c))
		}
	case bmpString:
		if len(value)%2 != 0 {
			return "", false
		}
		units := make([]uint16, len(value)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(value[2*i:])
		}
		runes = utf16.Decode(units)
	case universalString:
		if len(value)%4 != 0 {
			return "", false
		}
		for i := 0; i < len(value); i += 4 {
			runes = append(runes, rune(min(binary.BigEndian.Uint32(value[i:]), utf8.MaxRune+1)))
		}
	default:
		return "", false
	}
	text := string(runes)
	return text, !strings.ContainsRune(text, utf8.RuneError)
}

// fold prepares text for comparison as RFC 5280 §7.1 wants it, by a part of LDAP's StringPrep: case and
// insignificant space make no difference. Composed and decomposed characters do.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r { // around the orbit: its least
				return next
			}
			r = next
		}
	}, strings.Join(strings.Fields(s), " "))
}

// SameName reports whether two Names are equal by RFC 5280 §7.1: the same attributes in the same
// order, those of one RDN in any, strings without regard to their type, to case, and to the amount of
// space. It is for finding issuers, whose signatures decide. Names that cannot be read are equal if their octets are.
func SameName(a, b []byte) bool {
	return bytes.Equal(a, b) || NameKey(a) == NameKey(b)
}

// NameKey gives the same text for two Names if, and only if, SameName holds.
func NameKey(in []byte) string {
	name, err := ParseName(in)
	if err != nil {
		return "?" + string(in)
	}
	var b strings.Builder
	b.WriteByte('!')
	for _, rdn := range name {
		b.WriteString(sized(rdn.key()))
	}
	return b.String()
}

func (r RDN) key() string {
	var b strings.Builder
	for _, a := range r {
		b.WriteString(a.key)
	}
	return b.String()
}

// Within reports whether a name lies in a subtree: it has at least its RDNs, in order (RFC 5280 §7.1).
func (n Name) Within(tree Name) bool {
	return len(n) >= len(tree) && slices.EqualFunc(n[:len(tree)], tree, func(a, b RDN) bool {
		return len(a) == len(b) && a.key() == b.key()
	})
}

// Values are the texts of the attributes of a type, given by the contents octets of its OBJECT IDENTIFIER.
func (n Name) Values(oid string) (texts []string) {
	for _, rdn := range n {
		for _, a := range rdn {
			if string(a.Type) == oid && a.IsText {
				texts = append(texts, a.Text)
			}
		}
	}
	return texts
}

// String shows a name in an error.
func (n Name) String() string {
	var parts []string
	for _, rdn := range n {
		for _, a := range rdn {
			if a.IsText {
				parts = append(parts, a.Text)
			}
		}
	}
	return fmt.Sprintf("%.100q", strings.Join(parts, ", "))
}

// PlainName writes a Name anew for programs that take only what RFC 5280 knows: each string as a
// UTF8String. It leaves out attributes that are no strings, and types with an arc of more than 31 bits.
func PlainName(in []byte) ([]byte, error) {
	name, err := ParseName(in)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range name {
			rdn = slices.DeleteFunc(rdn, func(a Attribute) bool { return !a.IsText || !plainOID(a.Type) })
			if len(rdn) == 0 {
				continue
			}
			b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
				for _, a := range rdn {
					b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
						addElement(b, cbasn1.OBJECT_IDENTIFIER, a.Type)
						addElement(b, cbasn1.UTF8String, []byte(a.Text))
					})
				}
			})
		}
	})
	return b.Bytes()
}

func addElement(b *cryptobyte.Builder, tag cbasn1.Tag, content []byte) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
}

// plainOID reports whether cryptobyte and crypto/x509 read an OBJECT IDENTIFIER of these contents octets.
func plainOID(content []byte) bool {
	var b cryptobyte.Builder
	addElement(&b, cbasn1.OBJECT_IDENTIFIER, content)
	element, err := b.Bytes()
	s := cryptobyte.String(element)
	return err == nil && s.ReadASN1ObjectIdentifier(new(asn1.ObjectIdentifier))
}
