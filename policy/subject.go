package policy

import (
	"slices"
	"strings"
)

// attribute is one kind of subject attribute: its short name, its OID and the
// most characters X.520 gives it (RFC 5280 appendix A.1).
type attribute struct {
	name, oid string
	most      int
}

var attributes = []attribute{
	{"cn", "2.5.4.3", 64},
	{"serialnumber", "2.5.4.5", 64},
	{"c", "2.5.4.6", 2},
	{"l", "2.5.4.7", 128},
	{"st", "2.5.4.8", 128},
	{"o", "2.5.4.10", 64},
	{"ou", "2.5.4.11", 64},
}

// maxAttribute bounds attributes that have no bound of their own here.
const maxAttribute = 256

func mostOf(attr string) int {
	for _, a := range attributes {
		if a.name == attr {
			return a.most
		}
	}
	return maxAttribute
}

// Expand gives the attribute's value for a device; ok is false if the value
// would hold a group and the device has none, is longer than the attribute
// may be, or is a country or serial number with characters that a PrintableString has not (RFC 5280 appendix A.1).
func (s SubjectTemplate) Expand(dev Device) (text string, ok bool) {
	if s.Value == deviceID {
		return dev.ID, dev.ID != "" && s.encodes(dev.ID)
	}
	if strings.Contains(s.Value, deviceGroup) && dev.Group == "" || strings.Contains(s.Value, deviceID) && dev.ID == "" {
		return "", false
	}
	// The ID first: a group may hold any text, and none of it is a placeholder.
	text = strings.ReplaceAll(strings.ReplaceAll(s.Value, deviceID, dev.ID), deviceGroup, dev.Group)
	return text, len([]rune(text)) <= mostOf(s.Attr) && s.encodes(text)
}

// encodes reports whether the attribute has a string type for the text.
func (s SubjectTemplate) encodes(text string) bool {
	if s.Attr != "c" && s.Attr != "serialnumber" {
		return true
	}
	for i := range len(text) {
		if !letterOrDigit(text[i]) && !strings.Contains(" '()+,-./:=?", text[i:i+1]) {
			return false
		}
	}
	return true
}

// sameAttribute compares values as RFC 5280 §7.1 would: without case, and
// with runs of spaces as one.
func sameAttribute(a, b string) bool {
	return strings.EqualFold(a, b) || strings.EqualFold(strings.Join(strings.Fields(a), " "), strings.Join(strings.Fields(b), " "))
}

// subject reads `subject:`.
func (d *document) subject(v value) []SubjectTemplate {
	var templates []SubjectTemplate
	named := false
	for _, f := range d.entries(v) {
		attr, ok := d.attribute(f)
		if !ok {
			continue
		}
		text, ok := d.text(f.value)
		if !ok || !d.placeholders(f.value, text) {
			continue
		}
		if slices.ContainsFunc(templates, func(s SubjectTemplate) bool { return s.Attr == attr }) {
			d.fault(f.key, "keep one of the two", "the attribute %q is given twice, once as its OID", attr)
			continue
		}
		literal := strings.NewReplacer(deviceID, "", deviceGroup, "").Replace(text)
		if most := mostOf(attr); len([]rune(literal)) > most {
			d.fault(f.value, "shorten it", "%q has at most %d characters", attr, most)
			continue
		}
		if attr == "c" && (len(text) != 2 || strings.ToUpper(text) != text) {
			d.fault(f.value, `write two capital letters, like "DE"`, "%q is not a country code", short(text))
			continue
		}
		named = named || strings.Contains(text, deviceID)
		templates = append(templates, SubjectTemplate{attr, text})
	}
	if templates != nil && !named {
		d.fault(v, `add cn: "{device.id}"`, "no attribute holds {device.id}, so the certificate would not name its device")
	}
	return templates
}

func (d *document) attribute(f field) (string, bool) {
	var known []string
	for _, a := range attributes {
		if f.name == a.name || f.name == a.oid {
			return a.name, true
		}
		known = append(known, a.name)
	}
	if validOID(f.name) {
		return f.name, true
	}
	d.fault(f.key, didYouMean(f.name, known), "unknown subject attribute %q", short(f.name))
	return "", false
}
