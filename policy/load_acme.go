package policy

import (
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ByBinding is the way in which the binding of an ACME account to an enrolment
// credential (RFC 8555 §7.3.4) is enough to have a name.
const ByBinding = "credential"

// acmeWays are the types of ACME identifiers with the ways in which each can be authorized.
var acmeWays = []struct {
	identifier string
	ways       []string
}{
	{"dns", []string{ByBinding, "http-01", "dns-01", "tls-alpn-01"}},
	{"ip", []string{ByBinding, "http-01", "tls-alpn-01"}}, // RFC 8738 §7
	{"permanent-identifier", []string{ByBinding, "device-attest-01"}},
	{"hardware-module", []string{ByBinding, "device-attest-01"}},
}

// defaultACME is what a level has that does not say: names that are served on a network are
// validated there; what names the device is attested where the level demands evidence.
func defaultACME(evidence []string) ACME {
	device := ByBinding
	if len(evidence) > 0 {
		device = "device-attest-01"
	}
	return ACME{Authorize: map[string][]string{
		"dns": {"http-01", "dns-01", "tls-alpn-01"}, "ip": {"http-01", "tls-alpn-01"},
		"permanent-identifier": {device}, "hardware-module": {device},
	}}
}

// maxReuse is how long an authorization is one; package acme keeps it for as long.
const maxReuse = 30 * day

func (a ACME) clone() ACME {
	authorize := make(map[string][]string, len(a.Authorize))
	for kind, ways := range maps.All(a.Authorize) {
		authorize[kind] = slices.Clone(ways)
	}
	a.Authorize = authorize
	return a
}

// acme reads `acme:` of a level. Types that it leaves out keep their defaults.
func (d *document) acme(v value, a *ACME) {
	f := d.object(v, "authorize", "reuse")
	if reuse, ok := f["reuse"]; ok {
		a.Reuse = d.duration(reuse, minValidity, maxReuse)
	}
	given, ok := f["authorize"]
	if !ok {
		return
	}
	var types []string
	for _, w := range acmeWays {
		types = append(types, w.identifier)
	}
	for _, f := range d.entries(given) {
		i := slices.Index(types, f.name)
		if i < 0 {
			d.fault(f.key, didYouMean(f.name, types), "%q is not a type of ACME identifier", short(f.name))
			continue
		}
		ways := acmeWays[i].ways
		if f.node.Kind == yaml.SequenceNode && len(f.node.Content) == 0 {
			d.fault(f.value, "use one or more of "+strings.Join(ways, ", "), "the list is empty, so nothing would authorize a name of type %s", f.name)
		}
		a.Authorize[f.name] = d.words(f.value, func(v value, w string) (string, bool) {
			if slices.Contains(ways, w) {
				return w, true
			}
			d.fault(v, didYouMean(w, ways), "%q is no way to authorize names of type %s", short(w), f.name)
			return "", false
		})
	}
}
