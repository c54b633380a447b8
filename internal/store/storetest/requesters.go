package storetest

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func testManufacturers(t *testing.T, e Engine) {
	all := []ca.Manufacturer{
		{Name: "acme", Format: "idevid", Level: "hsm", Anchors: [][]byte{{1, 2}, {3}}, Created: Start,
			Constraints: ca.Constraints{Models: []string{"ou=RT-*"}, Serials: []string{"A1..A9"}, NotAfter: Start.Add(time.Hour)}},
		{Name: "acme", Format: "tpm", Level: "tpm", Anchors: [][]byte{{4}}, Created: Start},
		{Name: "bolt", Format: "idevid", Level: "software", Anchors: [][]byte{{5}}, Created: Start},
	}
	for i := range all {
		must(t, e.AddManufacturer(t.Context(), &all[i], Event(ca.EventManufacturerAdded, "")))
	}
	if all[0].ID == 0 || all[0].ID >= all[1].ID || all[1].ID >= all[2].ID {
		t.Errorf("IDs %d, %d, %d", all[0].ID, all[1].ID, all[2].ID)
	}
	wantErr(t, e.AddManufacturer(t.Context(), &ca.Manufacturer{Name: "acme", Format: "tpm"}, Event(ca.EventManufacturerAdded, "")), ca.ErrRecorded)
	same := func() {
		t.Helper()
		if got := value[[]ca.Manufacturer](t)(e.Manufacturers(t.Context())); !reflect.DeepEqual(got, all) {
			t.Errorf("got %+v, want %+v", got, all)
		}
	}
	same()
	inForce := func(format string, want ...int64) {
		t.Helper()
		if got := value[[]int64](t)(e.ManufacturersInForce(t.Context(), format)); !slices.Equal(got, want) {
			t.Errorf("in force with format %s: %d, want %d", format, got, want)
		}
	}
	inForce("idevid", all[0].ID, all[2].ID)
	inForce("tpm", all[1].ID)
	inForce("dice")
	withdraw := func(name, format string, want error) {
		t.Helper()
		wantErr(t, e.WithdrawManufacturer(t.Context(), name, format, Start, Event(ca.EventManufacturerWithdrawn, "")), want)
	}
	withdraw("none", "", ca.ErrNoRecord)
	withdraw("bolt", "tpm", ca.ErrNoRecord)
	withdraw("acme", "tpm", nil)
	withdraw("acme", "tpm", ca.ErrNoRecord)
	withdraw("acme", "", nil)
	inForce("idevid", all[2].ID)
	inForce("tpm")
	all[0].Withdrawn, all[1].Withdrawn = &Start, &Start
	same()
	// The name is free again, and what was there stays.
	all = append(all, ca.Manufacturer{Name: "acme", Format: "idevid", Level: "hsm", Anchors: [][]byte{{6}}, Created: Start})
	must(t, e.AddManufacturer(t.Context(), &all[3], Event(ca.EventManufacturerAdded, "")))
	same()
}

func testRAs(t *testing.T, e Engine) {
	all := []ca.RA{
		{Name: "line-1", Cert: []byte{1}, KeyID: Key(), Names: []string{"lamp-*", "b?"}, Levels: []string{"software", "hsm"}, Created: Start},
		{Name: "line-2", Cert: []byte{2}, KeyID: Key(), Names: []string{"*"}, Levels: []string{"hsm"}, Created: Start},
	}
	for i := range all {
		must(t, e.AddRA(t.Context(), &all[i], Event(ca.EventRAAdded, "")))
	}
	wantErr(t, e.AddRA(t.Context(), &ca.RA{Name: "line-1", Cert: []byte{1}, KeyID: Key()}, Event(ca.EventRAAdded, "")), ca.ErrRecorded)
	wantErr(t, e.AddRA(t.Context(), &ca.RA{Name: "line-3", Cert: []byte{3}, KeyID: all[0].KeyID}, Event(ca.EventRAAdded, "")), ca.ErrRecorded)
	if got := value[*ca.RA](t)(e.RAByKey(t.Context(), all[1].KeyID)); !reflect.DeepEqual(*got, all[1]) {
		t.Errorf("got %+v, want %+v", *got, all[1])
	}
	must(t, e.RemoveRA(t.Context(), "line-2", Start, Event(ca.EventRARemoved, "")))
	wantErr(t, e.RemoveRA(t.Context(), "line-2", Start, Event(ca.EventRARemoved, "")), ca.ErrNoRecord)
	_, err := e.RAByKey(t.Context(), all[1].KeyID)
	wantErr(t, err, ca.ErrNoRecord)
	all[1].Removed = &Start
	if got := value[[]ca.RA](t)(e.RAs(t.Context())); !reflect.DeepEqual(got, all) {
		t.Errorf("got %+v, want %+v", got, all)
	}
	must(t, e.AddRA(t.Context(), &ca.RA{Name: "line-2", Cert: []byte{2}, KeyID: all[1].KeyID, Created: Start}, Event(ca.EventRAAdded, "")))
}

