package policy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func mustParse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := Parse("policy.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func request(level string) Input {
	return Input{Now: noon, Protocol: "est", Operation: "enroll", Requester: ByCredential, Key: "ecdsa-p256",
		Device: Device{ID: "Pump-7", Level: level, Group: "plant", State: "active"}, Verifiable: []string{"hsm", "tpm", "dice"}}
}

func tpm(vector Vector) Evidence {
	return Evidence{Kind: "tpm", Vector: vector, Facts: map[string]any{"ek_chain": true, "key_certified": true, "quote_age": time.Minute}}
}

// decideBoth decides, and checks that Explain agrees and that a stored input replays.
func decideBoth(t *testing.T, p *Policy, in Input) Decision {
	t.Helper()
	d := p.Decide(in)
	e := p.Explain(in)
	if len(e.Trace) == 0 {
		t.Error("Explain left no trace")
	}
	e.Trace = nil
	if !reflect.DeepEqual(d, e) {
		t.Errorf("Decide gives %+v,\nExplain %+v", d, e)
	}
	stored, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var replayed Input
	if err := json.Unmarshal(stored, &replayed); err != nil {
		t.Fatal(err)
	}
	if r := p.Decide(replayed); !reflect.DeepEqual(d, r) {
		t.Errorf("live %+v,\nreplayed from %s %+v", d, stored, r)
	}
	return d
}

