package policy

import (
	"strings"
	"testing"
)

// cmp.message_time of a level: required unless it says otherwise.
func TestMessageTime(t *testing.T) {
	source := func(level string) string {
		return `version: 1
profiles: {device: {keys: [ecdsa-p256]}}
levels:
  plain: {evidence: [], requesters: [credential], protocols: [cmp], profiles: [device], validity: 24h` + level + `}
outcomes: [{name: all, when: "true", then: issue}]
`
	}
	for level, want := range map[string]bool{"": false, ", cmp: {}": false, ", cmp: {message_time: required}": false, ", cmp: {message_time: optional}": true} {
		if l, _ := mustParse(t, source(level)).Level("plain"); l.CMP.Timeless != want {
			t.Errorf("%q: timeless %t", level, l.CMP.Timeless)
		}
	}
	for level, want := range map[string]string{", cmp: {message_time: never}": `"never"`, ", cmp: {time: optional}": "time", ", cmp: optional": "a map is wanted"} {
		if _, err := Parse("p.yaml", []byte(source(level))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", level, err)
		}
	}
}
