package main

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/store"
)

// ledgerReader shows the store to the admin API.
type ledgerReader struct{ *store.Store }

// Counts is part of admin.Reader.
func (l ledgerReader) Counts(ctx context.Context) (map[string]int64, error) {
	certs, err := l.Store.Counts(ctx)
	if err != nil {
		return nil, err
	}
	devices, err := l.CountDevices(ctx)
	if err != nil {
		return nil, err
	}
	counts := map[string]int64{"certificates": certs.Issued, "revoked": certs.Revoked, "active certificates": certs.Active, "devices": 0}
	for _, d := range devices {
		counts["devices"] += d.Count
		counts[string(d.State)+" devices"] += d.Count
	}
	return counts, nil
}

// auditLog shows the audit chain to the admin API.
type auditLog struct {
	store *store.Store
	key   crypto.PublicKey // of the checkpoints
}

// Events is part of admin.AuditLog.
func (l auditLog) Events(ctx context.Context, after int64, limit int) ([]admin.AuditEvent, error) {
	logged, err := l.store.EventLog(ctx, store.EventFilter{}, after, limit)
	if err != nil {
		return nil, err
	}
	events := make([]admin.AuditEvent, 0, len(logged))
	for _, e := range logged {
		body, err := json.Marshal(e.Event)
		if err != nil {
			return nil, err
		}
		events = append(events, admin.AuditEvent{Sequence: e.ID, Event: body})
	}
	return events, nil
}

// Verify is part of admin.AuditLog.
func (l auditLog) Verify(ctx context.Context) (admin.AuditReport, error) {
	r, err := audit.Verify(ctx, l.store, audit.OneKey(l.key), nil)
	report := admin.AuditReport{Batches: int64(r.Entries), Events: int64(r.Events), Checkpoints: int64(r.Checkpoints), Head: hex.EncodeToString(r.Head[:])}
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		report.Faults = []string{f.Error()}
		return report, nil
	}
	return report, err
}
