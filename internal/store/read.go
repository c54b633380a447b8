package store

import (
	"context"
	"database/sql"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// one reads a single row by a point query on the path of requests; sql.ErrNoRows if there is none.
func one[T any](ctx context.Context, s *Store, query string, scan func(scanner) (*T, error), args ...any) (v *T, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.hot.use(ctx, func(d *direct) (err error) {
		v, err = scan(d.row(query, args...))
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// rowSet is *sql.Rows or *cursor.
type rowSet interface {
	scanner
	Next() bool
	Err() error
	Close() error
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

func collect[T any](rows rowSet, scan func(scanner) (T, error)) ([]T, error) {
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

// selectStanding reads the device, its newest certificate for the key, and who has proven
// that it has that, in one statement: each costs more to begin than to run.
const selectStanding = `
SELECT d.name, d.level, d.grp, d.state, d.credential, d.created, d.updated, c.serial, o.name
FROM (SELECT 1 AS one) AS one LEFT JOIN device d ON d.folded = ?
	LEFT JOIN certificate c ON c.id = (SELECT max(id) FROM certificate WHERE key_id = ? AND device IS d.id)
	LEFT JOIN device o ON o.id = (SELECT device FROM certificate k WHERE k.key_id = ?
		AND NOT EXISTS (SELECT 1 FROM unproven u WHERE u.certificate = k.id) LIMIT 1)`

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
	found, err := one(ctx, s, selectStanding, scanStanding, device.Fold(id), keyID[:], keyID[:])
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
	p, err := one(ctx, s, selectPresented, scanPresented, serial[:])
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
