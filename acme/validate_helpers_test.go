package acme_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/internal/dnstest"
)

const (
	validationToken = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
	validationKey   = validationToken + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
)

// newValidator makes the validator for one type of challenge.
func newValidator(t *testing.T, kind string, o acme.ValidatorOptions) acme.Validator {
	t.Helper()
	all, err := acme.NewValidators(o)
	if err != nil {
		t.Fatal(err)
	}
	if all[kind] == nil {
		t.Fatalf("there is no validator for %s", kind)
	}
	return all[kind]
}

func networks(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func portOf(t *testing.T, a net.Addr) uint16 {
	t.Helper()
	return netip.MustParseAddrPort(a.String()).Port()
}

// wantFault: err is a *ValidationError of the problem, and says text.
func wantFault(t *testing.T, err error, problem, text string) {
	t.Helper()
	fault, ok := errors.AsType[*acme.ValidationError](err)
	if !ok || fault.Problem != problem || !strings.Contains(fault.Detail, text) {
		t.Errorf("got %v; want %s with %q", err, problem, text)
	}
	if ok && (len(fault.Detail) > 600 || strings.ContainsAny(fault.Detail, "\x1b\n\r")) {
		t.Errorf("the detail is not fit to show: %q", fault.Detail)
	}
}

// TestValidatorOptions: what cannot work is said at the start.
func TestValidatorOptions(t *testing.T) {
	for name, o := range map[string]acme.ValidatorOptions{
		"a resolver without port":   {Resolver: "192.0.2.1"},
		"a resolver without host":   {Resolver: ":53"},
		"a mapped network":          {AllowNetworks: networks("::ffff:127.0.0.0/104")},
		"a network that is nothing": {AllowNetworks: []netip.Prefix{{}}},
	} {
		if v, err := acme.NewValidators(o); err == nil || v != nil {
			t.Errorf("%s is accepted", name)
		}
	}
	v, err := acme.NewValidators(acme.ValidatorOptions{})
	if err != nil || len(v) != 3 {
		t.Errorf("%v, %v", v, err)
	}
}

// TestValidatorIdentifiers: what is no target never leads to a look-up.
func TestValidatorIdentifiers(t *testing.T) {
	dns := dnstest.New(t, func(dnstest.Question, int) []dnstest.Body { return nil })
	all, err := acme.NewValidators(acme.ValidatorOptions{Resolver: dns.Address})
	if err != nil {
		t.Fatal(err)
	}
	bad := []acme.Identifier{
		{"dns", ""}, {"dns", "."}, {"dns", "a..b"}, {"dns", "a.b."}, {"dns", "-a.example"}, {"dns", "a-.example"}, {"dns", "*.example"},
		{"dns", "a_b.example"}, {"dns", "127.0.0.1"}, {"dns", "127.1"}, {"dns", "0x7f.0x1"}, {"dns", "2130706433"}, {"dns", "a.0x7f000001"},
		{"dns", "a.example:80"}, {"dns", "a.example/x"}, {"dns", "user@a.example"}, {"dns", "[::1]"}, {"dns", "a.example%00"}, {"dns", "bücher.example"},
		{"dns", strings.Repeat("a", 64) + ".example"}, {"dns", strings.Repeat("abcdefg.", 32) + "example"},
		{"ip", ""}, {"ip", "127.0.0.1"}, {"ip", "a.example"}, {"ip", "192.0.2.01"}, {"ip", "2001:DB8::1"}, {"ip", "2001:db8:0::1"},
		{"ip", "fe80::1%eth0"}, {"ip", "::ffff:192.0.2.1"}, {"ip", "192.0.2.1:80"},
		{"permanent-identifier", "a.example"}, {"hardware-module", "a.example"}, {"", "a.example"}, {"DNS", "a.example"},
	}
	for kind, v := range all {
		for _, id := range bad {
			err := v.Validate(t.Context(), acme.ValidationRequest{Type: kind, Identifier: id, Token: validationToken, KeyAuthorization: validationKey})
			wantFault(t, err, "rejectedIdentifier", "")
		}
	}
	wantFault(t, all["dns-01"].Validate(t.Context(), acme.ValidationRequest{Identifier: acme.Identifier{Type: "ip", Value: "192.0.2.1"}}), "rejectedIdentifier", "dns-01")
	for _, token := range []string{"", "a/../b", "a?b", "a=", "a b", "ä"} {
		r := acme.ValidationRequest{Identifier: acme.Identifier{Type: "dns", Value: "a.example"}, Token: token, KeyAuthorization: token + ".x"}
		wantFault(t, all["http-01"].Validate(t.Context(), r), "incorrectResponse", "token")
	}
	if asked := dns.Questions(); len(asked) != 0 {
		t.Errorf("the resolver was asked: %v", asked)
	}
}

// TestValidatorTime: a resolver, a host or a TLS server that says nothing costs no more than the time set,
// and a caller that gives up gets its own error.
func TestValidatorTime(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dns := dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body { return dnstest.Records(q, dnstest.A("127.0.0.1")) })
	port := portOf(t, silent.Addr())
	all, err := acme.NewValidators(acme.ValidatorOptions{HTTPPort: port, TLSPort: port, Resolver: dns.Address,
		AllowNetworks: networks("127.0.0.0/8"), Timeout: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for kind, v := range all {
		for _, host := range []string{"a.example", "a.mute"} {
			if kind == "dns-01" && host == "a.example" {
				continue // asks the resolver alone
			}
			r := acme.ValidationRequest{Type: kind, Identifier: acme.Identifier{Type: "dns", Value: host}, Token: validationToken, KeyAuthorization: validationKey}
			start := time.Now()
			wantFault(t, v.Validate(t.Context(), r), "connection", "200ms")
			if took := time.Since(start); took > 3*time.Second {
				t.Errorf("%s of %s took %v", kind, host, took)
			}
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			if err := v.Validate(ctx, r); !errors.Is(err, context.Canceled) {
				t.Errorf("%s of %s, cancelled: %v", kind, host, err)
			}
		}
	}
}
