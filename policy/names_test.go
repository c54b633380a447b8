package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"net/netip"
	"strings"
	"testing"
)

var nameCases = []struct {
	pattern, form, value string
	match                bool
}{
	{"{device.id}", "dns", "PUMP-7", true},
	{"{device.id}", "dns", "pump-8", false},
	{"{device.id}", "dns", "pump-7.", false},
	{"{device.id}.gw.example.com", "dns", "pump-7.GW.example.com", true},
	{"{device.id}.gw.example.com", "dns", "pump-7.gw.example.com.evil", false},
	{"*.plant.example.com", "dns", "a.plant.example.com", true},
	{"*.plant.example.com", "dns", "a.b.plant.example.com", false},
	{"*.plant.example.com", "dns", ".plant.example.com", false},
	{"*.plant.example.com", "dns", "*.plant.example.com", false},
	{`\*.plant.example.com`, "dns", "*.plant.example.com", true},
	{`\*.plant.example.com`, "dns", "a.plant.example.com", false},
	{"{device.id}.*.internal", "dns", "pump-7.plant.internal", true},
	{"{device.id}.{device.group}.internal", "dns", "pump-7.plant.internal", true},
	{"*", "dns", "anything", true},
	{"*", "dns", "10", false}, // 0.0.0.10 to inet_aton
	{"*", "dns", "0x7f000001", false},
	{"*", "dns", "0x", false},
	{"*.*", "dns", "127.1", false},
	{"*.*", "dns", "127.0X1", false},
	{"*.*", "dns", "1.0xg", true},
	{"*.*", "dns", "10.internal", true},
	{"{device.id}", "dns", "pump-7.", false},
	{"*.*.*.*", "dns", "10.0.0.1", false},
	{"*", "dns", "a_b", false},
	{"*", "dns", "-a", false},
	{"*", "dns", strings.Repeat("a", 64), false},
	{"*", "dns", "ä", false},
	{"10.0.0.0/8", "ip", "10.200.1.1", true},
	{"10.0.0.0/8", "ip", "11.0.0.1", false},
	{"10.0.0.0/8", "ip", "::ffff:10.0.0.1", false},
	{"fe80::/10", "ip", "fe80::1%eth0", false},
	{"10.0.0.5", "ip", "10.0.0.5", true},
	{"{device.id}", "ip", "pump-7", false},
	{"urn:dev:{device.id}", "uri", "URN:dev:pump-7", true},
	{"urn:dev:{device.id}", "uri", "urn:DEV:pump-7", false},
	{"urn:dev:{device.id}", "uri", "urn:dev:pump-70", false},
	{"{device.id}", "uri", "pump-7", false},
	{"{device.id}@example.com", "email", "pump-7@EXAMPLE.com", true},
	{"{device.id}@example.com", "email", "pump-7@example.org", false},
	{"{device.id}", "permanent-identifier", "pump-7", true},
	{"{device.id}", "hardware-module", "pump-8", false},
	{"{device.id}", "x400", "pump-7", false},
}

func TestMatchName(t *testing.T) {
	dev := Device{ID: "Pump-7", Group: "plant"}
	for _, c := range nameCases {
		if got := MatchName(c.pattern, c.form, c.value, dev); got != c.match {
			t.Errorf("MatchName(%q, %s, %q) = %v", c.pattern, c.form, c.value, got)
		}
	}
	for _, p := range append(DefaultPatterns("uri"), "{device.group}") {
		if MatchName(p, "uri", "urn:dev:", Device{}) || MatchName(p, "permanent-identifier", "", Device{}) {
			t.Errorf("%q matches for a device without ID or group", p)
		}
	}
	if !MatchName("{device.id}", "uri", "urn:dev:ow:1", Device{ID: "urn:dev:ow:1"}) {
		t.Error("an ID that is a URI")
	}
}

func FuzzMatchName(f *testing.F) {
	if len(nameCases) < 20 {
		f.Fatal("too few seeds")
	}
	for _, c := range nameCases {
		f.Add(c.pattern, c.form, c.value, "Pump-7", "plant")
	}
	f.Fuzz(func(t *testing.T, pattern, form, value, id, group string) {
		if !MatchName(pattern, form, value, Device{ID: id, Group: group}) {
			return
		}
		switch form {
		case "dns":
			if strings.Contains(value, "*") && !strings.HasPrefix(pattern, `\*.`) {
				t.Fatalf("%q gives the wildcard %q", pattern, value)
			}
			if _, err := netip.ParseAddr(value); err == nil || len(value) > 253 {
				t.Fatalf("%q gives %q as a host name", pattern, value)
			}
		case "ip":
			if _, err := netip.ParseAddr(value); err != nil {
				t.Fatal(err)
			}
		}
		if strings.ContainsAny(value, "\x00\n ") {
			t.Fatalf("%q holds control characters", value)
		}
	})
}

func TestKeyAlgorithm(t *testing.T) {
	curve := func(c elliptic.Curve) crypto.PublicKey {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	ed, _, _ := ed25519.GenerateKey(rand.Reader)
	modulus := func(bits uint, e int) *rsa.PublicKey {
		n := new(big.Int).Lsh(big.NewInt(1), bits-1)
		return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e}
	}
	even := modulus(2048, 65537)
	even.N.SetBit(even.N, 0, 0)
	for _, c := range []struct {
		name string
		key  crypto.PublicKey
		want string // or, in an error, what it says
		bad  bool
	}{
		{"p256", curve(elliptic.P256()), "ecdsa-p256", false},
		{"p384", curve(elliptic.P384()), "ecdsa-p384", false},
		{"p521", curve(elliptic.P521()), "ecdsa-p521", false},
		{"p224", curve(elliptic.P224()), "P-224", true},
		{"ed25519", ed, "ed25519", false},
		{"short ed25519", ed[:31], "32 bytes", true},
		{"rsa", modulus(2048, 65537), "rsa-2048", false},
		{"rsa of 8192", modulus(8192, 65537), "rsa-8192", false},
		{"rsa of 2047", modulus(2047, 65537), "too short", true},
		{"rsa of 8193", modulus(8193, 65537), "too long", true},
		{"exponent 3", modulus(2048, 3), "exponent", true},
		{"even exponent", modulus(2048, 65538), "exponent", true},
		{"even modulus", even, "even", true},
		{"nil", nil, "not accepted", true},
		{"nil rsa", (*rsa.PublicKey)(nil), "not accepted", true},
		{"empty ecdsa", &ecdsa.PublicKey{}, "not accepted", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := KeyAlgorithm(c.key)
			if c.bad && (err == nil || !strings.Contains(err.Error(), c.want)) || !c.bad && (err != nil || got != c.want) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
