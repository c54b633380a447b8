package store

import (
	"context"

	"github.com/deviceca/deviceca/device"
)

// DeviceCount is how many devices share a state and a level.
type DeviceCount struct {
	State device.State `json:"state"`
	Level string       `json:"level"`
	Count int64        `json:"count"`
}

// CountDevices counts the inventory by state and level.
func (s *Store) CountDevices(ctx context.Context) ([]DeviceCount, error) {
	return list(ctx, s, "SELECT state, level, count(*) FROM device GROUP BY state, level ORDER BY state, level", nil,
		func(row scanner) (c DeviceCount, err error) { return c, row.Scan(&c.State, &c.Level, &c.Count) })
}

// Counts are numbers of certificates.
type Counts struct {
	Issued  int64 `json:"issued"`  // ever
	Revoked int64 `json:"revoked"` // ever
	Active  int64 `json:"active"`  // neither expired nor revoked
}

// Counts counts the certificates. It reads an index of all unexpired ones:
// some ten milliseconds per million.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	now := micros(s.now())
	// Certificates are never deleted, so that the newest id is their number.
	err := s.reads.QueryRowContext(ctx, `SELECT (SELECT coalesce(max(id), 0) FROM certificate), (SELECT count(*) FROM revocation),
		(SELECT count(*) FROM certificate WHERE not_after > ?) - (SELECT count(*) FROM revocation WHERE not_after > ?)`, now, now).
		Scan(&c.Issued, &c.Revoked, &c.Active)
	return c, s.fault(err)
}
