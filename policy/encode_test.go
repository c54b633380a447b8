package policy_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/quick"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// What is appended by hand is what encoding/json writes, whatever stands in the strings.
func TestAppendJSON(t *testing.T) {
	same := func(v any, got []byte, err error) bool {
		want, wantErr := json.Marshal(v)
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != string(want) {
			t.Logf("got  %s, %v\nwant %s, %v", got, err, want, wantErr)
			return false
		}
		return true
	}
	input := func(seconds int64, nanoseconds uint32, zone int16, in policy.Input) bool {
		in.Now = time.Unix(seconds%(1<<38), int64(nanoseconds)).In(time.FixedZone("", int(zone)))
		for i := range in.Evidence {
			in.Evidence[i].Facts = map[string]any{in.Key: in.Profile, "n": i}
		}
		got, err := in.AppendJSON(nil)
		return same(in, got, err)
	}
	decision := func(d policy.Decision) bool { return same(d, d.AppendJSON(nil), nil) }
	text := func(s string) bool { return same(s, policy.AppendString(nil, s), nil) }
	// testing/quick makes no values of any, which facts are.
	type plain struct {
		Protocol, Operation, Profile, Key, ID, Level, Group, State string
		Names                                                      []policy.Name
		Verifiable, Kinds                                          []string
	}
	made := func(seconds int64, nanoseconds uint32, zone int16, p plain) bool {
		in := policy.Input{Protocol: p.Protocol, Operation: p.Operation, Profile: p.Profile, Key: p.Key, Names: p.Names, Verifiable: p.Verifiable,
			Device: policy.Device{ID: p.ID, Level: p.Level, Group: p.Group, State: p.State}}
		for _, kind := range p.Kinds[:min(len(p.Kinds), 2)] {
			in.Evidence = append(in.Evidence, policy.Evidence{Kind: kind})
		}
		return input(seconds, nanoseconds, zone, in)
	}
	decided := func(outcome, rule, profile, level, version string, validity time.Duration, revoke bool, reasons []string) bool {
		return decision(policy.Decision{Outcome: policy.Outcome(outcome), Rule: rule, Profile: profile, Level: level, Version: version,
			Validity: validity, Revoke: revoke, Reasons: reasons})
	}
	for name, property := range map[string]any{"input": made, "decision": decided, "text": text} {
		if err := quick.Check(property, &quick.Config{MaxCount: 500}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, s := range []string{"", "plain", `"\`, "<&>", "\x00\x1f\x7f", "é", "\u2028\u2029", "\xff", "a\xc3"} {
		if !text(s) {
			t.Errorf("text %q", s)
		}
	}
	// A field that is added and forgotten there shows here.
	for _, whole := range []any{&policy.Input{}, &policy.Decision{}} {
		fill(t, reflect.ValueOf(whole).Elem())
		switch whole := whole.(type) {
		case *policy.Input:
			got, err := whole.AppendJSON(nil)
			if !same(whole, got, err) {
				t.Error("a field of Input is missing")
			}
		case *policy.Decision:
			if !same(whole, whole.AppendJSON(nil), nil) {
				t.Error("a field of Decision is missing")
			}
		}
	}
	if !input(1<<37, 0, 0, policy.Input{}) || !decision(policy.Decision{}) || !input(0, 1, 3600, policy.Input{}) {
		t.Error("the least or the latest that there is")
	}
}

// fill gives each field a value of its own.
func fill(t *testing.T, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int8, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1, 1)))
			return
		}
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}

// A validity is written as Go writes durations; decisions of earlier versions have nanoseconds.
func TestDecisionJSON(t *testing.T) {
	want := policy.Decision{Outcome: policy.Issue, Rule: "sound", Level: "software", Validity: 36 * time.Hour, Version: "v1-0"}
	raw, err := json.Marshal(want)
	if err != nil || string(raw) != `{"outcome":"issue","rule":"sound","level":"software","validity":"36h0m0s","policy":"v1-0"}` {
		t.Errorf("%s, %v", raw, err)
	}
	for _, text := range []string{string(raw), `{"outcome":"issue","rule":"sound","level":"software","validity":129600000000000,"policy":"v1-0"}`} {
		var got policy.Decision
		if err := json.Unmarshal([]byte(text), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if err := json.Unmarshal([]byte(`{"validity":"soon"}`), new(policy.Decision)); err == nil {
		t.Error("a validity of soon was read")
	}
}
