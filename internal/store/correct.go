package store

import (
	"context"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// SetDevice corrects a device; see ca.Ledger.
func (s *Store) SetDevice(ctx context.Context, id string, c device.Change, e ca.Event) (*device.Device, error) {
	folded := device.Fold(id)
	var set *device.Device
	err := s.write(ctx, func(t *tx) error {
		d, err := scanDevice(t.row(selectDevice+lockRow, folded))
		if err != nil {
			return err
		}
		was := *d
		if d.State == device.Retired {
			return ca.Errorf(ca.Conflict, "device %s is retired: nothing of it changes any more", d.ID)
		}
		if set = d; !c.Apply(d) {
			return nil
		}
		d.Updated = e.Time
		if _, err := t.exec("UPDATE device SET level = ?, grp = ?, updated = ? WHERE folded = ?", d.Level, d.Group, micros(d.Updated), folded); err != nil {
			return err
		}
		e.Device, e.Reason = d.ID, was.Differences(*d)
		ev, err := encode(e)
		if err != nil {
			return err
		}
		t.record(ev)
		if _, err := t.exec("UPDATE credential SET level = ? WHERE folded = ? AND revoked IS NULL", d.Level, folded); err != nil {
			return err
		}
		return voidOf(t, d, e.Time, e.Actor, "the device was changed: "+e.Reason)
	})
	if err != nil {
		return nil, err
	}
	return set, nil
}

// RemoveDevice takes a device out of the inventory; see ca.Ledger.
func (s *Store) RemoveDevice(ctx context.Context, id string, e ca.Event) error {
	folded := device.Fold(id)
	return s.write(ctx, func(t *tx) error {
		d, err := scanDevice(t.row(selectDevice+lockRow, folded))
		if err != nil {
			return err
		}
		var certs int
		if err := t.row("SELECT count(*) FROM (SELECT 1 FROM certificate WHERE device = (SELECT id FROM device WHERE folded = ?) LIMIT 1) AS one", folded).Scan(&certs); err != nil {
			return err
		}
		if certs > 0 {
			return ca.Errorf(ca.Conflict, "device %s had a certificate, and what was issued stays on record: retire the device instead", d.ID)
		}
		e.Device, e.Reason = d.ID, fmt.Sprintf("level %s, %s", d.Level, d.State)
		ev, err := encode(e)
		if err != nil {
			return err
		}
		t.record(ev)
		if err := endCredentials(t, d, e.Time, e.Actor); err != nil {
			return err
		}
		if err := voidOf(t, d, e.Time, e.Actor, "the device was removed"); err != nil {
			return err
		}
		_, err = t.exec("DELETE FROM device WHERE folded = ?", folded)
		return err
	})
}

// endCredentials revokes a device's credentials, with an event for each: whoever reads the log alone
// must not take them for usable.
func endCredentials(t *tx, d *device.Device, at time.Time, actor string) error {
	rows, err := t.query("SELECT reference FROM credential WHERE folded = ? AND revoked IS NULL ORDER BY reference", device.Fold(d.ID))
	if err != nil {
		return err
	}
	references, err := collect(rows, func(row scanner) (ref string, err error) { return ref, row.Scan(&ref) })
	if err != nil {
		return err
	}
	for _, ref := range references {
		if _, err := t.exec("UPDATE credential SET revoked = ? WHERE reference = ?", micros(at), ref); err != nil {
			return err
		}
		ev, err := encode(ca.Event{Time: at, Kind: ca.EventCredentialRevoked, Actor: actor, Device: d.ID, Reason: ref})
		if err != nil {
			return err
		}
		t.record(ev)
		if err := dropOpen(t, "credential:"+ref); err != nil {
			return err
		}
	}
	return nil
}

// voidOf ends what a device has waiting for approval, and its open CMP transactions.
func voidOf(t *tx, d *device.Device, at time.Time, by, reason string) error {
	if err := voidPending(t, at, by, reason, "folded = ?", device.Fold(d.ID)); err != nil {
		return err
	}
	return dropOpen(t, "device:"+d.ID)
}
