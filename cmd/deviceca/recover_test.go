package main

import (
	"strings"
	"testing"
)

const (
	oneEvent   = `{"id":7,"time":"2030-01-01T00:00:00Z","kind":"certificate.revoked","actor":"admin:local"}`
	otherEvent = `{"id":8,"time":"2030-01-01T00:00:01Z","kind":"device.moved","actor":"admin:local","device":"lamp-1","reason":"active to suspended"}`
)

// Events come as audit export writes them, as webhooks are posted, and as audit list --json writes them.
func TestDecodeEvents(t *testing.T) {
	for name, in := range map[string]string{
		"lines":             oneEvent + "\n" + otherEvent + "\n",
		"a post":            `{"instance":"5f","events":[` + oneEvent + `,` + otherEvent + `]}`,
		"posts":             `{"instance":"5f","events":[` + oneEvent + `]}` + "\n" + `{"instance":"5f","events":[` + otherEvent + `]}`,
		"an array":          `[` + oneEvent + `,` + otherEvent + `]`,
		"fields of a later": strings.Replace(oneEvent, "{", `{"new":{"x":1},`, 1) + otherEvent,
	} {
		all, err := decodeEvents(strings.NewReader(in))
		if err != nil || len(all) != 2 || all[0].ID != 7 || all[1].Device != "lamp-1" || all[1].Kind != "device.moved" {
			t.Errorf("%s: %+v, %v", name, all, err)
		}
	}
	for name, in := range map[string]string{
		"cut off": oneEvent[:len(oneEvent)-3], "no event": `{"x":1}`, "a number": `7`, "a null": `null`, "no JSON": "-----BEGIN X509 CRL-----", "a bad serial": `{"time":"2030-01-01T00:00:00Z","kind":"x.y","serial":"zz"}`,
		"an event without time in a post": `{"events":[{"id":1,"kind":"x.y"}]}`,
	} {
		if all, err := decodeEvents(strings.NewReader(in)); err == nil {
			t.Errorf("%s: %+v", name, all)
		}
	}
	if all, err := decodeEvents(strings.NewReader("")); err != nil || len(all) != 0 {
		t.Errorf("nothing: %v, %v", all, err)
	}
}

func FuzzDecodeEvents(f *testing.F) {
	for _, seed := range []string{oneEvent, otherEvent, `[` + oneEvent + `]`, `{"events":[` + oneEvent + `]}`, `null`, `[null]`, `{"events":null}`, strings.Repeat("[", 20000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		all, err := decodeEvents(strings.NewReader(in))
		for _, e := range all {
			if err == nil && (e.Kind == "" || e.Time.IsZero()) {
				t.Errorf("taken: %+v", e)
			}
		}
	})
}
