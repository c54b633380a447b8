package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with a policy file.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1
	Path    string `json:"path"`   // "profiles.device.keys[1]"
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do about it
}

// Faults is every fault of a file, in the order of its lines. It is the
// error that [Parse] returns.
type Faults []Fault

// Error prints each fault as "file:line: message", its hint on a line
// of its own below.
func (f Faults) Error() string {
	var b strings.Builder
	for i, one := range f {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d: %s", one.File, one.Line, one.Message)
		if one.Hint != "" {
			fmt.Fprintf(&b, "\n\thint: %s", one.Hint)
		}
	}
	return b.String()
}

// sorted orders faults by position. A value that several profiles inherit is
// checked once for each of them, so the same fault can come more than once.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return slices.CompactFunc(f, func(a, b Fault) bool { return a == b })
}

// didYouMean is a hint that offers the known word nearest to what was
// written, or else all of them.
func didYouMean(wrote string, known []string) string {
	if near := nearest(wrote, known); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(known) == 0 {
		return ""
	}
	return "known here: " + strings.Join(known, ", ")
}

// nearest is the known word within a third of its length of edits, or "".
func nearest(wrote string, known []string) string {
	// An edit distance costs the product of the lengths; nothing known is this long.
	if len(wrote) > 64 {
		return ""
	}
	best, least := "", len(wrote)
	for _, k := range known {
		if d := edits(strings.ToLower(wrote), strings.ToLower(k)); d < least && d <= max(1, len(k)/3) {
			best, least = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance over bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
