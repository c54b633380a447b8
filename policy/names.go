package policy

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/idna"
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
//     hyphens; 63 octets a label, 253 in all) and no IP address; a label that
//     begins with "xn--" must be the ASCII form of an internationalized one (RFC 5280 §7.2).
//   - ip: the pattern is an address or a CIDR range; a name with a zone, or an
//     IPv4 address in IPv6 dress, never matches.
//   - uri: the name must be absolute (RFC 5280 §4.2.1.6), printable ASCII, and have a host if it
//     has an authority; scheme and host compare without case (RFC 5280 §7.4), as does the
//     namespace of a URN, the rest as it stands.
//   - email: the host compares without case, the mailbox as it stands (RFC 5280 §7.5). The mailbox is
//     words of letters, digits and !#$%&'*+-/=?^_`{|}~ with single dots between.
//   - permanent-identifier: as it stands.
//   - hardware-module: as it stands. A pattern without a slash is about the serial number
//     alone, and takes any type; SERIAL/TYPE takes one.
func MatchName(pattern string, form, value string, dev Device) bool {
	switch form {
	case "dns":
		return validHost(value, strings.HasPrefix(pattern, `\*.`)) && checkALabels(value) == nil && matchTemplate(pattern, form, value, dev)
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
		return absoluteURI(value) && checkAuthority(value) == nil && matchTemplate(pattern, form, value, dev)
	case "email":
		return validEmail(value) && matchTemplate(pattern, form, value, dev)
	case "permanent-identifier":
		return value != "" && printable(value) && matchTemplate(pattern, form, value, dev)
	case "hardware-module":
		serial, _, ok := strings.Cut(value, "/")
		if !ok || !printable(value) {
			return false
		}
		if !strings.Contains(pattern, "/") {
			value = serial
		}
		return serial != "" && matchTemplate(pattern, form, value, dev)
	}
	return false
}

// anyCase is the part of a name, from and to, in which case makes no difference. For a pattern of
// such names it is the same.
func anyCase(form, value string) (from, to int) {
	switch form {
	case "dns":
		return 0, len(value)
	case "email":
		return strings.IndexByte(value, '@') + 1, len(value)
	case "uri":
		return 0, uriHead(value)
	}
	return 0, 0
}

// uriHead is how many octets of a URI compare without case: its scheme, and its host or, of a
// URN, its namespace. A user name before the host counts case.
func uriHead(s string) int {
	colon := strings.IndexByte(s, ':') + 1
	if colon == 0 {
		return 0
	}
	rest := s[colon:]
	if authority, ok := strings.CutPrefix(rest, "//"); ok {
		end := strings.IndexAny(authority, "/?#")
		if end < 0 {
			end = len(authority)
		}
		if strings.Contains(authority[:end], "@") {
			return colon
		}
		return colon + 2 + end
	}
	if strings.EqualFold(s[:colon], "urn:") {
		return colon + strings.IndexByte(rest, ':') + 1
	}
	return colon
}

// FoldName makes names of a form alike that are the same name (RFC 5280 §7.2, §7.4, §7.5).
func FoldName(form, value string) string {
	from, to := anyCase(form, value)
	return value[:from] + strings.ToLower(value[from:to]) + value[to:]
}

