package store

import (
	"context"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// retirement is what is still to be done of one.
type retirement struct {
	row    int64 // of the device
	after  int64 // certificates up to this ID are done
	r      ca.Revocation
	actor  string
	folded string
}

// MoveDevice changes a device's state; see ca.Ledger. A move that
// device.CheckMove refuses is a Conflict. Certificates count as unexpired at r.Time.
func (s *Store) MoveDevice(ctx context.Context, id string, to device.State, r ca.Revocation, e ca.Event) ([]ca.Certificate, error) {
	now := e.Time
	if to == device.Retired {
		now = r.Time
	}
	if now.IsZero() {
		now, r.Time = s.now(), s.now()
	}
	if to == device.Retired {
		e.Revocation = r.Text() // of its certificates, each of which has an event too
	}
	ev, err := encode(e)
	if err != nil {
		return nil, err
	}
	folded := device.Fold(id)
	var revoked []ca.Certificate
	err = s.write(ctx, func(t *tx) error {
		revoked = nil
		var row int64
		var from device.State
		var name string
		if err := t.row("SELECT id, state, name FROM device WHERE folded = ?"+lockRow, folded).Scan(&row, &from, &name); err != nil {
			return err
		}
		if err := device.CheckMove(from, to); err != nil {
			return ca.Errorf(ca.Conflict, "%w", err)
		}
		if _, err := t.exec("UPDATE device SET state = ?, updated = ? WHERE id = ?", string(to), micros(now), row); err != nil {
			return err
		}
		t.record(ev)
		if to == device.Retired || to == device.Suspended {
			if err := voidPending(t, now, e.Actor, "the device was "+string(to), "folded = ?", folded); err != nil {
				return err
			}
			if err := dropOpen(t, "device:"+name); err != nil {
				return err
			}
		}
		if to != device.Retired {
			return nil
		}
		if _, err := t.exec("UPDATE credential SET revoked = ? WHERE folded = ? AND revoked IS NULL", micros(r.Time), folded); err != nil {
			return err
		}
		page, err := retirement{row: row, r: r, actor: e.Actor}.revoke(t, now)
		revoked = page
		return err
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// revoke revokes the next certificates, and marks the device if there may be more. at is the time of the events.
func (w retirement) revoke(t *tx, at time.Time) ([]ca.Certificate, error) {
	page, err := liveCertificates(t, w.row, w.after, w.r, ca.RevokedAtOnce)
	if err != nil {
		return nil, err
	}
	if err := revoke(t, page, w.r, ca.Event{Time: at, Kind: ca.EventRevoked, Actor: w.actor, Reason: ca.ReasonName(w.r.Reason)}); err != nil {
		return nil, err
	}
	if len(page) < ca.RevokedAtOnce {
		_, err = t.exec("DELETE FROM retiring WHERE device = ?", w.row)
	} else {
		_, err = t.exec(`INSERT INTO retiring (device, after, revoked, reason, actor) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (device) DO UPDATE SET after = excluded.after`, w.row, page[len(page)-1].ID, micros(w.r.Time), w.r.Reason, w.actor)
	}
	return page, err
}

// liveCertificates are the unexpired certificates of a device above an ID that r would change, in a transaction.
func liveCertificates(t *tx, row, after int64, r ca.Revocation, limit int) ([]ca.Certificate, error) {
	rows, err := t.query("SELECT "+certificateColumns+fromCertificate+
		"WHERE c.device = ? AND c.id > ? AND c.not_after > ? AND (r.sequence IS NULL OR r.reason = ? AND r.reason <> ?) ORDER BY c.id LIMIT ?",
		row, after, micros(r.Time), ca.ReasonCertificateHold, r.Reason, limit)
	if err != nil {
		return nil, err
	}
	return collect(rows, byValue(scanCertificate))
}

const selectRetiring = "SELECT w.device, w.after, w.revoked, w.reason, w.actor, d.folded FROM retiring w JOIN device d ON d.id = w.device"

func scanRetirement(row scanner) (w retirement, err error) {
	var at int64
	err = row.Scan(&w.row, &w.after, &at, &w.r.Reason, &w.actor, &w.folded)
	w.r.Time = fromMicros(at)
	return w, err
}

// RevokeRetired goes on with a retirement; see ca.Ledger.
func (s *Store) RevokeRetired(ctx context.Context, id string, at time.Time) (revoked []ca.Certificate, err error) {
	folded := device.Fold(id)
	err = s.write(ctx, func(t *tx) error {
		w, err := scanRetirement(t.row(selectRetiring+" WHERE d.folded = ?", folded))
		if err != nil {
			return err
		}
		page, err := w.revoke(t, at)
		revoked = page
		return err
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// Retiring lists devices whose retirement is not finished; see ca.Ledger.
func (s *Store) Retiring(ctx context.Context, limit int) ([]string, error) {
	return list(ctx, s, "SELECT d.name FROM retiring w JOIN device d ON d.id = w.device ORDER BY w.device LIMIT ?", []any{limit},
		func(row scanner) (name string, err error) { return name, row.Scan(&name) })
}
