package store

import (
	"context"
	"fmt"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// maxDevices is how many devices AddDevices takes at once.
const maxDevices = 1000

const (
	deviceColumns = "name, level, grp, state, credential, created, updated"
	selectDevice  = "SELECT " + deviceColumns + " FROM device WHERE folded = ?"
	insertDevice  = "INSERT INTO device (name, folded, level, grp, state, credential, created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

func deviceArgs(d device.Device) []any {
	return []any{d.ID, device.Fold(d.ID), d.Level, d.Group, string(d.State), d.Credential, micros(d.Created), micros(d.Updated)}
}

func scanDevice(row scanner) (*device.Device, error) {
	var d device.Device
	var created, updated int64
	err := row.Scan(&d.ID, &d.Level, &d.Group, &d.State, &d.Credential, &created, &updated)
	d.Created, d.Updated = fromMicros(created), fromMicros(updated)
	return &d, err
}

// Device finds a device by its ID in any case; ca.ErrNoRecord if there is none.
func (s *Store) Device(ctx context.Context, id string) (*device.Device, error) {
	d, err := one(ctx, s, selectDevice, scanDevice, device.Fold(id))
	return d, s.fault(err)
}

// Devices lists devices in the order of their IDs without case, beginning
// after the ID after ("": the first).
func (s *Store) Devices(ctx context.Context, f device.Filter, after string, limit int) ([]device.Device, error) {
	var q where
	order := q.page(f.Window, "created", "folded", device.Fold(after), "")
	if f.Level != "" {
		q.and("level = ?", f.Level)
	}
	if f.Group != "" {
		q.and("grp = ?", f.Group)
	}
	if f.State != "" {
		q.and("state = ?", string(f.State))
	}
	if f.Prefix != "" {
		prefix := device.Fold(f.Prefix)
		q.and("folded >= ? AND folded < ?", prefix, prefix+"~") // ~ sorts after all that an ID may hold
	}
	return list(ctx, s, "SELECT "+deviceColumns+" FROM device"+q.String()+order+" LIMIT ?", append(q.args, limit), byValue(scanDevice))
}

// AddDevices enters up to 1000 devices in one transaction. The first result
// says of each whether it was there already (ca.ErrRecorded). If all were,
// there is no event.
func (s *Store) AddDevices(ctx context.Context, devices []device.Device, e ca.Event) ([]error, error) {
	if len(devices) > maxDevices {
		return nil, fmt.Errorf("%d devices at once: at most %d", len(devices), maxDevices)
	}
	ev, err := encode(e)
	if err != nil {
		return nil, err
	}
	there := make([]error, len(devices))
	err = s.write(ctx, func(t *tx) error {
		added := false
		for i, d := range devices {
			n, err := t.exec(insertDevice+" ON CONFLICT (folded) DO NOTHING", deviceArgs(d)...)
			if err != nil {
				return fmt.Errorf("device %s: %w", d.ID, err)
			}
			there[i] = nil
			if n == 0 {
				there[i] = ca.ErrRecorded
			}
			added = added || n > 0
		}
		if added {
			t.record(ev)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return there, nil
}
