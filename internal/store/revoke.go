package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Revoke revokes the certificates named; see ca.Ledger. If one of them is not
// in the ledger, none is revoked (ca.ErrNoRecord). If all were revoked before
// there is no event.
func (s *Store) Revoke(ctx context.Context, serials []ca.Serial, r ca.Revocation, e ca.Event) ([]ca.Certificate, error) {
	ev, err := encode(e)
	if err != nil {
		return nil, err
	}
	if r.Time.IsZero() {
		r.Time = s.now()
	}
	var revoked []ca.Certificate
	err = s.write(ctx, func(t *tx) error {
		revoked = nil
		seen := make(map[ca.Serial]bool, len(serials))
		for _, serial := range serials {
			if seen[serial] {
				continue
			}
			seen[serial] = true
			rows, err := t.query(selectBySerial, serial[:])
			if err != nil {
				return err
			}
			found, err := collect(rows, byValue(scanCertificate))
			switch {
			case err != nil:
				return err
			case len(found) == 0:
				return fmt.Errorf("serial %s: %w", serial, ca.ErrNoRecord)
			case found[0].Revocation == nil:
				revoked = append(revoked, found[0])
			}
		}
		if len(revoked) == 0 {
			return nil
		}
		t.record(ev)
		return revoke(t, revoked, r)
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// revoke enters certificates that are not yet revoked in the journal, and sets
// their Revocation.
func revoke(t *tx, certificates []ca.Certificate, r ca.Revocation) error {
	if len(certificates) == 0 {
		return nil
	}
	var last int64
	if err := t.returning("UPDATE counter SET value = value + ? WHERE name = 'revocation' RETURNING value", len(certificates)).Scan(&last); err != nil {
		return err
	}
	r.Time = fromMicros(micros(r.Time))
	r.Sequence = last - int64(len(certificates))
	for i := range certificates {
		c := &certificates[i]
		r.Sequence++
		if _, err := t.exec("INSERT INTO revocation (sequence, certificate, issuer, serial, not_after, revoked, reason, invalid) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			r.Sequence, c.ID, c.Issuer, c.Serial[:], micros(c.NotAfter), micros(r.Time), r.Reason, microsOrNull(r.Invalid)); err != nil {
			return fmt.Errorf("serial %s: %w", c.Serial, err)
		}
		own := r
		c.Revocation = &own
	}
	return nil
}

// Revoked is one line of the revocation journal.
type Revoked struct {
	ca.Revocation
	Serial   ca.Serial // Serial.Index is the issuance index
	Issuer   string
	NotAfter time.Time // of the certificate
}

// Revocations lists the revocation journal of one issuer ("": of all) in order
// of its sequence, beginning after the sequence after.
func (s *Store) Revocations(ctx context.Context, issuer string, after int64, limit int) ([]Revoked, error) {
	var q where
	q.and("sequence > ?", after)
	if issuer != "" {
		q.and("issuer = ?", issuer)
	}
	return list(ctx, s, "SELECT sequence, issuer, serial, not_after, revoked, reason, invalid FROM revocation"+q.String()+" ORDER BY sequence LIMIT ?",
		append(q.args, limit), func(row scanner) (Revoked, error) {
			var r Revoked
			var serial []byte
			var notAfter, revoked int64
			var invalid sql.NullInt64
			err := row.Scan(&r.Sequence, &r.Issuer, &serial, &notAfter, &revoked, &r.Reason, &invalid)
			copy(r.Serial[:], serial)
			r.NotAfter, r.Time, r.Invalid = fromMicros(notAfter), fromMicros(revoked), fromNull(invalid)
			return r, err
		})
}
