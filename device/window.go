package device

import "time"

// Window orders a list by the time of what it holds, and may cut off what is older. The zero Window leaves a
// list whole, and in the order of its own key.
type Window struct {
	Since  time.Time // nothing older; zero is everything
	Newest bool      // newest first
	// Passed is the time of what a page begins after, whose key is given beside it: things of one time are in the
	// order of their keys. Zero is the beginning.
	Passed time.Time
}

// Ordered reports whether the list is ordered by time.
func (w Window) Ordered() bool { return w.Newest || !w.Since.IsZero() }
