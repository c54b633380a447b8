package pack

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

func TestSplit(t *testing.T) {
	one, two := readFile(t, "small.cbor"), readFile(t, "growth.cbor")
	for name, c := range map[string][][]byte{"one": {one}, "two": {one, two}, "three": {two, one, one}} {
		got, err := Split(bytes.Join(c, nil))
		if err != nil || len(got) != len(c) {
			t.Fatalf("%s: %d packs, %v", name, len(got), err)
		}
		for i := range c {
			if !bytes.Equal(got[i], c[i]) {
				t.Errorf("%s: pack %d is another", name, i)
			}
		}
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"nothing":     {nil, ErrMalformed},
		"cut short":   {append(bytes.Clone(one), two[:len(two)-1]...), ErrMalformed},
		"text":        {append(bytes.Clone(one), "no"...), ErrMalformed},
		"sixty-five":  {bytes.Repeat(two, 65), ErrLimit},
		"long string": {[]byte{0xd2, 0x84, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, ErrMalformed},
	} {
		if _, err := Split(c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// What is taken apart, put together, is what came.
func FuzzSplit(f *testing.F) {
	small, growth := readFileF(f, "small.cbor"), readFileF(f, "growth.cbor")
	for _, seed := range [][]byte{small, growth, append(bytes.Clone(small), growth...), {0xd2, 0x84, 0x40, 0xa0, 0x40, 0x40}, {0xd2}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		packs, err := Split(data)
		if err != nil {
			return
		}
		if !bytes.Equal(bytes.Join(packs, nil), data) {
			t.Error("octets were lost")
		}
	})
}

func readFileF(f *testing.F, name string) []byte {
	f.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		f.Fatal(err)
	}
	return data
}