func TestDefaultPolicy(t *testing.T) {
	p := mustParse(t, string(Default()))
	if got := strings.Join(p.Levels(), " "); got != "hsm tpm puf brownfield software" {
		t.Errorf("levels %s", got)
	}
	if got := strings.Join(p.Profiles(), " "); got != "device gateway lamp remediation" {
		t.Errorf("profiles %s", got)
	}
	good := Vector{"hardware": 2, "executables": 2}
	h := time.Hour
	for _, c := range []struct {
		name     string
		level    string
		change   func(*Input)
		outcome  Outcome
		rule     string
		profile  string
		validity time.Duration
		reason   string
	}{
		{"software", "software", nil, Issue, "sound", "device", 24 * h, ""},
		{"brownfield", "brownfield", nil, Issue, "sound", "device", 8 * h, ""},
		{"brownfield gateway", "brownfield", func(in *Input) { in.Profile = "gateway" }, Deny, "levels.brownfield.profiles", "", 0, "ask for device"},
		{"unknown level", "gold", nil, Deny, "levels", "", 0, `no level "gold"`},
		{"protocol", "software", func(in *Input) { in.Protocol = "scep" }, Deny, "levels.software.protocols", "", 0, "use est, acme, cmp"},
		{"requester", "software", func(in *Input) { in.Requester = "friend" }, Deny, "levels.software.requesters", "", 0, "authenticate with"},
		{"tpm not verifiable", "tpm", func(in *Input) { in.Verifiable = nil }, Deny, "levels.tpm.evidence", "", 0, "level tpm demands tpm evidence, which this server cannot verify yet"},
		{"hsm not verifiable", "hsm", func(in *Input) { in.Verifiable = []string{"tpm"} }, Deny, "levels.hsm.evidence", "", 0, "demands hsm evidence"},
		{"tpm good", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(good)} }, Issue, "sound", "device", 720 * h, ""},
		{"tpm absent", "tpm", nil, Quarantine, "evidence incomplete", "remediation", 4 * h, "the request has none"},
		{"tpm of another kind", "tpm", func(in *Input) { e := tpm(good); e.Kind = "hsm"; in.Evidence = []Evidence{e} }, Quarantine, "evidence incomplete", "remediation", 4 * h, "the request has none"},
		{"tpm quote old", "tpm", func(in *Input) {
			e := tpm(good)
			e.Facts["quote_age"] = 6 * time.Minute
			in.Evidence = []Evidence{e}
		}, Quarantine, "evidence incomplete", "remediation", 4 * h, "does not meet the requirement"},
		{"tpm fact missing", "tpm", func(in *Input) { e := tpm(good); delete(e.Facts, "ek_chain"); in.Evidence = []Evidence{e} }, Quarantine, "evidence incomplete", "remediation", 4 * h, "no such key: ek_chain"},
		{"tpm fact of wrong type", "tpm", func(in *Input) { e := tpm(good); e.Facts["quote_age"] = "new"; in.Evidence = []Evidence{e} }, Quarantine, "evidence incomplete", "remediation", 4 * h, "cannot be answered"},
		{"another kind's facts do not help", "tpm", func(in *Input) {
			bare := Evidence{Kind: "tpm", Vector: good}
			loud := tpm(good)
			loud.Kind = "hsm"
			in.Evidence = []Evidence{bare, loud}
		}, Quarantine, "evidence incomplete", "remediation", 4 * h, "no such key"},
		{"facts in conflict", "tpm", func(in *Input) {
			a, b := tpm(good), tpm(good)
			b.Facts["key_certified"] = false
			in.Evidence = []Evidence{a, b}
		}, Quarantine, "evidence incomplete", "remediation", 4 * h, "different values for key_certified"},
		{"vector says nothing", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 1, "executables": -1})} }, Deny, "default deny", "", 0, "affirms nothing"},
		{"vector empty", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(nil)} }, Deny, "default deny", "", 0, "affirms nothing"},
		{"cloned", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 97})} }, Deny, "cloned hardware", "", 0, "out of service"},
		{"cloned, as the draft spells it", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"instance-identity": 97})} }, Deny, "cloned hardware", "", 0, "out of service"},
		{"old firmware", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 2, "executables": 33})} }, UpdateRequired, "old firmware", "remediation", 4 * h, "against executables (WARNING)"},
		{"untrustworthy", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 2, "runtime-opaque": 96})} }, Quarantine, "untrustworthy", "remediation", 4 * h, "runtime opaque"},
		{"doubtful", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 2, "configuration": 32})} }, Restricted, "doubtful", "device", 180 * h, "configuration (WARNING)"},
		{"unknown claim counts", "tpm", func(in *Input) { in.Evidence = []Evidence{tpm(Vector{"hardware": 2, "x-heat": -97})} }, Quarantine, "untrustworthy", "remediation", 4 * h, "CONTRAINDICATED"},
		{"worst of two", "tpm", func(in *Input) {
			in.Evidence = []Evidence{tpm(good), {Kind: "hsm", Vector: Vector{"hardware": 96}}}
		}, Deny, "cloned hardware", "", 0, "out of service"},
		{"back from quarantine", "tpm", func(in *Input) { in.Requester = ByQuarantine; in.Evidence = []Evidence{tpm(good)} }, Issue, "sound", "device", 720 * h, ""},
		{"still in quarantine", "tpm", func(in *Input) { in.Requester = ByQuarantine }, Quarantine, "evidence incomplete", "remediation", 4 * h, "quarantine"},
		{"remediation cannot be asked for", "software", func(in *Input) { in.Profile = "remediation" }, Deny, "levels.software.profiles", "", 0, "ask for"},
		{"gateway keeps its address in quarantine", "tpm", func(in *Input) { in.Profile = "gateway"; in.Names = []Name{{"ip", "10.1.2.3"}} }, Quarantine, "evidence incomplete", "remediation", 4 * h, "tpm evidence"},
		{"key", "software", func(in *Input) { in.Key = "ecdsa-p521" }, Deny, "profiles.device.keys", "", 0, "does not accept ecdsa-p521 keys"},
		{"san form", "software", func(in *Input) { in.Names = []Name{{"ip", "10.1.2.3"}} }, Deny, "profiles.device.san", "", 0, "does not allow ip names"},
		{"foreign name", "software", func(in *Input) { in.Names = []Name{{"dns", "pump-8"}} }, Deny, "profiles.device.names.dns", "", 0, "not one that device Pump-7 may have"},
		{"own names", "software", func(in *Input) {
			in.Names = []Name{{"subject.cn", " PUMP-7 "}, {"dns", "pump-7"}, {"uri", "URN:dev:pump-7"}}
		}, Issue, "sound", "device", 24 * h, ""},
		{"foreign CN", "software", func(in *Input) { in.Names = []Name{{"subject.cn", "pump-8"}} }, Deny, "profiles.device.subject.cn", "", 0, `"pump-8"`},
		{"attribute beyond the template", "software", func(in *Input) { in.Names = []Name{{"subject.o", "Plant"}} }, Deny, "profiles.device.subject", "", 0, "no subject attribute o"},
		{"unknown form", "software", func(in *Input) { in.Names = []Name{{"x400", "a"}} }, Deny, "profiles.device.san", "", 0, "x400"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := request(c.level)
			if c.change != nil {
				c.change(&in)
			}
			d := decideBoth(t, p, in)
			if d.Outcome != c.outcome || d.Rule != c.rule || d.Profile != c.profile || d.Validity != c.validity {
				t.Errorf("got %+v", d)
			}
			if d.Revoke != (c.rule == "cloned hardware") {
				t.Errorf("revoke %v", d.Revoke)
			}
			reasons := strings.ToLower(strings.Join(d.Reasons, " "))
			if (reasons == "") != (c.reason == "") || !strings.Contains(reasons, strings.ToLower(c.reason)) {
				t.Errorf("reasons %q, want %q", d.Reasons, c.reason)
			}
			if d.Version != p.Version() || d.Level != c.level {
				t.Errorf("version %q, level %q", d.Version, d.Level)
			}
		})
	}
}

