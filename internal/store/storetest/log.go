package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
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
	if logged := logOf(t, e); len(logged) != 5 || len(logged[3].Events) != 1 || string(logged[3].Events[0].Body) != string(body) {
		t.Errorf("logged %+v", logged)
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
	_, err := audit.Verify(t.Context(), forked, audit.OneKey(key.Public()), nil, nil)
	if f, ok := errors.AsType[*audit.Fault](err); !ok || f.Sequence != 1 {
		t.Errorf("got %v", err)
	}
}

// forkedLog is a log of which one event reads differently.
type forkedLog struct{ Engine }

func (f forkedLog) Log(ctx context.Context, upTo uint64) iter.Seq2[audit.Logged, error] {
	return func(yield func(audit.Logged, error) bool) {
		for l, err := range f.Engine.Log(ctx, upTo) {
			for i := range l.Events {
				l.Events[i].Body = append([]byte(" "), l.Events[i].Body...)
			}
			if !yield(l, err) {
				return
			}
		}
	}
}

// logOf is the whole log.
func logOf(t *testing.T, e Engine) (all []audit.Logged) {
	t.Helper()
	for l, err := range e.Log(t.Context(), math.MaxInt64) {
		must(t, err)
		all = append(all, l)
	}
	return all
}

func testPrune(t *testing.T, e Engine) {
	for i := range 10 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, fmt.Sprintf("lamp-%d", i))))
	}
	cut := time.Now()
	for i := range 5 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, fmt.Sprintf("bulb-%d", i))))
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), cut, "admin:test", SignDropped)); n != 10 {
		t.Errorf("%d events were dropped", n)
	}
	if r := Verify(t, e); r.Dropped != 10 || r.Events != 6 || r.First != 1 || r.Last != 16 {
		t.Errorf("report %+v", r)
	}
	if logged := logOf(t, e); len(logged) != 16 || logged[9].Events != nil {
		t.Errorf("logged %+v", logged)
	}
	log := value[[]store.LoggedEvent](t)(e.EventLog(t.Context(), store.EventFilter{}, 0, 100))
	if len(log) != 6 || log[0].Device != "bulb-0" || log[5].Kind != store.EventAuditPruned || log[5].ID != 16 {
		t.Errorf("log %+v", log)
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), cut, "admin:test", SignDropped)); n != 0 {
		t.Errorf("%d events were dropped the second time", n)
	}
	// Everything there is.
	for range 3 {
		must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, "late")))
	}
	if n := value[int64](t)(e.PruneEvents(t.Context(), time.Now().Add(time.Hour), "admin:test", SignDropped)); n != 9 {
		t.Errorf("%d events were dropped at last", n)
	}
	must(t, e.RecordEvent(t.Context(), Event(ca.EventRefused, "after")))
}
