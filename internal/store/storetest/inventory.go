package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

func testDevices(t *testing.T, e Engine) {
	all := []device.Device{Device("b"), Device("A"), Device("c:1"), Device("C.2"), Device("d_x"), Device("D-y")}
	all[2].Level, all[3].Group, all[4].State, all[5].Credential = "hsm", "bulbs", device.Active, "ref"
	errs := value[[]error](t)(e.AddDevices(t.Context(), all, Event(ca.EventDeviceAdded, "")))
	for i, err := range errs {
		if err != nil {
			t.Errorf("%s: %v", all[i].ID, err)
		}
	}
	errs = value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device("a"), Device("new"), Device("NEW")}, Event(ca.EventDeviceAdded, "")))
	if !errors.Is(errs[0], ca.ErrRecorded) || errs[1] != nil || !errors.Is(errs[2], ca.ErrRecorded) {
		t.Errorf("again: %v", errs)
	}
	if _, err := e.AddDevices(t.Context(), make([]device.Device, 1001), Event(ca.EventDeviceAdded, "")); err == nil {
		t.Error("1001 devices were taken at once")
	}
	if got := value[*device.Device](t)(e.Device(t.Context(), "d-Y")); *got != all[5] {
		t.Errorf("read back %+v, want %+v", *got, all[5])
	}
	_, err := e.Device(t.Context(), "none")
	wantErr(t, err, ca.ErrNoRecord)
	for name, c := range map[string]struct {
		filter device.Filter
		after  string
		limit  int
		want   []string
	}{
		"all":      {device.Filter{}, "", 10, []string{"A", "b", "C.2", "c:1", "D-y", "d_x", "new"}},
		"page":     {device.Filter{}, "B", 2, []string{"C.2", "c:1"}},
		"level":    {device.Filter{Level: "hsm"}, "", 10, []string{"c:1"}},
		"group":    {device.Filter{Group: "bulbs"}, "", 10, []string{"C.2"}},
		"state":    {device.Filter{State: device.Active}, "", 10, []string{"d_x"}},
		"prefix":   {device.Filter{Prefix: "C"}, "", 10, []string{"C.2", "c:1"}},
		"wildcard": {device.Filter{Prefix: "d_"}, "", 10, []string{"d_x"}},
		"none":     {device.Filter{Prefix: "x"}, "", 10, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, d := range value[[]device.Device](t)(e.Devices(t.Context(), c.filter, c.after, c.limit)) {
				got = append(got, d.ID)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func testMoveDevice(t *testing.T, e Engine) {
	states := []device.State{device.Manufactured, device.Claimed, device.Active, device.Suspended, device.Retired}
	for _, from := range states {
		for _, to := range states {
			id := fmt.Sprintf("%s-%s", from, to)
			d := Device(id)
			d.State = from
			value[[]error](t)(e.AddDevices(t.Context(), []device.Device{d}, Event(ca.EventDeviceAdded, id)))
			moved := Event(ca.EventDeviceMoved, id)
			moved.Time = Start.Add(time.Minute)
			_, err := e.MoveDevice(t.Context(), id, to, ca.Revocation{Time: moved.Time, Reason: 5}, moved)
			want, updated := to, moved.Time
			if device.CheckMove(from, to) != nil {
				want, updated = from, Start
				if ca.KindOf(err) != ca.Conflict {
					t.Errorf("%s: got %v, want a conflict", id, err)
				}
			} else if err != nil {
				t.Errorf("%s: %v", id, err)
			}
			if got := value[*device.Device](t)(e.Device(t.Context(), id)); got.State != want || !got.Updated.Equal(updated) {
				t.Errorf("%s: is %s since %s", id, got.State, got.Updated)
			}
		}
	}
	_, err := e.MoveDevice(t.Context(), "none", device.Retired, ca.Revocation{}, Event(ca.EventDeviceMoved, "none"))
	wantErr(t, err, ca.ErrNoRecord)
}

func testRetire(t *testing.T, e Engine) {
	m := NewMake(t, e, 100)
	live := map[ca.Serial]bool{}
	Record(t, e, m.Enrol("Lamp-1", ""))
	expired := m.Issuance("lamp-1")
	expired.Certificate.NotAfter = Start.Add(-time.Minute)
	Record(t, e, expired)
	before := Record(t, e, m.Issuance("lamp-1"))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{before.Serial}, ca.Revocation{Time: Start}, Event(ca.EventRevoked, "")))
	for range 50 {
		live[Record(t, e, m.Issuance("lamp-1")).Serial] = true
	}
	other := Record(t, e, m.Enrol("lamp-2", ""))
	own, others := Credential("own", 1), Credential("others", 1)
	own.Device, others.Device = "LAMP-1", "lamp-2"
	must(t, e.AddCredential(t.Context(), own, Event(ca.EventCredentialAdded, "")))
	must(t, e.AddCredential(t.Context(), others, Event(ca.EventCredentialAdded, "")))

	revoked := value[[]ca.Certificate](t)(e.MoveDevice(t.Context(), "LAMP-1", device.Retired, ca.Revocation{Time: Start, Reason: 5}, Event(ca.EventDeviceMoved, "lamp-1")))
	if len(revoked) != len(live)+1 {
		t.Errorf("%d certificates were revoked, want %d", len(revoked), len(live)+1)
	}
	sequence := int64(0)
	for _, c := range revoked {
		if c.Revocation == nil || c.Revocation.Sequence <= sequence || c.Revocation.Reason != 5 {
			t.Fatalf("revocation %+v after %d", c.Revocation, sequence)
		}
		sequence = c.Revocation.Sequence
	}
	for serial := range live {
		if c := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), serial)); c.Revocation == nil {
			t.Errorf("%s lives", serial)
		}
	}
	if c := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), expired.Certificate.Serial)); c.Revocation != nil {
		t.Error("an expired certificate was revoked")
	}
	if c := value[*ca.Certificate](t)(e.CertificateBySerial(t.Context(), other.Serial)); c.Revocation != nil {
		t.Error("another device's certificate was revoked")
	}
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "own")); c.Revoked == nil || !c.Revoked.Equal(Start) {
		t.Error("its credential lives")
	}
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "others")); c.Revoked != nil {
		t.Error("another device's credential was revoked")
	}
}

