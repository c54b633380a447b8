package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
)

const (
	manufacturerColumns = "id, name, format, level, anchors, constraints, created, withdrawn, version, lineage"
	raColumns           = "id, name, cert, key_id, names, levels, created, removed, lineage"
)

func scanManufacturer(row scanner) (ca.Manufacturer, error) {
	var m ca.Manufacturer
	var anchors, constraints string
	var created int64
	var withdrawn sql.NullInt64
	if err := row.Scan(&m.ID, &m.Name, &m.Format, &m.Level, &anchors, &constraints, &created, &withdrawn, &m.Version, &m.Lineage); err != nil {
		return m, err
	}
	m.Created, m.Withdrawn = fromMicros(created), fromNull(withdrawn)
	if err := json.Unmarshal([]byte(anchors), &m.Anchors); err != nil {
		return m, fmt.Errorf("manufacturer %s: %w", m.Name, err)
	}
	if err := json.Unmarshal([]byte(constraints), &m.Constraints); err != nil {
		return m, fmt.Errorf("manufacturer %s: %w", m.Name, err)
	}
	return m, nil
}

// Manufacturers lists manufacturers, withdrawn ones included, in the order of
// registration; their Lists without the DER.
func (s *Store) Manufacturers(ctx context.Context) ([]ca.Manufacturer, error) {
	all, err := list(ctx, s, "SELECT "+manufacturerColumns+" FROM manufacturer ORDER BY id", nil, scanManufacturer)
	if err != nil {
		return nil, err
	}
	// Newer lists than the version says are no harm: whoever caches by it looks again.
	lists, err := list(ctx, s, "SELECT "+listColumns+" FROM manufacturer_crl ORDER BY id", nil, scanList)
	if err != nil {
		return nil, err
	}
	for i := range all {
		for _, l := range lists {
			if l.manufacturer == all[i].ID {
				all[i].Lists = append(all[i].Lists, l.RevocationList)
			}
		}
	}
	return all, nil
}

// ManufacturersInForce gives the manufacturers with a format that are not
// withdrawn, in the order of registration.
func (s *Store) ManufacturersInForce(ctx context.Context, format string) ([]ca.ManufacturerVersion, error) {
	return list(ctx, s, "SELECT id, version FROM manufacturer WHERE format = ? AND withdrawn IS NULL ORDER BY id", []any{format},
		func(row scanner) (v ca.ManufacturerVersion, err error) { return v, row.Scan(&v.ID, &v.Version) })
}

// AddManufacturer enters a manufacturer with its Lists and sets its ID;
// ca.ErrRecorded if its name and format are there and not withdrawn.
func (s *Store) AddManufacturer(ctx context.Context, m *ca.Manufacturer, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	anchors, err := json.Marshal(m.Anchors)
	if err != nil {
		return err
	}
	constraints, err := json.Marshal(m.Constraints)
	if err != nil {
		return err
	}
	var id, lineage int64
	err = s.write(ctx, func(t *tx) (err error) {
		id, err = t.insert("INSERT INTO manufacturer (name, format, level, anchors, constraints, created) VALUES (?, ?, ?, ?, ?, ?)",
			m.Name, m.Format, m.Level, string(anchors), string(constraints), micros(m.Created))
		t.record(ev)
		if err != nil {
			return recorded(err, "manufacturer "+m.Name)
		}
		if lineage, err = manufacturerLine(t, id, m); err != nil {
			return err
		}
		return enterLists(t, id, m.Lists)
	})
	if err == nil {
		m.ID, m.Lineage = id, lineage
	}
	return err
}

// WithdrawManufacturer ends the entry of that name and format (all formats if
// ""), and drops its lists; ca.ErrNoRecord if none is in force.
func (s *Store) WithdrawManufacturer(ctx context.Context, name, format string, at time.Time, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if err := alter(t, ev, "UPDATE manufacturer SET withdrawn = ? WHERE name = ? AND (? = '' OR format = ?) AND withdrawn IS NULL",
			micros(at), name, format, format); err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM manufacturer_crl WHERE manufacturer IN (SELECT id FROM manufacturer WHERE name = ? AND withdrawn IS NOT NULL)", name); err != nil {
			return err
		}
		// Which of a manufacturer's formats vouched is not kept: what waits may be asked for again.
		return voidQueued(t, at, e.Actor, "its manufacturer was withdrawn", (&ca.Manufacturer{Name: name}).Mark())
	})
}

// alter runs an update of an entry in force; ca.ErrNoRecord if there was none.
func alter(t *tx, ev event, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		return ca.ErrNoRecord
	}
	t.record(ev)
	return err
}

func scanRA(row scanner) (ca.RA, error) {
	var ra ca.RA
	var key []byte
	var names, levels string
	var created int64
	var removed sql.NullInt64
	if err := row.Scan(&ra.ID, &ra.Name, &ra.Cert, &key, &names, &levels, &created, &removed, &ra.Lineage); err != nil {
		return ra, err
	}
	copy(ra.KeyID[:], key)
	ra.Created, ra.Removed = fromMicros(created), fromNull(removed)
	if err := json.Unmarshal([]byte(names), &ra.Names); err != nil {
		return ra, fmt.Errorf("ra %s: %w", ra.Name, err)
	}
	if err := json.Unmarshal([]byte(levels), &ra.Levels); err != nil {
		return ra, fmt.Errorf("ra %s: %w", ra.Name, err)
	}
	return ra, nil
}

