package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestUnverifiable(t *testing.T) {
	p := mustParse(t, string(Default()))
	acme := map[string][]string{"acme": {"tpm"}}
	for name, c := range map[string]struct {
		verifiable map[string][]string
		levels     []string
		want       []string // levels warned of
	}{
		"all levels":         {acme, nil, []string{"hsm", "puf"}},
		"nothing verifiable": {nil, nil, []string{"hsm", "tpm", "puf"}},
		"one of them":        {acme, []string{"tpm", "puf", "software"}, []string{"puf"}},
		"no such level":      {acme, []string{"gold"}, nil},
		"all verifiable":     {map[string][]string{"est": {"hsm"}, "acme": {"tpm", "dice"}}, nil, nil},
	} {
		var got []string
		for _, w := range p.Unverifiable(c.verifiable, c.levels...) {
			got = append(got, strings.Fields(w)[1])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	// Each kind by another protocol: no request can bring both.
	both := mustParse(t, strings.Replace(string(Default()), "evidence: [tpm]", "evidence: [tpm, dice]", 1))
	if got := both.Unverifiable(map[string][]string{"est": {"dice"}, "acme": {"tpm"}}, "tpm"); len(got) != 1 || !strings.Contains(got[0], "tpm and dice") {
		t.Errorf("%q", got)
	}
}