func testCredentials(t *testing.T, e Engine) {
	group, own := Credential("bbb", 3), Credential("aaa", 1)
	own.Group, own.Names, own.Device = "", nil, "Lamp-1"
	for _, c := range []*device.Credential{group, own} {
		must(t, e.AddCredential(t.Context(), c, Event(ca.EventCredentialAdded, "")))
		if got := value[*device.Credential](t)(e.Credential(t.Context(), c.Reference)); !reflect.DeepEqual(got, c) {
			t.Errorf("read back %+v, want %+v", got, c)
		}
	}
	wantErr(t, e.AddCredential(t.Context(), group, Event(ca.EventCredentialAdded, "")), ca.ErrRecorded)
	_, err := e.Credential(t.Context(), "none")
	wantErr(t, err, ca.ErrNoRecord)
	for name, c := range map[string]struct {
		filter ca.CredentialFilter
		after  string
		want   []string
	}{
		"all":     {ca.CredentialFilter{}, "", []string{"aaa", "bbb"}},
		"after":   {ca.CredentialFilter{}, "aaa", []string{"bbb"}},
		"device":  {ca.CredentialFilter{Device: "lamp-1"}, "", []string{"aaa"}},
		"group":   {ca.CredentialFilter{Group: "lamps"}, "", []string{"bbb"}},
		"nothing": {ca.CredentialFilter{Group: "Lamps"}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, c := range value[[]device.Credential](t)(e.Credentials(t.Context(), c.filter, c.after, 10)) {
				got = append(got, c.Reference)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	must(t, e.RevokeCredential(t.Context(), "aaa", Start, Event(ca.EventCredentialRevoked, "")))
	must(t, e.RevokeCredential(t.Context(), "aaa", Start.Add(time.Hour), Event(ca.EventCredentialRevoked, "")))
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "aaa")); c.Revoked == nil || !c.Revoked.Equal(Start) {
		t.Errorf("revoked at %v", c.Revoked)
	}
	wantErr(t, e.RevokeCredential(t.Context(), "none", Start, Event(ca.EventCredentialRevoked, "")), ca.ErrNoRecord)
}

func testIssuers(t *testing.T, e Engine) {
	all := []ca.IssuerRecord{
		{Name: "issuing-1", Role: "issuing", Generation: 1, Key: "issuing-1", Cert: []byte("one"), Created: Start},
		{Name: "issuing-2", Role: "issuing", Generation: 2, Key: "issuing-2", Cert: []byte("two"), Created: Start},
		{Name: "root", Role: "root", Generation: 1, Key: "root", Cert: []byte("root"), Created: Start},
	}
	for _, i := range []int{2, 1, 0} {
		must(t, e.AddIssuer(t.Context(), all[i], Event(ca.EventIssuerAdded, "")))
	}
	wantErr(t, e.AddIssuer(t.Context(), all[0], Event(ca.EventIssuerAdded, "")), ca.ErrRecorded)
	if got := value[[]ca.IssuerRecord](t)(e.Issuers(t.Context())); !reflect.DeepEqual(got, all) {
		t.Errorf("got %+v", got)
	}
	must(t, e.AddIssuer(t.Context(), ca.IssuerRecord{Name: "issuing-3", Role: "issuing", Generation: 3, Key: "issuing-3", Cert: []byte("three"), Created: Start,
		Activates: Start.Add(time.Hour)}, Event(ca.EventIssuerAdded, "")))
	activates := func(want time.Time) {
		t.Helper()
		if got := value[[]ca.IssuerRecord](t)(e.Issuers(t.Context()))[2]; got.Name != "issuing-3" || !got.Activates.Equal(want) {
			t.Errorf("got %+v, want it to issue from %v", got, want)
		}
	}
	activates(Start.Add(time.Hour))
	must(t, e.ActivateIssuer(t.Context(), "issuing-3", Start.Add(time.Minute), Event(ca.EventIssuerActivated, "")))
	activates(Start.Add(time.Minute))
	wantErr(t, e.ActivateIssuer(t.Context(), "issuing-9", Start, Event(ca.EventIssuerActivated, "")), ca.ErrNoRecord)
	for i, want := range []uint64{0, 100, 200} {
		if first := value[uint64](t)(e.ReserveIndexes(t.Context(), "issuing-1", 100)); first != want {
			t.Errorf("reservation %d begins at %d, want %d", i, first, want)
		}
	}
	if first := value[uint64](t)(e.ReserveIndexes(t.Context(), "not-yet", 1)); first != 0 {
		t.Errorf("another issuer begins at %d", first)
	}
	if _, err := e.ReserveIndexes(t.Context(), "issuing-1", 0); err == nil {
		t.Error("no indexes were reserved, without an error")
	}
	if _, err := e.ReserveIndexes(t.Context(), "issuing-1", ca.MaxIndex); err == nil {
		t.Error("more indexes were reserved than there are")
	}
	if first := value[uint64](t)(e.ReserveIndexes(t.Context(), "issuing-1", 1)); first != 300 {
		t.Errorf("after a refusal indexes go on at %d", first)
	}
}

func testAdmins(t *testing.T, e Engine) {
	all := []ca.Admin{{Name: "ops", Role: "operator", KeyID: Key(), Created: Start, CertID: Key(), NotAfter: Start.Add(time.Hour)},
		{Name: "watch", Role: "auditor", KeyID: Key(), Created: Start, CertID: Key(), NotAfter: Start.Add(time.Hour)}}
	for _, a := range all {
		must(t, e.AddAdmin(t.Context(), a, Event(ca.EventAdminAdded, "")))
	}
	wantErr(t, e.AddAdmin(t.Context(), ca.Admin{Name: "ops", KeyID: Key()}, Event(ca.EventAdminAdded, "")), ca.ErrRecorded)
	wantErr(t, e.AddAdmin(t.Context(), ca.Admin{Name: "else", KeyID: all[0].KeyID}, Event(ca.EventAdminAdded, "")), ca.ErrRecorded)
	if got := value[[]ca.Admin](t)(e.Admins(t.Context())); !slices.Equal(got, all) {
		t.Errorf("got %+v", got)
	}
	if got := value[*ca.Admin](t)(e.AdminByKey(t.Context(), all[1].KeyID)); *got != all[1] {
		t.Errorf("got %+v", got)
	}
	must(t, e.RemoveAdmin(t.Context(), "watch", Event(ca.EventAdminRemoved, "")))
	wantErr(t, e.RemoveAdmin(t.Context(), "watch", Event(ca.EventAdminRemoved, "")), ca.ErrNoRecord)
	_, err := e.AdminByKey(t.Context(), all[1].KeyID)
	wantErr(t, err, ca.ErrNoRecord)

	_, err = e.Setting(t.Context(), "datakey")
	wantErr(t, err, ca.ErrNoRecord)
	for _, v := range [][]byte{[]byte("one"), []byte("two"), {}} {
		must(t, e.PutSetting(t.Context(), "datakey", v, Event(ca.EventPolicyApplied, "")))
		if got := value[[]byte](t)(e.Setting(t.Context(), "datakey")); !bytes.Equal(got, v) {
			t.Errorf("read back %q, want %q", got, v)
		}
	}
	if n := len(value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{Kind: ca.EventPolicyApplied}, 0, 10))); n != 3 {
		t.Errorf("%d events", n)
	}
	must(t, e.Ping(t.Context()))
}

func testCounts(t *testing.T, e Engine) {
	m := NewMake(t, e, 4)
	Record(t, e, m.Enrol("lamp-1", ""))
	revoked := Record(t, e, m.Issuance("lamp-1"))
	for i, past := range []bool{true, false} {
		c := m.Enrol(fmt.Sprintf("lamp-%d", i+2), "")
		if past {
			c.Certificate.NotAfter = Start.Add(-time.Hour)
		}
		Record(t, e, c)
	}
	value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device("lamp-9")}, Event(ca.EventDeviceAdded, "")))
	value[[]ca.Certificate](t)(e.Revoke(t.Context(), []ca.Serial{revoked.Serial}, ca.Revocation{Time: Start}, Event(ca.EventRevoked, "")))
	if got, want := value[store.Counts](t)(e.Counts(t.Context())), (store.Counts{Issued: 4, Revoked: 1, Active: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	want := []store.DeviceCount{{State: device.Active, Level: "software", Count: 3}, {State: device.Claimed, Level: "software", Count: 1}}
	if got := value[[]store.DeviceCount](t)(e.CountDevices(t.Context())); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
