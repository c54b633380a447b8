package stacktest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

// TestRestartWithManyCertificates: how long a start takes must not depend on
// how much was issued.
func TestRestartWithManyCertificates(t *testing.T) {
	t.Parallel()
	const perDevice = 10
	h := initHome(t, shortDir(t))
	empty := h.start()
	h.stop()
	fillLedger(t, h, many, perDevice)
	best := h.start()
	for range 2 {
		h.kill()
		best = min(best, h.start())
	}
	t.Logf("from exec to /readyz: %s with an empty ledger, %s with %d certificates (after kill -9)",
		empty.Round(time.Millisecond), best.Round(time.Millisecond), many)
	if best > 5*time.Second { // a second where nothing else runs
		t.Errorf("the restart takes %s", best)
	}
	d := h.device(h.addDevice("lamp-1"))
	began := time.Now()
	d.mustEnroll(t, "lamp-1")
	t.Logf("the first enrolment took %s", time.Since(began).Round(time.Millisecond))
	if n := len(read[[]certificate](h, "cert", "list", "--device", "meter-00007")); n != perDevice {
		t.Errorf("meter-00007 has %d certificates", n)
	}
}

// fillLedger writes certificates into the ledger of a home whose server stands.
func fillLedger(t *testing.T, h *home, count, perDevice int) {
	t.Helper()
	s, err := store.Open(t.Context(), h.path("ledger.db"), store.Options{Batch: 1000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	id := func(i int) string { return fmt.Sprintf("meter-%05d", i/perDevice) }
	for first := 0; first < count; first += 1000 * perDevice {
		var devices []device.Device
		for i := first; i < min(count, first+1000*perDevice); i += perDevice {
			devices = append(devices, storetest.Device(id(i)))
		}
		if _, err := s.AddDevices(t.Context(), devices, storetest.Event("devices.imported", "")); err != nil {
			t.Fatal(err)
		}
	}
	m := storetest.NewMake(t, s, count)
	const writers = 1000
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := w; i < count; i += writers {
				if err := s.Record(t.Context(), m.Issuance(id(i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}
