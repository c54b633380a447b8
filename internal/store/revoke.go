package store

import (
	"context"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Revoke revokes the certificates named; see ca.Ledger. One on hold is revoked
// for good by any other reason than hold. If one of them is not
// in the ledger, none is revoked (ca.ErrNoRecord). e is the event of each: device, issuer, serial
// and revocation are those of the certificate.
func (s *Store) Revoke(ctx context.Context, serials []ca.Serial, r ca.Revocation, e ca.Event) ([]ca.Certificate, error) {
	if r.Time.IsZero() {
		r.Time = s.now()
	}
	var revoked []ca.Certificate
	err := s.write(ctx, func(t *tx) error {
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
			case changes(&found[0], r):
				revoked = append(revoked, found[0])
			}
		}
		return revoke(t, revoked, r, e)
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// changes reports whether a revocation says something new of a certificate.
func changes(c *ca.Certificate, r ca.Revocation) bool {
	return c.Revocation == nil || c.Revocation.Reason == ca.ReasonCertificateHold && r.Reason != ca.ReasonCertificateHold
}

// revoke enters certificates in the journal, in place of the hold that they
// may be on, and sets their Revocation. Each has an event of its own, made of e, so
// that journal and audit log can be compared line by line.
func revoke(t *tx, certificates []ca.Certificate, r ca.Revocation, e ca.Event) error {
	if len(certificates) == 0 {
		return nil
	}
	last, err := t.count(journalCounter, len(certificates))
	if err != nil {
		return err
	}
	r.Time = fromMicros(micros(r.Time))
	r.Sequence = last - int64(len(certificates))
	for i := range certificates {
		c := &certificates[i]
		r.Sequence++
		if c.Revocation != nil {
			if _, err := t.exec("DELETE FROM revocation WHERE certificate = ?", c.ID); err != nil {
				return err
			}
		}
		if _, err := t.exec("INSERT INTO revocation (sequence, certificate, issuer, serial, not_after, revoked, reason, invalid, no_status) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
			r.Sequence, c.ID, c.Issuer, c.Serial[:], micros(c.NotAfter), micros(r.Time), r.Reason, microsOrNull(r.Invalid), flag(c.NoStatus)); err != nil {
			return fmt.Errorf("serial %s: %w", c.Serial, err)
		}
		own := r
		c.Revocation = &own
		e.Revocation = r.Text()
		if err := t.recordOf(c, e); err != nil {
			return err
		}
	}
	return nil
}

// recordOf records what happened to a certificate.
func (t *tx) recordOf(c *ca.Certificate, e ca.Event) error {
	e.Device, e.Issuer, e.Serial = c.Device, c.Issuer, c.Serial
	ev, err := encode(e)
	if err == nil {
		t.record(ev)
	}
	return err
}

// Release ends a hold; see ca.Ledger. Device, issuer and serial of e are those of the certificate.
func (s *Store) Release(ctx context.Context, serial ca.Serial, at time.Time, e ca.Event) (*ca.Certificate, error) {
	var released *ca.Certificate
	err := s.write(ctx, func(t *tx) error {
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
		}
		c := &found[0]
		switch {
		case c.Revocation == nil:
			return ca.Errorf(ca.Conflict, "certificate %s is not on hold", serial)
		case c.Revocation.Reason != ca.ReasonCertificateHold:
			return ca.Errorf(ca.Conflict, "certificate %s is revoked for good (%s): only a hold can be released", serial, ca.ReasonName(c.Revocation.Reason))
		}
		sequence, err := t.count(journalCounter, 1)
		if err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM revocation WHERE certificate = ?", c.ID); err != nil {
			return err
		}
		at = fromMicros(micros(at))
		e.Revocation = ca.ReleasedText(at)
		if err := t.recordOf(c, e); err != nil {
			return err
		}
		_, err = t.exec("INSERT INTO release (sequence, certificate, issuer, serial, released, no_status) VALUES (?, ?, ?, ?, ?, ?)",
			sequence, c.ID, c.Issuer, serial[:], micros(at), flag(c.NoStatus))
		c.Revocation = nil
		released = c
		return err
	})
	if err != nil {
		return nil, err
	}
	return released, nil
}
