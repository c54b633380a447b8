package ca_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// A certificate is explained by the policy that decided on it, however often the policy changed since, over
// restarts, and where the file was edited while no server ran.
func TestPolicyVersions(t *testing.T) {
	a := newAuthority(t, nil)
	ctx := t.Context()
	first := a.Policy().Version()
	r, _ := a.grant("lamp-1", "software", 9)
	cert := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	var in policy.Input
	if c, err := a.store.CertificateBySerial(ctx, cert.Certificate.Serial); err != nil || json.Unmarshal(c.Input, &in) != nil {
		t.Fatalf("%+v, %v", c, err)
	}
	parse := func(old, new string) *policy.Policy {
		p, err := policy.Parse("policy.yaml", []byte(strings.Replace(string(policy.Default()), old, new, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	second := parse("  - name: sound ", "  - name: firm ")
	if err := a.Apply(ctx, second, "admin:test"); err != nil {
		t.Fatal(err)
	}
	third := parse("profiles: [device, gateway, lamp]\n    validity: 24h", "profiles: [gateway, lamp]\n    validity: 24h")
	a.opts.Policy = third // edited
	a.reopen()
	a.reopen() // once is enough
	for version, want := range map[string]string{first: "sound", second.Version(): "firm", third.Version(): "levels.software.profiles"} {
		in.Profile = "device"
		d, err := a.Explain(ctx, version, in)
		if err != nil || d.Version != version || d.Rule != want {
			t.Errorf("%s: %+v, %v; want rule %s", version, d, err, want)
		}
	}
	if _, err := a.Explain(ctx, "v1-000000000000", in); ca.KindOf(err) != ca.NotFound {
		t.Errorf("a policy that was never in force: %v", err)
	}
	list, err := a.store.Policies(ctx, 0, 10)
	if err != nil || len(list) != 3 || list[0].Version != first || list[1].Version != second.Version() || list[2].Version != third.Version() {
		t.Errorf("%+v, %v", list, err)
	}

	// What was in force before is again: the same entry, and another event.
	if err := a.Apply(ctx, second, "admin:test"); err != nil {
		t.Fatal(err)
	}
	last, err := a.store.PolicyVersion(ctx, "")
	if err != nil || last.Version != second.Version() || string(last.Source) != string(second.Source()) {
		t.Errorf("%s, %v", last.Version, err)
	}
	if list, err = a.store.Policies(ctx, 0, 10); err != nil || len(list) != 3 {
		t.Errorf("%+v, %v", list, err)
	}
}
