package storetest

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

func testRecord(t *testing.T, e Engine) {
	m := NewMake(t, e, 2)
	must(t, e.AddCredential(t.Context(), Credential("group", 2), Event(ca.EventCredentialAdded, "")))
	first := m.Enrol("Lamp-1", "group")
	first.Certificate.Replaces = ca.NewSerial(4711, [12]byte{1}) // of another ledger
	Record(t, e, first)
	if first.Certificate.ID == 0 {
		t.Error("Record did not set the ID")
	}
	got, err := e.CertificateBySerial(t.Context(), first.Certificate.Serial)
	must(t, err)
	if !reflect.DeepEqual(got, first.Certificate) {
		t.Errorf("read back\n%+v\nrecorded\n%+v", got, first.Certificate)
	}
	d, err := e.Device(t.Context(), "lAMP-1")
	must(t, err)
	want := *first.NewDevice
	want.State = device.Active
	if *d != want {
		t.Errorf("device %+v, want %+v", *d, want)
	}
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "group")); c.Used != 1 {
		t.Errorf("the credential was used %d times", c.Used)
	}
	// The same device, first enrolled by this credential, may again.
	Record(t, e, m.Enrol("LAMP-1", "group"))
	_, err = e.CertificateBySerial(t.Context(), ca.NewSerial(0, [12]byte{}))
	wantErr(t, err, ca.ErrNoRecord)
}

func testRecordRefuses(t *testing.T, e Engine) {
	m := NewMake(t, e, 40)
	must(t, e.AddCredential(t.Context(), Credential("group", 100), Event(ca.EventCredentialAdded, "")))
	must(t, e.AddCredential(t.Context(), Credential("other", 100), Event(ca.EventCredentialAdded, "")))
	must(t, e.AddCredential(t.Context(), Credential("spent", 0), Event(ca.EventCredentialAdded, "")))
	must(t, e.AddCredential(t.Context(), Credential("revoked", 1), Event(ca.EventCredentialAdded, "")))
	must(t, e.RevokeCredential(t.Context(), "revoked", Start, Event(ca.EventCredentialRevoked, "")))
	held := Record(t, e, m.Enrol("holder", "group"))
	revoked := Record(t, e, m.Enrol("revoked", "group"))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{revoked.Serial}, ca.Revocation{Time: Start}, Event(ca.EventRevoked, "")))
	for _, state := range []device.State{device.Manufactured, device.Claimed, device.Active, device.Suspended, device.Retired} {
		d := Device(string(state))
		d.State = state
		value[[]error](t)(e.AddDevices(t.Context(), []device.Device{d}, Event(ca.EventDeviceAdded, d.ID)))
	}
	internal := &ca.Error{} // stands for any error that is none of the contract's
	for name, c := range map[string]struct {
		issuance func() *ca.Issuance
		want     error
	}{
		"claimed":                   {func() *ca.Issuance { return m.Issuance("claimed") }, nil},
		"active":                    {func() *ca.Issuance { return m.Issuance("ACTIVE") }, nil},
		"manufactured":              {func() *ca.Issuance { return m.Issuance("manufactured") }, ca.ErrDeviceGone},
		"suspended":                 {func() *ca.Issuance { return m.Issuance("suspended") }, ca.ErrDeviceGone},
		"retired":                   {func() *ca.Issuance { return m.Issuance("Retired") }, ca.ErrDeviceGone},
		"not in the inventory":      {func() *ca.Issuance { return m.Issuance("nobody") }, ca.ErrDeviceGone},
		"new but manufactured":      {func() *ca.Issuance { i := m.Enrol("new-1", "group"); i.NewDevice.State = device.Manufactured; return i }, ca.ErrDeviceGone},
		"new but retired":           {func() *ca.Issuance { return m.Enrol("retired", "") }, ca.ErrDeviceGone},
		"enrolled by another":       {func() *ca.Issuance { return m.Enrol("HOLDER", "other") }, ca.ErrDeviceGone},
		"registered by hand":        {func() *ca.Issuance { return m.Enrol("active", "group") }, ca.ErrDeviceGone},
		"registered, no credential": {func() *ca.Issuance { return m.Enrol("active", "") }, nil},
		"key of another":            {func() *ca.Issuance { i := m.Enrol("new-2", "group"); i.Certificate.KeyID = held.KeyID; return i }, ca.ErrKeyTaken},
		"key of another, known":     {func() *ca.Issuance { i := m.Issuance("active"); i.Certificate.KeyID = held.KeyID; return i }, ca.ErrKeyTaken},
		"own key again":             {func() *ca.Issuance { i := m.Issuance("holder"); i.Certificate.KeyID = held.KeyID; return i }, nil},
		"spent":                     {func() *ca.Issuance { return m.Enrol("new-3", "spent") }, ca.ErrSpent},
		"revoked credential":        {func() *ca.Issuance { return m.Enrol("new-4", "revoked") }, ca.ErrSpent},
		"unknown credential":        {func() *ca.Issuance { return m.Enrol("new-5", "none") }, ca.ErrSpent},
		"replaces a revoked one":    {func() *ca.Issuance { i := m.Issuance("revoked"); i.Certificate.Replaces = revoked.Serial; return i }, ca.ErrReplaced},
		"replaces a live one":       {func() *ca.Issuance { i := m.Issuance("holder"); i.Certificate.Replaces = held.Serial; return i }, nil},
		"replaces a foreign one": {func() *ca.Issuance {
			i := m.Issuance("holder")
			i.Certificate.Replaces = ca.NewSerial(9, [12]byte{})
			return i
		}, nil},
		"index not reserved": {func() *ca.Issuance {
			i := m.Issuance("holder")
			i.Certificate.Serial = ca.NewSerial(40, [12]byte{})
			return i
		}, internal},
		"issuer without indexes":  {func() *ca.Issuance { i := m.Issuance("holder"); i.Certificate.Issuer = "issuing-2"; return i }, internal},
		"serial again":            {func() *ca.Issuance { i := m.Issuance("holder"); i.Certificate.Serial = held.Serial; return i }, internal},
		"another device than new": {func() *ca.Issuance { i := m.Enrol("new-6", "group"); i.NewDevice.ID = "new-7"; return i }, internal},
	} {
		t.Run(name, func(t *testing.T) {
			before := value[store.Counts](t)(e.Counts(t.Context()))
			err := e.Record(t.Context(), c.issuance())
			after := value[store.Counts](t)(e.Counts(t.Context()))
			switch {
			case c.want == internal:
				if ca.KindOf(err) != ca.Internal || err == nil {
					t.Errorf("got %v, want an internal error", err)
				}
			default:
				wantErr(t, err, c.want)
			}
			if recorded := after.Issued - before.Issued; (recorded == 1) != (c.want == nil) {
				t.Errorf("%d certificates more, with error %v", recorded, err)
			}
		})
	}
	if d := value[*device.Device](t)(e.Device(t.Context(), "claimed")); d.State != device.Active {
		t.Errorf("a claimed device is %s after its first certificate", d.State)
	}
	for _, id := range []string{"new-1", "new-2", "new-3", "new-4", "new-5", "new-6", "new-7", "nobody"} {
		_, err := e.Device(t.Context(), id)
		wantErr(t, err, ca.ErrNoRecord)
	}
}

