package der

import (
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"
)

const (
	blockA = "-----BEGIN A-----\nAQ==\n-----END A-----\n"
	blockB = "-----BEGIN B-----\nAg==\n-----END B-----\n"
)

func utf16Text(order binary.AppendByteOrder, text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

func TestPEM(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"plain", blockA + blockB, "A B"},
		{"text around", "Subject: CN=x\n" + blockA + "\n  some words\n" + blockB + "the end", "A B"},
		{"byte order mark", "\ufeff" + blockA + blockB, "A B"},
		{"two files with marks", "\ufeff" + blockA + "\n\ufeff" + blockB, "A B"},
		{"CRLF", strings.ReplaceAll(blockA+blockB, "\n", "\r\n"), "A B"},
		{"UTF-16, little endian", utf16Text(binary.LittleEndian, blockA+blockB), "A B"},
		{"UTF-16, big endian", utf16Text(binary.BigEndian, blockA+blockB), "A B"},
		{"nothing", "<html>", ""},
		{"empty", "", ""},
		{"damaged first", strings.Replace(blockA, "AQ==", "A*==", 1) + blockB, "error"},
		{"cut short", blockA + blockB[:20], "error"},
		{"indented", " " + blockA + blockB, "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			blocks, err := PEM([]byte(tt.text))
			var got []string
			for _, b := range blocks {
				got = append(got, b.Type)
			}
			if text := strings.Join(got, " "); text != tt.want && tt.want != "error" || (err != nil) != (tt.want == "error") {
				t.Errorf("%q, %v; want %q", text, err, tt.want)
			}
		})
	}
}

func FuzzPEM(f *testing.F) {
	for _, seed := range []string{blockA, "\ufeff" + blockA + blockB, utf16Text(binary.LittleEndian, blockA), " " + blockA, "\xff\xfe\x2d"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		blocks, err := PEM(in)
		if err != nil && blocks != nil {
			t.Error("blocks beside an error")
		}
	})
}
