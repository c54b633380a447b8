package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// parseDuration reads a Go duration ("90m", "1h30m") that may start with
// days ("30d", "1d12h"). A day is 24 hours.
func parseDuration(s string) (time.Duration, error) {
	head, rest, ok := strings.Cut(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	days, err := strconv.ParseFloat(head, 64)
	if err != nil || !(math.Abs(days) <= math.MaxInt64/float64(day)/2) {
		return 0, fmt.Errorf("%q is not a number of days", head)
	}
	d := time.Duration(days * float64(day))
	if rest == "" {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 || more >= day {
		return 0, fmt.Errorf("%q is not the rest of a day", rest)
	}
	return d + more, nil
}

// formatDuration writes a duration as a policy file would.
func formatDuration(d time.Duration) string {
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
	got, err := parseDuration(v.node.Value)
	if err != nil {
		d.fault(v, hint, "%q is not a duration", short(v.node.Value))
		return 0
	}
	if got < least || got > most {
		d.fault(v, fmt.Sprintf("give between %s and %s", formatDuration(least), formatDuration(most)), "%s is out of range", v.node.Value)
		return 0
	}
	return got
}
