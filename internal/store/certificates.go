package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

const certificateColumns = `c.id, c.serial, c.issuer, d.name, c.key_id, c.profile, c.level, c.protocol, c.requester, c.actor, c.replaces,
	c.issued, c.not_before, c.not_after, c.request, c.decision, c.input, c.der, c.no_status, r.sequence, r.revoked, r.reason, r.invalid`

const fromCertificate = ` FROM certificate c LEFT JOIN device d ON d.id = c.device LEFT JOIN revocation r ON r.certificate = c.id `

const selectBySerial = "SELECT " + certificateColumns + fromCertificate + "WHERE c.serial = ?"

// nullRevocation is a revocation that may not be there, as joined.
type nullRevocation struct{ sequence, revoked, reason, invalid sql.NullInt64 }

func (n *nullRevocation) columns() []any {
	return []any{&n.sequence, &n.revoked, &n.reason, &n.invalid}
}

func (n *nullRevocation) value() *ca.Revocation {
	if !n.sequence.Valid {
		return nil
	}
	return &ca.Revocation{Sequence: n.sequence.Int64, Time: fromMicros(n.revoked.Int64), Reason: int(n.reason.Int64), Invalid: fromNull(n.invalid)}
}

// scanCertificate borrows bytes from the row: it works on a rowSet or cursor, not on *sql.Row.
func scanCertificate(row scanner) (*ca.Certificate, error) {
	var (
		c                              ca.Certificate
		serial, key, replaces, request sql.RawBytes
		decision                       sql.RawBytes
		name                           sql.NullString
		issued, notBefore, notAfter    int64
		revocation                     nullRevocation
	)
	if err := row.Scan(append([]any{&c.ID, &serial, &c.Issuer, &name, &key, &c.Profile, &c.Level, &c.Protocol, &c.Requester, &c.Actor, &replaces,
		&issued, &notBefore, &notAfter, &request, &decision, &c.Input, &c.DER, &c.NoStatus}, revocation.columns()...)...); err != nil {
		return nil, err
	}
	copy(c.Serial[:], serial)
	copy(c.KeyID[:], key)
	copy(c.Replaces[:], replaces)
	copy(c.Request[:], request)
	c.Device = name.String
	c.IssuedAt, c.NotBefore, c.NotAfter = fromMicros(issued), fromMicros(notBefore), fromMicros(notAfter)
	if err := json.Unmarshal(decision, &c.Decision); err != nil {
		return nil, fmt.Errorf("decision on %s: %w", c.Serial, err)
	}
	c.Revocation = revocation.value()
	return &c, nil
}

// CertificateBySerial finds one certificate; ca.ErrNoRecord if there is none.
func (s *Store) CertificateBySerial(ctx context.Context, serial ca.Serial) (*ca.Certificate, error) {
	c, err := one(ctx, s, selectBySerial, scanCertificate, serial[:])
	return c, s.fault(err)
}

// Certificates lists certificates in the order of their recording, beginning
// after the one with the ID after (0: the first).
func (s *Store) Certificates(ctx context.Context, f ca.CertificateFilter, after int64, limit int) ([]ca.Certificate, error) {
	var q where
	from := fromCertificate
	order := q.page(f.Window, "c.issued", "c.id", after, int64(0))
	if f.Device != "" {
		q.and("c.device = (SELECT id FROM device WHERE folded = ?)", device.Fold(f.Device))
	}
	if f.Issuer != "" {
		q.and("c.issuer = ?", f.Issuer)
	}
	if f.Profile != "" {
		q.and("c.profile = ?", f.Profile)
	}
	if f.Revoked != nil && *f.Revoked {
		// Few are: begin with those.
		from = ` FROM revocation r CROSS JOIN certificate c ON c.id = r.certificate LEFT JOIN device d ON d.id = c.device `
		if !f.Ordered() {
			q.and("r.certificate > ?", after)
		}
	} else if f.Revoked != nil {
		q.and("r.sequence IS NULL")
	}
	if !f.ExpiresBefore.IsZero() {
		q.and("c.not_after < ?", micros(f.ExpiresBefore))
	}
	if !f.ExpiresAfter.IsZero() {
		q.and("c.not_after > ?", micros(f.ExpiresAfter))
	}
	return list(ctx, s, "SELECT "+certificateColumns+from+q.String()+order+" LIMIT ?", append(q.args, limit), byValue(scanCertificate))
}

// where collects the conditions of a SELECT.
type where struct {
	terms []string
	args  []any
}

func (w *where) and(term string, args ...any) {
	w.terms = append(w.terms, term)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.terms) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.terms, " AND ")
}
