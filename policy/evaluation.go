package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
)

// evaluation is one request as conditions see it. It implements
// cel.Activation, so that a decision converts only what a condition reads.
type evaluation struct {
	in         Input
	level      *level
	profile    *Profile // the one chosen from the level
	verdict    verdict
	unmet      bool // require was not true
	requireErr error
	facts      map[string]any // merged, once read
}

// Parent implements cel.Activation.
func (e *evaluation) Parent() cel.Activation { return nil }

// ResolveName implements cel.Activation.
func (e *evaluation) ResolveName(name string) (any, bool) {
	switch name {
	case "now":
		return types.Timestamp{Time: e.in.Now}, true
	case "evidence":
		return e.evidence(), true
	case "device.id":
		return types.String(e.in.Device.ID), true
	case "device.level":
		return types.String(e.in.Device.Level), true
	case "device.group":
		return types.String(e.in.Device.Group), true
	case "device.state":
		return types.String(e.in.Device.State), true
	case "request.protocol":
		return types.String(e.in.Protocol), true
	case "request.operation":
		return types.String(e.in.Operation), true
	case "request.requester":
		return types.String(e.in.Requester), true
	case "request.profile":
		return types.String(e.profile.Name), true
	case "request.key":
		return types.String(e.in.Key), true
	case "verdict.any":
		return types.Int(e.verdict.any), true
	case "verdict.missing_required":
		return types.Bool(e.verdict.missingRequired), true
	case "verdict.required_affirming":
		return types.Bool(e.verdict.requiredAffirming), true
	}
	if claim, ok := strings.CutPrefix(name, "verdict."); ok {
		if i := claimIndex(claim); i >= 0 {
			return types.Int(e.verdict.claims[i]), true
		}
	}
	return nil, false
}

// evidence gives the facts of the evidence that the level demands, or of all
// where it demands none: a claim in evidence that nobody asked for must not
// help to meet a demand. A fact that two pieces give differently is an error
// to whoever reads it.
func (e *evaluation) evidence() map[string]any {
	if e.facts != nil {
		return e.facts
	}
	owned := false
	for i := range e.in.Evidence {
		ev := &e.in.Evidence[i]
		if len(e.level.Evidence) > 0 && !slices.Contains(e.level.Evidence, ev.Kind) {
			continue
		}
		switch {
		case len(ev.Facts) == 0:
		case e.facts == nil:
			e.facts = ev.Facts
		default:
			if !owned {
				e.facts, owned = maps.Clone(e.facts), true
			}
			for name, fact := range ev.Facts {
				if other, twice := e.facts[name]; twice && !reflect.DeepEqual(other, fact) {
					fact = types.NewErr("two pieces of evidence give different values for %s", name)
				}
				e.facts[name] = fact
			}
		}
	}
	if e.facts == nil {
		e.facts = map[string]any{}
	}
	return e.facts
}

// reasons tells the operator of the device what the rule's outcome means.
// Where all is well there is nothing to tell.
func (e *evaluation) reasons(r *rule, then Outcome, err error) []string {
	if err != nil {
		return []string{fmt.Sprintf("Rule %q could not be answered (%v), so the request is held to it.", r.Name, err)}
	}
	if r.Reason != "" {
		return []string{r.Reason}
	}
	switch then {
	case Restricted:
		return []string{fmt.Sprintf("Rule %q restricts the certificate%s.", r.Name, e.because())}
	case Quarantine:
		return []string{fmt.Sprintf("Rule %q puts the device in quarantine%s.", r.Name, e.because()), "Put that right, then enrol again with the quarantine certificate."}
	case UpdateRequired:
		return []string{fmt.Sprintf("Rule %q asks for an update%s.", r.Name, e.because()), "Update the device, then enrol again with the quarantine certificate."}
	case Deny:
		return []string{fmt.Sprintf("Rule %q denies the request%s.", r.Name, e.because())}
	}
	return nil
}

// because says what is wrong with the evidence, as the end of a sentence.
func (e *evaluation) because() string {
	var why []string
	if kind := e.verdict.missing; kind != "" {
		why = append(why, fmt.Sprintf("level %s demands %s evidence, and the request has none", e.level.Name, kind))
	} else if e.unmet && e.requireErr != nil {
		why = append(why, fmt.Sprintf("the requirement of level %s cannot be answered (%v)", e.level.Name, e.requireErr))
	} else if e.unmet {
		why = append(why, fmt.Sprintf("the evidence does not meet the requirement of level %s", e.level.Name))
	}
	for i, t := range e.verdict.claims {
		if t >= Warning {
			why = append(why, fmt.Sprintf("the evidence speaks against %s (%s)", strings.ReplaceAll(claims[i], "_", " "), t))
		}
	}
	if len(why) == 0 && e.verdict.any >= Warning {
		why = append(why, fmt.Sprintf("the evidence speaks against the device (%s)", e.verdict.any))
	}
	if len(why) == 0 && !e.verdict.affirming {
		why = append(why, "the evidence affirms nothing")
	}
	if len(why) == 0 {
		return ""
	}
	return ": " + strings.Join(why, "; ")
}
