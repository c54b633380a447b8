package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// ReserveIndexes sets indexes aside; see ca.Ledger. The first index of an
// issuer is 0. The issuer need not have been added, so that the order of
// setting a CA up does not matter.
func (s *Store) ReserveIndexes(ctx context.Context, issuer string, n int) (first uint64, err error) {
	if n < 1 {
		return 0, fmt.Errorf("%d indexes cannot be reserved", n)
	}
	err = s.write(ctx, func(t *tx) error {
		var next int64
		if err := t.returning("INSERT INTO issuance_index (issuer, next) VALUES (?, ?) "+
			"ON CONFLICT (issuer) DO UPDATE SET next = issuance_index.next + excluded.next RETURNING next", issuer, n).Scan(&next); err != nil {
			return err
		}
		if next > ca.MaxIndex+1 {
			return fmt.Errorf("issuer %s has no indexes left: make its next generation", issuer)
		}
		first = uint64(next) - uint64(n)
		return nil
	})
	if err == nil {
		s.reserved.raise(issuer, first+uint64(n))
	}
	return first, err
}

// usedIndexes is the first index of each issuer that nothing in the ledger shows.
func usedIndexes(t *tx) (map[string]uint64, error) {
	next := map[string]uint64{}
	rows, err := t.query("SELECT name, 0 FROM issuer UNION ALL SELECT issuer, next FROM issuance_index")
	if err != nil {
		return nil, err
	}
	type reserved struct {
		issuer string
		next   int64
	}
	counters, err := collect(rows, func(row scanner) (r reserved, err error) { return r, row.Scan(&r.issuer, &r.next) })
	if err != nil {
		return nil, err
	}
	for _, r := range counters {
		next[r.issuer] = max(next[r.issuer], uint64(r.next))
	}
	type highest struct {
		issuer string
		serial []byte
	}
	rows, err = t.query("SELECT issuer, max(serial) FROM certificate GROUP BY issuer UNION ALL SELECT issuer, max(serial) FROM revocation GROUP BY issuer")
	if err != nil {
		return nil, err
	}
	shown, err := collect(rows, func(row scanner) (h highest, err error) { return h, row.Scan(&h.issuer, &h.serial) })
	if err != nil {
		return nil, err
	}
	for _, h := range shown {
		var serial ca.Serial
		copy(serial[:], h.serial)
		next[h.issuer] = max(next[h.issuer], serial.Index()+1)
	}
	return next, nil
}

// Issuers lists the CA certificate generations by role and generation.
func (s *Store) Issuers(ctx context.Context) ([]ca.IssuerRecord, error) {
	return list(ctx, s, "SELECT name, role, generation, key, cert, created, activates, revoked, reason FROM issuer ORDER BY role, generation, name", nil,
		func(row scanner) (i ca.IssuerRecord, err error) {
			var created int64
			var activates, revoked, reason sql.NullInt64
			err = row.Scan(&i.Name, &i.Role, &i.Generation, &i.Key, &i.Cert, &created, &activates, &revoked, &reason)
			i.Created = fromMicros(created)
			if activates.Valid {
				i.Activates = fromMicros(activates.Int64)
			}
			if revoked.Valid {
				i.Revoked = &ca.Revocation{Time: fromMicros(revoked.Int64), Reason: int(reason.Int64)}
			}
			return i, err
		})
}

// AddIssuer enters a CA certificate generation; ca.ErrRecorded if its name is there.
func (s *Store) AddIssuer(ctx context.Context, i ca.IssuerRecord, e ca.Event) error {
	e.Issuer = i.Name
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("INSERT INTO issuer (name, role, generation, key, cert, created, activates) VALUES (?, ?, ?, ?, ?, ?, ?)",
			i.Name, i.Role, i.Generation, i.Key, i.Cert, micros(i.Created), sql.NullInt64{Int64: micros(i.Activates), Valid: !i.Activates.IsZero()})
		t.record(ev)
		return recorded(err, "issuer "+i.Name)
	})
}

// ActivateIssuer sets when a CA begins to issue; see ca.Ledger.
func (s *Store) ActivateIssuer(ctx context.Context, name string, at time.Time, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		var changed string
		if err := t.returning("UPDATE issuer SET activates = ? WHERE name = ? RETURNING name", micros(at), name).Scan(&changed); err != nil {
			return err
		}
		t.record(ev)
		return nil
	})
}

// RevokeIssuer marks a CA as revoked; see ca.Ledger.
func (s *Store) RevokeIssuer(ctx context.Context, name string, r ca.Revocation, e ca.Event) error {
	e.Issuer, e.Time, e.Reason = name, r.Time, ca.ReasonName(r.Reason)
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		var revoked sql.NullInt64
		if err := t.row("SELECT revoked FROM issuer WHERE name = ?", name).Scan(&revoked); err != nil {
			return err
		}
		if revoked.Valid {
			return ca.ErrRecorded
		}
		_, err := t.exec("UPDATE issuer SET revoked = ?, reason = ? WHERE name = ?", micros(r.Time), r.Reason, name)
		t.record(ev)
		return err
	})
}

// LiveUntil is when the last certificate of an issuer expires; see ca.Ledger.
// It reads certificates from the end of the index of ends, where an issuer in
// use is found at once; one whose certificates have all expired is found to have none that lives.
func (s *Store) LiveUntil(ctx context.Context, issuer string) (time.Time, error) {
	var end sql.NullInt64
	err := s.reads.QueryRowContext(ctx, "SELECT not_after FROM certificate WHERE not_after > ? AND issuer = ? AND profile NOT IN (?, ?) ORDER BY not_after DESC LIMIT 1",
		micros(s.now()), issuer, ca.BuiltinOCSP, ca.BuiltinPack).Scan(&end)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return fromMicros(end.Int64), s.fault(err)
}
