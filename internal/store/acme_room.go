package store

import (
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
)

// What accounts may leave in the ledger: orders without a certificate, and accounts without one.

// unfulfilled selects an account's orders that have no certificate.
const unfulfilled = " FROM acme_order WHERE account = ? AND state <> 'valid'"

// orderRoom forgets an account's oldest orders without a certificate, until it has fewer than most, and with them the
// authorizations that no other of these orders has. Those that wait for an administrator stay: if they alone
// are too many, acme.ErrFull.
func orderRoom(t *tx, account int64, most int) error {
	var have int
	if err := t.row("SELECT count(*)"+unfulfilled, account).Scan(&have); err != nil || have < most {
		return err
	}
	orders, err := unfulfilledOrders(t, account)
	if err != nil {
		return err
	}
	excess := have - most + 1 + most/20 // some more, so that the next ones find room
	var old []acme.Order
	for _, o := range orders {
		if o.Status != acme.Processing && len(old) < excess {
			old = append(old, o)
		}
	}
	if len(old) <= have-most {
		return acme.ErrFull
	}
	return forgetOrders(t, orders, old)
}

func unfulfilledOrders(t *tx, account int64) ([]acme.Order, error) {
	rows, err := t.query("SELECT id, state, expires, authorizations"+unfulfilled+" ORDER BY id", account)
	if err != nil {
		return nil, err
	}
	return collect(rows, scanOpenOrder)
}

// scanOpenOrder reads what Order.StatusAt needs of an order.
func scanOpenOrder(row scanner) (acme.Order, error) {
	var o acme.Order
	var expires int64
	var ids []byte
	if err := row.Scan(&o.ID, &o.Status, &expires, &ids); err != nil {
		return o, err
	}
	o.Expires = fromMicros(expires)
	return o, json.Unmarshal(ids, &o.Authorizations)
}

// forgetOrders deletes some of an account's unfulfilled orders, and the authorizations that only they have.
func forgetOrders(t *tx, all, old []acme.Order) error {
	forgotten, kept := map[int64]bool{}, map[int64]bool{}
	for _, o := range old {
		forgotten[o.ID] = true
	}
	for _, o := range all {
		for _, id := range o.Authorizations {
			kept[id] = kept[id] || !forgotten[o.ID]
		}
	}
	for id := range forgotten {
		if _, err := t.exec("DELETE FROM acme_order WHERE id = ?", id); err != nil {
			return err
		}
	}
	for id, still := range kept {
		if still {
			continue
		}
		if _, err := t.exec("DELETE FROM acme_authorization WHERE id = ?", id); err != nil {
			return err
		}
	}
	return nil
}

// canComeTo is what may still become of an order.
func canComeTo(t *tx, o acme.Order, now time.Time) (acme.Status, error) {
	var authorizations []*acme.Authorization
	for _, id := range o.Authorizations {
		a, err := scanAuthorization(t.row(selectAuthorization, id))
		if errors.Is(err, sql.ErrNoRows) {
			a, err = &acme.Authorization{Status: acme.Invalid}, nil
		}
		if err != nil {
			return "", err
		}
		authorizations = append(authorizations, a)
	}
	return o.StatusAt(authorizations, now), nil
}

// idleLooks bounds how many accounts are looked at to find one that is idle.
const idleLooks = 16

// replaceIdle lets a new account take the place of one that is bound to the same credential, got nothing, and can get
// nothing any more: so it needs no use of the credential. ca.ErrSpent if there is none.
func replaceIdle(t *tx, a *ca.Account, e ca.Event) error {
	var there int
	err := t.row("SELECT 1 FROM credential WHERE reference = ? AND revoked IS NULL", a.Credential).Scan(&there)
	if errors.Is(err, sql.ErrNoRows) {
		return ca.ErrSpent
	}
	if err != nil {
		return err
	}
	rows, err := t.query("SELECT id FROM acme_account WHERE credential = ? AND issued = 0 AND status = 'valid' AND created <= ? ORDER BY id LIMIT ?",
		a.Credential, micros(a.Created.Add(-acme.IdleAccount)), idleLooks)
	if err != nil {
		return err
	}
	ids, err := collect(rows, func(row scanner) (id int64, err error) { return id, row.Scan(&id) })
	if err != nil {
		return err
	}
	for _, id := range ids {
		orders, err := unfulfilledOrders(t, id)
		if err != nil {
			return err
		}
		idle := true
		for _, o := range orders {
			status, err := canComeTo(t, o, a.Created)
			if err != nil {
				return err
			}
			idle = idle && status == acme.Invalid
		}
		if !idle {
			continue
		}
		if err := forgetOrders(t, orders, orders); err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM acme_account WHERE id = ?", id); err != nil {
			return err
		}
		e.Kind, e.Account, e.Reason = ca.EventAccountEnded, id, "it got no certificate, and a new account took its use of the credential"
		ev, err := encode(e)
		t.record(ev)
		return err
	}
	return ca.ErrSpent
}
