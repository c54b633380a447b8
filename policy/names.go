package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// sanForms are the forms of subject alternative name that a profile can allow.
var sanForms = []string{"dns", "uri", "ip", "email", "permanent-identifier", "hardware-module"}

const (
	deviceID    = "{device.id}"
	deviceGroup = "{device.group}"
)

var (
	onlyID  = []string{deviceID}
	uriOfID = []string{deviceID, "urn:dev:" + deviceID, "urn:uuid:" + deviceID, "urn:device:" + deviceID, "device:" + deviceID}
)

// DefaultPatterns are the names of a form that a device may ask for where its
// profile lists the form but no patterns for it: the device's own ID. The
// forms "ip" and "email" have none, because no ID is an address.
func DefaultPatterns(form string) []string { return slices.Clone(defaultPatterns(form)) }

func defaultPatterns(form string) []string {
	switch form {
	case "dns", "permanent-identifier", "hardware-module":
		return onlyID
	case "uri":
		return uriOfID
	}
	return nil
}

// MatchName says whether a device may have a name of the given SAN form under
// one pattern of a policy's `names:`. "{device.id}" and "{device.group}"
// stand for the device's own; the ID compares without case. Per form:
//
//   - dns: "*" as a whole label covers exactly one label, of any content but
//     "*"; a name that is itself a wildcard needs `\*` as the pattern's first
//     label. The name must be a host name (RFC 1123 §2.1: letters, digits,
//     hyphens; 63 octets a label, 253 in all) and no IP address.
//   - ip: the pattern is an address or a CIDR range; a name with a zone, or an
//     IPv4 address in IPv6 dress, never matches.
//   - uri: the name must be absolute (RFC 5280 §4.2.1.6) and printable ASCII;
//     the scheme compares without case, the rest as it stands.
//   - email: the host compares without case, the mailbox as it stands.
//   - permanent-identifier, hardware-module: as it stands.
func MatchName(pattern string, form, value string, dev Device) bool {
	switch form {
	case "dns":
		return validHost(value, strings.HasPrefix(pattern, `\*.`)) && matchTemplate(pattern, value, dev, foldAll)
	case "ip":
		addr, err := netip.ParseAddr(value)
		if err != nil || addr.Zone() != "" || addr.Is4In6() {
			return false
		}
		if r, err := netip.ParsePrefix(pattern); err == nil {
			return r.Contains(addr)
		}
		one, err := netip.ParseAddr(pattern)
		return err == nil && one == addr
	case "uri":
		return absoluteURI(value) && matchTemplate(pattern, value, dev, foldScheme)
	case "email":
		mailbox, host, ok := strings.Cut(value, "@")
		return ok && mailbox != "" && printable(mailbox) && validHost(host, false) && matchTemplate(pattern, value, dev, foldHost)
	case "permanent-identifier", "hardware-module":
		return value != "" && printable(value) && matchTemplate(pattern, value, dev, foldNone)
	}
	return false
}

// fold says which literal part of a pattern compares without case.
type fold int

const (
	foldNone fold = iota
	foldAll
	foldScheme
	foldHost
)

// matchTemplate walks pattern and value together. No choice is ever open: a
// placeholder has one text, and "*" ends where its label ends.
func matchTemplate(pattern, value string, dev Device, how fold) bool {
	insensitive, host := how == foldAll || how == foldScheme, how == foldAll
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case strings.HasPrefix(rest, deviceID):
			if dev.ID == "" || !cutFold(&value, dev.ID, true) {
				return false
			}
			i += len(deviceID)
		case strings.HasPrefix(rest, deviceGroup):
			if dev.Group == "" || !cutFold(&value, dev.Group, host) {
				return false
			}
			i += len(deviceGroup)
		case host && strings.HasPrefix(rest, `\*`):
			if !cutFold(&value, "*", false) {
				return false
			}
			i += 2
		case host && rest[0] == '*' && (i == 0 || pattern[i-1] == '.') && (len(rest) == 1 || rest[1] == '.'):
			label, _, _ := strings.Cut(value, ".")
			if label == "" || label == "*" {
				return false
			}
			value = value[len(label):]
			i++
		default:
			if !cutFold(&value, rest[:1], insensitive) {
				return false
			}
			if how == foldScheme && rest[0] == ':' {
				insensitive = false
			}
			if how == foldHost && rest[0] == '@' {
				insensitive = true
			}
			i++
		}
	}
	return value == ""
}

