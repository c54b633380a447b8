package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Unverifiable warns of levels whose devices can earn nothing yet: none of a level's protocols verifies all the
// evidence that it demands. verifiable lists the kinds of evidence by protocol. Without levels named, it looks at all.
func (p *Policy) Unverifiable(verifiable map[string][]string, levels ...string) (warnings []string) {
	if len(levels) == 0 {
		levels = p.levelOrder
	}
	for _, name := range levels {
		l := p.levels[name]
		if l == nil || slices.ContainsFunc(l.Protocols, func(protocol string) bool { return coversAll(verifiable[protocol], l.Evidence) }) {
			continue
		}
		missing := slices.DeleteFunc(slices.Clone(l.Evidence), func(kind string) bool {
			return slices.ContainsFunc(l.Protocols, func(protocol string) bool { return slices.Contains(verifiable[protocol], kind) })
		})
		if len(missing) == 0 { // each kind by some protocol, and no protocol verifies all
			missing = l.Evidence
		}
		warnings = append(warnings, fmt.Sprintf("level %s demands %s evidence, which no protocol of this version verifies: requests of its devices are denied", name, strings.Join(missing, " and ")))
	}
	return warnings
}

func coversAll(have, want []string) bool {
	return !slices.ContainsFunc(want, func(kind string) bool { return !slices.Contains(have, kind) })
}
