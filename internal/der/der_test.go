package der

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// nest wraps a NULL in n SEQUENCEs.
func nest(n int) []byte {
	in := []byte{5, 0}
	for range n {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(in) })
		in = b.BytesOrPanic()
	}
	return in
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
		says     string
	}{
		{"null", "0500", nil, ""},
		{"sequence", "3006 020101 020102", nil, ""},
		{"empty sequence", "3000", nil, ""},
		{"empty", "", ErrMalformed, "empty"},
		{"tag alone", "30", ErrMalformed, "offset 0"},
		{"truncated", "3006 020101 0201", ErrMalformed, "offset 0"},
		{"child beyond parent", "3003 020201 02", ErrMalformed, "offset 2"},
		{"child cut by parent", "3003 020401", ErrMalformed, "offset 2"},
		{"trailing", "3000 00", ErrTrailing, "1 after"},
		{"long form where short fits", "308103 020101", ErrMalformed, "offset 0"},
		{"length with leading zero", "30820003 020101", ErrMalformed, "offset 0"},
		{"inner long form", "3004 02810101", ErrMalformed, "offset 2"},
		{"indefinite", "3080 020101 0000", ErrIndefinite, "offset 0"},
		{"indefinite within", "3007 020101 3080 0000", ErrIndefinite, "offset 5"},
		{"high tag number", "1f8101 00", ErrMalformed, "offset 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(unhex(t, tt.in), 8)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
		})
	}
}

// The offset in an error must hold for input that is a part of something longer.
func TestCheckOffsetOfSubslice(t *testing.T) {
	in := unhex(t, "ffff 3007 020101 3080 0000 ffff")
	err := Check(in[2:len(in)-2], 8)
	if err == nil || !strings.Contains(err.Error(), "offset 5") {
		t.Errorf("got %v, want offset 5", err)
	}
}

func TestCheckDepth(t *testing.T) {
	if err := Check(nest(7), 8); err != nil {
		t.Errorf("8 levels: %v", err)
	}
	if err := Check(nest(8), 8); !errors.Is(err, ErrDepth) {
		t.Errorf("9 levels: got %v, want %v", err, ErrDepth)
	}
	if err := Check(nest(20000), 8); !errors.Is(err, ErrDepth) {
		t.Errorf("20001 levels: got %v, want %v", err, ErrDepth)
	}
}

func TestWhole(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"good", "3003 020101", nil},
		{"other tag", "3103 020101", ErrMalformed},
		{"trailing", "3003 020101 00", ErrTrailing},
		{"indefinite", "3080 0000", ErrIndefinite},
		{"empty", "", ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			content, err := Whole(unhex(t, tt.in), asn1.SEQUENCE)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err == nil && !bytes.Equal(content, unhex(t, "020101")) {
				t.Errorf("content %x", []byte(content))
			}
		})
	}
}

func TestTime(t *testing.T) {
	element := func(tag asn1.Tag, s string) []byte {
		return append([]byte{byte(tag), byte(len(s))}, s...)
	}
	utc, general := asn1.UTCTime, asn1.GeneralizedTime
	tests := []struct {
		name string
		in   []byte
		want string // "" is refused
	}{
		{"UTCTime", element(utc, "261123152157Z"), "2026-11-23T15:21:57Z"},
		{"UTCTime 1950", element(utc, "500101000000Z"), "1950-01-01T00:00:00Z"},
		{"UTCTime 2049", element(utc, "491231235959Z"), "2049-12-31T23:59:59Z"},
		{"UTCTime without seconds", element(utc, "2611231521Z"), ""},
		{"UTCTime with zone", element(utc, "261123152157+0100"), ""},
		{"UTCTime, zone in place of seconds", element(utc, "2611231521+01"), ""},
		{"UTCTime, month 13", element(utc, "261323152157Z"), ""},
		{"GeneralizedTime", element(general, "20501123152157Z"), "2050-11-23T15:21:57Z"},
		{"GeneralizedTime 9999", element(general, "99991231235959Z"), "9999-12-31T23:59:59Z"},
		{"GeneralizedTime with fraction", element(general, "20501123152157.5Z"), ""},
		{"GeneralizedTime, local", element(general, "20501123152157"), ""},
		{"GeneralizedTime, 30 February", element(general, "20500230152157Z"), ""},
		{"INTEGER", []byte{2, 1, 1}, ""},
		{"cut short", element(utc, "261123152157Z")[:9], ""},
		{"empty", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := cryptobyte.String(tt.in)
			got, err := Time(&s)
			if tt.want == "" {
				if !errors.Is(err, ErrMalformed) {
					t.Fatalf("got %v, %v, want an error", got, err)
				}
				return
			}
			if err != nil || got.Format(time.RFC3339) != tt.want || got.Location() != time.UTC || !s.Empty() {
				t.Errorf("got %v, %v with %d octets left, want %s", got, err, len(s), tt.want)
			}
		})
	}
}

// Whatever Check accepts, cryptobyte can walk to the end without surprise, and
// one octet more or less is refused.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"0500", "3006020101020102", "308000000500", "3007020101a0020500", "1f810100", "308103020101"} {
		b, _ := hex.DecodeString(seed)
		f.Add(b)
	}
	f.Add(nest(7))
	f.Add(nest(40))
	f.Fuzz(func(t *testing.T, in []byte) {
		if Check(in, 16) != nil {
			return
		}
		if Check(in[:len(in)-1], 16) == nil {
			t.Error("accepted when cut short by an octet")
		}
		if err := Check(append(bytes.Clone(in), 0), 16); !errors.Is(err, ErrTrailing) {
			t.Errorf("one octet more: %v", err)
		}
	})
}
