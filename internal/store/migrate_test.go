package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

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
	s := migrated(t, "00018", `
INSERT INTO audit_checkpoint (sequence, head, time, key, signature) VALUES (7, zeroblob(32), 1, 'audit', X'01');
`)
	c, err := s.NewestCheckpoint(t.Context())
	if err != nil || c.Sequence != 7 || c.Key != "audit" || c.Dropped != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestMigratePossession: what is recorded before it was asked how possession was proven keeps its key, its
// confirmations go on, and who is registered keeps its mark.
func TestMigratePossession(t *testing.T) {
	s := migrated(t, "00011", `
INSERT INTO device VALUES (1, 'lamp-1', 'lamp-1', 'software', '', 'active', 'manufacturer:acme', 0, 0);
INSERT INTO certificate (id, serial, issuer, device, key_id, profile, level, protocol, requester, actor, issued, not_before, not_after, request, decision, input, der)
	VALUES (1, X'01000000000000000000000000000000000000', 'issuing-1', 1, zeroblob(32), 'p', '', 'cmp', '', '', 0, 0, 1, X'00', '{}', X'', X'00');
INSERT INTO manufacturer (id, name, format, level, anchors, constraints, created, withdrawn) VALUES
	(1, 'acme', 'idevid', 'hsm', '["AQ=="]', '{}', 0, 1), (2, 'acme', 'idevid', 'hsm', '["Ag=="]', '{}', 0, 1);
INSERT INTO cmp_transaction (id, begun, expires, state, request, actor, serial, req_id, deadline)
	VALUES (zeroblob(32), 0, 1, 'waiting', zeroblob(32), 'a', X'01000000000000000000000000000000000000', 0, 5);
`)
	serial := ca.NewSerial(0, [12]byte{})
	if got, err := s.Standing(t.Context(), "lamp-1", [32]byte{}); err != nil || got.KeyOwner != "lamp-1" || got.Newest != serial {
		t.Errorf("standing %+v, %v", got, err)
	}
	if w, err := s.WaitingTransaction(t.Context(), serial); err != nil || w.State != "waiting" {
		t.Errorf("waits: %+v, %v", w, err)
	}
	for i, want := range []string{"manufacturer:acme", "manufacturer:acme", "manufacturer:acme#5"} {
		anchor := byte(i + 1)
		m := &ca.Manufacturer{Name: "acme", Format: "idevid", Level: "hsm", Anchors: [][]byte{{anchor}}}
		if err := s.AddManufacturer(t.Context(), m, storetest.Event(ca.EventManufacturerAdded, "")); err != nil {
			t.Fatal(err)
		}
		if got := m.Mark(); got != want {
			t.Errorf("anchor %d: %s, want %s", anchor, got, want)
		}
		if err := s.WithdrawManufacturer(t.Context(), "acme", "", storetest.Start, storetest.Event(ca.EventManufacturerWithdrawn, "")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMigrateInstance: a ledger from before restores had instances gets one, and is open.
func TestMigrateInstance(t *testing.T) {
	s := migrated(t, "00013", "")
	i, err := s.Instance(t.Context())
	if err != nil || len(i.ID) != 32 || i.Restored() || time.Since(i.Since).Abs() > time.Hour {
		t.Errorf("%+v, %v", i, err)
	}
	if closed, _, err := s.Closed(t.Context()); closed || err != nil {
		t.Errorf("closed: %v, %v", closed, err)
	}
	if n, err := s.Journal().NextNumber(t.Context(), storetest.Issuer); n != 1 || err != nil {
		t.Errorf("the first CRL number is %d (%v)", n, err)
	}
}

// TestMigrateAdmins: administrators from before certificates were kept are known by their key.
func TestMigrateAdmins(t *testing.T) {
	s := migrated(t, "00016", `
INSERT INTO admin VALUES ('ops', 'operator', X'0102', 5);
`)
	admins, err := s.Admins(t.Context())
	if err != nil || len(admins) != 1 || admins[0].Name != "ops" || !admins[0].ByKey() || !admins[0].NotAfter.IsZero() {
		t.Errorf("%+v, %v", admins, err)
	}
}

// TestMigrateAccounts: whether an account from before got a certificate is not known, so it keeps its use of the credential.
func TestMigrateAccounts(t *testing.T) {
	s := migrated(t, "00017", `
INSERT INTO acme_account (id, thumbprint, key, status, contact, agreed, credential, device, folded, created)
	VALUES (7, X'0700000000000000000000000000000000000000000000000000000000000000', X'01', 'valid', '[]', 1, 'abc', 'lamp-1', 'lamp-1', 0);
`)
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

// TestMigrateBudgets: what waits in an old ledger is known by who asked, and ends with that.
func TestMigrateBudgets(t *testing.T) {
	s := migrated(t, "00015", `
INSERT INTO credential VALUES ('abc', '', '', 'lamps', '[]', 'software', 1, 0, 1, 9000000000000000, NULL, X'00');
INSERT INTO pending (key, folded, state, created, expires, by_whom, reason, facts) VALUES
	(X'01', 'lamp-1', 'waiting', 1, 9000000000000000, '', '', '{"device":"lamp-1","actor":"credential:abc","credential":"abc"}'),
	(X'02', 'lamp-2', 'waiting', 1, 9000000000000000, '', '', '{"device":"lamp-2","actor":"device:lamp-2"}'),
	(X'03', 'lamp-3', 'denied', 1, 9000000000000000, '', '', '{"device":"lamp-3","actor":"credential:abc","credential":"abc"}');
`)
	if err := s.RevokeCredential(t.Context(), "abc", storetest.Start, storetest.Event(ca.EventCredentialRevoked, "")); err != nil {
		t.Fatal(err)
	}
	all, err := s.Pendings(t.Context(), ca.PendingFilter{}, 0, 10)
	if err != nil || len(all) != 3 || all[0].State != ca.PendingVoid || all[1].State != ca.PendingWaiting || all[2].State != ca.PendingDenied {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestMigrateActivation: a CA from before activation had a time issues from the start.
func TestMigrateActivation(t *testing.T) {
	s := migrated(t, "00019", `
INSERT INTO issuer (name, role, generation, key, cert, created) VALUES ('issuing-1', 'issuing', 1, 'issuing-1', X'00', 5);
`)
	all, err := s.Issuers(t.Context())
	if err != nil || len(all) != 1 || !all[0].Activates.IsZero() || !all[0].Since().Equal(all[0].Created) {
		t.Errorf("%+v, %v", all, err)
	}
}

// TestMigrateOutOfOrder: a ledger that lacks a migration before its last one gets it.
func TestMigrateOutOfOrder(t *testing.T) {
	most := fstest.MapFS{}
	names, err := fs.Glob(store.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(store.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(name, "00012") && !strings.HasPrefix(name, "00015") {
			most[name] = &fstest.MapFile{Data: data}
		}
	}
	path := filepath.Join(t.TempDir(), "db")
	if s, err := store.OpenMigrating(t.Context(), path, store.Options{}, most); err == nil {
		s.Close() // reads of this version may not prepare over those tables
	}
	if err := openFile(t, path).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

// migrated opens a ledger that was made before a migration, filled by SQL of that time.
func migrated(t *testing.T, before, fill string) *store.Store {
	t.Helper()
	names, err := fs.Glob(store.Migrations(), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	old := fstest.MapFS{}
	for i, name := range names {
		if name >= before {
			break
		}
		data, err := fs.ReadFile(store.Migrations(), name)
		if err != nil {
			t.Fatal(err)
		}
		if i+1 == len(names) || names[i+1] >= before {
			data = append(data, fill...)
		}
		old[name] = &fstest.MapFile{Data: data}
	}
	path := filepath.Join(t.TempDir(), "db")
	if s, err := store.OpenMigrating(t.Context(), path, store.Options{}, old); err == nil {
		s.Close() // reads of this version do not prepare over those tables, and that is an error too
	}
	return openFile(t, path)
}

// TestMigrateSeen: a transaction from before transactionIDs were remembered goes on, and none is remembered.
func TestMigrateSeen(t *testing.T) {
	s := migrated(t, "00021", `
INSERT INTO cmp_transaction (id, begun, expires, state, request, actor, req_id) VALUES (zeroblob(32), 0, 1, 'polling', zeroblob(32), 'a', 0);
`)
	if tr, err := s.Transaction(t.Context(), [32]byte{}); err != nil || tr.State != "polling" {
		t.Errorf("%+v, %v", tr, err)
	}
	if seen, owned, err := s.SeenTransaction(t.Context(), [32]byte{}, "a", 9); seen || owned != 0 || err != nil {
		t.Errorf("seen %t, %d, %v", seen, owned, err)
	}
}

// TestMigratePolicies: an old ledger has no policies yet, and takes the first.
func TestMigratePolicies(t *testing.T) {
	s := migrated(t, "00023", "INSERT INTO device VALUES (1, 'lamp-1', 'lamp-1', 'software', '', 'active', '', 7, 7);")
	if _, err := s.PolicyVersion(t.Context(), ""); !errors.Is(err, ca.ErrNoRecord) {
		t.Errorf("a policy: %v", err)
	}
	v := ca.PolicyVersion{Version: "v1-ab", SHA256: "ab", First: storetest.Start, Last: storetest.Start, Source: []byte("version: 1")}
	if err := s.RecordPolicy(t.Context(), v, storetest.Event(ca.EventPolicyApplied, "")); err != nil {
		t.Fatal(err)
	}
	if got, err := s.PolicyVersion(t.Context(), "v1-ab"); err != nil || got.SHA256 != "ab" || string(got.Source) != "version: 1" || !got.First.Equal(storetest.Start) {
		t.Errorf("%+v, %v", got, err)
	}
}
