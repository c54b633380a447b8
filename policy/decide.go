package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Decide answers a request. It tries, in this order, and stops at the first refusal:
//
//  1. the device's level exists, and admits the protocol, the requester's
//     kind and the profile asked for;
//  2. this server can verify each kind of evidence that the level demands;
//  3. the profile accepts the key and every name asked for;
//  4. the outcome rules, first match wins; none: deny;
//  5. if the rule issues under another profile, that one accepts the key and
//     the names too.
//
// The checks come before the rules so that no rule can grant what the level
// or the profile rules out. Decision.Trace stays empty; see [Policy.Explain].
func (p *Policy) Decide(in Input) Decision { return p.decide(in, nil) }

// Explain decides as Decide does, and fills Decision.Trace.
func (p *Policy) Explain(in Input) Decision {
	t := &tracer{}
	d := p.decide(in, t)
	d.Trace = t.steps
	return d
}

// decision is a decision in the making.
type decision struct {
	Decision
	trace *tracer
}

// refuse ends the decision with a built-in refusal. Its rule is the path in
// the policy file of what refused.
func (d *decision) refuse(rule, reason string, args ...any) Decision {
	d.Outcome, d.Rule, d.Profile = Deny, rule, ""
	d.Reasons = []string{fmt.Sprintf(reason, args...)}
	d.trace.fail(rule, d.Reasons[0])
	return d.Decision
}

func (p *Policy) decide(in Input, trace *tracer) Decision {
	d := decision{Decision: Decision{Outcome: Deny, Level: in.Device.Level, Version: p.version}, trace: trace}

	// 1 and 2. What the level admits, and what this server can verify.
	l, profile := p.admit(&in, &d)
	if profile == nil {
		return d.Decision
	}

	// 3. What the profile accepts.
	if rule, reason := profile.accepts(&in); rule != "" {
		return d.refuse(rule, "%s", reason)
	}
	d.trace.pass("the key and all names are accepted", "profiles.", profile.Name)

	// 4. The rules.
	e := &evaluation{in: in, level: l, profile: profile, verdict: weigh(in.Evidence, l.Evidence)}
	e.require(d.trace)
	for _, r := range p.rules {
		matched, err := r.when.eval(e)
		d.trace.rule(r, e, matched, err)
		then, revoke := r.Then, r.Revoke
		if err != nil {
			// A rule that cannot be answered must neither grant nor be passed over.
			// An answer of "perhaps" is no ground to revoke, so that it never does.
			switch revoke = false; r.Then {
			case Issue:
				continue
			case Restricted:
				then = Deny
			}
		} else if !matched {
			continue
		}
		issued := profile
		if r.profile != nil {
			issued = r.profile
		}
		d.Outcome, d.Rule, d.Revoke = then, r.Name, revoke
		d.Reasons = e.reasons(r, then, err)
		if then == Deny {
			return d.Decision
		}

		// 5. What the issued profile accepts.
		if issued != profile {
			if rule, reason := issued.accepts(&in); rule != "" {
				return d.refuse(rule, "Rule %q gives profile %s. %s", r.Name, issued.Name, reason)
			}
			d.trace.pass("the key and all names are accepted", "profiles.", issued.Name)
		}
		d.Profile, d.Validity = issued.Name, r.validity(l, issued)
		return d.Decision
	}
	return d.refuse(defaultDeny, "No rule of the policy grants this request%s.", e.because())
}

// admit is what does not depend on the key, the names and the evidence: nil if it refuses.
func (p *Policy) admit(in *Input, d *decision) (*level, *Profile) {
	l, ok := p.levels[in.Device.Level]
	if !ok {
		d.refuse("levels", "The policy has no level %q: give the device one of %s.", in.Device.Level, strings.Join(p.levelOrder, ", "))
		return nil, nil
	}
	d.trace.pass("", "levels.", l.Name)
	if !slices.Contains(l.Protocols, in.Protocol) {
		d.refuse("levels."+l.Name+".protocols", "Level %s does not allow the protocol %s: use %s.", l.Name, in.Protocol, strings.Join(l.Protocols, ", "))
		return l, nil
	}
	d.trace.pass(in.Protocol, "levels.", l.Name, ".protocols")
	if !slices.Contains(l.Requesters, in.Requester) {
		d.refuse("levels."+l.Name+".requesters", "Level %s does not accept %s: authenticate with %s.", l.Name, proof(in.Requester), proofs(l.Requesters))
		return l, nil
	}
	d.trace.pass(string(in.Requester), "levels.", l.Name, ".requesters")
	profile := l.choose(in.Profile)
	if profile == nil {
		d.refuse("levels."+l.Name+".profiles", "Level %s does not allow the profile %q: ask for %s.", l.Name, in.Profile, strings.Join(l.Profiles, ", "))
		return l, nil
	}
	d.trace.pass(profile.Name, "levels.", l.Name, ".profiles")
	for _, kind := range l.Evidence {
		if !slices.Contains(in.Verifiable, kind) {
			d.refuse("levels."+l.Name+".evidence", "Level %s demands %s evidence, which this server cannot verify yet.", l.Name, kind)
			return l, nil
		}
	}
	d.trace.pass("this server can verify what the level demands", "levels.", l.Name, ".evidence")
	return l, profile
}

