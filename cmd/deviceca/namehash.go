package main

import (
	"crypto/sha1"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"unicode/utf16"
)

// nameHash is the hash of a Name (DER) by which OpenSSL finds certificates and CRLs in a directory, as
// `openssl rehash` names them: the first four octets, the last first, of SHA-1 over the Name in canonical form
// (OpenSSL's X509_NAME_hash and crypto/x509/x_name.c). The canonical form has strings as UTF8String, ASCII letters small, no space
// at either end and one between words, and leaves out the outermost header.
func nameHash(name []byte) (string, error) {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	var rdns []asn1.RawValue
	if rest, err := asn1.Unmarshal(name, &rdns); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("a name cannot be read: %v", err)
	}
	var canonical []byte
	for _, rdn := range rdns {
		var set []attribute
		if _, err := asn1.UnmarshalWithParams(rdn.FullBytes, &set, "set"); err != nil {
			return "", fmt.Errorf("a name cannot be read: %w", err)
		}
		for i := range set {
			if text, ok := directoryText(set[i].Value); ok {
				value := canonicalText(text)
				set[i].Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: value}
			}
		}
		raw, err := asn1.MarshalWithParams(set, "set")
		if err != nil {
			return "", err
		}
		canonical = append(canonical, raw...)
	}
	sum := sha1.Sum(canonical)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}

// directoryText is the UTF-8 of a string type that OpenSSL folds; others are hashed as they are.
func directoryText(v asn1.RawValue) ([]byte, bool) {
	if v.Class != asn1.ClassUniversal {
		return nil, false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, 26: // VisibleString
		return v.Bytes, true
	case asn1.TagT61String: // read as ISO 8859-1
		text := make([]rune, len(v.Bytes))
		for i, b := range v.Bytes {
			text[i] = rune(b)
		}
		return []byte(string(text)), true
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return []byte(string(utf16.Decode(units))), true
	}
	return nil, false
}

// canonicalText folds ASCII letters and runs of ASCII space.
func canonicalText(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for _, c := range text {
		switch {
		case c == ' ' || '\t' <= c && c <= '\r':
			if len(out) > 0 && out[len(out)-1] != ' ' {
				out = append(out, ' ')
			}
		case 'A' <= c && c <= 'Z':
			out = append(out, c+'a'-'A')
		default:
			out = append(out, c)
		}
	}
	if n := len(out); n > 0 && out[n-1] == ' ' {
		out = out[:n-1]
	}
	return out
}
