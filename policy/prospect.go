package policy

import (
	"strings"
	"time"
)

// Prospect is what can be said of a request before its key and its evidence are there.
type Prospect struct {
	Profile string // that would be issued if all is well
	// Longest is the longest validity that any rule gives under that profile.
	Longest time.Duration
	// Backdate is how far before its issuance a certificate may begin.
	Backdate time.Duration
	ACME     ACME // of the level
	// Refused, if set, is why the request can earn nothing, whatever the key and the evidence: the level or
	// the profile rules it out. Name is the number of the name that is to blame, else -1.
	Refused []Refusal
}

// Refusal is one built-in check that a request does not pass.
type Refusal struct {
	Rule, Reason string
	Name         int
}

// Consider says what a request may come to, without its Key and Evidence. Unlike
// [Policy.Decide] it goes on after the first name that the profile refuses, and for a
// request that names no profile it takes the level's first that refuses none of the names.
func (p *Policy) Consider(in Input) Prospect {
	d := decision{}
	l, profile := p.admit(&in, &d)
	if profile == nil {
		return Prospect{Refused: []Refusal{{d.Rule, strings.Join(d.Reasons, " "), -1}}}
	}
	got := l.prospect(p, profile, &in)
	if in.Profile != "" {
		return got
	}
	for _, other := range l.profiles {
		if fits := l.prospect(p, other, &in); len(fits.Refused) == 0 {
			return fits
		}
	}
	return got
}

func (l *level) prospect(p *Policy, profile *Profile, in *Input) Prospect {
	got := Prospect{Profile: profile.Name, Backdate: profile.Backdate, ACME: l.ACME.clone()}
	for _, r := range p.rules {
		if r.Then != Deny && r.profile == nil {
			got.Longest = max(got.Longest, r.validity(l, profile))
		}
	}
	for i := range in.Names {
		if rule, reason := profile.acceptsName(&in.Names[i], in.Device); rule != "" {
			got.Refused = append(got.Refused, Refusal{rule, reason, i})
		}
	}
	return got
}
