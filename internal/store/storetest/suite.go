// Package storetest is what every engine of the ledger must pass.
package storetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

// Engine is all that an engine does.
type Engine interface {
	ca.Ledger
	audit.Source
	server.Ledger
	acme.Ledger

	Devices(ctx context.Context, f device.Filter, after string, limit int) ([]device.Device, error)
	Credentials(ctx context.Context, f ca.CredentialFilter, after string, limit int) ([]device.Credential, error)
	Journal() store.Journal
	CountDevices(ctx context.Context) ([]store.DeviceCount, error)
	Counts(ctx context.Context) (store.Counts, error)

	Admins(ctx context.Context) ([]ca.Admin, error)
	AdminByKey(ctx context.Context, keyID [32]byte) (*ca.Admin, error)
	AddAdmin(ctx context.Context, a ca.Admin, e ca.Event) error
	RemoveAdmin(ctx context.Context, name string, e ca.Event) error
	Setting(ctx context.Context, name string) ([]byte, error)
	PutSetting(ctx context.Context, name string, value []byte, events ...ca.Event) error
	Restore(ctx context.Context, margin uint64, made time.Time, e ca.Event) (map[string]uint64, error)
	Instance(ctx context.Context) (store.Instance, error)
	Instances(ctx context.Context) ([]store.Instance, error)
	Closed(ctx context.Context) (bool, time.Time, error)
	Open(ctx context.Context, e ca.Event) error
	RaiseCounter(ctx context.Context, kind, issuer string, value int64) error
	CertificateAtIndex(ctx context.Context, issuer string, index uint64) (ca.Serial, error)
	NoteLost(ctx context.Context, key []byte, issuer, dev, credential string, at time.Time) (bool, error)

	Pendings(ctx context.Context, f ca.PendingFilter, after int64, limit int) ([]ca.PendingRequest, error)
	PendingByID(ctx context.Context, id int64) (*ca.PendingRequest, error)
	CountWaiting(ctx context.Context) (int64, error)
	NewestEvent(ctx context.Context) (int64, error)

	Head(ctx context.Context) (audit.Entry, error)
	EventLog(ctx context.Context, f store.EventFilter, after int64, limit int) ([]store.LoggedEvent, error)
	AddCheckpoint(ctx context.Context, c audit.Checkpoint) error
	PruneEvents(ctx context.Context, before time.Time, actor string, sign store.SignDropped) (int64, error)
	NewestCheckpoint(ctx context.Context) (audit.Checkpoint, error)
	Entry(ctx context.Context, sequence uint64) (audit.Entry, bool, error)
	Records() store.Records

	Ping(ctx context.Context) error
	Stats() store.Stats
	Close() error
}

// Run runs the suite. open gives an engine over a new and empty database, and
// sees to it that it is closed.
func Run(t *testing.T, open func(t *testing.T) Engine) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, e Engine)
	}{
		{"record and read back", testRecord},
		{"record refuses", testRecordRefuses},
		{"a refused record leaves nothing", testRefusedLeavesNothing},
		{"the CA's own certificate", testOwnCertificate},
		{"renewal", testRenewal},
		{"standing", testStanding},
		{"possession", testPossession},
		{"devices", testDevices},
		{"device states", testMoveDevice},
		{"device corrections", testCorrect},
		{"lists by time", testWindows},
		{"retire", testRetire},
		{"credentials", testCredentials},
		{"revoke", testRevoke},
		{"hold and release", testRelease},
		{"journal", testJournal},
		{"status", testStatus},
		{"oldest index", testOldest},
		{"without status", testNoStatus},
		{"issuers and indexes", testIssuers},
		{"restore", testRestore},
		{"lost certificates", testLost},
		{"admins and settings", testAdmins},
		{"manufacturers", testManufacturers},
		{"revocation lists", testRevocationLists},
		{"registration authorities", testRAs},
		{"vouched for", testVouched},
		{"listing certificates", testListCertificates},
		{"paging beside inserts", testPaging},
		{"counts", testCounts},
		{"audit", testAudit},
		{"audit finds changes", testAuditEvents},
		{"prune", testPrune},
		{"requests for approval", testPending},
		{"requests are bounded", testPendingLimits},
		{"listing requests", testListPending},
		{"spending an approval", testSpendPending},
		{"64 at once", testConcurrent},
		{"retire races record", testRetireRace},
		{"one key, two devices", testKeyRace},
		{"one use, 32 records", testUseRace},
		{"indexes are reserved once", testReserveRace},
		{"cancelled", testCancelled},
		{"CMP transactions", testTransactions},
		{"CMP transactions kept", testKeptTransactions},
		{"CMP transactions remembered", testSeenTransactions},
		{"open transactions are bounded", testOpenTransactions},
		{"a CMP transaction with its certificate", testRecordWithTransaction},
		{"one CMP transaction, 32 connections", testTransactionRace},
		{"ACME accounts", testAccounts},
		{"one use, 32 ACME accounts", testAccountRace},
		{"ACME orders", testOrders},
		{"ACME authorizations", testAuthorizations},
		{"fulfilling an ACME order", testFulfil},
		{"acme room", testOrderRoom},
		{"acme idle accounts", testIdleAccounts},
		{"acme unbound accounts", testUnboundAccounts},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := open(t)
			test.run(t, e)
			Verify(t, e)
		})
	}
}

var key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)

// SignDropped signs as the CA's audit key would.
func SignDropped(e audit.Entry) (audit.Checkpoint, error) {
	return audit.SignDropped(key, "audit", e, time.Now())
}

// Log is an audit log and what it tells of.
type Log interface {
	audit.Source
	Records() store.Records
}

// Verify fails the test unless the audit chain is whole, and agrees with the tables.
func Verify(t testing.TB, e Log) audit.Report {
	t.Helper()
	report, err := audit.Verify(context.WithoutCancel(t.Context()), e, audit.OneKey(key.Public()), e.Records(), nil)
	if err != nil {
		t.Error(err)
	}
	return report
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value fails the test on an error.
func value[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantErr fails the test unless err is want.
func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}
