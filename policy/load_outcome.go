package policy

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"
)

const defaultDeny = "default deny"

var outcomeFields = []string{"name", "when", "then", "profile", "validity", "validity_factor", "revoke", "reason"}

var outcomeWords = []string{string(Issue), string(Restricted), string(Quarantine), string(UpdateRequired), string(Deny)}

// OutcomeRule is one of the policy's `outcomes:`.
type OutcomeRule struct {
	Name           string
	When           string // CEL
	Then           Outcome
	Profile        string        // "": the one chosen from the level
	Validity       time.Duration // 0: the level's
	ValidityFactor float64       // 1: unchanged
	Revoke         bool
	Reason         string // "": one made from what decided
}

type rule struct {
	OutcomeRule
	profile *Profile // nil: the one chosen from the level
	when    *condition
	at      value
}

func (d *document) outcomes(v value, profiles map[string]*Profile, profileOrder []string, c *compiler) []*rule {
	var rules []*rule
	var always *rule
	names, conditions := map[string]int{}, map[string]*rule{}
	items := d.items(v)
	if d.tooMany(v, len(items), maxRules, "outcomes") {
		return nil
	}
	if len(items) == 0 && v.node.Kind == yaml.SequenceNode {
		d.fault(v, "add at least {name: sound, when: verdict.required_affirming, then: issue}", "there are no outcomes, so every request is denied")
	}
	for _, item := range items {
		r := d.outcome(item, profiles, profileOrder, c)
		rules = append(rules, r)
		if line, twice := names[r.Name]; twice && r.Name != "" {
			d.fault(item, "a decision names its rule, so each needs its own name", "the name %q is given twice (first on line %d)", r.Name, line)
		}
		names[r.Name] = item.node.Line
		if always != nil {
			d.fault(item, "move it up, or remove it", "unreachable: %q on line %d always matches first", always.Name, always.at.node.Line)
		}
		if r.when == nil {
			continue
		}
		switch constant, known := r.when.constant(); {
		case known && constant && always == nil:
			always = r
		case known && !constant:
			d.fault(item, "remove it, or make `when` depend on the request", "unreachable: its condition is never true")
		}
		// Spaces within text count, so only the ends are trimmed.
		if twin := conditions[r.When]; twin != nil && always == nil {
			d.fault(item, "join the two, or change one `when`", "unreachable: %q on line %d has the same condition and comes first", twin.Name, twin.at.node.Line)
		} else {
			conditions[r.When] = r
		}
	}
	return rules
}

func (d *document) outcome(v value, profiles map[string]*Profile, profileOrder []string, c *compiler) *rule {
	f := d.object(v, outcomeFields...)
	r := &rule{at: v, OutcomeRule: OutcomeRule{ValidityFactor: 1}}
	demand := func(name, hint string) (value, bool) {
		got, ok := f[name]
		if !ok && v.node.Kind == yaml.MappingNode {
			d.fault(v, hint, "the rule has no %s", name)
		}
		return got, ok
	}
	if n, ok := demand("name", "give it a few words that a refusal can quote"); ok {
		r.Name, _ = d.text(n)
		switch {
		case len(r.Name) > 100 || strings.ContainsFunc(r.Name, unicode.IsControl):
			d.fault(n, "use one line of at most 100 characters", "the name is too long for a log line")
		case r.Name == defaultDeny || strings.HasPrefix(r.Name, "levels.") || strings.HasPrefix(r.Name, "profiles."):
			d.fault(n, "choose another name", "%q is what built-in refusals are called", r.Name)
		}
	}
	if w, ok := demand("when", "write a condition, like verdict.required_affirming, or true"); ok {
		r.When, r.when = d.condition(w, c.when)
	}
	if t, ok := demand("then", "write one of "+strings.Join(outcomeWords, ", ")); ok {
		if w, ok := d.text(t); ok {
			w, _ = d.oneOf("outcome", outcomeWords...)(t, w)
			r.Then = Outcome(w)
		}
	}
	if p, ok := f["profile"]; ok {
		if w, ok := d.text(p); ok {
			if r.Profile, r.profile = w, profiles[w]; r.profile == nil {
				d.fault(p, didYouMean(w, profileOrder), "unknown profile %q", short(w))
			}
		}
	}
	if x, ok := f["validity"]; ok {
		r.Validity = d.duration(x, minValidity, maxValidity)
	}
	if x, ok := f["validity_factor"]; ok {
		r.ValidityFactor = d.fraction(x, true)
	}
	if x, ok := f["revoke"]; ok {
		r.Revoke = d.truth(x)
	}
	if x, ok := f["reason"]; ok {
		r.Reason, _ = d.text(x)
		r.Reason = strings.TrimSpace(r.Reason)
		if len(r.Reason) > 500 || strings.ContainsFunc(r.Reason, unicode.IsControl) {
			d.fault(x, "write up to 500 characters on one line; protocols carry it in a header", "the reason is too long, or has line breaks")
		}
	}
	d.fits(r, f)
	return r
}

// fits reports fields that contradict the rule's outcome.
func (d *document) fits(r *rule, f map[string]value) {
	switch r.Then {
	case Deny:
		for _, name := range []string{"profile", "validity", "validity_factor"} {
			if v, ok := f[name]; ok {
				d.fault(v, "leave it out", "%s has no effect: deny issues nothing", name)
			}
		}
	case Quarantine, UpdateRequired:
		if r.profile == nil && r.Profile == "" {
			d.fault(r.at, "add profile: remediation", "%s needs a profile that the quarantine CA issues, or the device would keep its ordinary standing", r.Then)
		}
		if r.profile != nil && r.profile.Issuer != quarantine {
			d.fault(f["profile"], "choose a profile with issuer: quarantine", "profile %q is issued by the ordinary CA, so %s would not set the device apart", r.Profile, r.Then)
		}
	case Issue, Restricted:
		if r.profile != nil && r.profile.Issuer == quarantine {
			d.fault(f["profile"], fmt.Sprintf("write then: %s, or choose another profile", Quarantine), "profile %q is issued by the quarantine CA, which is not what %s says", r.Profile, r.Then)
		}
		if r.Revoke {
			d.fault(f["revoke"], "leave it out, or write then: deny", "revoke with then: %s would revoke the device's certificates and give it a new one", r.Then)
		}
	}
}
