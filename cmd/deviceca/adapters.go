package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"errors"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

// counts is what the status page counts.
func (s *system) counts(ctx context.Context) (map[string]int64, error) {
	certs, err := s.store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	devices, err := s.store.CountDevices(ctx)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{"certificates": certs.Issued, "revoked": certs.Revoked, "active_certificates": certs.Active, "devices": 0}
	if counts["waiting_requests"], err = s.store.CountWaiting(ctx); err != nil {
		return nil, err
	}
	for _, d := range devices {
		counts["devices"] += d.Count
		counts[string(d.State)+"_devices"] += d.Count
	}
	return counts, nil
}

// auditLog shows the audit chain to the admin API.
type auditLog struct {
	store *store.Store
	key   crypto.PublicKey // of the checkpoints
}

// Events is part of admin.AuditLog.
func (l auditLog) Events(ctx context.Context, f admin.EventFilter, after int64, limit int) ([]admin.AuditEvent, error) {
	logged, err := l.store.EventLog(ctx, store.EventFilter{Kind: f.Kind, Device: f.Device, Window: f.Window}, after, limit)
	events := make([]admin.AuditEvent, 0, len(logged))
	for _, e := range logged {
		events = append(events, admin.AuditEvent{ID: e.ID, Event: e.Event})
	}
	return events, err
}

// Verify is part of admin.AuditLog.
func (l auditLog) Verify(ctx context.Context) (admin.AuditReport, error) {
	r, err := audit.Verify(ctx, l.store, audit.OneKey(l.key), nil)
	report := admin.AuditReport{First: r.First, Last: r.Last, Head: hex.EncodeToString(r.Head[:]), Events: r.Events,
		Dropped: r.Dropped, Checkpoints: r.Checkpoints, Signed: r.Signed}
	if !r.SignedAt.IsZero() {
		report.SignedAt = &r.SignedAt
	}
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		report.Fault, err = f.Error(), nil
	}
	return report, err
}
