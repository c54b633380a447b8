package pack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func decodeAll(coded []byte, k uint, count, size uint64) (got []uint64, err error) {
	err = decodeRice(coded, k, count, size, func(x uint64) { got = append(got, x) })
	return got, err
}

func TestRiceBits(t *testing.T) {
	for _, c := range []struct {
		name    string
		offsets []uint64
		size    uint64
		k       uint
		coded   string // in bits, for eyes
	}{
		{"empty", nil, 10, 0, ""},
		{"zero", []uint64{0}, 1, 0, "00000000"},
		{"one after another", []uint64{0, 1, 2}, 3, 0, "00000000"},
		// Gaps 1 0 1: saved(0) = 1+0+1 ≤ 3, so k is 0: 10 0 10.
		{"k 0", []uint64{1, 2, 4}, 5, 0, "10010000"},
		// Gaps 3 5: saved(0) = 2+3 > 2, saved(1) = ⌈1/2⌉+⌈2/2⌉ = 2 ≤ 2, so k is 1: 10 1, 110 1.
		{"k 1", []uint64{3, 9}, 10, 1, "10111010"},
		// Gap 12: saved = 6 3 2 1, so k is 3: 10 100.
		{"single", []uint64{12}, 100, 3, "10100000"},
		{"highest", []uint64{MaxIndex}, MaxIndex + 1, 47,
			"10" + "11111111111111111111111111111111111111111111111" + "0000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if k := riceParameter(slices.Values(c.offsets)); k != c.k {
				t.Fatalf("k = %d, want %d", k, c.k)
			}
			coded := encodeRice(nil, c.k, slices.Values(c.offsets))
			var text string
			for _, b := range coded {
				text += fmt.Sprintf("%08b", b)
			}
			if text != c.coded {
				t.Fatalf("coded %s, want %s", text, c.coded)
			}
			got, err := decodeAll(coded, c.k, uint64(len(c.offsets)), c.size)
			if err != nil || !slices.Equal(got, c.offsets) {
				t.Fatalf("decoded %v, %v", got, err)
			}
		})
	}
}

// drawn returns each of size offsets with the probability p, by their geometric gaps.
func drawn(r *rand.Rand, size uint64, p float64) (out []uint64) {
	for x := range size {
		if r.Float64() < p {
			out = append(out, x)
		}
	}
	return out
}

func TestRiceParameterIsShortest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 90 {
		offsets := drawn(r, 1+r.Uint64N(3000), r.Float64()*r.Float64()*r.Float64())
		if i%3 == 0 { // bunched, as when a batch of devices is recalled
			for j := range offsets {
				offsets[j] += uint64(j/50) * 100_000
			}
		}
		size := uint64(10_000_000)
		k := riceParameter(slices.Values(offsets))
		var lengths []int
		for other := range uint(20) {
			bits := 0
			var next uint64
			for _, x := range offsets {
				bits += int((x-next)>>other) + 1 + int(other)
				next = x + 1
			}
			lengths = append(lengths, bits)
		}
		if best := slices.Min(lengths); lengths[k] != best || slices.Index(lengths, best) != int(k) {
			t.Fatalf("k = %d gives %d bits; shortest is %d", k, lengths[k], best)
		}
		for other := range uint(20) {
			coded := encodeRice(nil, other, slices.Values(offsets))
			got, err := decodeAll(coded, other, uint64(len(offsets)), size)
			if other == k && (err != nil || !slices.Equal(got, offsets)) {
				t.Fatalf("does not come back: %v", err)
			}
			if other != k && !errors.Is(err, ErrMalformed) {
				t.Fatalf("k = %d taken where %d is the canonical one", other, k)
			}
		}
	}
}

func TestRiceRefuses(t *testing.T) {
	for _, c := range []struct {
		name        string
		coded       []byte
		k           uint
		count, size uint64
	}{
		{"parameter above 47", []byte{0, 0, 0, 0, 0, 0, 0}, 48, 1, 1 << 48},
		{"more indices than universe", []byte{0}, 0, 2, 1},
		{"more indices than bits", []byte{0}, 0, 9, 100},
		{"count near 2^64", []byte{0}, 0, 1<<64 - 1, 1<<64 - 1},
		{"empty with an octet", []byte{0}, 0, 0, 10},
		{"unary without end", []byte{0xff, 0xff}, 0, 1, 100},
		{"remainder cut", []byte{0b11111110}, 3, 1, 100},
		{"beyond the universe", []byte{0b10100000}, 3, 1, 12},
		{"quotient beyond the universe", []byte{0xff, 0xff, 0xfe}, 0, 1, 10},
		{"second beyond the universe", []byte{0b00100000}, 0, 3, 3},
		{"padding not zero", []byte{0b10100001}, 3, 1, 100},
		{"an octet too many", []byte{0b10100000, 0}, 3, 1, 100},
		{"parameter too small", []byte{0b11111110, 0}, 1, 1, 100},
		{"parameter too large", []byte{0b01100000}, 4, 1, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := decodeAll(c.coded, c.k, c.count, c.size); !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, %v", got, err)
			}
		})
	}
}

func FuzzRice(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, p := range []float64{0, 0.001, 0.01, 0.3, 1} {
		offsets := drawn(r, 2000, p)
		k := riceParameter(slices.Values(offsets))
		f.Add(encodeRice(nil, k, slices.Values(offsets)), k, uint64(len(offsets)), uint64(2000))
	}
	f.Fuzz(func(t *testing.T, coded []byte, k uint, count, size uint64) {
		if size > MaxIndex+1 {
			return
		}
		got, err := decodeAll(coded, k, count, size)
		if err != nil {
			return
		}
		if uint64(len(got)) != count || count > 0 && got[count-1] >= size {
			t.Fatalf("%d indices of %d, universe %d", len(got), count, size)
		}
		if again := riceParameter(slices.Values(got)); again != k {
			t.Fatalf("k %d comes back as %d", k, again)
		}
		if again := encodeRice(nil, k, slices.Values(got)); !bytes.Equal(again, coded) {
			t.Fatalf("%x comes back as %x", coded, again)
		}
	})
}
