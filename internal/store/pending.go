package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

const pendingColumns = "id, key, state, created, expires, decided, by_whom, reason, serial, facts"

// scanPending reads a request as it is at now.
func scanPending(now time.Time) func(scanner) (ca.PendingRequest, error) {
	return func(row scanner) (ca.PendingRequest, error) {
		var (
			p                ca.PendingRequest
			id               int64
			state            ca.PendingState
			key, serial      []byte
			created, expires int64
			decided          sql.NullInt64
			by, reason       string
			facts            []byte
		)
		if err := row.Scan(&id, &key, &state, &created, &expires, &decided, &by, &reason, &serial, &facts); err != nil {
			return p, err
		}
		if err := json.Unmarshal(facts, &p); err != nil {
			return p, fmt.Errorf("request %d: %w", id, err)
		}
		p.ID, p.State, p.By, p.Reason = id, state, by, reason
		p.Created, p.Expires, p.Decided = fromMicros(created), fromMicros(expires), fromNull(decided)
		copy(p.Key[:], key)
		copy(p.Serial[:], serial)
		if (state == ca.PendingWaiting || state == ca.PendingApproved) && !now.Before(p.Expires) {
			p.State = ca.PendingExpired
		}
		return p, nil
	}
}

// Pending finds the newest request of a key; see ca.PendingLedger.
func (s *Store) Pending(ctx context.Context, key [32]byte) (*ca.PendingRequest, error) {
	return s.onePending(s.reads.QueryRowContext(ctx, "SELECT "+pendingColumns+" FROM pending WHERE key = ? ORDER BY id DESC LIMIT 1", key[:]))
}

// PendingByID finds one request; ca.ErrNoRecord if there is none.
func (s *Store) PendingByID(ctx context.Context, id int64) (*ca.PendingRequest, error) {
	return s.onePending(s.reads.QueryRowContext(ctx, "SELECT "+pendingColumns+" FROM pending WHERE id = ?", id))
}

func (s *Store) onePending(row scanner) (*ca.PendingRequest, error) {
	p, err := scanPending(s.now())(row)
	if err != nil {
		return nil, s.fault(err)
	}
	return &p, nil
}

// Pendings lists requests in the order in which they were made, beginning
// after the one with the ID after.
func (s *Store) Pendings(ctx context.Context, f ca.PendingFilter, after int64, limit int) ([]ca.PendingRequest, error) {
	now := s.now()
	var q where
	q.and("id > ?", after)
	switch f.State {
	case "":
	case ca.PendingWaiting, ca.PendingApproved:
		q.and("state = ? AND expires > ?", string(f.State), micros(now))
	case ca.PendingExpired:
		q.and("state IN ('waiting', 'approved') AND expires <= ?", micros(now))
	default:
		q.and("state = ?", string(f.State))
	}
	if f.Device != "" {
		q.and("folded = ?", device.Fold(f.Device))
	}
	return list(ctx, s, "SELECT "+pendingColumns+" FROM pending"+q.String()+" ORDER BY id LIMIT ?", append(q.args, limit), scanPending(now))
}

// CountWaiting counts the requests that wait for an administrator.
func (s *Store) CountWaiting(ctx context.Context) (n int64, err error) {
	err = s.reads.QueryRowContext(ctx, "SELECT count(*) FROM pending WHERE state = 'waiting' AND expires > ?", micros(s.now())).Scan(&n)
	return n, s.fault(err)
}

// keepExpired is how long a request that nobody decided on is still listed
// after it expired. Those decided on are kept.
const keepExpired = 30 * 24 * time.Hour

// AddPending remembers a request; see ca.PendingLedger.
func (s *Store) AddPending(ctx context.Context, p *ca.PendingRequest, limits ca.PendingLimits, e ca.Event) (*ca.PendingRequest, error) {
	facts, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	folded, now := device.Fold(p.Device), micros(p.Created)
	var found ca.PendingRequest
	err = s.write(ctx, func(t *tx) error {
		var err error
		found, err = scanPending(p.Created)(t.row("SELECT "+pendingColumns+` FROM pending
			WHERE key = ? AND state <> 'issued' AND expires > ? ORDER BY id DESC LIMIT 1`, p.Key[:], now))
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var ofDevice, overall int
		if err := t.row(`SELECT count(*), coalesce(sum(CASE WHEN folded = ? THEN 1 ELSE 0 END), 0) FROM pending
			WHERE state = 'waiting' AND expires > ?`, folded, now).Scan(&overall, &ofDevice); err != nil {
			return err
		}
		if ofDevice >= limits.PerDevice || overall >= limits.Overall {
			return ca.ErrCrowded
		}
		if _, err := t.exec("DELETE FROM pending WHERE state = 'waiting' AND expires < ?", micros(p.Created.Add(-keepExpired))); err != nil {
			return err
		}
		found = *p
		found.Created, found.Expires = fromMicros(now), fromMicros(micros(p.Expires))
		if found.ID, err = t.insert("INSERT INTO pending (key, folded, state, created, expires, by_whom, reason, facts) VALUES (?, ?, 'waiting', ?, ?, '', '', ?)",
			p.Key[:], folded, now, micros(p.Expires), string(facts)); err != nil {
			return err
		}
		e.Request = found.ID // known only now
		ev, err := encode(e)
		t.record(ev)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &found, nil
}

// DecidePending rules on a request; see ca.PendingLedger.
func (s *Store) DecidePending(ctx context.Context, id int64, r ca.Ruling, e ca.Event) (*ca.PendingRequest, error) {
	state := ca.PendingDenied
	if r.Approve {
		state = ca.PendingApproved
	}
	var p ca.PendingRequest
	err := s.write(ctx, func(t *tx) error {
		var err error
		if p, err = scanPending(r.Time)(t.row("SELECT "+pendingColumns+" FROM pending WHERE id = ?"+lockRow, id)); err != nil {
			return err
		}
		if p.State != ca.PendingWaiting {
			return ca.ErrDecided
		}
		if _, err := t.exec("UPDATE pending SET state = ?, decided = ?, by_whom = ?, reason = ? WHERE id = ?", string(state), micros(r.Time), r.By, r.Reason, id); err != nil {
			return err
		}
		e.Device = p.Device
		ev, err := encode(e)
		t.record(ev)
		at := fromMicros(micros(r.Time))
		p.State, p.Decided, p.By, p.Reason = state, &at, r.By, r.Reason
		return err
	})
	if err != nil && !errors.Is(err, ca.ErrDecided) {
		return nil, err
	}
	return &p, err
}

// spendPending marks an approved request as issued.
func spendPending(t *tx, id int64, c *ca.Certificate) error {
	n, err := t.exec("UPDATE pending SET state = 'issued', serial = ? WHERE id = ? AND state = 'approved' AND expires > ?", c.Serial[:], id, micros(c.IssuedAt))
	if err == nil && n == 0 {
		return ca.ErrUnapproved
	}
	return err
}

// NewestEvent is the ID of the newest event of the audit log, 0 if there was none.
func (s *Store) NewestEvent(ctx context.Context) (id int64, err error) {
	err = s.reads.QueryRowContext(ctx, "SELECT event FROM audit_head WHERE one = 1").Scan(&id)
	return id, s.fault(err)
}
