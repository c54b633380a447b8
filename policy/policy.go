package policy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
)

//go:embed default.yaml
var defaultPolicy []byte

// Default gives the policy file that a new CA starts with.
func Default() []byte { return slices.Clone(defaultPolicy) }

// Policy is a policy file that was found valid. It never changes, and may be
// used by any number of goroutines.
type Policy struct {
	source   []byte
	version  string
	profiles map[string]*Profile
	levels   map[string]*level
	rules    []*rule

	profileOrder, levelOrder []string
	file                     string
	at                       map[string]value // of profiles
}

// Parse reads a policy file; filename is for messages only. The error is
// [Faults], all of them. Files above [MaxSize] are refused.
func Parse(filename string, data []byte) (*Policy, error) {
	d := &document{file: filename}
	c, err := newCompiler()
	if err != nil {
		return nil, fmt.Errorf("policy: CEL environment: %w", err)
	}
	sum := sha256.Sum256(data)
	p := &Policy{file: filename, source: slices.Clone(data), version: "v1-" + hex.EncodeToString(sum[:6])}
	root, ok := d.root(data)
	if !ok {
		return nil, d.faults
	}
	f := d.object(root, "version", "profiles", "levels", "outcomes")
	// section runs read on a part of the file that must be there.
	section := func(name, hint string, read func(value)) {
		if v, ok := f[name]; ok {
			read(v)
		} else if root.node.Kind == yaml.MappingNode {
			d.fault(root, hint, "the file has no %s", name)
		}
	}
	section("version", "begin with the line: version: 1", func(v value) {
		if d.scalar(v, "a number", "write version: 1", "!!int") && v.node.Value != "1" {
			d.fault(v, "write version: 1", "unknown version %s", short(v.node.Value))
		}
	})
	section("profiles", "describe what certificates look like under profiles:", func(v value) {
		p.profiles, p.profileOrder, p.at = d.profiles(v)
	})
	section("levels", "describe what devices must show under levels:", func(v value) {
		p.levels, p.levelOrder = d.levels(v, p.profiles, p.profileOrder, c)
	})
	section("outcomes", "say what requests earn under outcomes:", func(v value) {
		p.rules = d.outcomes(v, p.profiles, p.profileOrder, c)
	})
	d.lifetimes(p)
	if len(d.faults) > 0 {
		return nil, d.faults.sorted()
	}
	return p, nil
}

// Version identifies the file: "v1-" and twelve hex digits of the SHA-256 of its bytes.
func (p *Policy) Version() string { return p.version }

// Source gives the file's bytes.
func (p *Policy) Source() []byte { return slices.Clone(p.source) }

// FaultOf is a fault that someone else finds with a profile, at its place in the file; at its beginning if there is none of that name.
func (p *Policy) FaultOf(profile, message, hint string) Fault {
	f := Fault{File: p.file, Line: 1, Column: 1, Message: message, Hint: hint}
	if at, ok := p.at[profile]; ok {
		f.Line, f.Column, f.Path = max(at.node.Line, 1), max(at.node.Column, 1), at.path
		f.Message = fmt.Sprintf("profile %q: %s", profile, message)
	}
	return f
}

// Profiles lists the names of all profiles, in the order of the file.
func (p *Policy) Profiles() []string { return slices.Clone(p.profileOrder) }

// Levels lists the names of all levels, in the order of the file.
func (p *Policy) Levels() []string { return slices.Clone(p.levelOrder) }

// Backdate is how far before now the CA's certificates may begin: the longest of all profiles.
// What is published about them begins as early, since a relying party whose clock is slow needs both.
func (p *Policy) Backdate() (longest time.Duration) {
	for _, pr := range p.profiles {
		longest = max(longest, pr.Backdate)
	}
	return longest
}

// Profile gives a profile by its name.
func (p *Policy) Profile(name string) (Profile, bool) {
	got, ok := p.profiles[name]
	if !ok {
		return Profile{}, false
	}
	return got.clone(), true
}

// Level gives a level by its name.
func (p *Policy) Level(name string) (Level, bool) {
	got, ok := p.levels[name]
	if !ok {
		return Level{}, false
	}
	l := got.Level
	l.Evidence, l.Requesters, l.Protocols, l.Profiles = slices.Clone(l.Evidence), slices.Clone(l.Requesters), slices.Clone(l.Protocols), slices.Clone(l.Profiles)
	l.ACME = l.ACME.clone()
	return l, true
}

