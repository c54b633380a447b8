package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// hotReads are the statements on the path of every request.
type hotReads struct{ standing, bySerial, byID, device, credential *sql.Stmt }

func prepareHot(ctx context.Context, db *sql.DB) (h hotReads, err error) {
	for stmt, query := range map[**sql.Stmt]string{
		&h.standing: selectStanding, &h.bySerial: selectBySerial, &h.byID: selectByID, &h.device: selectDevice, &h.credential: selectCredential,
	} {
		if *stmt, err = db.PrepareContext(ctx, query); err != nil {
			return h, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (h hotReads) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{h.standing, h.bySerial, h.byID, h.device, h.credential} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// one reads a single row by a prepared point query; sql.ErrNoRows if there is none.
func one[T any](ctx context.Context, stmt *sql.Stmt, scan func(scanner) (*T, error), args ...any) (*T, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A context that can end costs two goroutines per query, more than the query.
	rows, err := stmt.QueryContext(context.WithoutCancel(ctx), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return nil, err
		}
		return nil, sql.ErrNoRows
	}
	return scan(rows)
}

// list reads the rows of a query that was put together.
func list[T any](ctx context.Context, s *Store, query string, args []any, scan func(scanner) (T, error)) ([]T, error) {
	rows, err := s.reads.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.fault(err)
	}
	all, err := collect(rows, scan)
	return all, s.fault(err)
}

func collect[T any](rows *sql.Rows, scan func(scanner) (T, error)) ([]T, error) {
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}

func byValue[T any](scan func(scanner) (*T, error)) func(scanner) (T, error) {
	return func(row scanner) (T, error) {
		v, err := scan(row)
		if err != nil {
			var zero T
			return zero, err
		}
		return *v, nil
	}
}

// selectStanding reads the device and the newest certificate for the key, so
// that a new key costs no second query.
const selectStanding = `
SELECT d.name, d.level, d.grp, d.state, d.credential, d.created, d.updated, (SELECT max(id) FROM certificate WHERE key_id = ?)
FROM (SELECT 1 AS one) AS one LEFT JOIN device d ON d.folded = ?`

type standing struct {
	device *device.Device
	latest sql.NullInt64 // certificate.id
}

func scanStanding(row scanner) (*standing, error) {
	var (
		s                                   standing
		name, level, grp, state, credential sql.NullString
		created, updated                    sql.NullInt64
	)
	err := row.Scan(&name, &level, &grp, &state, &credential, &created, &updated, &s.latest)
	if name.Valid {
		s.device = &device.Device{ID: name.String, Level: level.String, Group: grp.String, State: device.State(state.String),
			Credential: credential.String, Created: fromMicros(created.Int64), Updated: fromMicros(updated.Int64)}
	}
	return &s, err
}

// Standing reads the device called id ("": none) and who holds the key, with
// one point query, and a second one if the key is known. Record checks again,
// so they need not see the same moment. The key of a certificate of the CA's
// own has no owner, but a Latest.
func (s *Store) Standing(ctx context.Context, id string, keyID [32]byte) (ca.Standing, error) {
	found, err := one(ctx, s.hot.standing, scanStanding, keyID[:], device.Fold(id))
	if err != nil {
		return ca.Standing{}, s.fault(err)
	}
	standing := ca.Standing{Device: found.device}
	if found.latest.Valid {
		if standing.Latest, err = one(ctx, s.hot.byID, scanCertificate, found.latest.Int64); err != nil {
			return ca.Standing{}, s.fault(err)
		}
		standing.KeyOwner = standing.Latest.Device
	}
	return standing, nil
}
