package keystest

import (
	"errors"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
)

// check: what the provider would refuse is known beforehand, and nothing is made.
func check(t *testing.T, p keys.Provider, specs []keys.Spec) {
	want := map[string]keys.Spec{}
	for _, spec := range specs {
		want["checked "+string(spec)] = spec
	}
	if err := p.Check(t.Context(), want, true); err != nil {
		t.Errorf("what it makes: %v", err)
	}
	for label := range want {
		if _, err := p.Key(t.Context(), label); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("%s, after it was checked: %v", label, err)
		}
	}
	must(p.Generate(t.Context(), "taken", ""))(t)
	if err := p.Check(t.Context(), map[string]keys.Spec{"taken": ""}, false); !errors.Is(err, keys.ErrExists) {
		t.Errorf("a label in use: %v", err)
	}
	for label, spec := range map[string]keys.Spec{"": "", "odd": "dsa-1024"} {
		if err := p.Check(t.Context(), map[string]keys.Spec{label: spec}, false); err == nil {
			t.Errorf("%q %q: no error", label, spec)
		}
	}
}

// undo: what one value made is gone, and what was there before is not; nor is what another seals with.
func undo(t *testing.T, p keys.Provider, open func(t *testing.T) keys.Provider) {
	must(p.Generate(t.Context(), "before", ""))(t)
	sealed := must(p.Seal(t.Context(), []byte("secret"), nil))(t)
	q := open(t)
	defer q.Close()
	for _, label := range []string{"one", "two"} {
		must(q.Generate(t.Context(), label, ""))(t)
	}
	must(q.Seal(t.Context(), []byte("other"), nil))(t)
	for range 2 { // the second has nothing to do
		if err := q.Undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Ping(t.Context()); err != nil {
		t.Errorf("ping, after what was made is gone: %v", err)
	}
	for _, label := range []string{"one", "two"} {
		if _, err := q.Key(t.Context(), label); !errors.Is(err, keys.ErrNotFound) {
			t.Errorf("%s, which was undone: %v", label, err)
		}
	}
	for _, one := range []keys.Provider{p, q} {
		must(one.Key(t.Context(), "before"))(t)
		if got := must(one.Unseal(t.Context(), sealed, nil))(t); string(got) != "secret" {
			t.Errorf("unsealed %q", got)
		}
	}
	must(q.Generate(t.Context(), "one", ""))(t) // the label is free again
}
