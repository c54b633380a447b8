package cms

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

func TestCapabilities(t *testing.T) {
	ec := ToECDH(ID{KeyID: []byte("x")}, testKey(t, "ecdsa-p256").Public().(*ecdsa.PublicKey))
	rsaTo := ToRSA(ID{KeyID: []byte("x")}, testKey(t, "rsa-2048").Public().(*rsa.PublicKey))
	secret := ToKEK([]byte("x"), testKEK)
	cbc128, cbc256, gcm128 := AES128CBC.oid(), AES256CBC.oid(), AES128GCM.oid()
	tests := []struct {
		listed []OID
		to     Recipient
		want   Cipher
		ok     bool
	}{
		{[]OID{cbc128, cbc256, oidOAEP}, rsaTo, AES128CBC, true},
		{[]OID{cbc256, cbc128, oidOAEP}, rsaTo, AES256CBC, true},
		{[]OID{oidOAEP, gcm128}, rsaTo, AES128GCM, true},
		{[]OID{oidOAEP}, rsaTo, AES256CBC, true},
		{[]OID{oidRSA, cbc256}, rsaTo, 0, false},
		{[]OID{cbc256, cbc128, oidAES128Wrap}, ec, AES128CBC, true},
		{[]OID{oidAES256Wrap}, ec, AES256CBC, true},
		{[]OID{oidAES128Wrap}, ec, AES128CBC, true},
		{[]OID{oidOAEP, cbc128}, ec, 0, false},
		{[]OID{oidAES256Wrap, cbc128}, secret, AES128CBC, true},
		{[]OID{oidAES128Wrap, cbc128}, secret, 0, false},
		{nil, secret, 0, false},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			caps, err := ParseCapabilities(Capabilities(tt.listed).Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if got, ok := caps.Cipher(tt.to); ok != tt.ok || ok && got != tt.want {
				t.Errorf("got %v, %t", got, ok)
			}
		})
	}
	t.Run("wrap as parameter", func(t *testing.T) {
		wrapping, _ := encode(32, func(b *cryptobyte.Builder) { addAlgorithm(b, oidAES128Wrap, nil) })
		in, _ := encode(128, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { addAlgorithm(b, agreements[0].oid, wrapping) })
		})
		caps, err := ParseCapabilities(in)
		if got, ok := caps.Cipher(ec); err != nil || !ok || got != AES128CBC {
			t.Errorf("got %v, %t, %v", got, ok, err)
		}
	})
	for name, in := range map[string][]byte{"empty": {}, "not a list": {5, 0}, "list of nulls": {0x30, 2, 5, 0}, "trailing": {0x30, 0, 0}} {
		if _, err := ParseCapabilities(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseCapabilities(f *testing.F) {
	f.Add(Capabilities{oidOAEP, oidAES128Wrap}.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		caps, err := ParseCapabilities(in)
		if err != nil {
			return
		}
		caps.Cipher(ToKEK([]byte("x"), testKEK))
		if again, err := ParseCapabilities(caps.Bytes()); err != nil && len(caps) <= maxCapabilities || err == nil && len(again) != len(caps) {
			t.Fatalf("%v %v %v", caps, again, err)
		}
	})
}
