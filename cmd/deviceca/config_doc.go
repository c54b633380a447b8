package main

import (
	"bytes"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// commentWidth is where comments of the file wrap.
const commentWidth = 88

// YAML writes the configuration as a file, with what each key means above it.
// ParseConfig reads it back to the same.
func (c *Config) YAML() []byte {
	var b bytes.Buffer
	b.WriteString("# Configuration of this CA. Each key can be given in the environment instead:\n" +
		"# limits.header_timeout is DEVICECA_LIMITS_HEADER_TIMEOUT, lists are separated by commas.\n" +
		"# Check it with: deviceca config check\n")
	group := ""
	for _, k := range c.keys() {
		indent := ""
		in, name, nested := strings.Cut(k.path, ".")
		if !nested {
			in, name = "", k.path
		} else {
			indent = "  "
		}
		b.WriteByte('\n')
		if in != group {
			group = in
			if in != "" {
				fmt.Fprintf(&b, "%s:\n", in)
			}
		}
		doc := k.doc
		if k.unit != "" {
			doc += " (" + k.unit + ")"
		}
		for _, line := range wrap(doc, commentWidth-len(indent)) {
			fmt.Fprintf(&b, "%s# %s\n", indent, line)
		}
		fmt.Fprintf(&b, "%s%s: %s\n", indent, name, k.yaml())
	}
	return b.Bytes()
}

// yaml writes the value in one line.
func (k configKey) yaml() string {
	var n yaml.Node
	switch v := k.value.Interface().(type) {
	case time.Duration:
		return durationText(v)
	case []string:
		n = yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range v {
			n.Content = append(n.Content, textNode(item))
		}
	case string:
		n = *textNode(v)
	default:
		return fmt.Sprint(v)
	}
	raw, err := yaml.Marshal(&n)
	if err != nil {
		panic(err) // nodes made here marshal
	}
	return strings.TrimSuffix(string(raw), "\n")
}

// textNode is a string. It is quoted where it would not fit on its line as it
// is, or would read as something else.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strconv.Quote(s) != `"`+s+`"` || s == "" || len(s) > 60 {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// shown is the value for people: URLs without their password.
func (k configKey) shown() any {
	if s, ok := k.value.Interface().(string); ok && strings.Contains(s, "://") {
		if u, err := url.Parse(s); err == nil {
			return u.Redacted()
		}
		return "(a URL that cannot be read)"
	}
	if d, ok := k.value.Interface().(time.Duration); ok {
		return durationText(d)
	}
	return k.value.Interface()
}

// configMarkdown is the table of keys for the docs.
func configMarkdown() string {
	var b strings.Builder
	b.WriteString("| key | default | meaning | environment |\n|---|---|---|---|\n")
	c := DefaultConfig()
	for _, k := range c.keys() {
		def := k.yaml()
		if def == `""` {
			def = ""
		} else {
			def = "`" + def + "`"
		}
		doc := k.doc
		if k.unit != "" {
			doc += " (" + k.unit + ")"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | `%s` |\n", k.path, def, strings.ReplaceAll(doc, "|", `\|`), k.env)
	}
	return b.String()
}

// configKeys prints the keys as JSON.
func (o output) configKeys() error {
	type line struct {
		Key         string `json:"key"`
		Default     string `json:"default"`
		Meaning     string `json:"meaning"`
		Unit        string `json:"unit,omitempty"`
		Environment string `json:"environment"`
	}
	c, lines := DefaultConfig(), []line{}
	for _, k := range c.keys() {
		lines = append(lines, line{k.path, k.yaml(), k.doc, k.unit, k.env})
	}
	return o.writeJSON(lines)
}

// wrap breaks text into lines of at most width, at spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
