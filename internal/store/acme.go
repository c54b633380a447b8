package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

var _ acme.Ledger = (*Store)(nil)

const (
	accountColumns = "id, thumbprint, key, status, contact, agreed, credential, device, created, binding"
	selectAccount  = "SELECT " + accountColumns + " FROM acme_account WHERE id = ?"
	selectByKey    = "SELECT " + accountColumns + " FROM acme_account WHERE thumbprint = ?"
)

func scanAccount(row scanner) (*ca.Account, error) {
	var a ca.Account
	var thumbprint, contact, binding []byte
	var created int64
	if err := row.Scan(&a.ID, &thumbprint, &a.Key, &a.Status, &contact, &a.Agreed, &a.Credential, &a.Device, &created, &binding); err != nil {
		return nil, err
	}
	copy(a.Thumbprint[:], thumbprint)
	a.Created = fromMicros(created)
	if len(binding) > 0 {
		a.Binding = binding
	}
	if err := json.Unmarshal(contact, &a.Contact); err != nil {
		return nil, fmt.Errorf("account %d: %w", a.ID, err)
	}
	return &a, nil
}

// Account finds an ACME account; ca.ErrNoRecord if there is none.
func (s *Store) Account(ctx context.Context, id int64) (*ca.Account, error) {
	a, err := one(ctx, s, selectAccount, scanAccount, id)
	return a, s.fault(err)
}

// AccountByKey finds the ACME account with a key; ca.ErrNoRecord if there is none.
func (s *Store) AccountByKey(ctx context.Context, thumbprint [32]byte) (*ca.Account, error) {
	a, err := one(ctx, s, selectByKey, scanAccount, thumbprint[:])
	return a, s.fault(err)
}

// Accounts lists ACME accounts, oldest first, beginning after the one with the ID after.
func (s *Store) Accounts(ctx context.Context, f ca.AccountFilter, after int64, limit int) ([]ca.Account, error) {
	var q where
	order := q.page(f.Window, "created", "id", after, int64(0))
	if f.Device != "" {
		q.and("folded = ? AND folded <> ''", device.Fold(f.Device))
	}
	if f.Credential != "" {
		q.and("credential = ?", f.Credential)
	}
	if f.Status != "" {
		q.and("status = ?", f.Status)
	}
	return list(ctx, s, "SELECT "+accountColumns+" FROM acme_account"+q.String()+order+" LIMIT ?", append(q.args, limit), byValue(scanAccount))
}

// AddAccount enters an ACME account; see acme.Ledger.
func (s *Store) AddAccount(ctx context.Context, a *ca.Account, e ca.Event) (there *ca.Account, err error) {
	contact, err := json.Marshal(a.Contact)
	if err != nil {
		return nil, err
	}
	var id int64
	err = s.write(ctx, func(t *tx) (err error) {
		there, err = scanAccount(t.row(selectByKey, a.Thumbprint[:]))
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		there = nil
		if a.Credential != "" {
			err := spendCredential(t, a.Credential)
			if errors.Is(err, ca.ErrSpent) {
				err = replaceIdle(t, a, e)
			}
			if err != nil {
				return err
			}
		}
		if id, err = t.insert("INSERT INTO acme_account (thumbprint, key, status, contact, agreed, credential, device, folded, created, binding, issued) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
			a.Thumbprint[:], a.Key, a.Status, string(contact), flag(a.Agreed), a.Credential, a.Device, device.Fold(a.Device), micros(a.Created), string(a.Binding)); err != nil {
			return err
		}
		e.Account = id // known only now
		ev, err := encode(e)
		t.record(ev)
		return err
	})
	if err == nil && there == nil {
		a.ID = id
	}
	return there, err
}

// SetContact replaces the contacts of an ACME account; ca.ErrNoRecord if there is none.
func (s *Store) SetContact(ctx context.Context, id int64, contact []string) error {
	text, err := json.Marshal(contact)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		return mustChange(t, ca.ErrNoRecord, "UPDATE acme_account SET contact = ? WHERE id = ?", string(text), id)
	})
}

// ChangeKey gives a valid ACME account another key; see acme.Ledger.
func (s *Store) ChangeKey(ctx context.Context, id int64, old [32]byte, key []byte, thumbprint [32]byte, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		t.record(ev)
		return recorded(mustChange(t, ca.ErrNoRecord, "UPDATE acme_account SET key = ?, thumbprint = ? WHERE id = ? AND thumbprint = ? AND status = 'valid'",
			key, thumbprint[:], id, old[:]), "the key")
	})
}

