package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

const (
	credentialColumns = "reference, device, grp, names, level, uses, used, created, expires, revoked, sealed"
	selectCredential  = "SELECT " + credentialColumns + " FROM credential WHERE reference = ?"
)

func scanCredential(row scanner) (*device.Credential, error) {
	var c device.Credential
	var names string
	var created, expires int64
	var revoked sql.NullInt64
	if err := row.Scan(&c.Reference, &c.Device, &c.Group, &names, &c.Level, &c.Uses, &c.Used, &created, &expires, &revoked, &c.Sealed); err != nil {
		return nil, err
	}
	c.Created, c.Expires, c.Revoked = fromMicros(created), fromMicros(expires), fromNull(revoked)
	if err := json.Unmarshal([]byte(names), &c.Names); err != nil {
		return nil, fmt.Errorf("credential %s: %w", c.Reference, err)
	}
	return &c, nil
}

// Credential finds a credential; ca.ErrNoRecord if there is none.
func (s *Store) Credential(ctx context.Context, reference string) (*device.Credential, error) {
	c, err := one(ctx, s, selectCredential, scanCredential, reference)
	return c, s.fault(err)
}

// Credentials lists credentials in the order of their references, beginning
// after the reference after ("": the first).
func (s *Store) Credentials(ctx context.Context, f ca.CredentialFilter, after string, limit int) ([]device.Credential, error) {
	var q where
	order := q.page(f.Window, "created", "reference", after, "")
	if f.Device != "" {
		q.and("folded = ? AND folded <> ''", device.Fold(f.Device))
	}
	if f.Group != "" {
		q.and("grp = ?", f.Group)
	}
	return list(ctx, s, "SELECT "+credentialColumns+" FROM credential"+q.String()+order+" LIMIT ?", append(q.args, limit), byValue(scanCredential))
}

// AddCredential enters a credential; ca.ErrRecorded if its reference is there.
func (s *Store) AddCredential(ctx context.Context, c *device.Credential, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	names, err := json.Marshal(c.Names)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("INSERT INTO credential ("+credentialColumns+", folded) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			c.Reference, c.Device, c.Group, string(names), c.Level, c.Uses, c.Used, micros(c.Created), micros(c.Expires), microsOrNull(c.Revoked), c.Sealed,
			device.Fold(c.Device))
		t.record(ev)
		return recorded(err, "credential "+c.Reference)
	})
}

// RevokeCredential ends a credential, and what was queued with it; ca.ErrNoRecord if there is none. One
// that was revoked before keeps its time, and there is no event.
func (s *Store) RevokeCredential(ctx context.Context, reference string, at time.Time, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		var revoked sql.NullInt64
		if err := t.row("SELECT revoked FROM credential WHERE reference = ?"+lockRow, reference).Scan(&revoked); err != nil || revoked.Valid {
			return err
		}
		if _, err := t.exec("UPDATE credential SET revoked = ? WHERE reference = ?", micros(at), reference); err != nil {
			return err
		}
		t.record(ev)
		if err := voidPending(t, at, e.Actor, "its credential was revoked", "credential = ?", reference); err != nil {
			return err
		}
		return dropOpen(t, "credential:"+reference)
	})
}

// spendCredential takes one use of a credential, in a transaction.
func spendCredential(t *tx, reference string) error {
	return mustChange(t, ca.ErrSpent, "UPDATE credential SET used = used + 1 WHERE reference = ? AND used < uses AND revoked IS NULL", reference)
}

// recorded turns the error of an insert that met what is there into ca.ErrRecorded.
func recorded(err error, what string) error {
	if err != nil && isDuplicate(err) {
		return fmt.Errorf("%s: %w", what, ca.ErrRecorded)
	}
	return err
}
