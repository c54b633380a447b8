package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// hotReads are the statements on the path of every request.
type hotReads struct{ standing, presented, bySerial, device, credential, status, head *sql.Stmt }

func prepareHot(ctx context.Context, db *sql.DB) (h hotReads, err error) {
	for stmt, query := range map[**sql.Stmt]string{
		&h.standing: selectStanding, &h.presented: selectPresented, &h.bySerial: selectBySerial, &h.device: selectDevice, &h.credential: selectCredential,
		&h.status: selectStatus, &h.head: selectHead,
	} {
		if *stmt, err = db.PrepareContext(ctx, query); err != nil {
			return h, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (h hotReads) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{h.standing, h.presented, h.bySerial, h.device, h.credential, h.status, h.head} {
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

// selectStanding reads the device, and the newest certificate for the key with
// whose it is, in one statement: each costs more to begin than to run.
const selectStanding = `
SELECT d.name, d.level, d.grp, d.state, d.credential, d.created, d.updated, c.serial, o.name
FROM (SELECT 1 AS one) AS one LEFT JOIN device d ON d.folded = ?
	LEFT JOIN certificate c ON c.id = (SELECT max(id) FROM certificate WHERE key_id = ?)
	LEFT JOIN device o ON o.id = c.device`

func scanStanding(row scanner) (*ca.Standing, error) {
	var (
		s                                          ca.Standing
		name, level, grp, state, credential, owner sql.NullString
		created, updated                           sql.NullInt64
		newest                                     sql.RawBytes
	)
	err := row.Scan(&name, &level, &grp, &state, &credential, &created, &updated, &newest, &owner)
	if name.Valid {
		s.Device = &device.Device{ID: name.String, Level: level.String, Group: grp.String, State: device.State(state.String),
			Credential: credential.String, Created: fromMicros(created.Int64), Updated: fromMicros(updated.Int64)}
	}
	copy(s.Newest[:], newest)
	s.KeyOwner = owner.String
	return &s, err
}

// Standing reads the device called id ("": none) and who holds the key. The
// key of a certificate of the CA's own has no owner, but a Newest.
func (s *Store) Standing(ctx context.Context, id string, keyID [32]byte) (ca.Standing, error) {
	found, err := one(ctx, s.hot.standing, scanStanding, device.Fold(id), keyID[:])
	if err != nil {
		return ca.Standing{}, s.fault(err)
	}
	return *found, nil
}

const selectPresented = "SELECT c.issuer, d.name, c.key_id, c.profile, c.level, c.not_before, c.not_after, c.der, r.sequence, r.revoked, r.reason, r.invalid" +
	fromCertificate + "WHERE c.serial = ?"

// Presented is CertificateBySerial with less to read: it is asked for each
// request that a certificate authenticates.
func (s *Store) Presented(ctx context.Context, serial ca.Serial) (*ca.Certificate, error) {
	c, err := one(ctx, s.hot.presented, func(row scanner) (*ca.Certificate, error) {
		c := ca.Certificate{Serial: serial}
		var (
			key                 sql.RawBytes
			name                sql.NullString
			notBefore, notAfter int64
			revocation          nullRevocation
		)
		err := row.Scan(append([]any{&c.Issuer, &name, &key, &c.Profile, &c.Level, &notBefore, &notAfter, &c.DER}, revocation.columns()...)...)
		copy(c.KeyID[:], key)
		c.Device, c.NotBefore, c.NotAfter, c.Revocation = name.String, fromMicros(notBefore), fromMicros(notAfter), revocation.value()
		return &c, err
	}, serial[:])
	return c, s.fault(err)
}
