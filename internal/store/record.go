package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/device"
)

// nobody is the row id of no device.
const nobody = -1

// recheck reads all that Record depends on in one statement: the device, whether another
// has the key (by ranges, so that the index finds it), the issuer's next index, and whether the certificate replaced is revoked.
const recheck = `
SELECT d.id, d.state, d.credential,
	EXISTS (SELECT 1 FROM certificate c WHERE c.key_id = ? AND c.device < coalesce(d.id, ?)
			AND NOT EXISTS (SELECT 1 FROM unproven u WHERE u.certificate = c.id AND u.vouched < ?))
		OR EXISTS (SELECT 1 FROM certificate c WHERE c.key_id = ? AND c.device > coalesce(d.id, ?)
			AND NOT EXISTS (SELECT 1 FROM unproven u WHERE u.certificate = c.id AND u.vouched < ?))
		OR coalesce(d.id, ?) <> 0 AND EXISTS (SELECT 1 FROM certificate c WHERE c.key_id = ? AND c.device IS NULL
			AND NOT EXISTS (SELECT 1 FROM unproven u WHERE u.certificate = c.id AND u.vouched < ?)),
	(SELECT next FROM issuance_index WHERE issuer = ?),
	EXISTS (SELECT 1 FROM certificate c JOIN revocation r ON r.certificate = c.id WHERE c.serial = ?),
	EXISTS (SELECT 1 FROM certificate WHERE key_id = ? AND device IS d.id AND actor = ? AND request = ?
		AND id > coalesce((SELECT id FROM certificate WHERE serial = ?), 0))
FROM (SELECT 1 AS one) AS one LEFT JOIN device d ON d.folded = ?`

