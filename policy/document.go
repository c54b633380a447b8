package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the size above which a policy file is refused, in bytes.
const MaxSize = 1 << 20

// value is a YAML node and where it stands.
type value struct {
	node *yaml.Node
	path string
}

func (v value) child(name string, n *yaml.Node) value {
	if v.path == "" {
		return value{n, name}
	}
	return value{n, v.path + "." + name}
}

func (v value) item(i int) value {
	return value{v.node.Content[i], fmt.Sprintf("%s[%d]", v.path, i)}
}

// maxFaults is how many faults of one file are told: nobody mends more at a time.
const maxFaults = 200

// Bounds of what a policy describes. Reading a condition, and issuing a sample under a profile, take
// around a millisecond each, and levels, rules and profiles multiply.
const (
	maxProfiles = 100
	maxLevels   = 100
	maxRules    = 300
)

// tooMany reports, as a fault, that there are more of something than a policy may have.
func (d *document) tooMany(v value, n, most int, what string) bool {
	if n > most {
		d.fault(v, "a policy is written by hand; move generated lists elsewhere", "there are %d %s, more than %d", n, what, most)
	}
	return n > most
}

// document reads typed values out of a YAML file and gathers what is wrong
// with them; reading goes on after a fault.
type document struct {
	file   string
	faults Faults
}

func (d *document) fault(v value, hint, format string, args ...any) {
	if len(d.faults) >= maxFaults {
		return
	}
	d.faults = append(d.faults, Fault{File: d.file, Line: max(v.node.Line, 1), Column: max(v.node.Column, 1),
		Path: v.path, Message: fmt.Sprintf(format, args...), Hint: hint})
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// root parses the file's one YAML document; ok is false if there is nothing to go on with.
func (d *document) root(data []byte) (v value, ok bool) {
	top := value{node: &yaml.Node{Line: 1, Column: 1}}
	if len(data) > MaxSize {
		d.fault(top, "a policy is written by hand; move generated lists elsewhere", "the file has %d bytes, more than %d", len(data), MaxSize)
		return top, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.fault(top, "start from the default policy, which `deviceca init` writes", "the file is empty")
		return top, false
	case err != nil:
		m := yamlLine.FindStringSubmatch(err.Error())
		if m != nil && m[1] != "" {
			top.node.Line, _ = strconv.Atoi(m[1])
		}
		d.fault(top, "indent with spaces, and quote text that holds ': ', '#', '{' or '*'", "not YAML: %s", yamlLine.ReplaceAllString(err.Error(), ""))
		return top, false
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		top.node.Line = max(second.Line, doc.Line)
		d.fault(top, "remove the line `---` and what follows it", "the file holds more than one YAML document")
	}
	top.node = doc.Content[0]
	return top, true
}

// plain says whether v is neither an alias nor anchored. An alias can stand for
// a text a billion times its length, and `extends` does the honest part of its work.
func (d *document) plain(v value) bool {
	if v.node.Kind == yaml.AliasNode || v.node.Anchor != "" {
		d.fault(v, "write the value out, or use `extends` between profiles", "YAML anchors and aliases are not accepted")
		return false
	}
	return true
}

// field is one entry of a map.
type field struct {
	name string
	key  value
	value
}

// entries reads a map, in file order.
func (d *document) entries(v value) []field {
	if !d.plain(v) {
		return nil
	}
	if v.node.Kind != yaml.MappingNode {
		d.fault(v, "write `name: value` lines, indented under it", "a map is wanted here, not %s", describe(v.node))
		return nil
	}
	var fields []field
	lines := make(map[string]int, len(v.node.Content)/2)
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		n := v.node.Content[i]
		key := v.child(n.Value, n)
		if !d.plain(key) {
			continue
		}
		if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" || n.ShortTag() == "!!merge" {
			d.fault(value{n, v.path}, "use plain words as keys; to share values, use `extends`", "a key must be a plain word")
			continue
		}
		if line, twice := lines[n.Value]; twice {
			d.fault(key, "keep one of the two", "%q is given twice (first on line %d)", n.Value, line)
			continue
		}
		lines[n.Value] = n.Line
		fields = append(fields, field{n.Value, key, v.child(n.Value, v.node.Content[i+1])})
	}
	return fields
}