// DeactivateAccount ends a valid ACME account; ca.ErrNoRecord if there is none.
func (s *Store) DeactivateAccount(ctx context.Context, id int64, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if err := alter(t, ev, "UPDATE acme_account SET status = 'deactivated' WHERE id = ? AND status = 'valid'", id); err != nil {
			return err
		}
		return voidQueued(t, e.Time, e.Actor, "its account was deactivated", ca.AccountActor(id))
	})
}

// mustChange runs a statement that must change a row, else missed.
func mustChange(t *tx, missed error, query string, args ...any) error {
	n, err := t.exec(query, args...)
	if err == nil && n == 0 {
		return missed
	}
	return err
}

const selectOrder = `SELECT id, account, state, identifiers, authorizations, profile, not_before, not_after, replaces, created, expires, csr, serial, error
FROM acme_order WHERE id = ?`

func scanOrder(row scanner) (*acme.Order, error) {
	var (
		o                         acme.Order
		identifiers, ids, failure []byte
		serial                    []byte
		notBefore, notAfter       sql.NullInt64
		created, expires          int64
	)
	if err := row.Scan(&o.ID, &o.Account, &o.Status, &identifiers, &ids, &o.Profile, &notBefore, &notAfter, &o.Replaces, &created, &expires,
		&o.CSR, &serial, &failure); err != nil {
		return nil, err
	}
	copy(o.Serial[:], serial)
	o.Created, o.Expires, o.NotBefore, o.NotAfter = fromMicros(created), fromMicros(expires), timeOrZero(notBefore), timeOrZero(notAfter)
	err := errors.Join(json.Unmarshal(identifiers, &o.Identifiers), json.Unmarshal(ids, &o.Authorizations))
	if failure != nil {
		err = errors.Join(err, json.Unmarshal(failure, &o.Error))
	}
	if err != nil {
		return nil, fmt.Errorf("order %d: %w", o.ID, err)
	}
	return &o, nil
}

func timeOrZero(us sql.NullInt64) time.Time {
	if !us.Valid {
		return time.Time{}
	}
	return fromMicros(us.Int64)
}

// zeroOrMicros is NULL for the zero time.
func zeroOrMicros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return micros(t)
}

// Order finds an ACME order; ca.ErrNoRecord if there is none.
func (s *Store) Order(ctx context.Context, id int64) (*acme.Order, error) {
	o, err := one(ctx, s, selectOrder, scanOrder, id)
	return o, s.fault(err)
}

// AddOrder enters an ACME order with its new authorizations; see acme.Ledger.
func (s *Store) AddOrder(ctx context.Context, o *acme.Order, added []*acme.Authorization, most int) error {
	identifiers, err := json.Marshal(o.Identifiers)
	if err != nil {
		return err
	}
	encoded := make([]encodedAuthorization, len(added))
	for i, a := range added {
		if encoded[i], err = encodeAuthorization(a); err != nil {
			return err
		}
	}
	ids := make([]int64, len(o.Authorizations)+len(added))
	copy(ids, o.Authorizations)
	var id int64
	err = s.write(ctx, func(t *tx) error {
		if o.Replaces != "" {
			if err := notReplaced(t, o); err != nil {
				return err
			}
		}
		if err := orderRoom(t, o.Account, most); err != nil {
			return err
		}
		for i, a := range added {
			row := encoded[i]
			var err error
			if ids[len(o.Authorizations)+i], err = t.insert(insertAuthorization, a.Account, a.Identifier.Type, a.Identifier.Value, flag(a.Wildcard), a.Device, string(a.Status), a.Way,
				micros(a.Created), micros(a.Expires), zeroOrMicros(a.Validated), a.SPKI, row.evidence, row.challenges, flag(a.Busy())); err != nil {
				return err
			}
		}
		list, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		id, err = t.insert("INSERT INTO acme_order (account, state, identifiers, authorizations, profile, not_before, not_after, replaces, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			o.Account, string(o.Status), string(identifiers), string(list), o.Profile, zeroOrMicros(o.NotBefore), zeroOrMicros(o.NotAfter), o.Replaces,
			micros(o.Created), micros(o.Expires))
		return err
	})
	if err != nil {
		return err
	}
	for i, a := range added {
		a.ID = ids[len(o.Authorizations)+i]
	}
	o.ID, o.Authorizations = id, ids
	return nil
}

