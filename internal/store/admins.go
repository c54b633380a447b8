package store

import (
	"context"
	"database/sql"

	"github.com/deviceca/deviceca/ca"
)

const adminColumns = "name, role, key_id, created, cert_id, not_after"

func scanAdmin(row scanner) (ca.Admin, error) {
	var a ca.Admin
	var key, cert []byte
	var created int64
	var notAfter sql.NullInt64
	err := row.Scan(&a.Name, &a.Role, &key, &created, &cert, &notAfter)
	copy(a.KeyID[:], key)
	copy(a.CertID[:], cert)
	a.Created = fromMicros(created)
	if notAfter.Valid {
		a.NotAfter = fromMicros(notAfter.Int64)
	}
	return a, err
}

// Admins lists the administrators by name.
func (s *Store) Admins(ctx context.Context) ([]ca.Admin, error) {
	return list(ctx, s, "SELECT "+adminColumns+" FROM admin ORDER BY name", nil, scanAdmin)
}

// AdminByKey finds an administrator by the SHA-256 of the public key;
// ca.ErrNoRecord if there is none.
func (s *Store) AdminByKey(ctx context.Context, keyID [32]byte) (*ca.Admin, error) {
	a, err := scanAdmin(s.reads.QueryRowContext(ctx, "SELECT "+adminColumns+" FROM admin WHERE key_id = ?", keyID[:]))
	if err != nil {
		return nil, s.fault(err)
	}
	return &a, nil
}

// AddAdmin enters an administrator; ca.ErrRecorded if the name or the key is there.
func (s *Store) AddAdmin(ctx context.Context, a ca.Admin, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("INSERT INTO admin ("+adminColumns+") VALUES (?, ?, ?, ?, ?, ?)", a.Name, a.Role, a.KeyID[:], micros(a.Created), a.CertID[:], micros(a.NotAfter))
		t.record(ev)
		return recorded(err, "admin "+a.Name)
	})
}

// RemoveAdmin removes an administrator; ca.ErrNoRecord if there is none.
func (s *Store) RemoveAdmin(ctx context.Context, name string, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		n, err := t.exec("DELETE FROM admin WHERE name = ?", name)
		if err == nil && n == 0 {
			return ca.ErrNoRecord
		}
		t.record(ev)
		return err
	})
}

// Setting reads a small blob; ca.ErrNoRecord if there is none.
func (s *Store) Setting(ctx context.Context, name string) ([]byte, error) {
	var value []byte
	err := s.reads.QueryRowContext(ctx, "SELECT value FROM setting WHERE name = ?", name).Scan(&value)
	return value, s.fault(err)
}

// PutSetting writes a small blob, in place of the one there, together with the
// events given.
func (s *Store) PutSetting(ctx context.Context, name string, value []byte, events ...ca.Event) error {
	encoded := make([]event, len(events))
	for i, e := range events {
		var err error
		if encoded[i], err = encode(e); err != nil {
			return err
		}
	}
	if value == nil {
		value = []byte{}
	}
	return s.write(ctx, func(t *tx) error {
		t.record(encoded...)
		_, err := t.exec("INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value)
		return err
	})
}
