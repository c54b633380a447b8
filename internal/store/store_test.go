package store_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/internal/store/storetest"
)

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Engine { return openFile(t, filepath.Join(t.TempDir(), "db")) })
}

// More entries than one transaction prunes.
func TestPruneLong(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var wg sync.WaitGroup
	for range 21 {
		wg.Go(func() {
			for range 100 {
				if err := s.RecordEvent(t.Context(), storetest.Event(ca.EventRefused, "lamp")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, err := s.PruneEvents(t.Context(), time.Now(), "admin:test", storetest.SignDropped); n != 2100 || err != nil {
		t.Errorf("%d events were dropped: %v", n, err)
	}
	if r := storetest.Verify(t, s); r.Dropped != 2100 || r.Events != 2 {
		t.Errorf("report %+v", r)
	}
}
