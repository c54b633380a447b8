package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/store"
)

// testConcurrent: all that was acknowledged is there, once; identifiers are
// dense; entries are batches.
func testConcurrent(t *testing.T, e Engine) {
	const workers, each = 64, 10
	m := NewMake(t, e, workers*each)
	must(t, e.AddCredential(t.Context(), Credential("group", workers*each), Event(ca.EventCredentialAdded, "")))
	var serials sync.Map
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				issuance := m.Enrol(fmt.Sprintf("lamp-%d-%d", w, i), "group")
				if err := e.Record(t.Context(), issuance); err != nil {
					t.Error(err)
				}
				serials.Store(issuance.Certificate.Serial, issuance.Certificate.ID)
			}
		})
	}
	wg.Wait()
	all := value[[]ca.Certificate](t)(e.Certificates(t.Context(), ca.CertificateFilter{}, 0, 2*workers*each))
	if len(all) != workers*each {
		t.Fatalf("%d certificates", len(all))
	}
	for i, c := range all {
		id, known := serials.LoadAndDelete(c.Serial)
		if c.ID != int64(i+1) || !known || id != c.ID {
			t.Fatalf("certificate %d has ID %d; Record said %v", i+1, c.ID, id)
		}
	}
	if c := value[*device.Credential](t)(e.Credential(t.Context(), "group")); c.Used != workers*each {
		t.Errorf("%d uses", c.Used)
	}
	r := Verify(t, e)
	if r.Events != workers*each+1 {
		t.Errorf("%d events on the chain", r.Events)
	}
	if r.Entries > workers*each/2 {
		t.Errorf("%d records in %d batches: nothing is grouped", workers*each, r.Entries)
	}
}

// testRetireRace: whatever the order, a retired device has no live certificate.
func testRetireRace(t *testing.T, e Engine) {
	const rounds, workers = 10, 16
	m := NewMake(t, e, rounds*workers*4)
	refused := 0
	for round := range rounds {
		id := fmt.Sprintf("lamp-%d", round)
		value[[]error](t)(e.AddDevices(t.Context(), []device.Device{Device(id)}, Event(ca.EventDeviceAdded, id)))
		var gone atomic.Int64
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range 4 {
					err := e.Record(t.Context(), m.Issuance(id))
					if errors.Is(err, ca.ErrDeviceGone) {
						gone.Add(1)
					} else if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			if _, err := e.MoveDevice(t.Context(), id, device.Retired, ca.Revocation{Time: Start, Reason: 5}, Event(ca.EventDeviceMoved, id)); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		refused += int(gone.Load())
		no := false
		if live := value[[]ca.Certificate](t)(e.Certificates(t.Context(), ca.CertificateFilter{Device: id, Revoked: &no}, 0, 100)); len(live) > 0 {
			t.Errorf("%s is retired and has %d live certificates", id, len(live))
		}
	}
	if refused == 0 {
		t.Error("no record came after its device was retired: the race did not happen")
	}
}

func testKeyRace(t *testing.T, e Engine) {
	const rounds = 20
	m := NewMake(t, e, 2*rounds)
	for round := range rounds {
		key := Key()
		var won atomic.Int64
		var wg sync.WaitGroup
		for _, side := range []string{"left", "right"} {
			i := m.Enrol(fmt.Sprintf("%s-%d", side, round), "")
			i.Certificate.KeyID = key
			wg.Go(func() {
				switch err := e.Record(t.Context(), i); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, ca.ErrKeyTaken):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d devices got a certificate for one key", won.Load())
		}
	}
}

func testUseRace(t *testing.T, e Engine) {
	m := NewMake(t, e, 32)
	must(t, e.AddCredential(t.Context(), Credential("once", 1), Event(ca.EventCredentialAdded, "")))
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			switch err := e.Record(t.Context(), m.Enrol(fmt.Sprintf("lamp-%d", i), "once")); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ca.ErrSpent):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("one use gave %d certificates", won.Load())
	}
	if n := value[store.Counts](t)(e.Counts(t.Context())).Issued; n != 1 {
		t.Errorf("%d certificates are recorded", n)
	}
}

func testReserveRace(t *testing.T, e Engine) {
	var taken sync.Map
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 5 {
				first, err := e.ReserveIndexes(t.Context(), Issuer, 3)
				if err != nil {
					t.Error(err)
				}
				for i := range uint64(3) {
					if _, twice := taken.LoadOrStore(first+i, true); twice {
						t.Errorf("index %d was reserved twice", first+i)
					}
				}
			}
		})
	}
	wg.Wait()
	if next := value[uint64](t)(e.ReserveIndexes(t.Context(), Issuer, 1)); next != 16*5*3 {
		t.Errorf("indexes go on at %d", next)
	}
}

// testCancelled: a context that ends while others write leaves whole records
// or none, and the caller knows which.
func testCancelled(t *testing.T, e Engine) {
	const n = 200
	m := NewMake(t, e, n+1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Record(ended, m.Enrol("lamp", "")); ca.KindOf(err) != ca.Unavailable {
		t.Errorf("with a context that had ended: %v", err)
	}
	var wg sync.WaitGroup
	var recorded atomic.Int64
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		issuance := m.Enrol(fmt.Sprintf("lamp-%d", i), "")
		wg.Go(func() {
			switch err := e.Record(ctx, issuance); {
			case err == nil:
				recorded.Add(1)
			case ca.KindOf(err) != ca.Unavailable:
				t.Error(err)
			}
		})
		wg.Go(cancel)
	}
	wg.Wait()
	if issued := value[store.Counts](t)(e.Counts(t.Context())).Issued; issued != recorded.Load() {
		t.Errorf("%d certificates are recorded, %d were acknowledged", issued, recorded.Load())
	}
}
