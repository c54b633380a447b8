package policy

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

var levelFields = []string{"evidence", "require", "requesters", "protocols", "profiles", "validity", "renew_at", "reattest", "status_unknown", "grace", "acme", "cmp"}

var protocols = []string{"est", "acme", "cmp"}

var requesters = []string{string(ByCredential), string(ByCertificate), string(ByQuarantine), string(ByIDevID), string(ByRA), string(ByAccount)}

var evidenceKind = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// level is a Level, ready to decide by.
type level struct {
	Level
	profiles []*Profile // as Level.Profiles
	require  *condition // nil is true
	at       value      // of its validity
}

func (d *document) levels(v value, profiles map[string]*Profile, profileOrder []string, c *compiler) (levels map[string]*level, order []string) {
	levels = map[string]*level{}
	entries := d.entries(v)
	if d.tooMany(v, len(entries), maxLevels, "levels") {
		return levels, order
	}
	for _, f := range entries {
		d.name(f)
		levels[f.name] = d.level(f, profiles, profileOrder, c)
		order = append(order, f.name)
	}
	if len(order) == 0 && v.node.Kind == yaml.MappingNode {
		d.fault(v, "describe at least one, like the level `software` of the default policy", "there are no levels")
	}
	return levels, order
}

func (d *document) level(at field, profiles map[string]*Profile, profileOrder []string, c *compiler) *level {
	f := d.object(at.value, levelFields...)
	l := &level{Level: Level{Name: at.name, Evidence: []string{}, StatusUnknown: "deny"}}
	list := func(name, hint string, ok func(value, string) (string, bool)) []string {
		v, given := f[name]
		if !given {
			d.fault(at.key, hint, "level %q says no %s", at.name, name)
			return nil
		}
		words := d.words(v, ok)
		if len(v.node.Content) == 0 && name != "evidence" {
			d.fault(v, hint, "the list is empty, so nothing could be issued at this level")
		}
		return words
	}
	l.Evidence = list("evidence", "add evidence: [], if the level demands none", func(v value, w string) (string, bool) {
		if !evidenceKind.MatchString(w) {
			d.fault(v, "a kind is a short word in small letters, like hsm, tpm or dice", "%q is not a kind of evidence", short(w))
			return "", false
		}
		return w, true
	})
	for _, r := range list("requesters", "add requesters: [credential, certificate]", d.oneOf("requester kind", requesters...)) {
		l.Requesters = append(l.Requesters, RequesterKind(r))
	}
	l.Protocols = list("protocols", "add protocols: [est, acme, cmp]", d.oneOf("protocol", protocols...))
	l.Profiles = list("profiles", "add profiles: ["+strings.Join(profileOrder, ", ")+"]", func(v value, w string) (string, bool) {
		p := profiles[w]
		switch {
		case p == nil:
			d.fault(v, didYouMean(w, profileOrder), "unknown profile %q", short(w))
		case p.Issuer == quarantine:
			d.fault(v, "leave it out; outcomes name it with `profile:`", "profile %q is issued by the quarantine CA, so no device can ask for it", w)
		default:
			l.profiles = append(l.profiles, p)
			return w, true
		}
		return "", false
	})
	if v, ok := f["require"]; ok {
		l.Require, l.require = d.condition(v, c.require)
	}
	if v, ok := f["validity"]; ok {
		l.Validity, l.at = d.duration(v, minValidity, maxValidity), v
	} else {
		d.fault(at.key, "add validity: 24h", "level %q says no validity", at.name)
	}
	if v, ok := f["renew_at"]; ok {
		l.RenewAt = d.fraction(v, false)
	}
	if v, ok := f["reattest"]; ok {
		l.Reattest = d.duration(v, minValidity, maxInterval)
		if ev, ok := f["evidence"]; ok && len(ev.node.Content) == 0 {
			d.fault(v, "leave it out, or demand evidence", "reattest has no effect at a level that demands no evidence")
		}
	}
	if v, ok := f["status_unknown"]; ok {
		if w, ok := d.text(v); ok {
			l.StatusUnknown, _ = d.oneOf("answer", "deny", "grace", "allow")(v, w)
		}
		if _, ok := f["grace"]; !ok && l.StatusUnknown == "grace" {
			d.fault(v, "add grace: 24h", "status_unknown: grace needs the length of the grace")
		}
	}
	l.ACME = defaultACME(l.Evidence)
	if v, ok := f["acme"]; ok {
		d.acme(v, &l.ACME)
	}
	if v, ok := f["cmp"]; ok {
		if given, ok := d.object(v, "message_time")["message_time"]; ok {
			if w, ok := d.text(given); ok {
				w, _ = d.oneOf("message_time", "required", "optional")(given, w)
				l.CMP.Timeless = w == "optional"
			}
		}
	}
	if v, ok := f["grace"]; ok {
		l.Grace = d.duration(v, minValidity, maxInterval)
		if l.StatusUnknown != "grace" {
			d.fault(v, "write status_unknown: grace, or leave grace out", "grace has no effect without status_unknown: grace")
		}
	}
	return l
}
