package store

import (
	"context"
	"database/sql"
	"errors"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// hotReads are the statements on the path of every request.
type hotReads struct {
	standing, presented, bySerial, device, credential, status, head, transaction *sql.Stmt
	account, accountByKey, order, authorization, validAuthorization              *sql.Stmt
}

func prepareHot(ctx context.Context, db *sql.DB) (h hotReads, err error) {
	for stmt, query := range map[**sql.Stmt]string{
		&h.standing: selectStanding, &h.presented: selectPresented, &h.bySerial: selectBySerial, &h.device: selectDevice, &h.credential: selectCredential,
		&h.transaction: selectTransaction,
		&h.status:      selectStatus, &h.head: selectHead,
		&h.account: selectAccount, &h.accountByKey: selectByKey, &h.order: selectOrder, &h.authorization: selectAuthorization,
		&h.validAuthorization: selectValidAuthorization,
	} {
		if *stmt, err = db.PrepareContext(ctx, query); err != nil {
			return h, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (h hotReads) close() error {
	var errs []error
	for _, s := range []*sql.Stmt{h.standing, h.presented, h.bySerial, h.device, h.credential, h.status, h.head, h.transaction,
		h.account, h.accountByKey, h.order, h.authorization, h.validAuthorization} {
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
		s      ca.Standing
		device nullDevice
		newest sql.RawBytes
		owner  sql.NullString
	)
	err := row.Scan(append(device.columns(), &newest, &owner)...)
	s.Device = device.value()
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

const selectPresented = `SELECT c.issuer, c.key_id, c.profile, c.level, c.not_before, c.not_after, c.der,
	d.name, d.level, d.grp, d.state, d.credential, d.created, d.updated, r.sequence, r.revoked, r.reason, r.invalid` +
	fromCertificate + "WHERE c.serial = ?"

type presented struct {
	certificate ca.Certificate
	device      *device.Device
}

func scanPresented(row scanner) (*presented, error) {
	var (
		p                   presented
		c                   = &p.certificate
		key                 sql.RawBytes
		notBefore, notAfter int64
		device              nullDevice
		revocation          nullRevocation
	)
	columns := make([]any, 0, 18)
	columns = append(columns, &c.Issuer, &key, &c.Profile, &c.Level, &notBefore, &notAfter, &c.DER)
	columns = append(append(columns, device.columns()...), revocation.columns()...)
	err := row.Scan(columns...)
	copy(c.KeyID[:], key)
	c.NotBefore, c.NotAfter, c.Revocation = fromMicros(notBefore), fromMicros(notAfter), revocation.value()
	if p.device = device.value(); p.device != nil {
		c.Device = p.device.ID
	}
	return &p, err
}

// Presented is CertificateBySerial with less to read, and the device: it is
// asked for each request that a certificate authenticates.
func (s *Store) Presented(ctx context.Context, serial ca.Serial) (*ca.Certificate, *device.Device, error) {
	p, err := one(ctx, s.hot.presented, scanPresented, serial[:])
	if err != nil {
		return nil, nil, s.fault(err)
	}
	p.certificate.Serial = serial
	return &p.certificate, p.device, nil
}

// nullDevice is a device that may not be there, as joined.
type nullDevice struct {
	name, level, grp, state, credential sql.NullString
	created, updated                    sql.NullInt64
}

func (n *nullDevice) columns() []any {
	return []any{&n.name, &n.level, &n.grp, &n.state, &n.credential, &n.created, &n.updated}
}

func (n *nullDevice) value() *device.Device {
	if !n.name.Valid {
		return nil
	}
	return &device.Device{ID: n.name.String, Level: n.level.String, Group: n.grp.String, State: device.State(n.state.String),
		Credential: n.credential.String, Created: fromMicros(n.created.Int64), Updated: fromMicros(n.updated.Int64)}
}
