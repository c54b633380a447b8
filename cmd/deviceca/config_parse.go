package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/policy"
	"go.yaml.in/yaml/v3"
)

// maxConfig is the largest configuration read, in octets.
const maxConfig = 1 << 20

func readBounded(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxConfig+1))
	if err == nil && len(raw) > maxConfig {
		err = fmt.Errorf("the file is larger than %d octets", maxConfig)
	}
	return raw, err
}

// ConfigFault is one thing wrong with a configuration.
type ConfigFault struct {
	Where   string `json:"where"` // "FILE:LINE", an environment variable, or the file
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
	line    int
}

// ConfigFaults is everything wrong with a configuration, in the order of the file.
type ConfigFaults []ConfigFault

func (f ConfigFaults) Error() string {
	lines := make([]string, len(f))
	for i, one := range f {
		lines[i] = one.Where + ": " + one.Message
		if one.Key != "" {
			lines[i] = one.Where + ": " + one.Key + ": " + one.Message
		}
	}
	return strings.Join(lines, "\n")
}

// configParser collects faults, and where each key was set.
type configParser struct {
	file   string
	keys   map[string]configKey
	lines  map[string]int    // key or group to its line
	envs   map[string]string // key to the variable that set it
	faults ConfigFaults
}

// ParseConfig reads a configuration, lays the environment over it, and checks
// it. Every fault is reported, as ConfigFaults.
func ParseConfig(file string, data []byte, getenv func(string) string) (Config, error) {
	c := DefaultConfig()
	p := &configParser{file: file, keys: map[string]configKey{}, lines: map[string]int{}, envs: map[string]string{}}
	keys := c.keys()
	for _, k := range keys {
		p.keys[k.path] = k
	}
	p.document(data)
	for _, k := range keys {
		if text := getenv(k.env); text != "" {
			p.envs[k.path] = k.env
			if err := setText(k.value, text); err != nil {
				p.fault(k.path, "%s", err)
			}
		}
	}
	// A value that could not be read has its default now, so that checking
	// the rest makes sense.
	c.faults(p.fault)
	if len(p.faults) > 0 {
		slices.SortStableFunc(p.faults, func(a, b ConfigFault) int { return cmp.Compare(a.line, b.line) })
		return Config{}, p.faults
	}
	return c, nil
}

// fault reports a key where it was set.
func (p *configParser) fault(key, format string, args ...any) {
	f := ConfigFault{Where: p.file, Key: key, Message: fmt.Sprintf(format, args...)}
	if env, ok := p.envs[key]; ok {
		f.Where, f.line = env, math.MaxInt
	} else if line, ok := p.lines[key]; ok {
		f.Where, f.line = fmt.Sprintf("%s:%d", p.file, line), line
	}
	p.faults = append(p.faults, f)
}

// at reports a place in the file.
func (p *configParser) at(line int, key, format string, args ...any) {
	p.faults = append(p.faults, ConfigFault{Where: fmt.Sprintf("%s:%d", p.file, line), Key: key, Message: fmt.Sprintf(format, args...), line: line})
}

// document reads the one document of the file.
func (p *configParser) document(data []byte) {
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == io.EOF {
		return // an empty file: the defaults
	}
	if err != nil {
		p.syntax(err)
		return
	}
	if err := dec.Decode(&more); err == nil {
		p.at(max(more.Line, 1), "", "there is a second document; one file holds one")
	} else if err != io.EOF {
		p.syntax(err)
	}
	root := doc.Content[0]
	if isNull(root) {
		return // comments alone
	}
	p.mapping(root, "")
}

// syntax reports what the YAML parser says, with its line in our form.
func (p *configParser) syntax(err error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, message, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				p.at(line, "", "%s", message)
				return
			}
		}
	}
	p.at(1, "", "%s", text)
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (p *configParser) mapping(n *yaml.Node, prefix string) {
	name := strings.TrimSuffix(prefix, ".")
	if n.Kind != yaml.MappingNode {
		p.at(n.Line, name, "must hold keys, each on its line: %s", strings.Join(p.below(prefix), ", "))
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		path := prefix + key.Value
		if first, twice := p.lines[path]; twice {
			p.at(key.Line, path, "is given twice; the first is on line %d", first)
			continue
		}
		k, isKey := p.keys[path]
		switch {
		case key.Kind != yaml.ScalarNode || strings.Contains(key.Value, "."):
			p.at(key.Line, name, "%q is not a key", key.Value)
		case value.Kind == yaml.AliasNode:
			p.at(key.Line, path, "aliases are not read; write the value")
		case isKey:
			p.lines[path] = key.Line
			if err := setNode(k.value, value); err != nil {
				p.at(value.Line, path, "%s", err)
			}
		case len(p.below(path+".")) > 0:
			p.lines[path] = key.Line
			if !isNull(value) { // a group whose keys are all commented out
				p.mapping(value, path+".")
			}
		default:
			p.at(key.Line, path, "unknown key; known here: %s", strings.Join(p.below(prefix), ", "))
		}
	}
}

// below lists the names directly under a prefix, sorted.
func (p *configParser) below(prefix string) (names []string) {
	for path := range p.keys {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			name, _, _ := strings.Cut(rest, ".")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// setNode sets a key from the file.
func setNode(v reflect.Value, n *yaml.Node) error {
	if isNull(n) {
		return errors.New("has no value; leave the key out for its default")
	}
	if list, ok := v.Addr().Interface().(*[]string); ok {
		if n.Kind != yaml.SequenceNode {
			return errors.New("must be a list, as in [one, two]")
		}
		out := make([]string, 0, len(n.Content))
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode || isNull(item) {
				return errors.New("must be a list of plain values")
			}
			out = append(out, item.Value)
		}
		*list = orNil(out)
		return nil
	}
	if n.Kind != yaml.ScalarNode {
		return errors.New("must be one plain value")
	}
	return setText(v, n.Value)
}

// orNil makes an empty list the same as none.
func orNil(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// setText sets a key from text: the environment's form of it, and the file's too, lists aside.
func setText(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		*p = text == "true"
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		*p = n
	case *float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		*p = f
	case *time.Duration:
		d, err := policy.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration such as 90s, 5m or 24h", text)
		}
		*p = d
	case *[]string:
		var out []string
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				out = append(out, item)
			}
		}
		*p = out
	default:
		panic("config: no reader for " + v.Type().String()) // a new kind of field; a test reads every key
	}
	return nil
}
