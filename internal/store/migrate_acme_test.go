package store_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// TestMigrateAccounts: whether an account from before got a certificate is not known, so it keeps its use of the credential.
func TestMigrateAccounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	old := fstest.MapFS{}
	names, err := fs.Glob(store.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(store.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		if name < "00017" {
			old[name] = &fstest.MapFile{Data: text}
		}
	}
	old["00008_acme.sql"].Data = append(old["00008_acme.sql"].Data, `
INSERT INTO acme_account (id, thumbprint, key, status, contact, agreed, credential, device, folded, created)
	VALUES (7, X'0700000000000000000000000000000000000000000000000000000000000000', X'01', 'valid', '[]', 1, 'abc', 'lamp-1', 'lamp-1', 0);
`...)
	s, err := store.OpenMigrating(t.Context(), path, store.Options{}, old)
	if err == nil {
		s.Close() // reads of this version do not prepare over those tables, and that is an error too
	}
	s = openFile(t, path)
	a, err := s.Account(t.Context(), 7)
	if err != nil || a.Credential != "abc" || a.Binding != nil {
		t.Fatalf("%+v, %v", a, err)
	}
	spent := storetest.Credential("abc", 1)
	if err := s.AddCredential(t.Context(), spent, storetest.Event(ca.EventCredentialAdded, "")); err != nil {
		t.Fatal(err)
	}
	for _, want := range []error{nil, ca.ErrSpent} {
		if _, err := s.AddAccount(t.Context(), storetest.Account("abc"), storetest.Event(ca.EventAccountAdded, "")); !errors.Is(err, want) {
			t.Errorf("an account of the credential: %v, want %v", err, want)
		}
	}
	if _, err := s.Account(t.Context(), 7); err != nil {
		t.Errorf("the old account: %v", err)
	}
}
