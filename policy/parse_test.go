package policy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/faults/*.golden anew")

// TestFaults compares all faults of each bad file with what they were when a person last read them.
func TestFaults(t *testing.T) {
	files, _ := filepath.Glob("testdata/faults/*.yaml")
	if len(files) < 6 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(filepath.Base(file), data)
			faults, ok := errors.AsType[Faults](err)
			if !ok || len(faults) == 0 {
				t.Fatalf("got %v", err)
			}
			if !slices.IsSortedFunc(faults, func(a, b Fault) int { return a.Line - b.Line }) {
				t.Error("faults are not in the order of lines")
			}
			for _, f := range faults {
				if f.Hint == "" {
					t.Errorf("no hint: %+v", f)
				}
			}
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			got := faults.Error() + "\n"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestParseIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"too large", bytes.Repeat([]byte("#"), MaxSize+1)},
		{"deep lists", bytes.Repeat([]byte("["), 100_000)},
		{"deep maps", bytes.Repeat([]byte("{a: "), 100_000)},
		{"many keys", bytes.Repeat([]byte("a: 1\n"), 20_000)},
		{"not text", []byte("\x00\xff\xfe")},
		{"long condition", []byte(small + "- {name: r, when: '" + strings.Repeat("true && ", 400) + "true', then: issue}\n")},
		{"deep condition", []byte(small + "- {name: r, when: '" + strings.Repeat("(", 900) + "true" + strings.Repeat(")", 900) + "', then: issue}\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, err := Parse("policy.yaml", c.data)
			if faults, ok := errors.AsType[Faults](err); !ok || len(faults) > maxFaults {
				t.Errorf("%d faults are told, want 1 to %d", len(faults), maxFaults)
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// What a policy may describe is bounded by number, since each condition and each profile is work.
func TestPolicyIsBounded(t *testing.T) {
	many := func(n int, line string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, line, i)
		}
		return b.String()
	}
	base := string(Default())
	after := func(heading, text string) string {
		return strings.Replace(base, "\n"+heading+":\n", "\n"+heading+":\n"+text, 1)
	}
	for _, c := range []struct {
		name   string
		policy string
		want   string // fault, "" if there is none
	}{
		{"as many profiles as may be", after("profiles", many(maxProfiles-4, "  p%d: {extends: device}\n")), ""},
		{"a profile more", after("profiles", many(maxProfiles-3, "  p%d: {extends: device}\n")), "there are 101 profiles, more than 100"},
		{"a level too many", after("levels", many(maxLevels-4, "  l%d: {evidence: [], requesters: [credential], protocols: [est], profiles: [device], validity: 1h}\n")), "there are 101 levels, more than 100"},
		{"an outcome too many", after("outcomes", many(maxRules-5, "  - {name: r%d, when: verdict.any >= WARNING, then: deny}\n")), "there are 301 outcomes, more than 300"},
	} {
		_, err := Parse("policy.yaml", []byte(c.policy))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}

func TestExtends(t *testing.T) {
	p := mustParse(t, `version: 1
profiles:
  leaf: {extends: mid, status: {ocsp: true}, names: {dns: ["{device.id}"]}}
  mid: {extends: base, san: [dns], renew_after_expiry: 1d12h, approval: true, release: true}
  base:
    keys: [ed25519, rsa-3072]
    subject: {2.5.4.11: "{device.group}", cn: "{device.id}"}
    san: [dns, ip]
    names: {ip: ["10.0.0.0/8"], dns: ["*.example.com"]}
    status: {crl: full}
    policy_oids: [1.3.6.1.4.1.55555.2.1]
levels:
  l: {evidence: [], requesters: [credential], protocols: [est], profiles: [leaf, base], validity: 30d, renew_at: 0.4, status_unknown: grace, grace: 1d}
outcomes:
  - {name: ok, when: true, then: issue}
`)
	leaf, ok := p.Profile("leaf")
	want := Profile{Name: "leaf", Issuer: "issuing", Keys: []string{"ed25519", "rsa-3072"}, Subject: []SubjectTemplate{{"ou", "{device.group}"}, {"cn", "{device.id}"}},
		SAN: []string{"dns"}, Names: map[string][]string{"dns": {"{device.id}"}}, KeyUsage: []string{"digitalSignature"}, EKU: []string{"clientAuth"},
		PolicyOIDs: []string{"1.3.6.1.4.1.55555.2.1"}, Backdate: 5 * time.Minute, RenewAt: 0.5, RenewExpired: 36 * time.Hour, Status: Status{OCSP: true, CRL: "none"}, Approval: true, Release: true}
	if !ok || !reflect.DeepEqual(leaf, want) {
		t.Errorf("got  %+v\nwant %+v", leaf, want)
	}
	l, ok := p.Level("l")
	if !ok || l.Validity != 720*time.Hour || l.RenewAt != 0.4 || l.Grace != 24*time.Hour || l.StatusUnknown != "grace" {
		t.Errorf("level %+v", l)
	}
	leaf.Keys[0], leaf.Names["dns"][0], l.Profiles[0] = "changed", "changed", "changed"
	if again, _ := p.Profile("leaf"); !reflect.DeepEqual(again, want) {
		t.Error("a caller changed the policy")
	}
	if first, ok := p.ProfileFor("l", ""); !ok || first.Name != "leaf" {
		t.Errorf("first profile %q", first.Name)
	}
	if _, ok := p.ProfileFor("l", "mid"); ok {
		t.Error("a profile that the level does not list")
	}
	if d := p.Decide(Input{Protocol: "est", Requester: ByCredential, Key: "ed25519", Device: Device{ID: "x", Level: "l"}}); d.Rule != "profiles.leaf.subject.ou" {
		t.Errorf("a device without a group: %+v", d)
	}
}

func TestGrants(t *testing.T) {
	p := mustParse(t, string(Default()))
	grants := slices.Collect(p.Grants())
	for _, want := range []Grant{
		{"software", "sound", Issue, "lamp", 24 * time.Hour},
		{"tpm", "doubtful", Restricted, "gateway", 180 * time.Hour},
		{"hsm", "old firmware", UpdateRequired, "remediation", 4 * time.Hour},
	} {
		if !slices.Contains(grants, want) {
			t.Errorf("%+v is not among the grants", want)
		}
	}
	if len(p.Outcomes()) != 6 {
		t.Errorf("%d outcomes", len(p.Outcomes()))
	}
}

func TestVersion(t *testing.T) {
	a, b := mustParse(t, string(Default())), mustParse(t, string(Default())+"\n# a comment counts\n")
	if len(a.Version()) != 15 || !strings.HasPrefix(a.Version(), "v1-") || a.Version() == b.Version() {
		t.Errorf("versions %q and %q", a.Version(), b.Version())
	}
	if !bytes.Equal(a.Source(), Default()) {
		t.Error("the source is not the file")
	}
}

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, "90m": 90 * time.Minute, "0": 0,
		"2w": 336 * time.Hour, "1w3d": 240 * time.Hour, "1w2h": 170 * time.Hour} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "d", "24", "1d24h", "1d-1h", "1e300d", "NaNd", "Infd", "w", "1w7d", "1d1w", "1w1w", "1d1d", "1 d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q gives %v", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds, _ := filepath.Glob("testdata/faults/*.yaml")
	if len(seeds) < 6 {
		f.Fatalf("only %d seeds", len(seeds))
	}
	for _, s := range seeds {
		data, err := os.ReadFile(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(Default())
	f.Add([]byte(small + "- {name: r, when: evidence.x, then: issue}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err != nil {
			if faults, ok := errors.AsType[Faults](err); !ok || len(faults) == 0 || p != nil {
				t.Fatalf("policy %v with error %v", p, err)
			}
			return
		}
		for _, level := range p.Levels() {
			d := p.Explain(request(level))
			if (d.Outcome == Deny) != (d.Profile == "") || (d.Outcome == Deny) != (d.Validity == 0) || d.Rule == "" {
				t.Fatalf("inconsistent %+v", d)
			}
		}
	})
}
