package acme

import (
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	const (
		byDefault = ""
		loopback  = "127.0.0.0/8"
	)
	for _, tt := range []struct {
		allow, address string
		want           bool
	}{
		{byDefault, "192.0.2.1", true},
		{byDefault, "10.0.0.1", true},
		{byDefault, "192.168.1.1", true},
		{byDefault, "100.64.0.1", true},
		{byDefault, "2001:db8::1", true},
		{byDefault, "fd12:3456::1", true},
		{byDefault, "127.0.0.1", false},
		{byDefault, "127.255.255.254", false},
		{byDefault, "0.0.0.0", false},
		{byDefault, "0.1.2.3", false},
		{byDefault, "169.254.169.254", false},
		{byDefault, "100.100.100.200", false},
		{byDefault, "168.63.129.16", false},
		{byDefault, "192.0.0.192", false},
		{byDefault, "224.0.0.1", false},
		{byDefault, "239.255.255.255", false},
		{byDefault, "240.0.0.1", false},
		{byDefault, "255.255.255.255", false},
		{byDefault, "::", false},
		{byDefault, "::1", false},
		{byDefault, "::127.0.0.1", false},
		{byDefault, "fe80::1", false},
		{byDefault, "fe80::1%eth0", false},
		{byDefault, "fec0::1", false},
		{byDefault, "ff02::1", false},
		{byDefault, "fd00:ec2::254", false},
		{byDefault, "fd20:ce::254", false},
		{byDefault, "100::1", false},
		{byDefault, "2001:0:1::1", false},
		{byDefault, "::ffff:0:7f00:1", false},
		// What stands for an IPv4 address is no way around it.
		{byDefault, "::ffff:127.0.0.1", false},
		{byDefault, "::ffff:192.0.2.1", true},
		{byDefault, "64:ff9b::7f00:1", false},
		{byDefault, "64:ff9b::a9fe:a9fe", false},
		{byDefault, "64:ff9b::c000:201", true},
		{byDefault, "64:ff9b:1::1", false},
		{byDefault, "2002:7f00:1::1", false},
		{byDefault, "2002:c000:201::1", true},
		// Only an entry within the range lists it.
		{"0.0.0.0/0", "127.0.0.1", false},
		{"126.0.0.0/7", "127.0.0.1", false},
		{loopback, "127.0.0.1", true},
		{loopback, "::ffff:127.0.0.1", true},
		{loopback, "::1", false},
		{loopback, "192.0.2.1", false},
		{"127.0.0.2/32", "127.0.0.1", false},
		{"127.0.0.2/32", "127.0.0.2", true},
		{"127.0.0.1/8", "127.0.0.9", true}, // host bits are not looked at
		{"::1/128", "::1", true},
		{"::1/128", "127.0.0.1", false},
		{"::/0", "::1", false},
		{"fe80::/10", "fe80::1%eth0", true},
		{"169.254.0.0/16", "169.254.169.254", true},
		{"10.0.0.0/8", "10.1.2.3", true},
		{"10.0.0.0/8", "11.1.2.3", false},
		{"::/0", "64:ff9b::a01:203", false},
		{"64:ff9b::/96", "64:ff9b::a01:203", false}, // both must be allowed
	} {
		var allow []netip.Prefix
		if tt.allow != byDefault {
			allow = []netip.Prefix{netip.MustParsePrefix(tt.allow)}
		}
		g, err := newGuard(allow)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.allows(netip.MustParseAddr(tt.address)); got != tt.want {
			t.Errorf("allow %q: %s is allowed: %v", tt.allow, tt.address, got)
		}
	}
	none, err := newGuard([]netip.Prefix{})
	if err != nil || none.allows(netip.MustParseAddr("192.0.2.1")) || none.allows(netip.Addr{}) {
		t.Error("an empty list allows something")
	}
	both, err := newGuard(prefixes("10.0.0.0/8", "64:ff9b::/96"))
	if err != nil || !both.allows(netip.MustParseAddr("64:ff9b::a01:203")) {
		t.Error("NAT64 to an allowed network is refused")
	}
}

func TestReverseName(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1":   "1.2.0.192.in-addr.arpa",
		"2001:db8::1": "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", // RFC 8738 §6
	} {
		if got := reverseName(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s: %s", address, got)
		}
	}
}

// FuzzNamesOnly: what is taken for the one name is that name, in DER, and nothing more.
func FuzzNamesOnly(f *testing.F) {
	f.Add([]byte("\x30\x0b\x82\x09a.example"))
	f.Add([]byte("\x30\x0b\x82\x09A.eXample"))
	f.Add([]byte("\x30\x16\x82\x09a.example\x82\x09b.example"))
	f.Add([]byte("\x30\x06\x87\x04\xc0\x00\x02\x01"))
	f.Add([]byte("\x30\x00"))
	f.Add([]byte("\x30\x81\x0b\x82\x09a.example"))
	f.Fuzz(func(t *testing.T, san []byte) {
		if namesOnly(san, "a.example", netip.Addr{}) && (len(san) != 13 || string(san[:4]) != "\x30\x0b\x82\x09") {
			t.Errorf("% x is taken for a.example", san)
		}
		if namesOnly(san, "", netip.MustParseAddr("192.0.2.1")) && string(san) != "\x30\x06\x87\x04\xc0\x00\x02\x01" {
			t.Errorf("% x is taken for 192.0.2.1", san)
		}
	})
}
