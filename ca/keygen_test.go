package ca

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"slices"
	"testing"
)

func TestKindToMake(t *testing.T) {
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
		if got := kindToMake(tt.profile, tt.hint); got != tt.want {
			t.Errorf("%v with %s: %s, want %s", tt.profile, tt.hint, got, tt.want)
		}
	}
}

func TestWipeKey(t *testing.T) {
	for name, maker := range makers {
		key, err := maker()
		if err != nil {
			t.Fatal(err)
		}
		WipeKey(key)
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

func TestMakeKeyWaits(t *testing.T) {
	for range cap(making) {
		making <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := MakeKey(ctx, []string{"ecdsa-p256"}, ""); KindOf(err) != Unavailable {
		t.Errorf("out of turn: %v", err)
	}
	for range cap(making) {
		<-making
	}
	if _, err := MakeKey(t.Context(), []string{"ecdsa-p521"}, ""); KindOf(err) != Denied {
		t.Errorf("a kind that is not made: %v", err)
	}
	if key, err := MakeKey(t.Context(), []string{"ecdsa-p521", "ed25519"}, ""); err != nil || key == nil {
		t.Error(err)
	}
}
