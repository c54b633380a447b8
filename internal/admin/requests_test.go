package admin

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/ca"
)

// requests are those of every world: one that waits, one that was denied.
func requests() []ca.PendingRequest {
	return []ca.PendingRequest{
		{ID: 1, State: ca.PendingWaiting, Device: "Lamp-1", Profile: "device", Created: now, Expires: now.AddDate(0, 0, 7)},
		{ID: 2, State: ca.PendingDenied, Device: "lamp-2", Profile: "device", By: "admin:x", Reason: "no", Decided: &now, Created: now, Expires: now.AddDate(0, 0, 7)},
		{ID: 3, State: ca.PendingWaiting, Device: "lamp-2", Profile: "gateway", Created: now, Expires: now.AddDate(0, 0, 7)},
	}
}

func (f *fake) Pendings(_ context.Context, filter ca.PendingFilter, after int64, limit int) (out []ca.PendingRequest, err error) {
	for _, p := range requests() {
		if p.ID > after && len(out) < limit && (filter.State == "" || filter.State == p.State) && (filter.Device == "" || strings.EqualFold(filter.Device, p.Device)) {
			out = append(out, p)
		}
	}
	return out, f.fail
}

func (f *fake) PendingByID(_ context.Context, id int64) (*ca.PendingRequest, error) {
	for _, p := range requests() {
		if p.ID == id {
			return &p, f.fail
		}
	}
	return nil, ca.ErrNoRecord
}

func (f *fake) DecideRequest(ctx context.Context, id int64, approve bool, reason, actor string) (*ca.PendingRequest, error) {
	p, err := f.PendingByID(ctx, id)
	if err != nil {
		return nil, ca.Errorf(ca.NotFound, "there is no request %d", id)
	}
	if p.State != ca.PendingWaiting {
		return nil, ca.Errorf(ca.Conflict, "request %d was decided already", id)
	}
	p.State, p.Reason, p.By = ca.PendingDenied, reason, actor
	if approve {
		p.State = ca.PendingApproved
	}
	return p, f.changed(actor, ca.EventRequestApproved, p.Device)
}

func TestRequests(t *testing.T) {
	w := newWorld(t)
	c := w.local()
	for name, tt := range map[string]struct {
		filter ca.PendingFilter
		limit  int
		want   string
	}{
		"all":     {ca.PendingFilter{}, 0, "1 2 3"},
		"limited": {ca.PendingFilter{}, 2, "1 2"},
		"waiting": {ca.PendingFilter{State: ca.PendingWaiting}, 0, "1 3"},
		"device":  {ca.PendingFilter{Device: "LAMP-2", State: ca.PendingDenied}, 0, "2"},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			for p, err := range c.Requests(t.Context(), tt.filter, "", tt.limit) {
				if err != nil {
					t.Fatal(err)
				}
				ids = append(ids, string(rune('0'+p.ID)))
			}
			if got := strings.Join(ids, " "); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	p, err := c.DecideRequest(t.Context(), 1, false, "not ours")
	if err != nil || p.State != ca.PendingDenied || p.Reason != "not ours" || !strings.HasPrefix(p.By, "admin:local") {
		t.Errorf("denied: %+v, %v", p, err)
	}
	if p, err := c.DecideRequest(t.Context(), 3, true, ""); err != nil || p.State != ca.PendingApproved {
		t.Errorf("approved: %+v, %v", p, err)
	}
	for name, tt := range map[string]struct {
		call   func() error
		status int
	}{
		"decided":      {func() error { _, err := c.DecideRequest(t.Context(), 2, true, ""); return err }, 409},
		"unknown":      {func() error { _, err := c.DecideRequest(t.Context(), 9, true, ""); return err }, 404},
		"show unknown": {func() error { _, err := c.Request(t.Context(), 9); return err }, 404},
		"no number":    {func() error { _, err := c.Request(t.Context(), -1); return err }, 400},
		"state": {func() error {
			for _, err := range c.Requests(t.Context(), ca.PendingFilter{State: "lost"}, "", 0) {
				return err
			}
			return nil
		}, 400},
	} {
		t.Run(name, func(t *testing.T) {
			if p, ok := errors.AsType[*Problem](tt.call()); !ok || p.Status != tt.status {
				t.Errorf("got %+v, want %d", p, tt.status)
			}
		})
	}
}
