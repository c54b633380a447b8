package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Instance is one life of the ledger: the first, or what a restore began.
type Instance struct {
	ID         string    `json:"id"` // 128 random bits, hex
	Since      time.Time `json:"since"`
	FirstEvent int64     `json:"first_event"` // audit events from this ID on are the instance's own
	// Snapshot is zero for the first instance. What happened after it is not in the
	// ledger, and KnownEvent is the newest event that is.
	Snapshot   time.Time  `json:"snapshot,omitzero"`
	KnownEvent int64      `json:"known_event,omitempty"`
	Opened     *time.Time `json:"opened,omitempty"` // nil: restored, and closed
}

// Restored reports whether a restore began the instance.
func (i Instance) Restored() bool { return !i.Snapshot.IsZero() }

const instanceColumns = "id, since, first_event, snapshot, known_event, opened"

func scanInstance(row scanner) (i Instance, err error) {
	var id []byte
	var since int64
	var snapshot, known, opened sql.NullInt64
	err = row.Scan(&id, &since, &i.FirstEvent, &snapshot, &known, &opened)
	i.ID, i.Since, i.KnownEvent, i.Opened = hex.EncodeToString(id), fromMicros(since), known.Int64, fromNull(opened)
	if snapshot.Valid {
		i.Snapshot = fromMicros(snapshot.Int64)
	}
	return i, err
}

// Instances lists the ledger's instances, oldest first. There is always one.
func (s *Store) Instances(ctx context.Context) ([]Instance, error) {
	return list(ctx, s, "SELECT "+instanceColumns+" FROM instance ORDER BY number", nil, scanInstance)
}

// Instance is the one in force.
func (s *Store) Instance(ctx context.Context) (Instance, error) {
	i, err := scanInstance(s.reads.QueryRowContext(ctx, "SELECT "+instanceColumns+" FROM instance ORDER BY number DESC LIMIT 1"))
	return i, s.fault(err)
}

// Closed reports that the ledger was restored and is not acknowledged yet: snapshot is then
// the time since when it knows nothing. Only a restore closes a ledger, and nothing is open during one, so
// that an open ledger is asked once.
func (s *Store) Closed(ctx context.Context) (closed bool, snapshot time.Time, err error) {
	if s.open.Load() {
		return false, snapshot, nil
	}
	i, err := s.Instance(ctx)
	if err != nil {
		return true, snapshot, err
	}
	if i.Opened != nil {
		s.open.Store(true)
	}
	return i.Opened == nil, i.Snapshot, nil
}

// Open acknowledges a restore: e says who did so and why. Conflict if the ledger is open.
func (s *Store) Open(ctx context.Context, e ca.Event) error {
	ev, err := encode(e)
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		n, err := t.exec("UPDATE instance SET opened = ? WHERE opened IS NULL", micros(s.now()))
		if err == nil && n == 0 {
			return ca.Errorf(ca.Conflict, "this CA is open: nothing waits to be acknowledged")
		}
		t.record(ev)
		return err
	})
}

// copyMark is the setting that tells a copy made by Backup from the ledger itself.
const copyMark = "copy"

// IsCopy reports that this is a copy made by Backup, which Restore was not called for.
func (s *Store) IsCopy(ctx context.Context) (bool, error) {
	_, err := s.Setting(ctx, copyMark)
	if errors.Is(err, ca.ErrNoRecord) {
		return false, nil
	}
	return err == nil, err
}

// How far numbers move at a restore. See Restore.
const (
	counterMargin = 1 << 32
	indexSpread   = 1 << 38
)

// numbered are the tables whose IDs leave the machine and never come twice.
var numbered = []string{"pending", "acme_account", "acme_order", "acme_authorization", "manufacturer_crl"}

// Restore begins a new instance on a copy of a ledger: numbers may have been given since that
// the copy knows nothing of, and others may be given by another restore of the same copy. In one transaction,
//
//  1. each issuer's next issuance index becomes the highest that a record shows, plus margin,
//     plus a random number below 2^38; the gap is remembered;
//  2. counters (of the revocation journal, of CRLs and packs), the IDs of events, pending requests
//     and ACME's objects rise to a number made of the time and randomness (see jump), and so do counters that begin later;
//  3. what speaks of the snapshot's present is dropped: OCSP answers that were signed, CMP transactions
//     (a certificate confirmed since must not be revoked for want of a confirmation), approvals that were not used yet, which wait again;
//  4. the ledger is closed, as of the snapshot: the time of its newest audit entry, or made if it has none.
//
// It returns the next index of each issuer, and records e once per issuer with that in its reason.
func (s *Store) Restore(ctx context.Context, margin uint64, made time.Time, e ca.Event) (map[string]uint64, error) {
	var id [16]byte
	rand.Read(id[:])
	var next map[string]uint64
	err := s.write(ctx, func(t *tx) (err error) {
		if next, err = skipIndexes(t, margin); err != nil {
			return err
		}
		known, err := s.skipNumbers(t)
		if err != nil {
			return err
		}
		if err := beginInstance(t, id, known, made, s.now()); err != nil {
			return err
		}
		for _, drop := range []string{"DELETE FROM ocsp_answer", "DELETE FROM cmp_transaction",
			"UPDATE pending SET state = 'waiting', decided = NULL, by_whom = '', reason = '' WHERE state = 'approved'"} {
			if _, err := t.exec(drop); err != nil {
				return err
			}
		}
		if _, err := t.exec("DELETE FROM setting WHERE name = ?", copyMark); err != nil {
			return err
		}
		return recordRestore(t, next, e)
	})
	s.open.Store(false)
	return next, err
}

