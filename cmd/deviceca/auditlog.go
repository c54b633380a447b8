package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

// auditLog shows the audit chain to the admin API.
type auditLog struct{ *system }

// Events is part of admin.AuditLog.
func (l auditLog) Events(ctx context.Context, f admin.EventFilter, after int64, limit int) ([]admin.AuditEvent, error) {
	logged, err := l.store.EventLog(ctx, store.EventFilter{Kind: f.Kind, Device: f.Device, Window: f.Window}, after, limit)
	events := make([]admin.AuditEvent, 0, len(logged))
	for _, e := range logged {
		events = append(events, admin.AuditEvent{ID: e.ID, Event: e.Event})
	}
	return events, err
}

// CheckHeads is part of admin.AuditLog.
func (l auditLog) CheckHeads(ctx context.Context, heads []audit.Checkpoint) (fault string, err error) {
	if l.auditFault != nil {
		return l.auditFault.Error(), nil
	}
	holding := headCheck{auditLog: l}
	for _, c := range heads {
		if err := holding.check(ctx, c); err != nil {
			return faultText(err)
		}
	}
	return "", nil
}

// headCheck holds the log against heads.
type headCheck struct {
	auditLog
	kept uint64 // newest entry of which the ledger was seen to have a checkpoint
}

// check holds the log against a head. A restore is a truncation too, and is named if the head is of what it cut off.
func (l *headCheck) check(ctx context.Context, c audit.Checkpoint) error {
	err := audit.CheckHead(ctx, l.store, audit.OneKey(l.audit.Public()), c)
	if err == nil {
		return l.checkKept(ctx, c)
	}
	f, is := errors.AsType[*audit.Fault](err)
	if !is {
		return err
	}
	instances, ierr := l.store.Instances(ctx)
	if ierr != nil {
		return ierr
	}
	for _, i := range instances {
		if i.Restored() && c.Time.After(i.Snapshot) && c.Time.Before(i.Since) {
			f.What += fmt.Sprintf(" (this CA was restored at %s from a backup that knows nothing after %s: heads of the time between belong to the old home: keep them there, and give only older and newer ones)",
				instant(i.Since), instant(i.Snapshot))
		}
	}
	return f
}

// checkKept reports that the checkpoint of a head is gone. Each is in the ledger before its head is anywhere
// else, so that a signed head without it, or a newer one, shows that somebody deleted it: the entries that it vouched for could be forged.
// Whether the signatures of those in the ledger hold is for audit.Verify.
func (l *headCheck) checkKept(ctx context.Context, c audit.Checkpoint) (err error) {
	if c.Sequence > l.kept { // after the head was read: a server beside us may just have made both
		if l.kept, err = l.store.Checkpointed(ctx); err != nil {
			return err
		}
	}
	if l.kept >= c.Sequence || c.Verify(l.audit.Public()) != nil {
		return nil
	}
	return &audit.Fault{What: fmt.Sprintf("checkpoints were deleted: the head of %s with sequence %d was signed, and the ledger has no checkpoint of it or of a later entry",
		c.Time.Format(time.RFC3339), c.Sequence)}
}

// checkAtStart holds the log against the home's own heads, and says so if it was cut off, rewritten or stripped of its checkpoints.
// The server serves nevertheless: what to believe is for an administrator to find out, with heads from elsewhere.
//
// The newest head is enough: each entry holds the hash of the one before.
func (s *server) checkAtStart(ctx context.Context) {
	l, newest := auditLog{s.system}, audit.Checkpoint{}
	_, err := l.readOwnHeads(func(c audit.Checkpoint) error {
		newest = c
		return ctx.Err()
	})
	fault := ""
	if err == nil && newest.Sequence > 0 {
		fault, err = l.CheckHeads(ctx, []audit.Checkpoint{newest})
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.log.Error("the audit log could not be held against its heads", "file", s.cfg.Audit.HeadsFile, "err", err)
	case fault != "":
		s.log.Error("the audit log is not the one whose heads were signed; run deviceca audit verify", "file", s.cfg.Audit.HeadsFile, "fault", fault)
	}
}

// faultText tells what is wrong with the log from a log that cannot be read.
func faultText(err error) (string, error) {
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		return f.Error(), nil
	}
	return "", err
}

// Verify is part of admin.AuditLog.
func (l auditLog) Verify(ctx context.Context, progress func(admin.AuditProgress)) (report admin.AuditReport, err error) {
	if l.auditFault != nil {
		report.Fault = l.auditFault.Error()
		return report, nil
	}
	if report.Fault, err = l.ownHeads(ctx, &report); err != nil || report.Fault != "" {
		return report, err
	}
	r, err := audit.Verify(ctx, l.store, audit.OneKey(l.audit.Public()), l.store.Records(), func(done, of uint64) { progress(admin.AuditProgress{Done: done, Of: of}) })
	report.First, report.Last, report.Head, report.Events, report.Dropped = r.First, r.Last, hex.EncodeToString(r.Head[:]), r.Events, r.Dropped
	report.Checkpoints, report.Signed = r.Checkpoints, r.Signed
	report.Certificates, report.Revocations, report.Unnamed, report.Unchecked = r.Certificates, r.Revocations, r.Unnamed, r.Unchecked
	if !r.SignedAt.IsZero() {
		report.SignedAt = &r.SignedAt
	}
	report.Fault, err = faultText(err)
	return report, err
}

// ownHeads holds the log against the home's own heads file, if there is one.
func (l auditLog) ownHeads(ctx context.Context, report *admin.AuditReport) (fault string, err error) {
	all, holding := admin.AuditHeads{File: l.cfg.Audit.HeadsFile, Own: true}, headCheck{auditLog: l}
	all.Without, err = l.readOwnHeads(func(c audit.Checkpoint) error {
		all.Add(c)
		return holding.check(ctx, c)
	})
	if all.Heads > 0 {
		report.Heads = append(report.Heads, all)
	}
	return faultText(err)
}

// readOwnHeads reads the home's own heads file, if there is one.
func (l auditLog) readOwnHeads(head func(audit.Checkpoint) error) (without int, err error) {
	if l.cfg.Audit.HeadsFile == "" {
		return 0, nil
	}
	f, err := os.Open(l.cfg.Audit.HeadsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return audit.ReadHeads(f, head)
}
