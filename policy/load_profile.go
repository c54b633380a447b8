package policy

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const (
	issuing    = "issuing"
	quarantine = "quarantine"

	defaultBackdate = 5 * time.Minute
	defaultRenewAt  = 0.5

	minValidity = time.Minute
	maxValidity = 100 * 365 * day
	maxBackdate = day
	maxInterval = 10 * 365 * day
)

var profileFields = []string{"extends", "issuer", "keys", "subject", "san", "names", "key_usage", "eku", "policy_oids",
	"backdate", "validity", "renew_at", "renew_after_expiry", "status", "approval", "release", "server_keygen", "channel_binding"}

// wellFormedName is what profiles and levels are called: profiles are path segments of EST and CMP URLs.
var wellFormedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// estOperations cannot be profile names, because an EST label takes the same
// place in the path (RFC 7030 §3.2.2).
var estOperations = []string{"cacerts", "simpleenroll", "simplereenroll", "fullcmc", "serverkeygen", "csrattrs"}

func (d *document) name(f field) bool {
	if !wellFormedName.MatchString(f.name) {
		d.fault(f.key, "use up to 64 letters, digits, '-' and '_'", "%q is not usable as a name", short(f.name))
		return false
	}
	return true
}

// profiles reads `profiles:`. What it returns holds every name that the file
// gives, so that a profile with a fault is not also called unknown. at is where each stands.
func (d *document) profiles(v value) (profiles map[string]*Profile, order []string, at map[string]value) {
	profiles = map[string]*Profile{}
	given := map[string]map[string]value{}
	at = map[string]value{}
	entries := d.entries(v)
	if d.tooMany(v, len(entries), maxProfiles, "profiles") {
		return profiles, order, at
	}
	for _, f := range entries {
		d.name(f)
		if slices.Contains(estOperations, f.name) {
			d.fault(f.key, "choose another name", "%q is an EST operation, so it cannot be a profile (RFC 7030 §3.2.2)", f.name)
		}
		given[f.name], at[f.name] = d.object(f.value, profileFields...), f.key
		order = append(order, f.name)
	}
	if len(order) == 0 && v.node.Kind == yaml.MappingNode {
		d.fault(v, "describe at least one certificate, like the profile `device` of the default policy", "there are no profiles")
	}
	for _, name := range order {
		profiles[name] = d.profile(name, at[name], d.inherit(name, given, order))
	}
	return profiles, order, at
}

// inherit gives a profile's fields over those of the profiles that it extends.
func (d *document) inherit(name string, given map[string]map[string]value, order []string) map[string]value {
	fields := maps.Clone(given[name])
	seen := []string{name}
	for {
		last := given[seen[len(seen)-1]]
		ext, ok := last["extends"]
		if !ok {
			return fields
		}
		parent, ok := d.text(ext)
		if !ok {
			return fields
		}
		if _, known := given[parent]; !known {
			d.fault(ext, didYouMean(parent, order), "extends the unknown profile %q", short(parent))
			return fields
		}
		if i := slices.Index(seen, parent); i >= 0 {
			// A profile outside the ring that leads into it is not at fault.
			if i == 0 {
				d.fault(given[name]["extends"], "one of them must stand on its own", "%s is a circle", strings.Join(append(seen, parent), " extends "))
			}
			return fields
		}
		for k, f := range given[parent] {
			if _, own := fields[k]; !own {
				fields[k] = f
			}
		}
		seen = append(seen, parent)
	}
}

func (d *document) profile(name string, at value, f map[string]value) *Profile {
	p := &Profile{Name: name, Issuer: issuing, Subject: []SubjectTemplate{{"cn", deviceID}}, SAN: []string{}, Names: map[string][]string{},
		KeyUsage: []string{"digitalSignature"}, EKU: []string{"clientAuth"}, PolicyOIDs: []string{},
		Backdate: defaultBackdate, RenewAt: defaultRenewAt, Status: Status{OCSP: true, CRL: "partition", Freshest: true}}
	if v, ok := f["issuer"]; ok {
		if w, ok := d.text(v); ok {
			if w, ok = d.oneOf("issuer", issuing, quarantine)(v, w); ok {
				p.Issuer = w
			}
		}
	}
	if v, ok := f["keys"]; !ok {
		d.fault(at, "add keys: [ecdsa-p256, ecdsa-p384, ed25519]", "profile %q says no key algorithms", name)
	} else if p.Keys = d.words(v, d.keyName); len(v.node.Content) == 0 {
		d.fault(v, "list at least one algorithm", "no key can have this profile")
	}
	if v, ok := f["subject"]; ok {
		if p.Subject = d.subject(v); len(v.node.Content) == 0 {
			d.fault(v, `write subject: {cn: "{device.id}"}, or leave it out`, "the subject is empty, so the certificate would not name its device")
		}
	}
	d.san(p, f)
	if v, ok := f["key_usage"]; ok {
		p.KeyUsage = d.words(v, d.usageName)
		if len(v.node.Content) == 0 {
			d.fault(v, "add digitalSignature, or leave key_usage out", "the list is empty, and an empty key usage is not allowed (RFC 5280 §4.2.1.3)")
		}
		d.usageSuits(v, p.KeyUsage, p.Keys)
	}
	if v, ok := f["eku"]; ok {
		if p.EKU = d.words(v, d.ekuName); len(v.node.Content) == 0 {
			d.fault(v, "add clientAuth", "without an extended key usage a certificate is good for any purpose")
		}
	}
	// The quarantine CA is constrained to this usage, so any other makes a chain that nobody accepts.
	if p.Issuer == quarantine && !slices.Equal(p.EKU, []string{RemediationEKU}) {
		v, ok := f["eku"]
		if !ok {
			v = at
		}
		d.fault(v, "write eku: ["+RemediationEKU+"]", "profile %q is issued by the quarantine CA, whose certificates carry the remediation usage alone", name)
	}
	if v, ok := f["policy_oids"]; ok {
		p.PolicyOIDs = d.words(v, d.oid)
	}
	if v, ok := f["backdate"]; ok {
		p.Backdate = d.duration(v, 0, maxBackdate)
	}
	if v, ok := f["validity"]; ok {
		p.Validity = d.duration(v, minValidity, maxValidity)
		if p.Validity > 0 && p.Validity <= p.Backdate {
			d.fault(v, "lengthen it, or shorten backdate", "the validity, %s, is not longer than the backdate, %s", FormatDuration(p.Validity), FormatDuration(p.Backdate))
		}
	}
	if v, ok := f["renew_at"]; ok {
		p.RenewAt = d.fraction(v, false)
	}
	if v, ok := f["renew_after_expiry"]; ok {
		p.RenewExpired = d.duration(v, 0, maxInterval)
	}
	if v, ok := f["status"]; ok {
		p.Status = d.status(v)
	}
	if v, ok := f["approval"]; ok {
		p.Approval = d.truth(v)
		// A rule that sets a device apart, and may revoke, must not wait for a person:
		// a mistake where it is written, without effect where it is inherited.
		if p.Approval && p.Issuer == quarantine {
			p.Approval = false
			if v.path == "profiles."+name+".approval" {
				d.fault(v, "leave it out here: approve what the device gets once it is sound", "profile %q is issued by the quarantine CA, and quarantine waits for nobody", name)
			}
		}
	}
	if v, ok := f["release"]; ok {
		p.Release = d.truth(v)
	}
	if v, ok := f["server_keygen"]; ok {
		p.ServerKeygen = d.serverKeygen(v)
	}
	if v, ok := f["channel_binding"]; ok {
		p.ChannelBinding = d.truth(v)
	}
	return p
}