// matchTemplate walks pattern and value together. No choice is ever open: a
// placeholder has one text, and "*" ends where its label ends.
func matchTemplate(pattern, form, value string, dev Device) bool {
	whole, host := len(value), form == "dns"
	from, to := anyCase(form, value)
	insensitive := func() bool { at := whole - len(value); return from <= at && at < to }
	for i := 0; i < len(pattern); {
		rest := pattern[i:]
		switch {
		case strings.HasPrefix(rest, deviceID):
			if dev.ID == "" || !cutFold(&value, dev.ID, true) {
				return false
			}
			i += len(deviceID)
		case strings.HasPrefix(rest, deviceGroup):
			if dev.Group == "" || !cutFold(&value, dev.Group, insensitive()) {
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
			if !cutFold(&value, rest[:1], insensitive()) {
				return false
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
func validHost(s string, wildcard bool) bool { return checkHost(s, wildcard) == nil }

// checkHost is validHost, and says what is wrong.
func checkHost(s string, wildcard bool) error {
	if len(s) > 253 {
		return fmt.Errorf("it has %d octets, and a host name has 253 at most", len(s))
	}
	if wildcard {
		s = strings.TrimPrefix(s, "*.")
	}
	for label := range strings.SplitSeq(s, ".") {
		if err := checkLabel(label); err != nil {
			return err
		}
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return errors.New("it is an IP address: ask for it as one")
	}
	if endsInNumber(s) {
		return errors.New("its last label is a number, so that software takes it for an IP address")
	}
	return nil
}

// checkLabel checks one label of a host name (RFC 1123 §2.1).
func checkLabel(label string) error {
	switch {
	case label == "":
		return fmt.Errorf("it has an empty label")
	case len(label) > 63:
		return fmt.Errorf("a label has %d octets, and 63 are the most", len(label))
	}
	for i := range len(label) {
		if c := label[i]; !letterOrDigit(c) && (c != '-' || i == 0 || i == len(label)-1) {
			return fmt.Errorf("the label %q is not of letters, digits and hyphens between them", short(label))
		}
	}
	return nil
}

// checkALabels wants labels that begin with "xn--" to be what IDNA makes of an internationalized one. It is
// asked about names, not about patterns.
func checkALabels(host string) error {
	for label := range strings.SplitSeq(strings.ToLower(host), ".") {
		if !strings.HasPrefix(label, "xn--") {
			continue
		}
		unicode, err := idna.Registration.ToUnicode(label)
		if err == nil && unicode != label {
			if back, err := idna.Registration.ToASCII(unicode); err == nil && back == label {
				continue
			}
		}
		return fmt.Errorf("the label %q begins with xn-- and is no internationalized label (RFC 5280 §7.2, IDNA2008)", label)
	}
	return nil
}

// validEmail accepts a mailbox of dot-separated words at a host (RFC 5280 §4.2.1.6); no quoted strings.
func validEmail(s string) bool {
	mailbox, host, ok := strings.Cut(s, "@")
	if !ok || !validHost(host, false) || checkALabels(host) != nil {
		return false
	}
	for word := range strings.SplitSeq(mailbox, ".") {
		if word == "" {
			return false
		}
		for i := range len(word) {
			if c := word[i]; !letterOrDigit(c) && !strings.Contains("!#$%&'*+-/=?^_`{|}~", string(rune(c))) {
				return false
			}
		}
	}
	return true
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

// nameFault says what keeps a name from being one of its form at all, whatever the patterns; "" if nothing does.
func nameFault(form, value string) string {
	switch form {
	case "dns":
		if err := cmp.Or(checkHost(value, true), checkALabels(value)); err != nil {
			return err.Error()
		}
	case "uri":
		if !absoluteURI(value) {
			return "it is not an absolute URI of printable ASCII (RFC 5280 §4.2.1.6)"
		}
		if err := checkAuthority(value); err != nil {
			return err.Error()
		}
	case "email":
		if !validEmail(value) {
			return "it is not a mailbox of plain words at a host name (RFC 5280 §4.2.1.6)"
		}
	case "hardware-module":
		serial, hardware, _ := strings.Cut(value, "/")
		if _, err := x509.ParseOID(hardware); err != nil || serial == "" {
			return "a hardware module name is SERIAL/TYPE, with the type's object identifier (RFC 4108 §5)"
		}
	case "permanent-identifier":
		id, assigner, qualified := strings.Cut(value, "/")
		if _, err := x509.ParseOID(assigner); qualified && err != nil || id == "" {
			return "a permanent identifier is IDENTIFIER or IDENTIFIER/ASSIGNER, with the assigner's object identifier (RFC 4043)"
		}
	}
	return ""
}

// absoluteURI accepts a scheme and something after it (RFC 3986 §3.1), all of
// it printable ASCII.
func absoluteURI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || rest == "" || !letterOrDigit(scheme[0]) || '0' <= scheme[0] && scheme[0] <= '9' || !printable(rest) {
		return false
	}
	for i := range len(scheme) {
		if c := scheme[i]; !letterOrDigit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// checkAuthority wants a URI that has an authority to have a host name or an address in it (RFC 5280
// §4.2.1.6), and one that net/url reads: what it does not read makes a certificate that Go does not read either.
func checkAuthority(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return errors.New("its escapes, host or port cannot be read (RFC 3986)")
	}
	_, rest, _ := strings.Cut(s, ":")
	if !strings.HasPrefix(rest, "//") {
		return nil
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && (!validHost(u.Hostname(), false) || checkALabels(u.Hostname()) != nil) {
		return errors.New("its authority holds neither a host name nor an address (RFC 5280 §4.2.1.6)")
	}
	return nil
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
