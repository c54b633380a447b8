package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// RecordLost enters a certificate of ours that the ledger does not hold, as revoked; see ca.Ledger.
func (s *Store) RecordLost(ctx context.Context, c *ca.Certificate, r ca.Revocation, e ca.Event) error {
	if r.Time.IsZero() {
		r.Time = s.now()
	}
	return s.write(ctx, func(t *tx) error {
		if err := checkLost(t, c); err != nil {
			return err
		}
		var row sql.NullInt64
		if c.Device != "" {
			err := t.row("SELECT id FROM device WHERE folded = ?", device.Fold(c.Device)).Scan(&row)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		der := c.DER
		if der == nil {
			der = []byte{}
		}
		id, err := t.insert(insertCertificate, c.Serial[:], c.Issuer, row, c.KeyID[:], c.Profile, c.Level, c.Protocol, c.Requester, c.Actor,
			nil, micros(c.IssuedAt), micros(c.NotBefore), micros(c.NotAfter), c.Request[:], c.Decision.AppendJSON(nil), nil, der, flag(c.NoStatus))
		if err != nil {
			return fmt.Errorf("serial %s: %w", c.Serial, err)
		}
		// It may be older than the mark below which all had expired.
		if _, err := t.exec("DELETE FROM setting WHERE name = ?", "oldest."+c.Issuer); err != nil {
			return err
		}
		c.ID = id
		one := []ca.Certificate{*c}
		if err := revoke(t, one, r, e); err != nil {
			return err
		}
		c.Revocation = one[0].Revocation
		return nil
	})
}

// checkLost checks that the index may be of a certificate that the ledger does not hold: it lies below the issuer's
// next one, and no certificate on record has it.
func checkLost(t *tx, c *ca.Certificate) error {
	var next int64
	if err := t.row("SELECT next FROM issuance_index WHERE issuer = ?", c.Issuer).Scan(&next); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if index := c.Serial.Index(); index >= uint64(next) {
		return ca.Errorf(ca.Malformed, "%s issued no certificate %s: its index %d was not given out, the next is %d; check the serial", c.Issuer, c.Serial, index, next)
	}
	var there []byte
	err := t.row(selectAtIndex, atIndex(c.Issuer, c.Serial.Index(), ca.IndexOnly(c.Serial.Index()))...).Scan(&there)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	var serial ca.Serial
	copy(serial[:], there)
	if serial == c.Serial {
		return ca.ErrRecorded
	}
	return ca.Errorf(ca.Malformed, "%s issued no certificate %s: index %d is that of certificate %s; check the serial", c.Issuer, c.Serial, c.Serial.Index(), serial)
}

// selectAtIndex finds the certificate with an index; see atIndex.
const selectAtIndex = "SELECT serial FROM certificate WHERE issuer = ? AND serial BETWEEN ? AND ? AND serial <> ? LIMIT 1"

// atIndex are the arguments of selectAtIndex: the serial but does not count.
func atIndex(issuer string, index uint64, but ca.Serial) []any {
	first := ca.NewSerial(index, [12]byte{})
	last := first
	copy(last[7:], bytes.Repeat([]byte{0xff}, 12))
	return []any{issuer, first[:], last[:], but[:]}
}

// CertificateAtIndex is the serial of the certificate with an issuance index; ca.ErrNoRecord if the ledger
// holds none.
func (s *Store) CertificateAtIndex(ctx context.Context, issuer string, index uint64) (serial ca.Serial, err error) {
	var raw []byte
	err = s.reads.QueryRowContext(ctx, selectAtIndex, atIndex(issuer, index, ca.Serial{})...).Scan(&raw)
	copy(serial[:], raw)
	return serial, s.fault(err)
}

// NoteLost remembers what a log tells of and the ledger does not hold: a certificate, by its serial, or another
// use of a credential, by a key that is no serial's length. A use of the
// credential, if one is named, goes with it, once; new reports whether it was not noted before.
func (s *Store) NoteLost(ctx context.Context, key []byte, issuer, dev, credential string, at time.Time) (new bool, err error) {
	err = s.write(ctx, func(t *tx) error {
		n, err := t.exec("INSERT INTO lost_certificate (serial, issuer, device, issued) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
			key, issuer, dev, micros(at))
		if new = n > 0; err != nil || !new || credential == "" {
			return err
		}
		_, err = t.exec("UPDATE credential SET used = used + 1 WHERE reference = ? AND used < uses", credential)
		return err
	})
	return new, err
}