func (d *document) serverKeygen(v value) (k ServerKeygen) {
	f := d.object(v, "allow", "clear")
	if allow, ok := f["allow"]; ok {
		k.Allow = d.truth(allow)
	}
	if clear, ok := f["clear"]; ok {
		if k.Clear = d.truth(clear); k.Clear && !k.Allow {
			d.fault(clear, "add allow: true, or leave clear out", "keys that are not made cannot be handed out in clear")
		}
	}
	return k
}

// san reads `san:` and `names:`. Patterns for a form that is not allowed are a
// mistake where they are written, and without effect where they are inherited.
func (d *document) san(p *Profile, f map[string]value) {
	san, listed := f["san"]
	if listed {
		p.SAN = d.words(san, d.oneOf("name form", sanForms...))
	}
	own := "profiles." + p.Name + ".names"
	if v, ok := f["names"]; ok {
		for _, form := range d.entries(v) {
			if _, ok := d.oneOf("name form", sanForms...)(form.key, form.name); !ok {
				continue
			}
			patterns := d.words(form.value, d.pattern(form.name))
			if form.node.Kind == yaml.SequenceNode && len(form.node.Content) == 0 {
				d.fault(form.value, "list a pattern, or leave the form out", "no name can match an empty list")
			}
			if slices.Contains(p.SAN, form.name) {
				p.Names[form.name] = patterns
			} else if v.path == own {
				d.fault(form.key, "add "+form.name+" to san", "the form %q is not in san, so these patterns are never used", form.name)
			}
		}
	}
	for i, form := range p.SAN {
		if p.Names[form] == nil && defaultPatterns(form) == nil {
			at := san
			if i < len(san.node.Content) {
				at = san.item(i)
			}
			hint := `add names: {ip: ["10.0.0.0/8"]}`
			if form == "email" {
				hint = `add names: {email: ["{device.id}@example.com"]}`
			}
			d.fault(at, hint, "%q needs patterns in names: no device ID is one by itself", form)
		}
	}
}

func (d *document) status(v value) (s Status) {
	f := d.object(v, "ocsp", "crl", "freshest", "must_staple", "no_rev_avail")
	flag := func(name string) bool {
		field, ok := f[name]
		return ok && d.truth(field)
	}
	s = Status{OCSP: flag("ocsp"), CRL: "none", Freshest: flag("freshest"), MustStaple: flag("must_staple"), NoRevAvail: flag("no_rev_avail")}
	if c, ok := f["crl"]; ok {
		if w, ok := d.text(c); ok {
			if w, ok = d.oneOf("CRL scope", "none", "full", "partition")(c, w); ok {
				s.CRL = w
			}
		}
	}
	switch {
	case s.NoRevAvail:
		for _, name := range []string{"ocsp", "crl", "freshest", "must_staple"} {
			if field, ok := f[name]; ok && (name == "crl" && s.CRL != "none" || name != "crl" && d.truth(field)) {
				d.fault(field, "keep one of the two", "%s points to revocation status, and no_rev_avail says there is none (RFC 9608 §2)", name)
			}
		}
	case s.Freshest && s.CRL == "none":
		d.fault(f["freshest"], "add crl: full", "freshest points to the delta of a CRL that the certificate does not point to")
	case s.MustStaple && !s.OCSP:
		d.fault(f["must_staple"], "add ocsp: true", "must_staple wants stapled answers, and the certificate says no responder to fetch them from")
	case !s.OCSP && s.CRL == "none" && v.node.Kind == yaml.MappingNode:
		d.fault(v, "add ocsp: true or crl: full, or say no_rev_avail: true", "the certificate would say neither where its status is nor that it has none")
	}
	return s
}
