package ca_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// What a server would refuse at its start is found without one.
func TestCheckPolicy(t *testing.T) {
	source := func(usage, eku string) []byte {
		return []byte(`version: 1
profiles:
  sound: {keys: [ecdsa-p256]}
  odd:
    keys: [rsa-2048]
    key_usage: [` + usage + `]
    eku: [` + eku + `]
levels:
  plain: {evidence: [], requesters: [credential], protocols: [cmp], profiles: [sound, odd], validity: 100y}
outcomes: [{name: all, when: "true", then: issue}]
`)
	}
	for _, c := range []struct{ usage, eku, want string }{
		{"keyEncipherment", "clientAuth", "e_key_usage_and_extended_key_usage_inconsistent"},
		{"keyEncipherment", "emailProtection", ""},
		{"digitalSignature", "clientAuth", ""},
	} {
		raw := []byte(strings.ReplaceAll(string(source(c.usage, c.eku)), "100y", "876000h"))
		p, err := policy.Parse("p.yaml", raw)
		if err != nil {
			t.Fatal(err)
		}
		err = ca.CheckPolicy(t.Context(), p)
		a := newAuthority(t, nil)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s, %s: %v", c.usage, c.eku, err)
			}
			continue
		}
		faults, ok := errors.AsType[policy.Faults](err)
		if !ok || len(faults) != 1 || faults[0].Line != 4 || faults[0].Path != "profiles.odd" || !strings.Contains(faults[0].Message, c.want) {
			t.Errorf("%s, %s: %v", c.usage, c.eku, err)
		}
		if a.Check(t.Context(), p) == nil {
			t.Errorf("%s, %s: a server would start", c.usage, c.eku)
		}
	}
	p, _ := policy.Parse("p.yaml", policy.Default())
	if err := ca.CheckPolicy(t.Context(), p); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ca.CheckPolicy(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("when nobody waits: %v", err)
	}
}