// object reads a map that has only known fields.
func (d *document) object(v value, known ...string) map[string]value {
	got := map[string]value{}
	for _, f := range d.entries(v) {
		if !slices.Contains(known, f.name) {
			d.fault(f.key, didYouMean(f.name, known), "unknown field %q", f.name)
			continue
		}
		if f.node.Kind == yaml.ScalarNode && f.node.ShortTag() == "!!null" {
			d.fault(f.value, "give a value, or leave the line out", "%q has no value", f.name)
			continue
		}
		got[f.name] = f.value
	}
	return got
}

// items reads a list.
func (d *document) items(v value) []value {
	if !d.plain(v) {
		return nil
	}
	if v.node.Kind != yaml.SequenceNode {
		hint := "write its items as `- item` lines, or as [one, two]"
		if v.node.Kind == yaml.ScalarNode {
			hint = fmt.Sprintf("write [%s]", short(v.node.Value))
		}
		d.fault(v, hint, "a list is wanted here, not %s", describe(v.node))
		return nil
	}
	items := make([]value, len(v.node.Content))
	for i := range items {
		items[i] = v.item(i)
	}
	return items
}

// words reads a list of texts without repetition; ok vets and normalizes each.
func (d *document) words(v value, ok func(value, string) (string, bool)) []string {
	words := []string{}
	for _, item := range d.items(v) {
		w, good := d.text(item)
		if good {
			w, good = ok(item, w)
		}
		if !good {
			continue
		}
		if slices.Contains(words, w) {
			d.fault(item, "keep one of the two", "%q is listed twice", w)
			continue
		}
		words = append(words, w)
	}
	return words
}

// oneOf vets the words of a list or a single word against what is known.
func (d *document) oneOf(what string, known ...string) func(value, string) (string, bool) {
	return func(v value, w string) (string, bool) {
		if slices.Contains(known, w) {
			return w, true
		}
		d.fault(v, didYouMean(w, known), "unknown %s %q", what, short(w))
		return "", false
	}
}

func (d *document) scalar(v value, want, hint string, tags ...string) bool {
	if !d.plain(v) {
		return false
	}
	if v.node.Kind != yaml.ScalarNode || !slices.Contains(tags, v.node.ShortTag()) {
		d.fault(v, hint, "%s is wanted here, not %s", want, describe(v.node))
		return false
	}
	return true
}

// text reads a text. An OID of two arcs and a number look alike in YAML, so numbers count as text.
func (d *document) text(v value) (string, bool) {
	if !d.scalar(v, "text", "put it in quotes", "!!str", "!!int", "!!float") {
		return "", false
	}
	if v.node.Value == "" {
		d.fault(v, "give a value, or leave the line out", "the text is empty")
		return "", false
	}
	return v.node.Value, true
}

func (d *document) truth(v value) bool {
	return d.scalar(v, "true or false", "write true or false, without quotes", "!!bool") && strings.EqualFold(v.node.Value, "true")
}

// fraction reads a number above 0 and below 1, or up to 1 if whole is set.
func (d *document) fraction(v value, whole bool) float64 {
	if !d.scalar(v, "a number", "write it as 0.5", "!!float", "!!int") {
		return 0
	}
	f, err := strconv.ParseFloat(v.node.Value, 64)
	if err != nil || !(f > 0) || f > 1 || f == 1 && !whole {
		end := "below 1"
		if whole {
			end = "at most 1"
		}
		d.fault(v, "0.5 is half", "%s is not a fraction: it must be above 0 and %s", short(v.node.Value), end)
		return 0
	}
	return f
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch tag := n.ShortTag(); tag {
		case "!!str":
			return fmt.Sprintf("the text %q", short(n.Value))
		case "!!null":
			return "nothing"
		case "!!bool", "!!int", "!!float":
			return short(n.Value)
		default:
			return "a value tagged " + short(tag)
		}
	}
	return "an alias"
}

// short keeps a message readable when what was written is long.
func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
