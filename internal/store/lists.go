package store

import (
	"context"

	"github.com/deviceca/deviceca/ca"
)

// listColumns leave out what may have megabytes.
const listColumns = "id, manufacturer, issuer, issuer_id, number, this_update, next_update, entries, octets, sha256, added"

// storedList is a revocation list, and whose it is.
type storedList struct {
	ca.RevocationList
	manufacturer int64
}

func scanList(row scanner) (storedList, error) { return scanListWith(row) }

// scanListWith scans listColumns, and what more was selected.
func scanListWith(row scanner, more ...any) (storedList, error) {
	var l storedList
	var issuer []byte
	var thisUpdate, nextUpdate, added int64
	err := row.Scan(append([]any{&l.ID, &l.manufacturer, &l.Issuer, &issuer, &l.Number, &thisUpdate, &nextUpdate, &l.Entries, &l.Octets, &l.SHA256, &added}, more...)...)
	copy(l.IssuerID[:], issuer)
	l.ThisUpdate, l.NextUpdate, l.Added = fromMicros(thisUpdate), fromMicros(nextUpdate), fromMicros(added)
	return l, err
}

// RevocationLists gives all lists of a manufacturer, whole.
func (s *Store) RevocationLists(ctx context.Context, manufacturer int64) ([]ca.RevocationList, error) {
	return list(ctx, s, "SELECT "+listColumns+", crl FROM manufacturer_crl WHERE manufacturer = ? ORDER BY id", []any{manufacturer},
		func(row scanner) (ca.RevocationList, error) {
			var der []byte
			l, err := scanListWith(row, &der)
			l.DER = der
			return l.RevocationList, err
		})
}

// ReplaceRevocationLists enters lists, each in the place of the one with its
// IssuerID; ca.ErrNoRecord if the manufacturer is withdrawn or not of that version.
func (s *Store) ReplaceRevocationLists(ctx context.Context, manufacturer, version int64, lists []ca.RevocationList, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		if err := alter(t, ev, "UPDATE manufacturer SET version = version + 1 WHERE id = ? AND version = ? AND withdrawn IS NULL", manufacturer, version); err != nil {
			return err
		}
		return enterLists(t, manufacturer, lists)
	})
}

func enterLists(t *tx, manufacturer int64, lists []ca.RevocationList) error {
	for _, l := range lists {
		if _, err := t.exec("DELETE FROM manufacturer_crl WHERE manufacturer = ? AND issuer_id = ?", manufacturer, l.IssuerID[:]); err != nil {
			return err
		}
		if _, err := t.exec("INSERT INTO manufacturer_crl (manufacturer, issuer, issuer_id, number, this_update, next_update, entries, octets, sha256, added, crl) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			manufacturer, l.Issuer, l.IssuerID[:], l.Number, micros(l.ThisUpdate), micros(l.NextUpdate), l.Entries, l.Octets, l.SHA256, micros(l.Added), l.DER); err != nil {
			return err
		}
	}
	return nil
}