// require answers the level's demands: each kind of evidence is there, and the
// condition is true. A condition that cannot be answered, because a fact is
// missing, is not met.
func (e *evaluation) require(t *tracer) {
	met := true
	if c := e.level.require; c != nil {
		var err error
		met, err = c.eval(e)
		e.requireErr = err
		t.require(c, e, met, err)
	}
	e.unmet = !met
	e.verdict.missingRequired = e.verdict.missing != "" || !met
	e.verdict.requiredAffirming = !e.verdict.missingRequired && e.verdict.affirming
}

// accepts says which part of the profile refuses the request and why, or "".
func (p *Profile) accepts(in *Input) (rule, reason string) {
	if !slices.Contains(p.Keys, in.Key) {
		return "profiles." + p.Name + ".keys", fmt.Sprintf("Profile %s does not accept %s keys: make one of %s.", p.Name, in.Key, strings.Join(p.Keys, ", "))
	}
	// The subject is made of the device's own data, which may not fit whether or not it was asked for.
	for _, s := range p.Subject {
		if _, ok := s.Expand(in.Device); !ok {
			return "profiles." + p.Name + ".subject." + s.Attr,
				fmt.Sprintf("The subject attribute %s of profile %s cannot be made for this device: the device has no group, the result is too long, or it holds a character that the attribute cannot have.", s.Attr, p.Name)
		}
	}
	for i := range in.Names {
		if rule, reason = p.acceptsName(&in.Names[i], in.Device); rule != "" {
			return rule, reason
		}
	}
	return "", ""
}

func (p *Profile) acceptsName(n *Name, dev Device) (rule, reason string) {
	if attr, ok := strings.CutPrefix(n.Form, "subject."); ok {
		for _, s := range p.Subject {
			if s.Attr != attr {
				continue
			}
			want, _ := s.Expand(dev)
			if sameAttribute(want, n.Value) {
				return "", ""
			}
			return "profiles." + p.Name + ".subject." + attr,
				fmt.Sprintf("The subject attribute %s is %q, and for this device profile %s has %q: ask for that, or leave it out.", attr, short(n.Value), p.Name, want)
		}
		return "profiles." + p.Name + ".subject", fmt.Sprintf("Profile %s has no subject attribute %s: leave it out of the request.", p.Name, short(attr))
	}
	if !slices.Contains(p.SAN, n.Form) {
		allowed := "no subject alternative names"
		if len(p.SAN) > 0 {
			allowed = strings.Join(p.SAN, ", ") + " only"
		}
		return "profiles." + p.Name + ".san", fmt.Sprintf("Profile %s does not allow %s names like %q: it allows %s.", p.Name, short(n.Form), short(n.Value), allowed)
	}
	if fault := nameFault(n.Form, n.Value); fault != "" {
		return "profiles." + p.Name + ".names." + n.Form, fmt.Sprintf("The %s name %q is refused whatever the pattern: %s.", n.Form, short(n.Value), fault)
	}
	patterns, given := p.Names[n.Form]
	if !given {
		patterns = defaultPatterns(n.Form)
	}
	for _, pattern := range patterns {
		if MatchName(pattern, n.Form, n.Value, dev) {
			return "", ""
		}
	}
	return "profiles." + p.Name + ".names." + n.Form,
		fmt.Sprintf("The %s name %q is not one that device %s may have: profile %s allows %s.", n.Form, short(n.Value), dev.ID, p.Name, strings.Join(patterns, ", "))
}

func proof(r RequesterKind) string {
	switch r {
	case ByCredential:
		return "an enrolment credential"
	case ByCertificate:
		return "the device's own certificate"
	case ByQuarantine:
		return "a quarantine certificate"
	case ByIDevID:
		return "a manufacturer's certificate"
	case ByRA:
		return "a registration authority"
	case ByAccount:
		return "an ACME account without external account binding"
	}
	return fmt.Sprintf("requesters of kind %q", short(string(r)))
}

func proofs(kinds []RequesterKind) string {
	var all []string
	for _, k := range kinds {
		all = append(all, proof(k))
	}
	return strings.Join(all, " or ")
}
