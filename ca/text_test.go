package ca_test

import (
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// RFC 3339 allows small letters.
func TestParseTime(t *testing.T) {
	want := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, text := range []string{"2030-01-31T12:00:00Z", "2030-01-31t12:00:00z", "2030-01-31T14:00:00+02:00", "2030-01-31t12:00:00.000Z"} {
		if got, err := ca.ParseTime(text); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "2030-01-31", "2030-01-31 12:00:00Z", "tomorrow"} {
		if got, err := ca.ParseTime(text); err == nil {
			t.Errorf("%q is read as %s", text, got)
		}
	}
}
