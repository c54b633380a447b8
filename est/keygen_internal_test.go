package est

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// Whatever the key and signature of a request, it reads as its own request would:
// where ca.ParseCSR takes it, the names are the same.
func FuzzParseUnproven(f *testing.F) {
	for _, v := range vectors(f) {
		if block, _ := pem.Decode(v); block != nil {
			f.Add(block.Bytes)
		}
		if der, err := decodeRequest(v); err == nil {
			f.Add(der)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, hint, err := parseUnproven(der)
		proven, provenErr := ca.ParseCSR(der)
		if err != nil {
			if s := refuse(err).status; s != 400 {
				t.Fatalf("status %d: %v", s, err)
			}
			if provenErr == nil {
				t.Fatalf("%v, and yet it is a request", err)
			}
			return
		}
		if provenErr == nil && (!csr.Names.Equal(proven.Names) || hint == "" || csr.ChallengePassword != proven.ChallengePassword) {
			t.Fatalf("read as %+v (%s), not as %+v", csr, hint, proven)
		}
	})
}

func TestAlgorithm(t *testing.T) {
	for _, tt := range []struct {
		profile []string
		hint    string
		want    string
	}{
		{[]string{"rsa-2048", "ecdsa-p256"}, "ecdsa-p256", "ecdsa-p256"},
		{[]string{"rsa-2048", "ecdsa-p256"}, "ed25519", "rsa-2048"},
		{[]string{"ecdsa-p521", "rsa-4096", "rsa-3072"}, "ecdsa-p521", "rsa-3072"},
		{[]string{"ecdsa-p521"}, "", ""},
		{nil, "ecdsa-p256", ""},
	} {
		if got := algorithm(tt.profile, tt.hint); got != tt.want {
			t.Errorf("%v with %s: %s, want %s", tt.profile, tt.hint, got, tt.want)
		}
	}
}

func TestWipe(t *testing.T) {
	for name, maker := range makers {
		key, err := maker()
		if err != nil {
			t.Fatal(err)
		}
		wipe(key)
		var left []byte
		switch k := key.(type) {
		case *ecdsa.PrivateKey:
			left = k.D.Bytes()
		case *rsa.PrivateKey:
			left = slices.Concat(k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes(), k.Precomputed.Dp.Bytes(), k.Precomputed.Dq.Bytes(), k.Precomputed.Qinv.Bytes())
		case ed25519.PrivateKey:
			left = bytes.TrimLeft(k, "\x00")
		}
		if len(bytes.Trim(left, "\x00")) != 0 {
			t.Errorf("%s: %x is left", name, left)
		}
	}
}
