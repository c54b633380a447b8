package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp/server"
)

var _ server.Ledger = (*Store)(nil)

const (
	transactionColumns = "id, begun, expires, state, request, answer, actor, signer, serial, req_id, nonce, deadline, confirm, confirm_answer, message, profile, made_key, sealed_key"
	selectTransaction  = "SELECT " + transactionColumns + " FROM cmp_transaction WHERE id = ?"
	beginTransaction   = "INSERT INTO cmp_transaction (id, begun, expires, state, request, actor, signer, req_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

func scanTransaction(row scanner) (*server.Transaction, error) {
	var (
		t                            server.Transaction
		id, request, serial, confirm []byte
		begun, expires               int64
		deadline                     sql.NullInt64
	)
	err := row.Scan(&id, &begun, &expires, &t.State, &request, &t.Answer, &t.Actor, &t.Signer, &serial, &t.ReqID, &t.Nonce, &deadline, &confirm, &t.ConfirmAnswer, &t.Message, &t.Profile, &t.MadeKey, &t.SealedKey)
	t.Was = t.State
	copy(t.ID[:], id)
	copy(t.Request[:], request)
	copy(t.Serial[:], serial)
	copy(t.Confirm[:], confirm)
	t.Begun, t.Expires = fromMicros(begun), fromMicros(expires)
	if deadline.Valid {
		t.Deadline = fromMicros(deadline.Int64)
	}
	return &t, err
}

// Transaction finds a CMP transaction; ca.ErrNoRecord if there is none.
func (s *Store) Transaction(ctx context.Context, id [32]byte) (*server.Transaction, error) {
	t, err := one(ctx, s, selectTransaction, scanTransaction, id[:])
	if err != nil {
		return nil, s.fault(err)
	}
	return t, nil
}

// BeginTransaction enters a CMP transaction; see server.Ledger. One that is
// resumed is returned as it was.
func (s *Store) BeginTransaction(ctx context.Context, t *server.Transaction, stale time.Time) (there *server.Transaction, resumed bool, err error) {
	err = s.write(ctx, func(tx *tx) error {
		resumed = false
		var err error
		there, err = scanTransaction(tx.row(selectTransaction+lockRow, t.ID[:]))
		switch {
		case errors.Is(err, sql.ErrNoRows):
			there = nil
			_, err = tx.exec(beginTransaction, t.ID[:], micros(t.Begun), micros(t.Expires), string(t.State), t.Request[:], t.Actor, t.Signer, t.ReqID)
			if err = recorded(err, "transaction"); err == nil {
				err = putSeen(tx, t)
			}
			return err
		case err != nil || there.State != server.Working || there.Request != t.Request || !there.Begun.Before(stale):
			return err
		}
		resumed = true
		_, err = tx.exec("UPDATE cmp_transaction SET begun = ? WHERE id = ?", micros(t.Begun), t.ID[:])
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return there, resumed, nil
}

const (
	insertTransaction = "INSERT INTO cmp_transaction (" + transactionColumns + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
	updateTransaction = `UPDATE cmp_transaction SET state = ?, serial = ?, nonce = ?, deadline = ?, expires = ?, confirm = ?, confirm_answer = ?,
	message = ?, profile = ?, made_key = ?, sealed_key = ? WHERE id = ? AND state = ?`
)

// KeepTransaction enters a CMP transaction or takes it further; see server.Ledger.
func (s *Store) KeepTransaction(ctx context.Context, t *server.Transaction) error {
	return s.write(ctx, func(tx *tx) error { return putTransaction(tx, t) })
}

// putTransaction is KeepTransaction, within the transaction of something else.
func putTransaction(tx *tx, t *server.Transaction) error {
	var n int64
	var err error
	if t.Was == "" {
		n, err = tx.exec(insertTransaction, t.ID[:], micros(t.Begun), micros(t.Expires), string(t.State), t.Request[:], t.Answer, t.Actor, t.Signer,
			serialOrNull(t.Serial), t.ReqID, t.Nonce, deadlineOrNull(t), confirmOrNull(t), t.ConfirmAnswer, t.Message, t.Profile, t.MadeKey, t.SealedKey)
	} else {
		n, err = tx.exec(updateTransaction, string(t.State), serialOrNull(t.Serial), t.Nonce, deadlineOrNull(t), micros(t.Expires),
			confirmOrNull(t), t.ConfirmAnswer, t.Message, t.Profile, t.MadeKey, t.SealedKey, t.ID[:], string(t.Was))
	}
	if err == nil && n == 0 {
		return ca.ErrAnswered
	}
	if err == nil && t.Was == "" {
		err = putSeen(tx, t)
	}
	if err == nil && t.Was == "" && t.Open() {
		err = boundOpen(tx, t)
	}
	return err
}

// boundOpen forgets the oldest open transactions of the actor that just began
// another, beyond its share, and those of whoever has most, beyond server.MaxOpen in all.
func boundOpen(tx *tx, t *server.Transaction) error {
	if _, err := tx.exec("DELETE FROM cmp_transaction WHERE id IN (SELECT id FROM cmp_transaction WHERE actor = ? AND "+isOpen+" AND id <> ? ORDER BY begun DESC LIMIT 1000000 OFFSET ?)",
		t.Actor, t.ID[:], max(t.Share, 1)-1); err != nil {
		return err
	}
	var all int
	if err := tx.row("SELECT count(*) FROM cmp_transaction WHERE " + isOpen).Scan(&all); err != nil || all <= server.MaxOpen {
		return err
	}
	_, err := tx.exec(`DELETE FROM cmp_transaction WHERE id IN (SELECT id FROM cmp_transaction WHERE `+isOpen+` AND id <> ? AND actor =
		(SELECT actor FROM cmp_transaction WHERE `+isOpen+` GROUP BY actor ORDER BY count(*) DESC, min(begun) LIMIT 1) ORDER BY begun LIMIT ?)`, t.ID[:], all-server.MaxOpen)
	return err
}

// isOpen selects the transactions that go on in a later message of the actor's.
const isOpen = "state IN ('challenged', 'polling')"

// dropOpen forgets the open transactions of an actor.
func dropOpen(t *tx, actor string) error {
	_, err := t.exec("DELETE FROM cmp_transaction WHERE actor = ? AND "+isOpen, actor)
	return err
}

// FinishTransaction stores how far a CMP transaction has come that is worked on
// or polled for; ca.ErrNoRecord if there is none.
func (s *Store) FinishTransaction(ctx context.Context, t *server.Transaction) error {
	return s.moveTransaction(ctx, `UPDATE cmp_transaction SET state = ?, answer = ?, serial = ?, req_id = ?, nonce = ?, deadline = ?, expires = ?,
		confirm = ?, confirm_answer = ?, message = ?, profile = ? WHERE id = ? AND state IN (?, ?)`,
		string(t.State), t.Answer, serialOrNull(t.Serial), t.ReqID, t.Nonce, deadlineOrNull(t), micros(t.Expires),
		confirmOrNull(t), t.ConfirmAnswer, t.Message, t.Profile, t.ID[:], string(server.Working), string(server.Polling))
}

// DropTransaction forgets a CMP transaction that has come to nothing yet;
// ca.ErrNoRecord if there is none.
func (s *Store) DropTransaction(ctx context.Context, id [32]byte) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.exec("DELETE FROM cmp_transaction WHERE id = ? AND state IN (?, ?, ?)",
			id[:], string(server.Working), string(server.Challenged), string(server.Polling))
		if err == nil && n == 0 {
			return ca.ErrNoRecord
		}
		if err == nil {
			_, err = t.exec("DELETE FROM cmp_seen WHERE id = ?", id[:])
		}
		return err
	})
}

