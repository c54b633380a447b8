package ca

import (
	"encoding/json"
	"testing"
	"testing/quick"
	"time"
)

// The audit log hashes these octets: they are what encoding/json writes.
func TestEventJSON(t *testing.T) {
	same := func(e Event) bool {
		got, err := e.AppendJSON(nil)
		want, wantErr := json.Marshal(e)
		if err != nil || wantErr != nil || string(got) != string(want) {
			t.Logf("got  %s, %v\nwant %s, %v", got, err, want, wantErr)
			return false
		}
		return true
	}
	if err := quick.Check(func(text [11]string, serial Serial, request int64, seconds uint32, nanoseconds int64) bool {
		e := Event{Time: time.Unix(int64(seconds), nanoseconds), Kind: EventKind(text[0]), Actor: text[1], Protocol: text[2], Device: text[3], Issuer: text[4],
			Serial: serial, Outcome: text[5], Rule: text[6], Policy: text[7], Digest: text[8], Reason: text[9], Request: request}
		empty := Event{Time: e.Time.UTC(), Kind: e.Kind, Reason: e.Reason}
		return same(e) && same(empty)
	}, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
	if _, err := (Event{Time: time.Unix(1<<40, 0)}).AppendJSON(nil); err == nil {
		t.Error("a year of five digits is written")
	}
}
