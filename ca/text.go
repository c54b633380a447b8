package ca

import (
	"strings"
	"time"
	"unicode"
)

// OneLine makes s one line of printable UTF-8, at most n octets: what clients and
// logs are told quotes what clients sent.
func OneLine(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n-len("…")], "") + "…"
	}
	return s
}

// ParseTime reads a time as in RFC 3339, which allows "t" and "z" for "T" and "Z".
func ParseTime(s string) (time.Time, error) { return time.Parse(time.RFC3339, strings.ToUpper(s)) }

// FieldValue makes s the value of an HTTP header field: ASCII 0x20 to 0x7e, at most n octets.
func FieldValue(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), n)])
}
