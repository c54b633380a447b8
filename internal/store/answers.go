package store

import (
	"context"
	"errors"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/ocsp"
)

// Answers keeps signed OCSP answers in the ledger, so that what one server
// signed the others need not, nor this one after a restart.
type Answers struct{ s *Store }

var _ ocsp.Cache = Answers{}

// Answers is the store as ocsp.Cache.
func (s *Store) Answers() Answers { return Answers{s} }

// expiredAtOnce is how many answers that have expired go with each one that comes.
const expiredAtOnce = 4

// Get is part of ocsp.Cache.
func (a Answers) Get(ctx context.Context, k ocsp.SharedKey) (response []byte, err error) {
	err = a.s.reads.QueryRowContext(ctx, "SELECT response FROM ocsp_answer WHERE serial = ? AND form = ? AND issuer = ? AND state = ? AND expires > ?",
		k.Serial[:], k.Form, k.Issuer, k.State, micros(a.s.now())).Scan(&response)
	if err = a.s.fault(err); errors.Is(err, ca.ErrNoRecord) {
		return nil, nil
	}
	return response, err
}

// Put is part of ocsp.Cache. It is no event: an answer says only what the ledger says.
func (a Answers) Put(ctx context.Context, k ocsp.SharedKey, response []byte, expires time.Time) error {
	return a.s.write(ctx, func(t *tx) error {
		if _, err := t.exec("DELETE FROM ocsp_answer WHERE id IN (SELECT id FROM ocsp_answer WHERE expires <= ? LIMIT ?)", micros(a.s.now()), expiredAtOnce); err != nil {
			return err
		}
		_, err := t.exec(`INSERT INTO ocsp_answer (serial, form, issuer, state, expires, response) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (serial, form) DO UPDATE SET issuer = excluded.issuer, state = excluded.state, expires = excluded.expires, response = excluded.response`,
			k.Serial[:], k.Form, k.Issuer, k.State, micros(expires), response)
		return err
	})
}