// A record whose last step fails (its serial is there) must give the use back,
// and take the device out again that it had entered.
func testRefusedLeavesNothing(t *testing.T, e Engine) {
	m := NewMake(t, e, 2)
	must(t, e.AddCredential(t.Context(), Credential("group", 10), Event(ca.EventCredentialAdded, "")))
	there := Record(t, e, m.Enrol("lamp-1", "group"))
	events := len(value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{}, 0, 100)))
	bad := m.Enrol("lamp-2", "group")
	bad.Certificate.Serial = there.Serial
	if err := e.Record(t.Context(), bad); err == nil {
		t.Fatal("the same serial was recorded twice")
	}
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "group")); c.Used != 1 {
		t.Errorf("%d uses are gone", c.Used)
	}
	_, err := e.Device(t.Context(), "lamp-2")
	wantErr(t, err, ca.ErrNoRecord)
	if n := len(value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{}, 0, 100))); n != events {
		t.Errorf("%d events, %d before", n, events)
	}
}

func testOwnCertificate(t *testing.T, e Engine) {
	m := NewMake(t, e, 4)
	own := Record(t, e, m.Issuance(""))
	again := m.Issuance("")
	again.Certificate.KeyID = own.KeyID
	Record(t, e, again)
	taken := m.Enrol("lamp-1", "")
	taken.Certificate.KeyID = own.KeyID
	wantErr(t, e.Record(t.Context(), taken), ca.ErrKeyTaken)
	if c := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), own.Serial)); c.Device != "" {
		t.Errorf("it belongs to %q", c.Device)
	}
}

func testRenewal(t *testing.T, e Engine) {
	m := NewMake(t, e, 3)
	first := Record(t, e, m.Enrol("Lamp-1", ""))
	renewal := m.Issuance("lamp-1")
	renewal.Certificate.KeyID, renewal.Certificate.Replaces = first.KeyID, first.Serial
	second := Record(t, e, renewal)
	s := value[ca.Standing](t)(e.Standing(t.Context(), "lamp-1", first.KeyID))
	if s.Newest != second.Serial || s.KeyOwner != "Lamp-1" {
		t.Errorf("the key's newest certificate is %s, of %q", s.Newest, s.KeyOwner)
	}
	if c := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), s.Newest)); c.Replaces != first.Serial || c.Device != "Lamp-1" {
		t.Errorf("it replaces %s of %q", c.Replaces, c.Device)
	}
}

