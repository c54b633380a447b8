package device

import (
	"strings"
	"testing"
)

func TestCheckNewID(t *testing.T) {
	for _, id := range []string{"lamp-1", "A1000", "00:11:22:33:44:55", "_x", "1", "a.b", "x-", "127.1", strings.Repeat("x", MaxIDLength)} {
		if err := CheckNewID(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for id, says := range map[string]string{
		".": "begins with", "..": "begins with", ".x": "begins with", "-": "begins with", "-x": "begins with", "--help": "begins with",
		"lamp-1.": "ends with", "x..": "ends with",
	} {
		if err := CheckNewID(id); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("new %q: %v, want %q", id, err, says)
		}
		if err := CheckID(id); err != nil {
			t.Errorf("%q of an old inventory: %v", id, err)
		}
	}
	for _, id := range []string{"", "a/b", "a b", "é", strings.Repeat("x", MaxIDLength+1)} {
		if CheckID(id) == nil || CheckNewID(id) == nil {
			t.Errorf("%q is taken", id)
		}
	}
}
