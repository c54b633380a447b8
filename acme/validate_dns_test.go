package acme_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/deviceca/deviceca/acme"
)

func TestDNS01(t *testing.T) {
	sum := sha256.Sum256([]byte(validationKey))
	good := base64.RawURLEncoding.EncodeToString(sum[:])
	other := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	zone := map[string][]dnsmessage.ResourceBody{
		"one":     {txt(good)},
		"several": {txt(other), txt("v=spf1 -all"), txt(good)}, // a name and its wildcard use the same one
		"alias":   {cname("elsewhere.example."), txt(good)},
		"split":   {txt(good[:10], good[10:])}, // one record in two strings
		"long":    {txt(good)},
		"wrong":   {txt(other)},
		"near":    {txt(good + "=")},
		"upper":   {txt(strings.ToUpper(good))},
		"secret":  {txt("do not show " + strings.Repeat("x", 200))},
		"escape":  {txt("\x1b[31m\n")},
	}
	for range 200 { // more than a datagram holds: the resolver comes back over TCP
		zone["long"] = append(zone["long"], txt(other))
	}
	dns := newDNSServer(t, func(q question, _ int) []dnsmessage.ResourceBody {
		label, ok := strings.CutPrefix(strings.TrimSuffix(q.name, ".gw.example."), "_acme-challenge.")
		if !ok {
			return nil
		}
		return records(q, zone[label]...)
	})
	v := newValidator(t, "dns-01", acme.ValidatorOptions{Resolver: dns.address})
	validate := func(label string) error {
		return v.Validate(t.Context(), acme.ValidationRequest{Type: "dns-01", Identifier: acme.Identifier{Type: "dns", Value: label + ".gw.example"},
			Token: validationToken, KeyAuthorization: validationKey})
	}
	for _, label := range []string{"one", "ONE", "several", "alias", "split", "long"} {
		if err := validate(label); err != nil {
			t.Errorf("%s: %v", label, err)
		}
	}
	for _, tt := range []struct{ label, problem, text string }{
		{"nothing", "dns", "no TXT record at _acme-challenge.nothing.gw.example"},
		{"wrong", "incorrectResponse", other[:40]},
		{"near", "incorrectResponse", ""},
		{"upper", "incorrectResponse", ""},
		{"secret", "incorrectResponse", "do not show xxx"},
		{"escape", "incorrectResponse", ".[31m."},
	} {
		err := validate(tt.label)
		wantFault(t, err, tt.problem, tt.text)
		if strings.Contains(err.Error(), strings.Repeat("x", 40)) {
			t.Errorf("%s: the error shows the whole record: %v", tt.label, err)
		}
	}
	// Nothing but the one name is asked for, as it is: no search domain, no address.
	for _, q := range dns.questions() {
		if !strings.HasPrefix(q.name, "_acme-challenge.") || !strings.HasSuffix(q.name, ".gw.example.") || q.kind != dnsmessage.TypeTXT {
			t.Errorf("asked for %v", q)
		}
	}
}