func testStanding(t *testing.T, e Engine) {
	m := NewMake(t, e, 2)
	c := Record(t, e, m.Enrol("Lamp-1", ""))
	value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device("lamp-2")}, Event(ca.EventDeviceAdded, "")))
	for name, q := range map[string]struct {
		id, wantDevice, wantOwner string
		key                       [32]byte
		newest                    ca.Serial
	}{
		"known device, its key":        {"LAMP-1", "Lamp-1", "Lamp-1", c.KeyID, c.Serial},
		"known device, new key":        {"lamp-1", "Lamp-1", "", Key(), ca.Serial{}},
		"known device, key of another": {"lamp-2", "lamp-2", "Lamp-1", c.KeyID, ca.Serial{}},
		"unknown device, new key":      {"lamp-3", "", "", Key(), ca.Serial{}},
		"no device, known key":         {"", "", "Lamp-1", c.KeyID, ca.Serial{}},
	} {
		t.Run(name, func(t *testing.T) {
			s := value[ca.Standing](t)(e.Standing(t.Context(), q.id, q.key))
			var id string
			if s.Device != nil {
				id = s.Device.ID
			}
			if id != q.wantDevice || s.KeyOwner != q.wantOwner || s.Newest != q.newest {
				t.Errorf("device %q, owner %q, latest %v", id, s.KeyOwner, s.Newest)
			}
		})
	}
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{c.Serial}, ca.Revocation{Time: Start, Reason: 1}, Event(ca.EventRevoked, "")))
	p, d, err := e.Presented(t.Context(), c.Serial)
	if err != nil {
		t.Fatal(err)
	}
	if d == nil || d.ID != "Lamp-1" || d.State != device.Active {
		t.Errorf("presented with device %+v", d)
	}
	if p.Revocation == nil || p.Revocation.Reason != 1 || p.Device != "Lamp-1" || p.KeyID != c.KeyID || !bytes.Equal(p.DER, c.DER) ||
		p.Serial != c.Serial || p.Profile != c.Profile || p.Level != c.Level || p.Issuer != c.Issuer || !p.NotAfter.Equal(c.NotAfter) || !p.NotBefore.Equal(c.NotBefore) {
		t.Errorf("presented: %+v", p)
	}
	_, _, err = e.Presented(t.Context(), ca.NewSerial(77, [12]byte{}))
	wantErr(t, err, ca.ErrNoRecord)
}

func testRevoke(t *testing.T, e Engine) {
	m := NewMake(t, e, 5)
	var serials []ca.Serial
	for _, id := range []string{"lamp-1", "lamp-2", "lamp-3", "lamp-4"} {
		serials = append(serials, Record(t, e, m.Enrol(id, "")).Serial)
	}
	since := Start.Add(-time.Hour)
	r := ca.Revocation{Time: Start, Reason: 1, Invalid: &since}
	revoked := value[[]ca.Certificate](t)(e.Revoke(t.Context(), serials[:2], r, Event(ca.EventRevoked, "")))
	if len(revoked) != 2 || revoked[0].Serial != serials[0] || revoked[0].Revocation.Sequence >= revoked[1].Revocation.Sequence {
		t.Fatalf("revoked %+v", revoked)
	}
	got := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), serials[1]))
	if !reflect.DeepEqual(*got, revoked[1]) {
		t.Errorf("read back\n%+v\nrevoked\n%+v", *got, revoked[1])
	}
	// Two again, one named twice, one of them new: only the new one counts.
	r.Reason, r.Invalid = 5, nil
	again := value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{serials[0], serials[2], serials[2], serials[1]}, r, Event(ca.EventRevoked, "")))
	if len(again) != 1 || again[0].Serial != serials[2] {
		t.Errorf("revoked %+v", again)
	}
	if got := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), serials[0])); got.Revocation.Reason != 1 {
		t.Error("the first revocation was written over")
	}
	before := value[store.Counts](t)(e.Counts(t.Context()))
	_, err := e.Revoke(t.Context(), []ca.Serial{serials[3], ca.NewSerial(77, [12]byte{})}, r, Event(ca.EventRevoked, ""))
	wantErr(t, err, ca.ErrNoRecord)
	if err != nil && !strings.Contains(err.Error(), ca.NewSerial(77, [12]byte{}).String()) {
		t.Errorf("%v does not say which", err)
	}
	if value[store.Counts](t)(e.Counts(t.Context())) != before {
		t.Error("one of them was revoked all the same")
	}
	lines := changes(t, e, Issuer, 0, math.MaxInt64)
	if len(lines) != 3 {
		t.Fatalf("journal %+v", lines)
	}
	for i, line := range lines {
		if line.Serial != serials[i] || line.Released || !line.Revoked.Equal(Start) {
			t.Errorf("line %d of the journal: %+v", i, line)
		}
	}
	if !lines[0].Invalid.Equal(since) || !lines[2].Invalid.IsZero() || lines[2].Reason != 5 {
		t.Errorf("journal %+v", lines)
	}
	if rest := changes(t, e, Issuer, lines[0].Sequence, lines[1].Sequence); len(rest) != 1 || rest[0].Serial != serials[1] {
		t.Errorf("a part of it: %+v", rest)
	}
	if other := changes(t, e, "quarantine-1", 0, math.MaxInt64); len(other) != 0 {
		t.Errorf("another issuer's journal: %+v", other)
	}
}
