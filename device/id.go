package device

import (
	"fmt"
	"strings"
)

// MaxIDLength is the longest device ID, in characters.
const MaxIDLength = 64

// CheckNewID reports whether a device, or something else that is named alike, may get the
// name s: a device ID (see [CheckID]) that harms nothing where it stands as a file name, a path segment of a
// URL, an argument of a command, or a DNS name: no "..", "-x" or "lamp-1.".
func CheckNewID(s string) error {
	if err := CheckID(s); err != nil {
		return err
	}
	switch first, last := s[0], s[len(s)-1]; {
	case first == '.' || first == '-':
		return fmt.Errorf("the device ID %q begins with %q: begin it with one of A-Z a-z 0-9 _ :", s, first)
	case last == '.':
		return fmt.Errorf("the device ID %q ends with '.': leave that out", s)
	}
	return nil
}

// CheckID reports whether s can be the ID of a device in the inventory: 1 to 64 of [A-Za-z0-9._:-].
// 64 is also the limit of a commonName (RFC 5280 appendix A.1, ub-common-name). New
// devices are held to [CheckNewID]; those that were there before it keep their IDs.
func CheckID(s string) error {
	if s == "" {
		return fmt.Errorf("the device ID is empty: use 1 to %d of A-Z a-z 0-9 . _ : -", MaxIDLength)
	}
	if len(s) > MaxIDLength {
		return fmt.Errorf("the device ID is %d characters long: use at most %d", len(s), MaxIDLength)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == ':', c == '-':
		default:
			return fmt.Errorf("the device ID %q has %q at position %d: use only A-Z a-z 0-9 . _ : -", s, c, i+1)
		}
	}
	return nil
}

// Fold is the form under which a device ID is stored and compared: IDs compare
// without case.
func Fold(id string) string { return strings.ToLower(id) }

// SameID reports whether a and b name the same device.
func SameID(a, b string) bool { return strings.EqualFold(a, b) }
