package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Issuer is the issuer that Make issues from.
const Issuer = "issuing-1"

// Start is the moment at which everything that Make makes was issued: now, to
// the microsecond, so that nothing has expired by the store's own clock.
var Start = time.Now().UTC().Truncate(time.Microsecond)

// Make makes records as an issuing CA would.
type Make struct {
	next     atomic.Uint64
	reserved uint64
}

// NewMake reserves n indexes, one for each issuance that will be made.
func NewMake(t testing.TB, l ca.Ledger, n int) *Make {
	t.Helper()
	m, err := Reserve(context.WithoutCancel(t.Context()), l, n)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Reserve is NewMake outside of a test.
func Reserve(ctx context.Context, l ca.Ledger, n int) (*Make, error) {
	first, err := l.ReserveIndexes(ctx, Issuer, n)
	if err != nil {
		return nil, err
	}
	m := &Make{reserved: first + uint64(n)}
	m.next.Store(first)
	return m, nil
}

// Serial is a new serial with a reserved index.
func (m *Make) Serial() ca.Serial {
	index := m.next.Add(1) - 1
	if index >= m.reserved {
		panic("storetest: NewMake was asked for too few indexes")
	}
	var random [12]byte
	rand.Read(random[:])
	return ca.NewSerial(index, random)
}

// Key is a new key's identifier.
func Key() (id [32]byte) {
	rand.Read(id[:])
	return id
}

// Event is an event about a device.
func Event(kind ca.EventKind, id string) ca.Event {
	return ca.Event{Time: Start, Kind: kind, Actor: "admin:test", Device: id}
}

// Issuance is the issuance of a certificate of realistic size to the device id for a new key.
func (m *Make) Issuance(id string) *ca.Issuance {
	key := Key()
	c := &ca.Certificate{
		Serial: m.Serial(), Issuer: Issuer, Device: id, KeyID: key,
		Profile: "device", Level: "software", Protocol: "est", Requester: "credential", Actor: "credential:abcdefghijklmnop",
		IssuedAt: Start, NotBefore: Start.Add(-time.Hour), NotAfter: Start.Add(90 * 24 * time.Hour), Request: key,
		Decision: policy.Decision{Outcome: policy.Issue, Rule: "software", Profile: "device", Level: "software", Validity: 90 * 24 * time.Hour,
			Reasons: []string{"the level software asks for no evidence"}, Version: "sha256:0123456789abcdef"},
		DER: make([]byte, 620),
	}
	c.Input, _ = json.Marshal(policy.Input{Now: Start, Protocol: "est", Operation: "enroll", Requester: policy.ByCredential, Profile: "device",
		Device: policy.Device{ID: id, Level: "software", State: "claimed"}, Key: "ecdsa-p256", Names: []policy.Name{{Form: "subject.cn", Value: id}}})
	rand.Read(c.DER)
	binary.BigEndian.PutUint32(c.DER, 0x30820268)
	digest := sha256.Sum256(c.DER)
	return &ca.Issuance{Certificate: c, Event: ca.Event{
		Time: Start, Kind: ca.EventIssued, Actor: c.Actor, Protocol: "est", Device: id, Issuer: Issuer, Serial: c.Serial,
		Outcome: "issue", Rule: "software", Policy: c.Decision.Version, Digest: hex.EncodeToString(digest[:]),
	}}
}

// Enrol is the first issuance to a device that is in the inventory, claimed,
// or enters it with a credential of a group.
func (m *Make) Enrol(id, credential string) *ca.Issuance {
	i := m.Issuance(id)
	i.NewDevice = &device.Device{ID: id, Level: "software", State: device.Claimed, Credential: credential, Created: Start, Updated: Start}
	i.Credential = credential
	return i
}

// Device is a claimed device.
func Device(id string) device.Device {
	return device.Device{ID: id, Level: "software", Group: "lamps", State: device.Claimed, Created: Start, Updated: Start}
}

// Credential is a group's credential.
func Credential(reference string, uses int) *device.Credential {
	return &device.Credential{
		Reference: reference, Group: "lamps", Names: []string{"lamp-*", "Bulb?"}, Level: "software", Uses: uses,
		Created: Start, Expires: Start.Add(24 * time.Hour), Sealed: []byte("sealed"),
	}
}

// Record records, or fails the test.
func Record(t testing.TB, l ca.Ledger, i *ca.Issuance) *ca.Certificate {
	t.Helper()
	if err := l.Record(context.WithoutCancel(t.Context()), i); err != nil {
		t.Fatal(err)
	}
	return i.Certificate
}