// notReplaced is ca.ErrRecorded if an order that may still be fulfilled, or was, replaces the same certificate.
func notReplaced(t *tx, o *acme.Order) error {
	rows, err := t.query(`SELECT id, state, expires, authorizations FROM acme_order WHERE replaces = ? AND state <> 'invalid'`+lockRow, o.Replaces)
	if err != nil {
		return err
	}
	others, err := collect(rows, scanOpenOrder)
	if err != nil {
		return err
	}
	for _, other := range others {
		status, err := canComeTo(t, other, o.Created)
		if err != nil {
			return err
		}
		if status != acme.Invalid {
			return ca.ErrRecorded
		}
	}
	return nil
}

// Orders lists the IDs of an ACME account's orders that are not recorded as invalid.
func (s *Store) Orders(ctx context.Context, account, after int64, limit int) ([]int64, error) {
	return list(ctx, s, "SELECT id FROM acme_order WHERE account = ? AND id > ? AND state <> 'invalid' ORDER BY id LIMIT ?", []any{account, after, limit},
		func(row scanner) (id int64, err error) { return id, row.Scan(&id) })
}

// HoldOrder makes an open ACME order wait with its CSR; acme.ErrStale if it is not open.
func (s *Store) HoldOrder(ctx context.Context, id int64, csr []byte) error {
	return s.write(ctx, func(t *tx) error {
		return mustChange(t, acme.ErrStale, "UPDATE acme_order SET state = 'processing', csr = ? WHERE id = ? AND state = 'open'", csr, id)
	})
}

// FailOrder makes an ACME order invalid that is open or processing; acme.ErrStale if it is neither.
func (s *Store) FailOrder(ctx context.Context, id int64, why *acme.Problem) error {
	text, err := json.Marshal(why)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		return mustChange(t, acme.ErrStale, "UPDATE acme_order SET state = 'invalid', csr = NULL, error = ? WHERE id = ? AND state IN ('open', 'processing')", string(text), id)
	})
}

// fulfil makes the ACME order of a certificate valid: see acme.Fulfilment. The order is kept for as
// long as the certificate lives.
func fulfil(t *tx, id int64, c *ca.Certificate) error {
	n, err := t.exec(`UPDATE acme_order SET state = 'valid', csr = NULL, serial = ?, expires = max(expires, ?)
		WHERE id = ? AND state IN ('open', 'processing') AND EXISTS (
			SELECT 1 FROM acme_account a LEFT JOIN credential c ON c.reference = a.credential
			WHERE a.id = acme_order.account AND a.status = 'valid' AND c.revoked IS NULL)`, c.Serial[:], micros(c.NotAfter), id)
	if err == nil && n > 0 {
		_, err = t.exec("UPDATE acme_account SET issued = 1 WHERE issued = 0 AND id = (SELECT account FROM acme_order WHERE id = ?)", id)
	}
	if err != nil || n > 0 {
		return err
	}
	var state acme.Status
	if err := t.row("SELECT state FROM acme_order WHERE id = ?", id).Scan(&state); err == nil && (state == acme.Open || state == acme.Processing) {
		return ca.ErrAccountGone
	} else if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	return ca.ErrAnswered
}

const (
	authorizationColumns = "id, account, type, value, wildcard, device, status, way, created, expires, validated, spki, evidence, challenges, version"
	selectAuthorization  = "SELECT " + authorizationColumns + " FROM acme_authorization WHERE id = ?"
	insertAuthorization  = `INSERT INTO acme_authorization (account, type, value, wildcard, device, status, way, created, expires, validated, spki, evidence, challenges, busy, version)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`
)

func scanAuthorization(row scanner) (*acme.Authorization, error) {
	var (
		a                    acme.Authorization
		created, expires     int64
		validated            sql.NullInt64
		evidence, challenges []byte
	)
	if err := row.Scan(&a.ID, &a.Account, &a.Identifier.Type, &a.Identifier.Value, &a.Wildcard, &a.Device, &a.Status, &a.Way, &created, &expires, &validated,
		&a.SPKI, &evidence, &challenges, &a.Version); err != nil {
		return nil, err
	}
	a.Created, a.Expires, a.Validated = fromMicros(created), fromMicros(expires), timeOrZero(validated)
	err := json.Unmarshal(challenges, &a.Challenges)
	if evidence != nil {
		a.Evidence = new(policy.Evidence)
		err = errors.Join(err, json.Unmarshal(evidence, a.Evidence))
	}
	if err != nil {
		return nil, fmt.Errorf("authorization %d: %w", a.ID, err)
	}
	return &a, nil
}

