package storetest

import (
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

func testManufacturers(t *testing.T, e Engine) {
	all := []ca.Manufacturer{
		{Name: "acme", Format: "idevid", Level: "hsm", Anchors: [][]byte{{1, 2}, {3}}, Created: Start,
			Constraints: ca.Constraints{Models: []string{"ou=RT-*"}, Serials: []string{"A1..A9"}, NotAfter: Start.Add(time.Hour)}},
		{Name: "acme", Format: "tpm", Level: "tpm", Anchors: [][]byte{{4}}, Created: Start, Lists: []ca.RevocationList{revocationList(1, 10), revocationList(2, 1)}},
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
		for i, l := range all[1].Lists {
			l.ID, l.DER = int64(i+1), nil
			all[1].Lists[i] = l
		}
		if got := value[[]ca.Manufacturer](t)(e.Manufacturers(t.Context())); !reflect.DeepEqual(got, all) {
			t.Errorf("got %+v, want %+v", got, all)
		}
	}
	same()
	inForce := func(format string, want ...int64) {
		t.Helper()
		var got []int64
		for _, v := range value[[]ca.ManufacturerVersion](t)(e.ManufacturersInForce(t.Context(), format)) {
			got = append(got, v.ID)
		}
		if !slices.Equal(got, want) {
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
	all[1].Lists = nil
	same()
	// The name is free again, and what was there stays. With other anchors it is somebody else, and with one of
	// those before it is who that was.
	for _, anchors := range [][][]byte{{{6}}, {{3}, {7}}, {{8}, {6}}, {{7}}} {
		m := ca.Manufacturer{Name: "acme", Format: "idevid", Level: "hsm", Anchors: anchors, Created: Start}
		must(t, e.AddManufacturer(t.Context(), &m, Event(ca.EventManufacturerAdded, "")))
		all = append(all, m)
		same()
		withdraw("acme", "idevid", nil)
		all[len(all)-1].Withdrawn = &Start
	}
	other := all[3].ID
	for i, want := range []int64{0, 0, 0, other, 0, other, 0} {
		if all[i].Lineage != want {
			t.Errorf("manufacturer %d is of line %d, want %d", i, all[i].Lineage, want)
		}
	}
	if a, b := all[0].Mark(), all[3].Mark(); a != "manufacturer:acme" || a == b || b != all[5].Mark() {
		t.Errorf("marks %s, %s, %s", a, b, all[5].Mark())
	}
}

// revocationList is a list of one CA; the ledger does not look into it.
func revocationList(issuer, number byte) ca.RevocationList {
	return ca.RevocationList{Issuer: []byte{issuer}, IssuerID: [32]byte{issuer}, Number: strconv.Itoa(int(number)), ThisUpdate: Start, NextUpdate: Start.Add(time.Hour),
		Entries: 3, Octets: 2, SHA256: "ab", Added: Start, DER: []byte{issuer, number}}
}

// Each list takes the place of its CA's, and a change is seen by the version.
func testRevocationLists(t *testing.T, e Engine) {
	m := &ca.Manufacturer{Name: "acme", Format: "idevid", Created: Start, Lists: []ca.RevocationList{revocationList(1, 1), revocationList(2, 1)}}
	other := &ca.Manufacturer{Name: "bolt", Format: "idevid", Created: Start, Lists: []ca.RevocationList{revocationList(1, 9)}}
	for _, m := range []*ca.Manufacturer{m, other} {
		must(t, e.AddManufacturer(t.Context(), m, Event(ca.EventManufacturerAdded, "")))
	}
	seen := map[int64]bool{}
	stored := func(id int64, version int64, want ...ca.RevocationList) {
		t.Helper()
		got := value[[]ca.RevocationList](t)(e.RevocationLists(t.Context(), id))
		for i := range got {
			seen[got[i].ID] = true
			got[i].ID = 0
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		for _, v := range value[[]ca.ManufacturerVersion](t)(e.ManufacturersInForce(t.Context(), "idevid")) {
			if v.ID == id && v.Version != version {
				t.Errorf("version %d, want %d", v.Version, version)
			}
		}
	}
	replace := func(id, version int64, want error, lists ...ca.RevocationList) {
		t.Helper()
		wantErr(t, e.ReplaceRevocationLists(t.Context(), id, version, lists, Event(ca.EventManufacturerLists, "")), want)
	}
	stored(m.ID, 0, revocationList(1, 1), revocationList(2, 1))
	replace(m.ID, 0, nil, revocationList(1, 2), revocationList(3, 1))
	stored(m.ID, 1, revocationList(2, 1), revocationList(1, 2), revocationList(3, 1))
	replace(m.ID, 0, ca.ErrNoRecord, revocationList(1, 3)) // by who read it before
	replace(m.ID+100, 0, ca.ErrNoRecord, revocationList(1, 3))
	stored(m.ID, 1, revocationList(2, 1), revocationList(1, 2), revocationList(3, 1))
	replace(m.ID, 1, nil, revocationList(3, 2))
	stored(m.ID, 2, revocationList(2, 1), revocationList(1, 2), revocationList(3, 2))
	stored(other.ID, 0, revocationList(1, 9))
	if len(seen) != 6 {
		t.Errorf("%d IDs for 6 lists: one was given twice", len(seen))
	}
	must(t, e.WithdrawManufacturer(t.Context(), "acme", "", Start, Event(ca.EventManufacturerWithdrawn, "")))
	stored(m.ID, 2)
	replace(m.ID, 2, ca.ErrNoRecord, revocationList(3, 3))
	stored(other.ID, 0, revocationList(1, 9))
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
	for i, key := range [][32]byte{all[1].KeyID, Key(), all[1].KeyID} {
		ra := &ca.RA{Name: "line-2", Cert: []byte{2}, KeyID: key, Created: Start}
		must(t, e.AddRA(t.Context(), ra, Event(ca.EventRAAdded, "")))
		if got := value[*ca.RA](t)(e.RAByKey(t.Context(), key)); got.Lineage != ra.Lineage || (ra.Lineage == 0) != (i != 1) || (ra.Mark() == "ra:line-2") != (i != 1) {
			t.Errorf("registered anew it is %s, read back %s", ra.Mark(), got.Mark())
		}
		must(t, e.RemoveRA(t.Context(), "line-2", Start, Event(ca.EventRARemoved, "")))
	}
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