// What a manufacturer or a registration authority stands behind is recorded
// while it is registered, and for devices that nobody else brought in.
func testVouched(t *testing.T, e Engine) {
	m := NewMake(t, e, 20)
	acme, bolt := &ca.Manufacturer{Name: "acme", Format: "idevid", Created: Start}, &ca.Manufacturer{Name: "bolt", Format: "idevid", Created: Start}
	for _, x := range []*ca.Manufacturer{acme, bolt} {
		must(t, e.AddManufacturer(t.Context(), x, Event(ca.EventManufacturerAdded, "")))
	}
	line := &ca.RA{Name: "line-1", Cert: []byte{1}, KeyID: Key(), Created: Start}
	must(t, e.AddRA(t.Context(), line, Event(ca.EventRAAdded, "")))
	record := func(i *ca.Issuance, by any, want error) {
		t.Helper()
		switch by := by.(type) {
		case *ca.Manufacturer:
			i.Manufacturer = by
		case *ca.RA:
			i.RA = by
		}
		wantErr(t, e.Record(t.Context(), i), want)
	}
	broughtBy := func(id, want string) {
		t.Helper()
		if d := value[*device.Device](t)(e.Device(t.Context(), id)); d.Credential != want || d.State != device.Active {
			t.Errorf("device %s is %s, brought in by %q, want %q", id, d.State, d.Credential, want)
		}
	}
	newcomer := func(id, mark string) *ca.Issuance {
		i := m.Enrol(id, "")
		i.NewDevice.Credential = mark
		return i
	}
	record(newcomer("a", acme.Mark()), acme, nil)
	broughtBy("a", "manufacturer:acme")
	record(m.Issuance("a"), acme, nil)
	record(m.Issuance("a"), bolt, ca.ErrDeviceGone)
	record(newcomer("a", bolt.Mark()), bolt, ca.ErrDeviceGone)
	record(newcomer("a", acme.Mark()), acme, nil) // two first enrolments at once

	// One that an administrator registered is the first manufacturer's.
	value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device("b")}, Event(ca.EventDeviceAdded, "b")))
	record(m.Issuance("b"), line, nil)
	broughtBy("b", "")
	record(m.Issuance("b"), bolt, nil)
	broughtBy("b", "manufacturer:bolt")
	record(m.Issuance("b"), acme, ca.ErrDeviceGone)
	record(m.Issuance("b"), nil, nil)
	record(newcomer("c", line.Mark()), line, nil)
	broughtBy("c", "ra:line-1")
	record(m.Issuance("c"), acme, ca.ErrDeviceGone)

	must(t, e.WithdrawManufacturer(t.Context(), "acme", "", Start, Event(ca.EventManufacturerWithdrawn, "")))
	must(t, e.RemoveRA(t.Context(), "line-1", Start, Event(ca.EventRARemoved, "")))
	record(m.Issuance("a"), acme, ca.ErrWithdrawn)
	record(newcomer("d", acme.Mark()), acme, ca.ErrWithdrawn)
	record(m.Issuance("c"), line, ca.ErrWithdrawn)
	_, err := e.Device(t.Context(), "d")
	wantErr(t, err, ca.ErrNoRecord)
}