// putSeen remembers the ID of a new transaction, if it is to be; ca.ErrAnswered if it is remembered.
func putSeen(tx *tx, t *server.Transaction) error {
	if t.Seen == nil {
		return nil
	}
	n, err := tx.exec("INSERT INTO cmp_seen (id, owner, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", t.ID[:], t.Seen.Owner, micros(t.Seen.Until))
	if err == nil && n == 0 {
		return ca.ErrAnswered
	}
	return err
}

// SeenTransaction reports whether the ID of a transaction is remembered, and how many an owner has, counted up to limit.
func (s *Store) SeenTransaction(ctx context.Context, id [32]byte, owner string, limit int) (seen bool, owned int, err error) {
	row := s.reads.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM cmp_seen WHERE id = ?),
		(SELECT count(*) FROM (SELECT 1 FROM cmp_seen WHERE owner = ? LIMIT ?) AS some)`, id[:], owner, limit)
	if err := row.Scan(&seen, &owned); err != nil {
		return false, 0, s.fault(err)
	}
	return seen, owned, nil
}

// ConfirmTransaction ends a CMP transaction that waits for certConf; see server.Ledger.
func (s *Store) ConfirmTransaction(ctx context.Context, t *server.Transaction) error {
	return s.write(ctx, func(tx *tx) error {
		n, err := tx.exec("UPDATE cmp_transaction SET state = ?, deadline = NULL, confirm = ?, confirm_answer = ?, expires = ? WHERE id = ? AND state IN (?, ?)",
			string(t.State), confirmOrNull(t), t.ConfirmAnswer, micros(t.Expires), t.ID[:], string(server.Waiting), string(server.Repeated))
		switch {
		case err != nil:
			return err
		case n == 0:
			return ca.ErrNoRecord
		case t.State == server.Confirmed:
			return settle(tx, t.Serial)
		}
		return nil
	})
}

// WaitingTransaction is the CMP transaction that waits for the certConf of a certificate; ca.ErrNoRecord if none does.
func (s *Store) WaitingTransaction(ctx context.Context, serial ca.Serial) (*server.Transaction, error) {
	t, err := one(ctx, s, "SELECT "+transactionColumns+" FROM cmp_transaction WHERE serial = ? AND deadline IS NOT NULL LIMIT 1", scanTransaction, serial[:])
	if err != nil {
		return nil, s.fault(err)
	}
	return t, nil
}

// moveTransaction runs a statement that must change one transaction.
func (s *Store) moveTransaction(ctx context.Context, query string, args ...any) error {
	return s.write(ctx, func(t *tx) error {
		n, err := t.exec(query, args...)
		if err == nil && n == 0 {
			return ca.ErrNoRecord
		}
		return err
	})
}

func confirmOrNull(t *server.Transaction) any {
	if t.ConfirmAnswer == nil {
		return nil
	}
	return t.Confirm[:]
}

func deadlineOrNull(t *server.Transaction) any {
	if t.State != server.Waiting || t.Deadline.IsZero() {
		return nil
	}
	return micros(t.Deadline)
}

// OverdueTransactions lists the CMP transactions whose certConf should have come before a time.
func (s *Store) OverdueTransactions(ctx context.Context, before time.Time, limit int) ([]server.Transaction, error) {
	return list(ctx, s, "SELECT "+transactionColumns+" FROM cmp_transaction WHERE deadline < ? ORDER BY deadline LIMIT ?",
		[]any{micros(before), limit}, byValue(scanTransaction))
}

// prunedAtOnce bounds how long one transaction of the database deletes.
const prunedAtOnce = 1000

// PruneTransactions forgets CMP transactions that have expired and wait for nothing, and IDs that need no longer be remembered.
func (s *Store) PruneTransactions(ctx context.Context, before time.Time) (int64, error) {
	if _, err := s.prune(ctx, "DELETE FROM cmp_seen WHERE id IN (SELECT id FROM cmp_seen WHERE expires < ? LIMIT ?)", before); err != nil {
		return 0, err
	}
	return s.prune(ctx, "DELETE FROM cmp_transaction WHERE id IN (SELECT id FROM cmp_transaction WHERE expires < ? AND deadline IS NULL LIMIT ?)", before)
}
