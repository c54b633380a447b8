package main

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// calmLog leaves out lines about refused requests of an address that has had its
// share of them. The next such line that is written says how many were left out.
type calmLog struct {
	slog.Handler
	rate  limit.Rate
	lines *limit.Buckets
	left  *atomic.Int64
}

// newCalmLog makes one that lets perMinute lines of each address through.
func newCalmLog(next slog.Handler, perMinute int) slog.Handler {
	return &calmLog{next, limit.PerMinute(perMinute), limit.NewBuckets(10_000), new(atomic.Int64)}
}

// Handle is part of slog.Handler.
func (l *calmLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message != "refused" || r.Level > slog.LevelInfo {
		return l.Handler.Handle(ctx, r)
	}
	from := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "address" {
			from = a.Value.String()
		}
		return from == ""
	})
	if peer, err := netip.ParseAddrPort(from); err == nil {
		from = ca.Network(peer.Addr())
	}
	if l.lines.Take(from, l.rate, r.Time) > 0 {
		l.left.Add(1)
		return nil
	}
	if n := l.left.Swap(0); n > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int64("left_out", n))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs is part of slog.Handler.
func (l *calmLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *l
	with.Handler = l.Handler.WithAttrs(attrs)
	return &with
}

// WithGroup is part of slog.Handler.
func (l *calmLog) WithGroup(name string) slog.Handler {
	with := *l
	with.Handler = l.Handler.WithGroup(name)
	return &with
}
