package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

var deviceFilter = device.Filter{Prefix: "lamp"}

func testAudit(t *testing.T, e Engine) {
	_, err := e.Head(t.Context())
	wantErr(t, err, ca.ErrNoRecord)
	for i := range 5 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, fmt.Sprintf("Lamp-%d", i))))
	}
	head := value[audit.Entry](t)(e.Head(t.Context()))
	if head.Sequence != 5 || head.Count != 1 {
		t.Errorf("head %+v", head)
	}
	for range 2 {
		c, err := audit.Sign(key, "issuing-1", head, time.Now())
		must(t, err)
		must(t, e.AddCheckpoint(t.Context(), c))
	}
	if r := Verify(t, e); r.Signed != 5 || r.Checkpoints != 2 || r.Events != 5 {
		t.Errorf("report %+v", r)
	}
	log := value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{Device: "lamp-3"}, 0, 10))
	if len(log) != 1 || log[0].ID != 4 || log[0].Event != Event(ca.EventRefused, "Lamp-3") {
		t.Errorf("log %+v", log)
	}
	if log := value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{Kind: ca.EventRefused}, 3, 1)); len(log) != 1 || log[0].ID != 4 {
		t.Errorf("a page of the log: %+v", log)
	}
	body, _ := json.Marshal(Event(ca.EventRefused, "Lamp-3"))
	if leaves := value[[][]byte](t)(e.Events(t.Context(), 4)); len(leaves) != 1 || string(leaves[0]) != string(body) {
		t.Errorf("leaves %s", leaves)
	}
	// Changes that change nothing are no events.
	wantErr(t, e.RemoveAdmin(t.Context(), "none", Event(ca.EventAdminRemoved, "")), ca.ErrNoRecord)
	if again := value[audit.Entry](t)(e.Head(t.Context())); again != head {
		t.Errorf("head %+v after nothing", again)
	}
}

// An event that reads differently from what was hashed must be found.
func testAuditEvents(t *testing.T, e Engine) {
	must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, "lamp-1")))
	forked := forkedLog{e}
	_, err := audit.Verify(t.Context(), forked, audit.OneKey(key.Public()), nil)
	if f, ok := errors.AsType[*audit.Fault](err); !ok || f.Sequence != 1 {
		t.Errorf("got %v", err)
	}
}

// forkedLog is a log of which one event reads differently.
type forkedLog struct{ Engine }

func (f forkedLog) Events(ctx context.Context, sequence uint64) ([][]byte, error) {
	events, err := f.Engine.Events(ctx, sequence)
	for i := range events {
		events[i] = append([]byte(" "), events[i]...)
	}
	return events, err
}

func testPrune(t *testing.T, e Engine) {
	for i := range 10 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, fmt.Sprintf("lamp-%d", i))))
	}
	cut := time.Now()
	for i := range 5 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, fmt.Sprintf("bulb-%d", i))))
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), cut, "admin:test")); n != 10 {
		t.Errorf("%d events were dropped", n)
	}
	if r := Verify(t, e); r.Dropped != 10 || r.Events != 6 || r.First != 1 || r.Last != 16 {
		t.Errorf("report %+v", r)
	}
	if events := value[[][]byte](t)(e.Events(t.Context(), 10)); events != nil {
		t.Errorf("events %s", events)
	}
	log := value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{}, 0, 100))
	if len(log) != 6 || log[0].Device != "bulb-0" || log[5].Kind != store.EventAuditPruned || log[5].ID != 16 {
		t.Errorf("log %+v", log)
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), cut, "admin:test")); n != 0 {
		t.Errorf("%d events were dropped the second time", n)
	}
	// Everything there is.
	for range 3 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, "late")))
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), time.Now().Add(time.Hour), "admin:test")); n != 9 {
		t.Errorf("%d events were dropped at last", n)
	}
	must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, "after")))
}
