package device

import (
	"fmt"
	"strings"
)

// Change corrects what was entered wrongly; nil keeps what is there.
type Change struct {
	Level *string `json:"level,omitempty"`
	Group *string `json:"group,omitempty"` // "" takes the device out of its group
}

// Apply corrects d, and reports whether that changed anything.
func (c Change) Apply(d *Device) bool {
	was := *d
	if c.Level != nil {
		d.Level = *c.Level
	}
	if c.Group != nil {
		d.Group = *c.Group
	}
	return *d != was
}

// Differences says what d and to differ in: "level hsm to software, group (none) to lamps"; "" if in nothing.
func (d Device) Differences(to Device) string {
	var all []string
	for _, f := range []struct{ name, was, is string }{{"level", d.Level, to.Level}, {"group", d.Group, to.Group}} {
		if f.was != f.is {
			all = append(all, fmt.Sprintf("%s %s to %s", f.name, orNone(f.was), orNone(f.is)))
		}
	}
	return strings.Join(all, ", ")
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
