package store_test

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// TestMigrateNoStatus: records from before the column are told by their extension.
func TestMigrateNoStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	first, err := fs.ReadFile(store.Migrations(), "00001_ledger.sql")
	if err != nil {
		t.Fatal(err)
	}
	// The columns came later, so the old tables are filled by hand.
	old := fstest.MapFS{"00001_ledger.sql": {Data: append(first, []byte(`
INSERT INTO issuance_index VALUES ('issuing-1', 2);
INSERT INTO certificate VALUES
	(1, X'01000000000000000000000000000000000000', 'issuing-1', NULL, X'01', 'p', '', 'est', '', '', NULL, 0, 0, 1, X'00', '{}', X'', X'300a0603551d3804020500'),
	(2, X'01000000000001000000000000000000000000', 'issuing-1', NULL, X'02', 'p', '', 'est', '', '', NULL, 0, 0, 1, X'00', '{}', X'', X'300a0603551d1f04020500');
INSERT INTO revocation VALUES (1, 1, 'issuing-1', X'01000000000000000000000000000000000000', 1, 1, 1, NULL),
	(2, 2, 'issuing-1', X'01000000000001000000000000000000000000', 1, 1, 1, NULL);
`)...)}}
	s, err := store.OpenMigrating(t.Context(), path, store.Options{}, old)
	if err == nil {
		s.Close() // reads of this version do not prepare over those tables, and that is an error too
	}
	s = openFile(t, path)
	var got []ca.Serial
	for e, err := range s.Journal().Revoked(t.Context(), storetest.Issuer, crl.Query{To: 1 << 48}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Serial)
	}
	if len(got) != 1 || !bytes.Equal(got[0][:7], []byte{1, 0, 0, 0, 0, 0, 1}) {
		t.Errorf("published: %v", got)
	}
	if c, err := s.CertificateBySerial(t.Context(), ca.NewSerial(0, [12]byte{})); err != nil || !c.NoStatus {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestMigrateCheckpoints: those of before events were dropped by a statement state nothing.
func TestMigrateCheckpoints(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	old := fstest.MapFS{}
	all, err := fs.Glob(store.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if name >= "00012" {
			continue
		}
		data, err := fs.ReadFile(store.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		old[name] = &fstest.MapFile{Data: data}
	}
	old[all[0]].Data = append(old[all[0]].Data, []byte(`
INSERT INTO audit_checkpoint (sequence, head, time, key, signature) VALUES (7, zeroblob(32), 1, 'audit', X'01');
`)...)
	if s, err := store.OpenMigrating(t.Context(), path, store.Options{}, old); err == nil {
		s.Close()
	}
	s := openFile(t, path)
	c, err := s.NewestCheckpoint(t.Context())
	if err != nil || c.Sequence != 7 || c.Key != "audit" || c.Dropped != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}
