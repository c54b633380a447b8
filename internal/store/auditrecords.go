package store

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"database/sql"
	"encoding/hex"
	"iter"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/audit"
)

// The tables as audit.Verify compares them with the events.

const selectRecord = `SELECT c.id, c.serial, c.issuer, d.name, c.issued, c.der, c.not_after, c.no_status, c.key_id
FROM certificate c LEFT JOIN device d ON d.id = c.device WHERE `

func scanRecord(row scanner) (c audit.Certificate, err error) {
	var serial, keyID, der []byte
	var device sql.NullString
	var issued, notAfter int64
	var noStatus bool
	if err := row.Scan(&c.Number, &serial, &c.Issuer, &device, &issued, &der, &notAfter, &noStatus, &keyID); err != nil {
		return c, err
	}
	c.Serial, c.Device, c.Issued = hex.EncodeToString(serial), device.String, fromMicros(issued)
	if len(der) > 0 {
		digest := sha256.Sum256(der)
		c.Digest = hex.EncodeToString(digest[:])
		c.Fault = copiesFault(der, serial, keyID, notAfter, noStatus)
	}
	return c, nil
}

var oidNoRevAvail = []int{2, 5, 29, 56}

// copiesFault says what of a record's columns is not what the certificate says,
// whose digest the log vouches for. Statuses and renewals are decided by the columns.
func copiesFault(der, serial, keyID []byte, notAfter int64, noStatus bool) string {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return "" // the digest says whether it is the one that was issued
	}
	key := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	marked := false
	for _, e := range cert.Extensions {
		marked = marked || e.Id.Equal(oidNoRevAvail)
	}
	switch {
	case hex.EncodeToString(cert.SerialNumber.Bytes()) != hex.EncodeToString(serial):
		return "its serial number is another one"
	case string(key[:]) != string(keyID):
		return "its key is another one"
	case cert.NotAfter.Unix() != fromMicros(notAfter).Unix():
		return "its end is another one"
	case marked != noStatus:
		return "whether its status is published (noRevAvail) is another"
	}
	return ""
}

// Records is the view of the ledger that its audit log is compared with: audit.Records.
type Records struct{ s *Store }

// Records gives that view.
func (s *Store) Records() Records { return Records{s} }

// Certificates is part of audit.Records.
func (r Records) Certificates(ctx context.Context, upTo int64) iter.Seq2[audit.Certificate, error] {
	return stream(ctx, r.s, selectRecord+"c.id > ? AND c.id <= ? ORDER BY c.id", []any{upTo}, int64(0), scanRecord,
		func(c *audit.Certificate) int64 { return c.Number })
}

// Certificate is part of audit.Records.
func (r Records) Certificate(ctx context.Context, serial string) (audit.Certificate, bool, error) {
	return found(ctx, r.s, selectRecord+"c.serial = ?", serial, scanRecord)
}

// found reads the record of a serial number in hex.
func found[T any](ctx context.Context, s *Store, query, serial string, scan func(scanner) (T, error)) (v T, is bool, err error) {
	raw, err := hex.DecodeString(serial)
	if err != nil {
		return v, false, nil
	}
	all, err := list(ctx, s, query, []any{raw}, scan)
	if err != nil || len(all) == 0 {
		return v, false, err
	}
	return all[0], true, nil
}

// selectLines reads both kinds of lines, with whether what a line repeats of the certificate is true.
func selectLines(where string) string {
	const copies = "r.serial = c.serial AND r.issuer = c.issuer AND r.no_status = c.no_status"
	const from = " r LEFT JOIN certificate c ON c.id = r.certificate LEFT JOIN device d ON d.id = c.device WHERE "
	return "SELECT r.sequence, r.serial, d.name, r.revoked, r.reason, r.invalid, coalesce(" + copies + " AND r.not_after = c.not_after, 0) FROM revocation" + from + where +
		" UNION ALL SELECT r.sequence, r.serial, d.name, r.released, NULL, NULL, coalesce(" + copies + ", 0) FROM release" + from + where
}

// Lines is part of audit.Records.
func (r Records) Lines(ctx context.Context, upTo int64) iter.Seq2[audit.Line, error] {
	return stream(ctx, r.s, selectLines("r.sequence > ?1 AND r.sequence <= ?2")+" ORDER BY 1", []any{upTo}, int64(0), scanLine,
		func(l *audit.Line) int64 { return l.Number })
}

// Line is part of audit.Records.
func (r Records) Line(ctx context.Context, serial string) (audit.Line, bool, error) {
	return found(ctx, r.s, selectLines("r.certificate = (SELECT id FROM certificate WHERE serial = ?1)")+" ORDER BY 1 DESC LIMIT 1", serial, scanLine)
}

// Issuers is part of audit.Records.
func (r Records) Issuers(ctx context.Context) ([]audit.Issuer, error) {
	records, err := r.s.Issuers(ctx)
	all := make([]audit.Issuer, len(records))
	for i, record := range records {
		digest := sha256.Sum256(record.Cert)
		all[i] = audit.Issuer{Name: record.Name, Digest: hex.EncodeToString(digest[:]), Created: record.Created}
		if record.Revoked != nil {
			all[i].Revoked, all[i].Reason = record.Revoked.Time, ca.ReasonName(record.Revoked.Reason)
		}
	}
	return all, err
}

func scanLine(row scanner) (l audit.Line, err error) {
	var serial []byte
	var device sql.NullString
	var at int64
	var reason, invalid sql.NullInt64
	var same bool
	if err := row.Scan(&l.Number, &serial, &device, &at, &reason, &invalid, &same); err != nil {
		return l, err
	}
	l.Serial, l.Device, l.Time = hex.EncodeToString(serial), device.String, fromMicros(at)
	if l.Released = !reason.Valid; l.Released {
		l.Text = ca.ReleasedText(l.Time)
	} else {
		r := ca.Revocation{Time: l.Time, Reason: int(reason.Int64), Invalid: fromNull(invalid)}
		l.Reason, l.Text = ca.ReasonName(r.Reason), r.Text()
	}
	if !same {
		l.Fault = "its serial number, issuer, end, or whether its status is published, is another one"
	}
	return l, nil
}
