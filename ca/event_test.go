package ca

import (
	"encoding/json"
	"reflect"
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
	if err := quick.Check(func(text [12]string, serial Serial, request, account, count int64, seconds uint32, nanoseconds int64) bool {
		e := Event{Time: time.Unix(int64(seconds), nanoseconds), Kind: EventKind(text[0]), Actor: text[1], Protocol: text[2], Device: text[3], Issuer: text[4],
			Serial: serial, Outcome: text[5], Rule: text[6], Policy: text[7], Digest: text[8], Reason: text[9], Request: request, Account: account, Count: count, Revocation: text[10]}
		empty := Event{Time: e.Time.UTC(), Kind: e.Kind, Reason: e.Reason}
		return same(e) && same(empty)
	}, &quick.Config{MaxCount: 500}); err != nil {
		t.Error(err)
	}
	// A field that is added and forgotten there shows here.
	whole := Event{Time: time.Unix(1, 0), Serial: Serial{1}}
	for v, i := reflect.ValueOf(&whole).Elem(), 0; i < v.NumField(); i++ {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString("x")
		case reflect.Int64:
			f.SetInt(int64(i))
		}
		if v.Field(i).IsZero() {
			t.Errorf("field %s is not tried", v.Type().Field(i).Name)
		}
	}
	if !same(whole) {
		t.Error("a field is missing")
	}
	if _, err := (Event{Time: time.Unix(1<<40, 0)}).AppendJSON(nil); err == nil {
		t.Error("a year of five digits is written")
	}
}

// What events say of revocations can be read again.
func TestRevocationText(t *testing.T) {
	since := time.Date(2029, 12, 31, 0, 0, 0, 5000, time.UTC)
	for _, r := range []Revocation{
		{Time: time.Date(2030, 1, 31, 12, 0, 0, 123456000, time.UTC), Reason: ReasonKeyCompromise},
		{Time: time.Date(2030, 1, 31, 12, 0, 0, 0, time.UTC), Reason: ReasonCertificateHold, Invalid: &since},
	} {
		got, err := ParseRevocation(r.Text())
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, %v", r.Text(), got, err)
		}
	}
	for _, text := range []string{"", "keyCompromise", "released 2030-01-31T12:00:00.000000Z", "keyCompromise 2030-01-31", "keyCompromise 2030-01-31T12:00:00.000000Z invalid since then"} {
		if r, err := ParseRevocation(text); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
}
