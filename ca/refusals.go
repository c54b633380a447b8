package ca

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// refusals keeps the audit log from growing with each refusal of a requester that
// does not give up. The first refusal of a run is recorded at once. Those of the
// same requester, device (where the requester is bound to one), kind and rule that follow
// are counted, and recorded as one event at the end of a window: of a minute first, then of twice as much each time,
// to an hour. A window without any ends the run.
//
// A crash loses the count of the windows that are open.
type refusals struct {
	mu    sync.Mutex
	byKey map[refusalKey]*list.Element // of *refusalRun
	runs  *list.List                   // begun last first
}

type refusalKey struct{ actor, device, kind, rule string }

type refusalRun struct {
	key         refusalKey
	window      time.Duration
	since, ends time.Time // of the window
	count       int64     // refusals in it that are not recorded
	last        Event
}

const (
	firstWindow = time.Minute
	lastWindow  = time.Hour
	maxRuns     = 10_000 // some 10 MB; beyond, the run that began first is ended
)

func newRefusals() *refusals {
	return &refusals{byKey: map[refusalKey]*list.Element{}, runs: list.New()}
}

// add counts a refusal, and returns the events to record now.
func (f *refusals) add(e Event) (events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := refusalKey{e.Actor, e.Device, e.Outcome, e.Rule}
	if at, there := f.byKey[key]; there {
		run := at.Value.(*refusalRun)
		if e.Time.Before(run.ends) {
			run.count++
			run.last = e
			return nil
		}
		events = f.turn(at, e.Time)
		if _, goesOn := f.byKey[key]; goesOn {
			run.count, run.last = 1, e
			return events
		}
	}
	for len(f.byKey) >= maxRuns {
		oldest := f.runs.Back()
		events = append(events, oldest.Value.(*refusalRun).sum()...)
		f.end(oldest)
	}
	f.byKey[key] = f.runs.PushFront(&refusalRun{key: key, window: firstWindow, since: e.Time, ends: e.Time.Add(firstWindow)})
	return append(events, e)
}

// turn ends a window: the run goes on with a longer one, or ends.
func (f *refusals) turn(at *list.Element, now time.Time) []Event {
	run := at.Value.(*refusalRun)
	if run.count == 0 {
		f.end(at)
		return nil
	}
	events := run.sum()
	run.window = min(2*run.window, lastWindow)
	run.count, run.since, run.ends = 0, now, now.Add(run.window)
	return events
}

func (f *refusals) end(at *list.Element) {
	delete(f.byKey, at.Value.(*refusalRun).key)
	f.runs.Remove(at)
}

// sum is the event for what was counted: the last refusal, and how many it stands for.
func (r *refusalRun) sum() []Event {
	if r.count == 0 {
		return nil
	}
	e := r.last
	e.Count = r.count
	e.Reason = fmt.Sprintf("%d more refusals since %s, the last: %s", r.count, r.since.UTC().Format(time.RFC3339), r.last.Reason)
	return []Event{e}
}

// due returns the events of the windows that have ended, or of all, which ends every run.
func (f *refusals) due(now time.Time, all bool) (events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at := f.runs.Front(); at != nil; {
		next := at.Next()
		switch run := at.Value.(*refusalRun); {
		case all:
			events = append(events, run.sum()...)
			f.end(at)
		case !now.Before(run.ends):
			events = append(events, f.turn(at, now)...)
		}
		at = next
	}
	return events
}

// recordRefusals records events. What cannot be recorded is lost, and logged.
func (s *Service) recordRefusals(ctx context.Context, events []Event) {
	for _, e := range events {
		if err := s.ledger.RecordEvent(ctx, e); err != nil {
			s.log.Warn("a refusal could not be recorded", "actor", e.Actor, "refusals", max(1, e.Count), "err", err)
		}
	}
}