// cutFold takes prefix off the front of s.
func cutFold(s *string, prefix string, insensitive bool) bool {
	if len(*s) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		a, b := (*s)[i], prefix[i]
		if a != b && !(insensitive && lower(a) == lower(b)) {
			return false
		}
	}
	*s = (*s)[len(prefix):]
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func letterOrDigit(c byte) bool {
	c = lower(c)
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
}

// validHost accepts what IsHostName does; with wildcard, also "*." before one.
func validHost(s string, wildcard bool) bool {
	if len(s) > 253 {
		return false
	}
	if wildcard {
		s = strings.TrimPrefix(s, "*.")
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || !letterOrDigit(label[0]) || !letterOrDigit(label[len(label)-1]) {
			return false
		}
		for i := range len(label) {
			if !letterOrDigit(label[i]) && label[i] != '-' {
				return false
			}
		}
	}
	return !endsInNumber(s)
}

// IsHostName reports whether s is a host name as certificates have it: labels of letters, digits and
// hyphens (RFC 1123 §2.1), without a final dot, of at most 253 octets, and no number as its last
// label: software that is given 10.0.0.1, 127.1 or 0x7f000001 as a host name connects to an address.
func IsHostName(s string) bool { return validHost(s, false) }

// endsInNumber reports whether the last label is a number, decimal or hexadecimal,
// which inet_aton and browsers take for the end of an IPv4 address.
func endsInNumber(s string) bool {
	last := strings.ToLower(s[strings.LastIndexByte(s, '.')+1:])
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(last, "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// absoluteURI accepts a scheme and something after it (RFC 3986 §3.1), all of
// it printable ASCII.
func absoluteURI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || rest == "" || !letterOrDigit(scheme[0]) || '0' <= scheme[0] && scheme[0] <= '9' {
		return false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !letterOrDigit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return printable(rest)
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// pattern vets one pattern of a form in a policy file.
func (d *document) pattern(form string) func(value, string) (string, bool) {
	return func(v value, s string) (string, bool) {
		if form == "ip" {
			if r, err := netip.ParsePrefix(s); err == nil {
				if r != r.Masked() {
					d.fault(v, "did you mean "+r.Masked().String()+"?", "%q has address bits beyond its prefix", s)
					return "", false
				}
				return s, true
			}
			if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
				return s, true
			}
			d.fault(v, `write a range like "10.0.0.0/8" or a single address`, "%q is neither an IP address nor a range", short(s))
			return "", false
		}
		if !d.placeholders(v, s) {
			return "", false
		}
		// What the pattern would allow for some device must be a name at all.
		sample := strings.NewReplacer(deviceID, "x", deviceGroup, "x").Replace(s)
		good, hint := false, ""
		switch form {
		case "dns":
			bare, wildcard := strings.CutPrefix(sample, `\*.`)
			labels := strings.Split(bare, ".")
			for i, l := range labels {
				if l == "*" {
					labels[i] = "x"
				}
			}
			good = validHost(strings.Join(labels, "."), false) && !(wildcard && len(labels) < 2)
			hint = `labels of letters, digits and hyphens; "*" stands for one whole label; '\*.' first allows a wildcard name`
		case "uri":
			// A device ID may hold the scheme ("urn:dev:…"), so a pattern that starts with it is fine.
			good = absoluteURI(sample) || strings.HasPrefix(s, deviceID) && printable(sample)
			hint = `write an absolute URI like "urn:dev:{device.id}"`
		case "email":
			mailbox, host, ok := strings.Cut(sample, "@")
			good, hint = ok && mailbox != "" && printable(mailbox) && validHost(host, false), `write it as "{device.id}@example.com"`
		default:
			good, hint = printable(sample), "use printable ASCII without spaces"
		}
		if form != "dns" && strings.Contains(s, "*") {
			good, hint = false, `"*" works in dns patterns only; write out what is allowed`
		}
		if !good {
			d.fault(v, hint, "%q is not a pattern for %s names", short(s), form)
		}
		return s, good
	}
}

// placeholders reports what stands in braces and is no placeholder.
func (d *document) placeholders(v value, s string) bool {
	rest := strings.NewReplacer(deviceID, "", deviceGroup, "").Replace(s)
	i := strings.IndexAny(rest, "{}")
	if i < 0 {
		return true
	}
	word := rest[i:]
	if j := strings.IndexByte(word, '}'); j >= 0 {
		word = word[:j+1]
	}
	d.fault(v, didYouMean(word, []string{deviceID, deviceGroup}), "unknown placeholder %q", short(word))
	return false
}
