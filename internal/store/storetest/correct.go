package storetest

import (
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

func testCorrect(t *testing.T, e Engine) {
	ctx := t.Context()
	m := NewMake(t, e, 10)
	Record(t, e, m.Enrol("had-1", ""))
	value[[]error](t)(e.AddDevices(ctx, []device.Device{Device("Lamp-1"), Device("lamp-2")}, Event(ca.EventDeviceAdded, "")))
	own, ended, others := Credential("own", 1), Credential("ended", 1), Credential("others", 1)
	own.Device, ended.Device, others.Device = "Lamp-1", "Lamp-1", "lamp-2"
	for _, c := range []*device.Credential{own, ended, others} {
		c.Level = "software"
		must(t, e.AddCredential(ctx, c, Event(ca.EventCredentialAdded, "")))
	}
	must(t, e.RevokeCredential(ctx, "ended", Start, Event(ca.EventCredentialRevoked, "")))
	level := func(ref string) string { return value[*device.Credential](t)(e.Credential(ctx, ref)).Level }
	events := func(kind ca.EventKind) (reasons []string) {
		for _, ev := range value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Kind: kind, Device: "lamp-1"}, 0, 10)) {
			reasons = append(reasons, ev.Device+": "+ev.Reason)
		}
		return reasons
	}

	change := Event(ca.EventDeviceChanged, "")
	change.Time = Start.Add(time.Hour)
	for range 2 { // the second time there is nothing to change
		d := value[*device.Device](t)(e.SetDevice(ctx, "LAMP-1", device.Change{Level: new("hsm"), Group: new("hall")}, change))
		if d.ID != "Lamp-1" || d.Level != "hsm" || d.Group != "hall" || d.State != device.Claimed || !d.Updated.Equal(change.Time) {
			t.Errorf("set: %+v", d)
		}
	}
	if d := value[*device.Device](t)(e.Device(ctx, "lamp-1")); d.Level != "hsm" || d.Group != "hall" {
		t.Errorf("read back: %+v", d)
	}
	if got, want := events(ca.EventDeviceChanged), []string{"Lamp-1: level software to hsm, group lamps to hall"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if level("own") != "hsm" || level("ended") != "software" || level("others") != "software" {
		t.Errorf("levels of credentials: %s, %s, %s", level("own"), level("ended"), level("others"))
	}
	if d := value[*device.Device](t)(e.SetDevice(ctx, "lamp-1", device.Change{Group: new("")}, change)); d.Level != "hsm" || d.Group != "" {
		t.Errorf("out of the group: %+v", d)
	}
	_, err := e.SetDevice(ctx, "none", device.Change{Group: new("")}, change)
	wantErr(t, err, ca.ErrNoRecord)

	if err := e.RemoveDevice(ctx, "HAD-1", Event(ca.EventDeviceRemoved, "")); ca.KindOf(err) != ca.Conflict {
		t.Errorf("a device with a certificate: %v", err)
	}
	wantErr(t, e.RemoveDevice(ctx, "none", Event(ca.EventDeviceRemoved, "")), ca.ErrNoRecord)
	must(t, e.RemoveDevice(ctx, "lamp-1", Event(ca.EventDeviceRemoved, "")))
	_, err = e.Device(ctx, "lamp-1")
	wantErr(t, err, ca.ErrNoRecord)
	if c := value[*device.Credential](t)(e.Credential(ctx, "own")); c.Revoked == nil {
		t.Error("its credential lives")
	}
	if c := value[*device.Credential](t)(e.Credential(ctx, "others")); c.Revoked != nil {
		t.Error("another device's credential was revoked")
	}
	if got, want := events(ca.EventCredentialRevoked), []string{"Lamp-1: own"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if got, want := events(ca.EventDeviceRemoved), []string{"Lamp-1: level hsm, claimed"}; !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	for i, err := range value[[]error](t)(e.AddDevices(ctx, []device.Device{Device("LAMP-1")}, Event(ca.EventDeviceAdded, ""))) {
		if err != nil {
			t.Errorf("%d: added again: %v", i, err)
		}
	}
	value[[]ca.Certificate](t)(e.MoveDevice(ctx, "lamp-2", device.Retired, ca.Revocation{Time: Start}, Event(ca.EventDeviceMoved, "lamp-2")))
	if _, err := e.SetDevice(ctx, "lamp-2", device.Change{Level: new("hsm")}, change); ca.KindOf(err) != ca.Conflict {
		t.Errorf("a retired device: %v", err)
	}
}