const small = `version: 1
profiles:
  device: {keys: [ecdsa-p256], san: [dns]}
  narrow: {extends: device, san: [], validity: 2h}
  fix: {extends: device, issuer: quarantine, eku: [1.3.6.1.4.1.55555.1.1]}
levels:
  open: {evidence: [], requesters: [credential], protocols: [est], profiles: [device], validity: 10h}
  asks: {evidence: [], require: "device.group == 'plant' && evidence.ok", requesters: [credential], protocols: [est], profiles: [device], validity: 10h}
outcomes:
`

// TestUnanswerable: a condition that reads what is not there never opens a door.
func TestUnanswerable(t *testing.T) {
	for _, c := range []struct {
		then, extra string
		outcome     Outcome
		rule        string
	}{
		{"issue", "", Quarantine, "rest"},
		{"restricted", ", validity_factor: 0.5", Deny, "first"},
		{"deny", ", revoke: true", Deny, "first"},
		{"quarantine", ", profile: fix, revoke: true", Quarantine, "first"},
		{"update-required", ", profile: fix", UpdateRequired, "first"},
	} {
		t.Run(c.then, func(t *testing.T) {
			p := mustParse(t, small+"- {name: first, when: evidence.version < 5, then: "+c.then+c.extra+"}\n- {name: rest, when: true, then: quarantine, profile: fix}\n")
			d := decideBoth(t, p, request("open"))
			if d.Outcome != c.outcome || d.Rule != c.rule || d.Revoke {
				t.Errorf("got %+v", d)
			}
			in := request("open")
			in.Evidence = []Evidence{{Kind: "any", Facts: map[string]any{"version": 4}}}
			if d := decideBoth(t, p, in); d.Rule != "first" || string(d.Outcome) != c.then || d.Revoke != strings.Contains(c.extra, "revoke") {
				t.Errorf("answered: got %+v", d)
			}
		})
	}
}

