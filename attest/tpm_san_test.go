package attest

import "testing"

// What crypto/x509 would not let through is refused here as well.
func TestParseAKNamesRefuses(t *testing.T) {
	for name, san := range map[string][]byte{
		"nothing":              {},
		"not a SEQUENCE":       {0x31, 0},
		"a longer length":      {0x30, 0x81, 0},
		"an octet after it":    {0x30, 0, 0},
		"cut off":              {0x30, 3, 0x82, 2, 'a'},
		"no names":             {0x30, 0},
		"otherName of nothing": {0x30, 2, 0xa0, 0},
	} {
		if ak, err := parseAKNames(san); err == nil {
			t.Errorf("%s: read as %+v", name, ak)
		}
	}
}