// ProfileFor gives the profile that a device of the level would be issued
// under if all is well: the one it asked for, if the level has it, or the
// level's first for "".
func (p *Policy) ProfileFor(level, asked string) (Profile, bool) {
	l, ok := p.levels[level]
	if !ok {
		return Profile{}, false
	}
	got := l.choose(asked)
	if got == nil {
		return Profile{}, false
	}
	return got.clone(), true
}

// Outcomes lists the outcome rules, in the order in which they are tried.
func (p *Policy) Outcomes() []OutcomeRule {
	rules := make([]OutcomeRule, len(p.rules))
	for i, r := range p.rules {
		rules[i] = r.OutcomeRule
	}
	return rules
}

// Grant is one kind of certificate that a policy can give.
type Grant struct {
	Level    string
	Rule     string // the outcome rule's name
	Outcome  Outcome
	Profile  string
	Validity time.Duration
}

// Grants gives every kind of certificate that the policy can give: level by
// level, rule by rule, profile by profile. It is what a CA lints when a policy
// is loaded.
func (p *Policy) Grants() iter.Seq[Grant] {
	return func(yield func(Grant) bool) {
		for g := range p.grants() {
			if !yield(Grant{g.level.Name, g.rule.Name, g.rule.Then, g.profile.Name, g.rule.validity(g.level, g.profile)}) {
				return
			}
		}
	}
}

type grant struct {
	level   *level
	rule    *rule
	profile *Profile
}

func (p *Policy) grants() iter.Seq[grant] {
	return func(yield func(grant) bool) {
		for _, name := range p.levelOrder {
			l := p.levels[name]
			for _, r := range p.rules {
				profiles := l.profiles
				switch {
				case r.Then == Deny:
					continue
				case r.profile != nil:
					profiles = []*Profile{r.profile}
				}
				for _, pr := range profiles {
					if !yield(grant{l, r, pr}) {
						return
					}
				}
			}
		}
	}
}

// lifetimes reports validities that come out too short once levels, rules and
// profiles meet: a certificate that is backdated by as much is born expired.
func (d *document) lifetimes(p *Policy) {
	for _, name := range p.levelOrder {
		l := p.levels[name]
		for _, pr := range l.profiles {
			if l.Validity > 0 && l.Validity <= pr.Backdate {
				d.fault(l.at, "lengthen it, or shorten the profile's backdate", "the validity, %s, is not longer than the backdate of profile %q, %s",
					FormatDuration(l.Validity), pr.Name, FormatDuration(pr.Backdate))
			}
		}
	}
	for g := range p.grants() {
		least := max(minValidity, g.profile.Backdate+time.Second)
		if v := g.rule.validity(g.level, g.profile); g.level.Validity > g.profile.Backdate && v < least {
			d.fault(g.rule.at, "raise validity or validity_factor", "at level %q this gives a validity of %s under profile %q, which needs at least %s",
				g.level.Name, FormatDuration(v), g.profile.Name, FormatDuration(least))
		}
	}
}

func (p *Profile) clone() Profile {
	c := *p
	c.Keys, c.Subject, c.SAN = slices.Clone(p.Keys), slices.Clone(p.Subject), slices.Clone(p.SAN)
	c.KeyUsage, c.EKU, c.PolicyOIDs = slices.Clone(p.KeyUsage), slices.Clone(p.EKU), slices.Clone(p.PolicyOIDs)
	c.Names = make(map[string][]string, len(p.Names))
	for form, patterns := range p.Names {
		c.Names[form] = slices.Clone(patterns)
	}
	return c
}

// choose gives the profile asked for, the first for "", or nil.
func (l *level) choose(asked string) *Profile {
	for _, p := range l.profiles {
		if asked == "" || p.Name == asked {
			return p
		}
	}
	return nil
}

// validity is what a rule gives to a device of a level under a profile.
func (r *rule) validity(l *level, p *Profile) time.Duration {
	v := l.Validity
	if r.Validity > 0 {
		v = r.Validity
	}
	if r.ValidityFactor < 1 {
		v = time.Duration(float64(v) * r.ValidityFactor)
	}
	if p.Validity > 0 {
		v = min(v, p.Validity)
	}
	return v.Truncate(time.Second) // certificates hold no fractions
}
