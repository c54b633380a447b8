package keystest

import (
	"testing"
	"time"
)

// WaitFor polls until ok, for as long as a provider may take to notice what happens to its place.
func WaitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Second {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
