package storetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

// testWindows: lists by time, page by page, where times repeat and do not rise with the keys.
func testWindows(t *testing.T, e Engine) {
	ctx, m := t.Context(), NewMake(t, e, 20)
	at := func(i int) time.Time { return Start.Add(time.Duration([]int{3, 1, 2, 2, 0, 2, 4}[i]) * time.Hour) }
	var devices []device.Device
	for i := range 7 {
		d := Device(fmt.Sprintf("D-%d", i))
		d.Created = at(i)
		devices = append(devices, d)
		c := Credential(fmt.Sprintf("c-%d", i), 1)
		c.Created = at(i)
		must(t, e.AddCredential(ctx, c, Event(ca.EventCredentialAdded, "")))
	}
	value[[]error](t)(e.AddDevices(ctx, devices, Event(ca.EventDeviceAdded, "")))
	for i := range 7 {
		c := m.Issuance(devices[i].ID)
		c.Certificate.IssuedAt = at(i)
		Record(t, e, c)
	}
	since := Start.Add(2 * time.Hour)
	for name, c := range map[string]struct {
		w    device.Window
		want []int
	}{
		"newest":        {device.Window{Newest: true}, []int{6, 0, 5, 3, 2, 1, 4}},
		"since":         {device.Window{Since: since}, []int{2, 3, 5, 0, 6}},
		"newest, since": {device.Window{Since: since, Newest: true}, []int{6, 0, 5, 3, 2}},
		"since later":   {device.Window{Since: Start.Add(24 * time.Hour)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			// Two to a page; each begins after the last of the page before.
			var ofDevices, ofCredentials, ofCertificates []int
			var number int
			for w, after := c.w, ""; ; {
				page := value[[]device.Device](t)(e.Devices(ctx, device.Filter{Window: w}, after, 2))
				for _, d := range page {
					fmt.Sscanf(d.ID, "D-%d", &number)
					ofDevices, w.Passed, after = append(ofDevices, number), d.Created, d.ID
				}
				if len(page) < 2 {
					break
				}
			}
			for w, after := c.w, ""; ; {
				page := value[[]device.Credential](t)(e.Credentials(ctx, ca.CredentialFilter{Window: w}, after, 2))
				for _, d := range page {
					fmt.Sscanf(d.Reference, "c-%d", &number)
					ofCredentials, w.Passed, after = append(ofCredentials, number), d.Created, d.Reference
				}
				if len(page) < 2 {
					break
				}
			}
			for w, after := c.w, int64(0); ; {
				page := value[[]ca.Certificate](t)(e.Certificates(ctx, ca.CertificateFilter{Window: w}, after, 2))
				for _, d := range page {
					fmt.Sscanf(d.Device, "D-%d", &number)
					ofCertificates, w.Passed, after = append(ofCertificates, number), d.IssuedAt, d.ID
				}
				if len(page) < 2 {
					break
				}
			}
			if !slices.Equal(ofDevices, c.want) || !slices.Equal(ofCredentials, c.want) || !slices.Equal(ofCertificates, c.want) {
				t.Errorf("devices %v, credentials %v, certificates %v; want %v", ofDevices, ofCredentials, ofCertificates, c.want)
			}
		})
	}

	all := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{}, 0, 100))
	newest := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Window: device.Window{Newest: true}}, 0, 100))
	slices.Reverse(newest)
	if len(all) == 0 || !slices.EqualFunc(all, newest, func(a, b store.LoggedEvent) bool { return a.ID == b.ID }) {
		t.Errorf("%d events, and newest first %d", len(all), len(newest))
	}
	head := value[audit.Entry](t)(e.Head(ctx))
	recent := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Window: device.Window{Since: head.Time}}, 0, 100))
	if n := len(recent); n == 0 || recent[n-1].ID != all[len(all)-1].ID {
		t.Errorf("since the newest entry: %d events", n)
	}
	if none := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Window: device.Window{Since: head.Time.Add(time.Microsecond)}}, 0, 100)); len(none) != 0 {
		t.Errorf("since after the newest entry: %d events", len(none))
	}
	if whole := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Window: device.Window{Since: head.Time.Add(-24 * time.Hour)}}, 0, 100)); len(whole) != len(all) {
		t.Errorf("since yesterday: %d events of %d", len(whole), len(all))
	}
	if next := value[[]store.LoggedEvent](t)(e.EventLog(ctx, store.EventFilter{Window: device.Window{Newest: true}}, 3, 1)); len(next) != 1 || next[0].ID != 2 {
		t.Errorf("before 3: %+v", next)
	}
}