const insertCertificate = `
INSERT INTO certificate (serial, issuer, device, key_id, profile, level, protocol, requester, actor, replaces,
	issued, not_before, not_after, request, decision, input, der, no_status)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// Record makes an issuance durable; see ca.Ledger. On success it sets the
// certificate's ID.
//
// A certificate without a device is the CA's own (its TLS listener's): it has
// no inventory line, and its key is nobody else's either. A certificate whose
// index was not reserved for its issuer is refused as an internal error.
func (s *Store) Record(ctx context.Context, i *ca.Issuance) error {
	r, err := newRecording(i)
	if err != nil {
		return err
	}
	if err := s.write(ctx, r.run); err != nil {
		return err
	}
	i.Certificate.ID = r.id
	return nil
}

// recording is an issuance with everything encoded that can be before the
// writer comes to it.
type recording struct {
	*ca.Issuance
	folded   string
	decision []byte
	event    event
	id       int64
}

func newRecording(i *ca.Issuance) (r *recording, err error) {
	r = &recording{Issuance: i, folded: device.Fold(i.Certificate.Device)}
	if r.event, err = encode(i.Event); err != nil {
		return nil, err
	}
	r.decision = i.Certificate.Decision.AppendJSON(nil)
	switch i.With.(type) {
	case nil, *server.Transaction, acme.Fulfilment:
	default:
		return nil, fmt.Errorf("certificate %s comes with a %T, which the ledger does not know", i.Certificate.Serial, i.With)
	}
	if i.NewDevice != nil && !device.SameID(i.NewDevice.ID, i.Certificate.Device) {
		return nil, fmt.Errorf("the certificate is for device %q, the new device is %q", i.Certificate.Device, i.NewDevice.ID)
	}
	return r, nil
}

// run checks first and writes then, so that a refusal costs the batch nothing.
func (r *recording) run(t *tx) error {
	c := r.Certificate
	var (
		row, next         sql.NullInt64
		state, credential sql.NullString
		taken             bool
		replacedRevoked   bool
		answered          bool // the same request, on another connection
	)
	holder := nobody // of a device that is not there yet
	if r.folded == "" {
		holder = 0 // the CA itself
	}
	// Who can prove that it has the key is not hindered by an RA's word; another RA's word is.
	ignored := 2
	if r.Possession == ca.Vouched {
		ignored = 1
	}
	if err := t.row(recheck, c.KeyID[:], holder, ignored, c.KeyID[:], holder, ignored, holder, c.KeyID[:], ignored, c.Issuer, serialOrNull(c.Replaces), c.KeyID[:], c.Actor, c.Request[:], serialOrNull(r.Newest), r.folded).
		Scan(&row, &state, &credential, &taken, &next, &replacedRevoked, &answered); err != nil {
		return err
	}
	_, ordered := r.With.(acme.Fulfilment)
	switch {
	case answered && r.Once:
		return ca.ErrRecorded
	case !next.Valid || c.Serial.Index() >= uint64(next.Int64):
		return fmt.Errorf("serial %s: its index %d was not reserved for %s", c.Serial, c.Serial.Index(), c.Issuer)
	case row.Valid && !device.State(state.String).MayEnrol():
		return ca.ErrDeviceGone
	case row.Valid && r.NewDevice != nil && credential.String != r.NewDevice.Credential:
		return ca.ErrDeviceGone // another credential was quicker: the device is not ours to enrol
	case !row.Valid && r.folded != "" && (r.NewDevice == nil || !r.NewDevice.State.MayEnrol()):
		return ca.ErrDeviceGone
	case taken:
		return ca.ErrKeyTaken
	case replacedRevoked && !ordered: // an order replaces what it likes; elsewhere the certificate is who asks
		return ca.ErrReplaced
	}
	if err := r.vouched(t, row, credential.String); err != nil {
		return err
	}
	if err := r.with(t); err != nil {
		return err
	}
	if r.Pending != 0 {
		if err := spendPending(t, r.Pending, c); err != nil {
			return err
		}
	}
	if r.Credential != "" {
		if err := spendCredential(t, r.Credential); err != nil {
			return err
		}
	}
	if row.Valid {
		if err := r.bind(t, row, credential.String); err != nil {
			return err
		}
	}
	if err := r.activate(t, &row, device.State(state.String)); err != nil {
		return err
	}
	var err error
	r.id, err = t.insert(insertCertificate, c.Serial[:], c.Issuer, row, c.KeyID[:], c.Profile, c.Level, c.Protocol, c.Requester, c.Actor,
		serialOrNull(c.Replaces), micros(c.IssuedAt), micros(c.NotBefore), micros(c.NotAfter), c.Request[:], r.decision, c.Input, c.DER, flag(c.NoStatus))
	if err != nil {
		return fmt.Errorf("serial %s: %w", c.Serial, err)
	}
	if r.Possession != ca.Proven {
		if _, err := t.exec("INSERT INTO unproven (certificate, vouched) VALUES (?, ?)", r.id, flag(r.Possession == ca.Vouched)); err != nil {
			return err
		}
	}
	t.record(r.event)
	return nil
}

// Settle confirms a certificate; see ca.Ledger.
func (s *Store) Settle(ctx context.Context, serial ca.Serial) error {
	return s.write(ctx, func(t *tx) error { return settle(t, serial) })
}

// settle is Settle, within the transaction of something else.
func settle(t *tx, serial ca.Serial) error {
	var id int64
	var taken bool
	err := t.row(`SELECT c.id, EXISTS (SELECT 1 FROM certificate o WHERE o.key_id = c.key_id AND o.device IS NOT c.device
			AND NOT EXISTS (SELECT 1 FROM unproven WHERE certificate = o.id))
		FROM certificate c JOIN unproven u ON u.certificate = c.id WHERE c.serial = ? AND u.vouched = 0`, serial[:]).Scan(&id, &taken)
	switch {
	case errors.Is(err, sql.ErrNoRows): // proven, or a registration authority's word
	case err != nil:
		return err
	case taken:
		return ca.ErrKeyTaken
	default:
		if _, err := t.exec("DELETE FROM unproven WHERE certificate = ?", id); err != nil {
			return err
		}
	}
	_, err = t.exec("UPDATE cmp_transaction SET deadline = NULL WHERE serial = ? AND deadline IS NOT NULL", serial[:])
	return err
}

// with records what the protocol remembers with the certificate. It comes before what else is
// written, so that the one of two that loses has nothing to undo.
func (r *recording) with(t *tx) error {
	switch with := r.With.(type) {
	case *server.Transaction:
		return putTransaction(t, with)
	case acme.Fulfilment:
		return fulfil(t, with.Order, r.Certificate)
	}
	return nil
}

// activate enters the device, if it is new, and makes a claimed one active.
func (r *recording) activate(t *tx, row *sql.NullInt64, state device.State) (err error) {
	switch {
	case r.folded == "":
	case !row.Valid:
		d := *r.NewDevice
		d.State = device.Active
		row.Valid = true
		row.Int64, err = t.insert(insertDevice, deviceArgs(d)...)
	case state == device.Claimed:
		_, err = t.exec("UPDATE device SET state = ?, updated = ? WHERE id = ?", string(device.Active), micros(r.Certificate.IssuedAt), row.Int64)
	}
	return err
}

// RecordEvent makes an event alone durable.
func (s *Store) RecordEvent(ctx context.Context, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		t.record(ev)
		return nil
	})
}

// flag is how a bool is kept.
func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func serialOrNull(s ca.Serial) any {
	if s.IsZero() {
		return nil
	}
	return s[:]
}
