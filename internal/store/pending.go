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
	order := q.page(f.Window, "created", "id", after, int64(0))
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
	return list(ctx, s, "SELECT "+pendingColumns+" FROM pending"+q.String()+order+" LIMIT ?", append(q.args, limit), scanPending(now))
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
			WHERE key = ? AND state NOT IN ('issued', 'void') AND expires > ? ORDER BY id DESC LIMIT 1`, p.Key[:], now))
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := admitPending(t, p, folded, limits); err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM pending WHERE state IN ('waiting', 'void') AND expires < ?", micros(p.Created.Add(-keepExpired))); err != nil {
			return err
		}
		found = *p
		found.Created, found.Expires = fromMicros(now), fromMicros(micros(p.Expires))
		if found.ID, err = t.insert("INSERT INTO pending (key, folded, actor, credential, state, created, expires, by_whom, reason, facts) VALUES (?, ?, ?, ?, 'waiting', ?, ?, '', '', ?)",
			p.Key[:], folded, p.Actor, p.Credential, now, micros(p.Expires), string(facts)); err != nil {
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

// requesterOf is whose share of the waiting requests one counts for: a credential's, with all accounts bound to it.
const requesterOf = "CASE WHEN credential <> '' THEN 'credential:' || credential ELSE actor END"

// admitPending refuses a request for which there is no room, or makes room for it.
func admitPending(t *tx, p *ca.PendingRequest, folded string, limits ca.PendingLimits) error {
	now := micros(p.Created)
	requester := p.Actor
	if p.Credential != "" {
		requester = "credential:" + p.Credential
	}
	var ofDevice, own, overall int
	if err := t.row(`SELECT count(*), coalesce(sum(CASE WHEN folded = ? THEN 1 ELSE 0 END), 0),
		coalesce(sum(CASE WHEN `+requesterOf+` = ? THEN 1 ELSE 0 END), 0) FROM pending
		WHERE state = 'waiting' AND expires > ?`, folded, requester, now).Scan(&overall, &ofDevice, &own); err != nil {
		return err
	}
	switch {
	case ofDevice >= limits.PerDevice:
		return ca.ErrCrowdedDevice
	case own >= limits.PerRequester:
		return ca.ErrCrowdedRequester
	case overall < limits.Overall:
		return nil
	}
	var most int
	var whose string
	if err := t.row(`SELECT count(*) AS n, `+requesterOf+` AS requester FROM pending WHERE state = 'waiting' AND expires > ?
		GROUP BY requester ORDER BY n DESC, max(id) DESC LIMIT 1`, now).Scan(&most, &whose); err != nil {
		return err
	}
	if most < own+2 {
		return ca.ErrCrowded
	}
	return voidPending(t, p.Created, "system", "it made room for other requesters",
		"id = (SELECT max(id) FROM pending WHERE state = 'waiting' AND expires > ? AND "+requesterOf+" = ?)", now, whose)
}

// voidPending ends the requests that wait or are approved, and that a condition selects, with an event if there were any.
func voidPending(t *tx, at time.Time, by, reason, condition string, args ...any) error {
	n, err := t.exec("UPDATE pending SET state = 'void', decided = ?, by_whom = ?, reason = ? WHERE state IN ('waiting', 'approved') AND expires > ? AND "+condition,
		append([]any{micros(at), by, reason, micros(at)}, args...)...)
	if err != nil || n == 0 {
		return err
	}
	ev, err := encode(ca.Event{Time: at, Kind: ca.EventRequestVoid, Actor: by, Reason: fmt.Sprintf("%d requests: %s", n, reason), Count: n})
	t.record(ev)
	return err
}

// voidQueued ends what an actor of the protocols has begun and not finished: requests for
// approval, and CMP transactions that go on in a later message.
func voidQueued(t *tx, at time.Time, by, reason, actor string) error {
	if err := voidPending(t, at, by, reason, "actor = ?", actor); err != nil {
		return err
	}
	return dropOpen(t, actor)
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
