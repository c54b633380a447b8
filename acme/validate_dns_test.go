package acme_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/internal/dnstest"
)

func TestDNS01(t *testing.T) {
	sum := sha256.Sum256([]byte(validationKey))
	good := base64.RawURLEncoding.EncodeToString(sum[:])
	other := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	zone := map[string][]dnstest.Body{
		"one":     {dnstest.TXT(good)},
		"several": {dnstest.TXT(other), dnstest.TXT("v=spf1 -all"), dnstest.TXT(good)}, // a name and its wildcard use the same one
		"alias":   {dnstest.CNAME("elsewhere.example."), dnstest.TXT(good)},
		"split":   {dnstest.TXT(good[:10], good[10:])}, // one record in two strings
		"long":    {dnstest.TXT(good)},
		"wrong":   {dnstest.TXT(other)},
		"near":    {dnstest.TXT(good + "=")},
		"upper":   {dnstest.TXT(strings.ToUpper(good))},
		"secret":  {dnstest.TXT("do not show " + strings.Repeat("x", 200))},
		"escape":  {dnstest.TXT("\x1b[31m\n")},
	}
	for range 200 { // more than a datagram holds: the resolver comes back over TCP
		zone["long"] = append(zone["long"], dnstest.TXT(other))
	}
	dns := dnstest.New(t, func(q dnstest.Question, _ int) []dnstest.Body {
		label, ok := strings.CutPrefix(strings.TrimSuffix(q.Name, ".gw.example."), "_acme-challenge.")
		if !ok {
			return nil
		}
		return dnstest.Records(q, zone[label]...)
	})
	v := newValidator(t, "dns-01", acme.ValidatorOptions{Resolver: dns.Address})
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
	for _, q := range dns.Questions() {
		if !strings.HasPrefix(q.Name, "_acme-challenge.") || !strings.HasSuffix(q.Name, ".gw.example.") || q.Kind != dnsmessage.TypeTXT {
			t.Errorf("asked for %v", q)
		}
	}
}