// beginInstance enters the new instance, which is closed. known is the newest event in the snapshot.
func beginInstance(t *tx, id [16]byte, known int64, made, now time.Time) error {
	var snapshot int64
	if err := t.row("SELECT coalesce((SELECT time FROM audit_entry ORDER BY sequence DESC LIMIT 1), ?)", micros(made)).Scan(&snapshot); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO instance (number, id, since, first_event, snapshot, known_event, opened)
		SELECT (SELECT max(number) + 1 FROM instance), ?, ?, event + 1, ?, ?, NULL FROM audit_head`, id[:], micros(now), snapshot, known)
	return err
}

// skipIndexes moves the issuers' next indexes on, and returns them.
func skipIndexes(t *tx, margin uint64) (map[string]uint64, error) {
	next, err := usedIndexes(t)
	if err != nil {
		return nil, err
	}
	for issuer, first := range next {
		room := ca.MaxIndex - min(first, ca.MaxIndex)
		if margin > room {
			return nil, ca.Errorf(ca.Conflict, "issuer %s cannot advance %d indexes beyond %d", issuer, margin, first)
		}
		// A quarter of what is left at most, so that no number of restores uses an issuer up.
		next[issuer] = first + margin + random(min(indexSpread, (room-margin)/4)+1)
		if _, err := t.exec("INSERT INTO issuance_index (issuer, next) VALUES (?, ?) ON CONFLICT (issuer) DO UPDATE SET next = excluded.next",
			issuer, int64(next[issuer])); err != nil {
			return nil, err
		}
		if _, err := t.exec("INSERT INTO index_gap (issuer, first, next) VALUES (?, ?, ?)", issuer, int64(first), int64(next[issuer])); err != nil {
			return nil, err
		}
	}
	return next, nil
}

// random is uniform below n.
func random(n uint64) uint64 {
	var b [16]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:8]) % n // n is far below 2^64: the bias is none
}

// jump is a number above every one given before a restore, and another at each restore: milliseconds
// of Unix time times 2^10, and ten random bits. No counter gives 2^10 numbers a millisecond, so that of two restores
// the later one's numbers are the higher. They stay below 2^53, which JSON readers need, until
// the year 2248. Where the clock went back the old number counts, with a margin and randomness.
func jump(old int64, now time.Time) int64 {
	return max(now.UnixMilli()<<10+int64(random(1<<10)), old+counterMargin+int64(random(counterMargin)))
}

// skipNumbers moves on all that counts but the issuance indexes. known is the newest event there was.
func (s *Store) skipNumbers(t *tx) (known int64, err error) {
	now := s.now()
	if err := skipCounters(t, now); err != nil {
		return 0, err
	}
	if err := t.row("SELECT event FROM audit_head WHERE one = 1" + lockRow).Scan(&known); err != nil {
		return 0, err
	}
	if _, err := t.exec("UPDATE audit_head SET event = ? WHERE one = 1", jump(known, now)); err != nil {
		return 0, err
	}
	for _, table := range numbered {
		if err := skipIDs(t, table, now); err != nil {
			return 0, err
		}
	}
	return known, nil
}

func skipCounters(t *tx, now time.Time) error {
	rows, err := t.query("SELECT name, value FROM counter")
	if err != nil {
		return err
	}
	type counter struct {
		name  string
		value int64
	}
	counters, err := collect(rows, func(row scanner) (c counter, err error) { return c, row.Scan(&c.name, &c.value) })
	if err != nil {
		return err
	}
	highest := int64(0)
	for _, c := range counters {
		highest = max(highest, c.value)
		if _, err := t.exec("UPDATE counter SET value = ? WHERE name = ?", jump(c.value, now), c.name); err != nil {
			return err
		}
	}
	_, err = t.exec("INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", baseCounter, jump(highest, now))
	return err
}

// recordRestore records e once per issuer.
func recordRestore(t *tx, next map[string]uint64, e ca.Event) error {
	for _, issuer := range slices.Sorted(maps.Keys(next)) {
		own := e
		own.Issuer = issuer
		own.Reason = fmt.Sprintf("next index %d", next[issuer])
		if e.Reason != "" {
			own.Reason = e.Reason + ": " + own.Reason
		}
		ev, err := encode(own)
		if err != nil {
			return err
		}
		t.record(ev)
	}
	return nil
}

// RaiseCounter sees that the next number of an issuer's CRLs ("crl") or packs ("pack") is above value.
func (s *Store) RaiseCounter(ctx context.Context, kind, issuer string, value int64) error {
	return s.write(ctx, func(t *tx) error {
		_, err := t.exec("INSERT INTO counter (name, value) VALUES (?1, max(?2, coalesce((SELECT value FROM counter WHERE name = ?3), 0))) "+
			"ON CONFLICT (name) DO UPDATE SET value = ?2 WHERE value < ?2", kind+":"+issuer, value, baseCounter)
		return err
	})
}