// RAs lists registration authorities, removed ones included, in the order of registration.
func (s *Store) RAs(ctx context.Context) ([]ca.RA, error) {
	return list(ctx, s, "SELECT "+raColumns+" FROM ra ORDER BY id", nil, scanRA)
}

// RAByKey finds the registration authority in force by the SHA-256 of its
// public key; ca.ErrNoRecord if there is none.
func (s *Store) RAByKey(ctx context.Context, keyID [32]byte) (*ca.RA, error) {
	ra, err := scanRA(s.reads.QueryRowContext(ctx, "SELECT "+raColumns+" FROM ra WHERE key_id = ? AND removed IS NULL", keyID[:]))
	if err != nil {
		return nil, s.fault(err)
	}
	return &ra, nil
}

// AddRA enters a registration authority and sets its ID; ca.ErrRecorded if its
// name or its key is there and not removed.
func (s *Store) AddRA(ctx context.Context, ra *ca.RA, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	names, err := json.Marshal(ra.Names)
	if err != nil {
		return err
	}
	levels, err := json.Marshal(ra.Levels)
	if err != nil {
		return err
	}
	var id, lineage int64
	err = s.write(ctx, func(t *tx) (err error) {
		id, err = t.insert("INSERT INTO ra (name, cert, key_id, names, levels, created) VALUES (?, ?, ?, ?, ?, ?)",
			ra.Name, ra.Cert, ra.KeyID[:], string(names), string(levels), micros(ra.Created))
		t.record(ev)
		if err != nil {
			return recorded(err, "ra "+ra.Name)
		}
		lineage, err = raLine(t, id, ra)
		return err
	})
	if err == nil {
		ra.ID, ra.Lineage = id, lineage
	}
	return err
}

// manufacturerLine finds and notes whose line an entry continues; see ca.Register.
func manufacturerLine(t *tx, id int64, m *ca.Manufacturer) (int64, error) {
	rows, err := t.query("SELECT "+manufacturerColumns+" FROM manufacturer WHERE name = ? AND format = ? AND id < ? ORDER BY id DESC", m.Name, m.Format, id)
	if err != nil {
		return 0, err
	}
	earlier, err := collect(rows, scanManufacturer)
	if err != nil {
		return 0, err
	}
	return line(t, "manufacturer", id, earlier, func(e ca.Manufacturer) (int64, bool) {
		return e.Lineage, slices.ContainsFunc(e.Anchors, func(a []byte) bool {
			return slices.ContainsFunc(m.Anchors, func(b []byte) bool { return bytes.Equal(a, b) })
		})
	})
}

func raLine(t *tx, id int64, ra *ca.RA) (int64, error) {
	rows, err := t.query("SELECT "+raColumns+" FROM ra WHERE name = ? AND id < ? ORDER BY id DESC", ra.Name, id)
	if err != nil {
		return 0, err
	}
	earlier, err := collect(rows, scanRA)
	if err != nil {
		return 0, err
	}
	return line(t, "ra", id, earlier, func(e ca.RA) (int64, bool) { return e.Lineage, e.KeyID == ra.KeyID })
}

// line is the lineage of a new entry, by the earlier ones of its name, newest first.
func line[T any](t *tx, table string, id int64, earlier []T, continues func(T) (int64, bool)) (int64, error) {
	if len(earlier) == 0 {
		return 0, nil
	}
	lineage := id
	for _, e := range earlier {
		if of, ok := continues(e); ok {
			lineage = of
			break
		}
	}
	_, err := t.exec("UPDATE "+table+" SET lineage = ? WHERE id = ?", lineage, id)
	return lineage, err
}

// RemoveRA ends an entry; ca.ErrNoRecord if none is in force.
func (s *Store) RemoveRA(ctx context.Context, name string, at time.Time, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if err := alter(t, ev, "UPDATE ra SET removed = ? WHERE name = ? AND removed IS NULL", micros(at), name); err != nil {
			return err
		}
		return voidQueued(t, at, e.Actor, "its registration authority was removed", (&ca.RA{Name: name}).Mark())
	})
}

// vouched checks again, for a recording that a manufacturer or a registration
// authority stands behind, that it is registered still and that the device (row
// is not valid if there is none yet) did not come in by somebody else meanwhile.
func (r *recording) vouched(t *tx, row sql.NullInt64, broughtBy string) error {
	query, id := "", int64(0)
	switch {
	case r.Manufacturer != nil:
		if row.Valid && broughtBy != "" && broughtBy != r.Manufacturer.Mark() {
			return ca.ErrDeviceGone
		}
		query, id = "SELECT id FROM manufacturer WHERE id = ? AND withdrawn IS NULL"+lockRow, r.Manufacturer.ID
	case r.RA != nil:
		query, id = "SELECT id FROM ra WHERE id = ? AND removed IS NULL"+lockRow, r.RA.ID
	default:
		return nil
	}
	err := t.row(query, id).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return ca.ErrWithdrawn
	}
	return err
}

// bind marks a device that an administrator registered as the manufacturer's
// that first vouched for it, so that no other may.
func (r *recording) bind(t *tx, row sql.NullInt64, broughtBy string) error {
	if r.Manufacturer == nil || broughtBy != "" {
		return nil
	}
	_, err := t.exec("UPDATE device SET credential = ? WHERE id = ?", r.Manufacturer.Mark(), row.Int64)
	return err
}
