package policy

import (
	"slices"
	"testing"
	"time"
)

const acmePolicy = `version: 1
profiles:
  device: {keys: [ecdsa-p256], san: [permanent-identifier]}
  gateway: {extends: device, san: [dns, permanent-identifier], names: {dns: ["{device.id}.local"]}, validity: 10h, backdate: 1m}
levels:
  plain: {evidence: [], requesters: [credential], protocols: [acme], profiles: [device, gateway], validity: 24h}
  strict: {evidence: [tpm], requesters: [credential, account], protocols: [acme], profiles: [device], validity: 24h,
    acme: {reuse: 2d, authorize: {dns: [credential], hardware-module: [credential, device-attest-01]}}}
  est: {evidence: [], requesters: [credential], protocols: [est], profiles: [device], validity: 24h}
outcomes:
  - {name: long, when: device.id == 'long', then: issue, validity: 48h}
  - {name: sound, when: verdict.required_affirming, then: issue}
  - {name: doubtful, when: "true", then: restricted, validity_factor: 0.5}
`

func TestACME(t *testing.T) {
	p := mustParse(t, acmePolicy)
	for name, want := range map[string]map[string][]string{
		"plain": {"dns": {"http-01", "dns-01", "tls-alpn-01"}, "ip": {"http-01", "tls-alpn-01"}, "permanent-identifier": {"credential"}, "hardware-module": {"credential"}},
		"strict": {"dns": {"credential"}, "ip": {"http-01", "tls-alpn-01"}, "permanent-identifier": {"device-attest-01"},
			"hardware-module": {"credential", "device-attest-01"}},
	} {
		l, _ := p.Level(name)
		for kind, ways := range want {
			if !slices.Equal(l.ACME.Authorize[kind], ways) {
				t.Errorf("%s: %s by %v, want %v", name, kind, l.ACME.Authorize[kind], ways)
			}
		}
		l.ACME.Authorize["dns"][0] = "changed"
		if again, _ := p.Level(name); again.ACME.Authorize["dns"][0] == "changed" {
			t.Error("a policy was changed from outside")
		}
	}
	if l, _ := p.Level("strict"); l.ACME.Reuse != 48*time.Hour {
		t.Errorf("reuse %s", l.ACME.Reuse)
	}
}

// No level of the default policy admits accounts that nobody vouches for.
func TestNoOpenAccounts(t *testing.T) {
	p := mustParse(t, string(Default()))
	for _, name := range p.Levels() {
		if l, _ := p.Level(name); slices.Contains(l.Requesters, ByAccount) {
			t.Errorf("level %s admits anybody", name)
		}
		if d := p.Decide(Input{Protocol: "acme", Requester: ByAccount, Device: Device{ID: "x", Level: name}, Key: "ecdsa-p256", Verifiable: []string{"hsm", "tpm", "dice"}}); d.Rule != "levels."+name+".requesters" {
			t.Errorf("level %s: %+v", name, d)
		}
	}
}

func TestConsider(t *testing.T) {
	p := mustParse(t, acmePolicy)
	in := func(level, profile string, names ...Name) Input {
		return Input{Protocol: "acme", Requester: ByCredential, Profile: profile, Device: Device{ID: "gw-1", Level: level}, Names: names, Verifiable: []string{"tpm"}}
	}
	id, host, other := Name{"permanent-identifier", "gw-1"}, Name{"dns", "gw-1.local"}, Name{"dns", "gw-2.local"}
	for name, c := range map[string]struct {
		in      Input
		profile string
		rules   []string
		blame   []int
	}{
		"the first profile":             {in("plain", "", id), "device", nil, nil},
		"the first that fits":           {in("plain", "", id, host), "gateway", nil, nil},
		"none fits":                     {in("plain", "", other, id, other), "device", []string{"profiles.device.san", "profiles.device.san"}, []int{0, 2}},
		"one asked for that fits not":   {in("plain", "gateway", other, id), "gateway", []string{"profiles.gateway.names.dns"}, []int{0}},
		"one that is not the level's":   {in("strict", "gateway", id), "", []string{"levels.strict.profiles"}, []int{-1}},
		"one that is none":              {in("plain", "x", id), "", []string{"levels.plain.profiles"}, []int{-1}},
		"another protocol":              {in("est", "", id), "", []string{"levels.est.protocols"}, []int{-1}},
		"no such level":                 {in("none", "", id), "", []string{"levels"}, []int{-1}},
		"evidence that can be verified": {in("strict", "", id), "device", nil, nil},
		"evidence that cannot": {Input{Protocol: "acme", Requester: ByCredential, Device: Device{ID: "gw-1", Level: "strict"}}, "",
			[]string{"levels.strict.evidence"}, []int{-1}},
		"somebody else": {Input{Protocol: "acme", Requester: ByRA, Device: Device{ID: "gw-1", Level: "plain"}}, "", []string{"levels.plain.requesters"}, []int{-1}},
	} {
		got := p.Consider(c.in)
		var rules []string
		var blame []int
		for _, r := range got.Refused {
			rules, blame = append(rules, r.Rule), append(blame, r.Name)
			if r.Reason == "" {
				t.Errorf("%s: no reason", name)
			}
		}
		if got.Profile != c.profile || !slices.Equal(rules, c.rules) || !slices.Equal(blame, c.blame) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := p.Consider(in("plain", "device")); got.Longest != 48*time.Hour || got.Backdate != 5*time.Minute {
		t.Errorf("%+v", got)
	}
	if got := p.Consider(in("plain", "gateway")); got.Longest != 10*time.Hour || got.Backdate != time.Minute {
		t.Errorf("%+v", got)
	}
}
