package ca_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Reasons are written by name; earlier versions wrote numbers.
func TestRevocationJSON(t *testing.T) {
	at := time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC)
	for reason, text := range map[int]string{
		ca.ReasonKeyCompromise: `{"sequence":7,"time":"2030-01-31T12:00:00Z","reason":"keyCompromise"}`,
		8:                      `{"sequence":7,"time":"2030-01-31T12:00:00Z","reason":"removeFromCRL"}`,
		7:                      `{"sequence":7,"time":"2030-01-31T12:00:00Z","reason":"reason 7"}`,
	} {
		want := ca.Revocation{Sequence: 7, Time: at, Reason: reason}
		raw, err := json.Marshal(want)
		var same, got ca.Revocation
		if err != nil || json.Unmarshal(raw, &same) != nil || same != want || json.Unmarshal([]byte(text), &got) != nil || got != want {
			t.Errorf("%s, %v: %+v, %+v", raw, err, same, got)
		}
		var plain map[string]any
		if json.Unmarshal(raw, &plain); plain["reason"] == float64(reason) {
			t.Errorf("%s has a number", raw)
		}
	}
	var old ca.Revocation
	if err := json.Unmarshal([]byte(`{"reason":4}`), &old); err != nil || old.Reason != ca.ReasonSuperseded {
		t.Errorf("%+v, %v", old, err)
	}
	if err := json.Unmarshal([]byte(`{"reason":"boredom"}`), &old); err == nil {
		t.Error("boredom is a reason")
	}
}