func TestOutcomeFields(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		level      string
		names      []Name
		want       Decision
	}{
		{"validity", "when: true, then: restricted, validity: 3h, reason: Because.", "open", nil, Decision{Outcome: Restricted, Rule: "r", Profile: "device", Validity: 3 * time.Hour, Reasons: []string{"Because."}}},
		{"factor", "when: true, then: issue, validity: 3h, validity_factor: 0.5", "open", nil, Decision{Outcome: Issue, Rule: "r", Profile: "device", Validity: 90 * time.Minute}},
		{"capped by the profile", "when: true, then: issue, profile: narrow", "open", nil, Decision{Outcome: Issue, Rule: "r", Profile: "narrow", Validity: 2 * time.Hour}},
		{"names of the profile issued", "when: true, then: issue, profile: narrow", "open", []Name{{"dns", "pump-7"}}, Decision{Outcome: Deny, Rule: "profiles.narrow.san"}},
		{"variables", "when: 'device.id == \"Pump-7\" && device.state == \"active\" && request.protocol == \"est\" && request.requester == \"credential\" && request.key.startsWith(\"ecdsa\") && request.profile == \"device\" && request.operation == \"enroll\" && device.level == \"open\" && now < timestamp(\"2027-01-01T00:00:00Z\")', then: issue", "open", nil, Decision{Outcome: Issue, Rule: "r", Profile: "device", Validity: 10 * time.Hour}},
		{"require without evidence", "when: '!verdict.missing_required', then: issue", "asks", nil, Decision{Outcome: Deny, Rule: "default deny"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := mustParse(t, small+"- {name: r, "+c.rule+"}\n")
			in := request(c.level)
			in.Names = c.names
			d := decideBoth(t, p, in)
			c.want.Level, c.want.Version = c.level, p.Version()
			if c.want.Outcome == Deny {
				if len(d.Reasons) == 0 {
					t.Error("a refusal without a reason")
				}
				d.Reasons = nil
			}
			if !reflect.DeepEqual(d, c.want) {
				t.Errorf("got  %+v\nwant %+v", d, c.want)
			}
		})
	}
}

// TestRunTimeCost: a fact larger than the estimate assumed stops the condition, not the server.
func TestRunTimeCost(t *testing.T) {
	p := mustParse(t, small+"- {name: r, when: 'evidence.log.exists(x, x == \"bad\")', then: issue}\n")
	in := request("open")
	log := make([]any, 1_000_000)
	for i := range log {
		log[i] = "good"
	}
	log[len(log)-1] = "bad"
	in.Evidence = []Evidence{{Kind: "any", Facts: map[string]any{"log": log}}}
	if d := p.Decide(in); d.Outcome != Deny || d.Rule != defaultDeny {
		t.Errorf("a million items: %+v", d)
	}
	in.Evidence[0].Facts["log"] = log[len(log)-10:]
	if d := p.Decide(in); d.Outcome != Issue {
		t.Errorf("ten items: %+v", d)
	}
}

func TestTierOf(t *testing.T) {
	for _, c := range []struct {
		from, to int
		want     Tier
	}{{-128, -97, Contraindicated}, {-96, -33, Warning}, {-32, -2, Affirming}, {-1, 1, None}, {2, 31, Affirming}, {32, 95, Warning}, {96, 127, Contraindicated}} {
		for v := c.from; v <= c.to; v++ {
			if got := TierOf(int8(v)); got != c.want {
				t.Errorf("TierOf(%d) = %s, want %s", v, got, c.want)
			}
		}
	}
}

func TestTrace(t *testing.T) {
	p := mustParse(t, string(Default()))
	in := request("tpm")
	in.Evidence = []Evidence{tpm(Vector{"executables": 40})}
	trace := p.Explain(in).Trace
	last := trace[len(trace)-2]
	if last.Rule != "old firmware" || !last.Matched || last.Values["verdict.executables"] != "WARNING" {
		t.Errorf("the rule's step %+v", last)
	}
	found := false
	for _, s := range trace {
		if s.Rule == "levels.tpm.require" {
			found = s.Matched && s.Values["evidence.quote_age"] == "1m0s" && s.Values["evidence.ek_chain"] == "true"
		}
	}
	if !found {
		t.Errorf("no require step with its values in %+v", trace)
	}
}

func BenchmarkDecide(b *testing.B) {
	p := mustParse(b, string(Default()))
	software := request("software")
	software.Names = []Name{{"subject.cn", "pump-7"}, {"dns", "pump-7"}}
	hardware := request("tpm")
	hardware.Names = software.Names
	hardware.Evidence = []Evidence{tpm(Vector{"hardware": 2, "executables": 2})}
	refused := software
	refused.Key = "ecdsa-p521"
	for _, c := range []struct {
		name string
		in   Input
		want Outcome
	}{{"software", software, Issue}, {"tpm", hardware, Issue}, {"refused", refused, Deny}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := p.Decide(c.in); d.Outcome != c.want {
					b.Fatal(d)
				}
			}
		})
	}
	b.Run("explain", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.Explain(hardware)
		}
	})
}
