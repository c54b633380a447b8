package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// ParseDuration reads a Go duration ("90m", "1h30m") that may start with weeks or
// days ("2w", "30d", "1w3d", "1d12h"). A day is 24 hours.
func ParseDuration(s string) (time.Duration, error) {
	for _, unit := range []struct {
		letter, name string
		long         time.Duration
	}{{"w", "week", week}, {"d", "day", day}} {
		head, rest, ok := strings.Cut(s, unit.letter)
		if !ok {
			continue
		}
		many, err := strconv.ParseFloat(head, 64)
		if err != nil || !(math.Abs(many) <= math.MaxInt64/float64(unit.long)/2) {
			return 0, fmt.Errorf("%q is not a number of %ss", head, unit.name)
		}
		d := time.Duration(many * float64(unit.long))
		if rest == "" {
			return d, nil
		}
		more, err := ParseDuration(rest)
		if err != nil || more < 0 || more >= unit.long {
			return 0, fmt.Errorf("%q is not the rest of a %s", rest, unit.name)
		}
		return d + more, nil
	}
	return time.ParseDuration(s)
}

// FormatDuration writes a duration as a policy file would: "30d", "24h", "1h30m".
func FormatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// duration reads a duration from least to most.
func (d *document) duration(v value, least, most time.Duration) time.Duration {
	const hint = `give a number and a unit: "90m", "24h", "30d"`
	if !d.scalar(v, "a duration", hint, "!!str", "!!int", "!!float") {
		return 0
	}
	got, err := ParseDuration(v.node.Value)
	if err != nil {
		d.fault(v, hint, "%q is not a duration", short(v.node.Value))
		return 0
	}
	if got < least || got > most {
		d.fault(v, fmt.Sprintf("give between %s and %s", FormatDuration(least), FormatDuration(most)), "%s is out of range", v.node.Value)
		return 0
	}
	return got
}