type encodedAuthorization struct {
	evidence   any // NULL if there is none
	challenges string
}

func encodeAuthorization(a *acme.Authorization) (e encodedAuthorization, err error) {
	challenges, err := json.Marshal(a.Challenges)
	if err != nil {
		return e, err
	}
	e.challenges = string(challenges)
	if a.Evidence != nil {
		evidence, err := json.Marshal(a.Evidence)
		if err != nil {
			return e, err
		}
		e.evidence = string(evidence)
	}
	return e, nil
}

// Authorization finds an ACME authorization; ca.ErrNoRecord if there is none.
func (s *Store) Authorization(ctx context.Context, id int64) (*acme.Authorization, error) {
	a, err := one(ctx, s, selectAuthorization, scanAuthorization, id)
	return a, s.fault(err)
}

const selectValidAuthorization = "SELECT " + authorizationColumns + ` FROM acme_authorization
WHERE account = ? AND type = ? AND value = ? AND status = 'valid' AND wildcard = ? AND validated >= ? AND expires > ? ORDER BY id DESC LIMIT 1`

// ValidAuthorization finds an ACME account's valid authorization; see acme.Ledger.
func (s *Store) ValidAuthorization(ctx context.Context, account int64, of acme.Identifier, wildcard bool, since, now time.Time) (*acme.Authorization, error) {
	a, err := one(ctx, s, selectValidAuthorization, scanAuthorization, account, of.Type, of.Value, flag(wildcard), micros(since), micros(now))
	return a, s.fault(err)
}

// SaveAuthorization stores what became of an ACME authorization; see acme.Ledger.
func (s *Store) SaveAuthorization(ctx context.Context, a *acme.Authorization) error {
	e, err := encodeAuthorization(a)
	if err != nil {
		return err
	}
	err = s.write(ctx, func(t *tx) error {
		return mustChange(t, acme.ErrStale, `UPDATE acme_authorization SET status = ?, way = ?, expires = ?, validated = ?, spki = ?, evidence = ?, challenges = ?, busy = ?, version = version + 1
			WHERE id = ? AND version = ?`, string(a.Status), a.Way, micros(a.Expires), zeroOrMicros(a.Validated), a.SPKI, e.evidence, e.challenges, flag(a.Busy()), a.ID, a.Version)
	})
	if err == nil {
		a.Version++
	}
	return err
}

// BusyAuthorizations lists ACME authorizations with a challenge that is being validated.
func (s *Store) BusyAuthorizations(ctx context.Context, after int64, limit int) ([]acme.Authorization, error) {
	return list(ctx, s, "SELECT "+authorizationColumns+" FROM acme_authorization WHERE busy = 1 AND id > ? ORDER BY id LIMIT ?", []any{after, limit}, byValue(scanAuthorization))
}

// PruneACME forgets ACME orders and authorizations that expired before a time.
func (s *Store) PruneACME(ctx context.Context, before time.Time) (total int64, err error) {
	for _, table := range []string{"acme_order", "acme_authorization"} {
		n, err := s.prune(ctx, "DELETE FROM "+table+" WHERE id IN (SELECT id FROM "+table+" WHERE expires < ? LIMIT ?)", before)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// PruneAccounts forgets ACME accounts that nothing vouches for; see acme.Ledger.
func (s *Store) PruneAccounts(ctx context.Context, before time.Time) (int64, error) {
	return s.prune(ctx, `DELETE FROM acme_account WHERE id IN (SELECT id FROM acme_account a WHERE credential = '' AND created < ?
		AND NOT EXISTS (SELECT 1 FROM acme_order WHERE account = a.id) LIMIT ?)`, before)
}

// prune deletes what is older than a time, in transactions of a bounded size.
func (s *Store) prune(ctx context.Context, query string, before time.Time) (total int64, err error) {
	for {
		var n int64
		err := s.write(ctx, func(t *tx) (err error) {
			n, err = t.exec(query, micros(before), prunedAtOnce)
			return err
		})
		total += n
		if err != nil || n < prunedAtOnce {
			return total, err
		}
	}
}
