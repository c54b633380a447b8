package store_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/ocsp"
)

func TestOCSPAnswers(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	file := filepath.Join(t.TempDir(), "ledger.db")
	open := func() *store.Store {
		s, err := store.Open(t.Context(), file, store.Options{Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	one, other := open(), open() // two servers on one ledger
	k := ocsp.SharedKey{Issuer: "issuing-1", Serial: ca.NewSerial(7, [12]byte{1}), Form: 2}
	put := func(k ocsp.SharedKey, text string, expires time.Time) {
		t.Helper()
		if err := one.Answers().Put(t.Context(), k, []byte(text), expires); err != nil {
			t.Fatal(err)
		}
	}
	want := func(k ocsp.SharedKey, text string) {
		t.Helper()
		if got, err := other.Answers().Get(t.Context(), k); err != nil || string(got) != text {
			t.Errorf("got %q, %v; want %q", got, err, text)
		}
	}
	want(k, "")
	put(k, "good", now.Add(time.Hour))
	want(k, "good")
	revoked := k
	revoked.State = 5
	want(revoked, "") // what the ledger says now is not what was signed
	put(revoked, "revoked", now.Add(2*time.Hour))
	want(revoked, "revoked")
	want(k, "") // in place of the older one
	foreign := revoked
	foreign.Issuer = "issuing-2"
	want(foreign, "")
	form := revoked
	form.Form = 3
	want(form, "")
	now = now.Add(2 * time.Hour)
	want(revoked, "")
}
