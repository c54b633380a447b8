package main

import (
	"context"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/store"
)

// recovery enters what happened after a snapshot. Everything that it enters takes trust away, so
// that events, which nothing signs, can do no worse than refuse too much.
type recovery struct {
	*system
	actor    string
	dry      bool
	notAfter time.Time
	instance store.Instance
	report   admin.RecoveryReport
	seen     map[ca.Serial]bool // entered, or with dry counted as entered
	indexes  map[place]bool     // of those
}

// place is an issuance index of a CA.
type place struct {
	issuer string
	index  uint64
}

// eventAcknowledged opens a restored home; its reason is the administrator's.
const eventAcknowledged ca.EventKind = "store.acknowledged"

// recover is admin.Options.Recover. Its steps:
//
//  1. Read and verify every file; a faulty one ends it before anything is entered.
//  2. Enter CRLs, then packs, which name certificates by their index alone, then logs.
//  3. Open the home, if the administrator acknowledges.
func (s *system) recover(ctx context.Context, in admin.Recovery, actor string) (admin.RecoveryReport, error) {
	r := &recovery{system: s, actor: actor, dry: in.DryRun, seen: map[ca.Serial]bool{}, indexes: map[place]bool{}}
	r.report.Counts, r.report.Entered, r.report.Passed = map[string]int{}, []string{}, []string{}
	if in.NotAfter != nil {
		r.notAfter = *in.NotAfter
	}
	var err error
	if r.instance, err = s.store.Instance(ctx); err != nil {
		return r.report, err
	}
	if !r.instance.Restored() {
		return r.report, ca.Errorf(ca.Conflict, "this CA was not restored from a backup: there is nothing to recover")
	}
	r.report.Snapshot, r.report.Instance = r.instance.Snapshot, r.instance.ID
	if in.Acknowledge != "" && r.instance.Opened != nil {
		return r.report, ca.Errorf(ca.Conflict, "this CA is open: nothing waits to be acknowledged")
	}
	lists, err := r.readLists(in.CRLs)
	if err != nil {
		return r.report, err
	}
	packs, err := r.readPacks(in.Packs)
	if err != nil {
		return r.report, err
	}
	events, err := r.readEvents(in.Logs)
	if err != nil {
		return r.report, err
	}
	for _, l := range lists {
		if err := r.enterList(ctx, l); err != nil {
			return r.report, err
		}
	}
	for _, p := range packs {
		if err := r.enterPack(ctx, p); err != nil {
			return r.report, err
		}
	}
	if err := r.enterEvents(ctx, events); err != nil {
		return r.report, err
	}
	if in.Acknowledge != "" {
		e := ca.Event{Time: time.Now(), Kind: eventAcknowledged, Actor: actor, Reason: in.Acknowledge}
		if err := s.store.Open(ctx, e); err != nil {
			return r.report, err
		}
		s.log.Info("the restored CA is open", "actor", actor, "reason", in.Acknowledge)
	}
	r.report.Closed, _, err = s.store.Closed(ctx)
	return r.report, err
}

func (r *recovery) entered(kind, format string, args ...any) {
	r.report.Counts[jsonName(kind)]++
	if len(r.report.Entered) < maxLines {
		r.report.Entered = append(r.report.Entered, fmt.Sprintf(format, args...))
	}
}

func (r *recovery) pass(format string, args ...any) {
	if len(r.report.Passed) < maxLines {
		r.report.Passed = append(r.report.Passed, fmt.Sprintf(format, args...))
	}
}

// maxLines bounds a report; its counts are whole.
const maxLines = 10_000
