package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/ocsp"
)

// Journal is the ledger as the publications of revocation read it: crl.Source
// and ocsp.Source. What it yields leaves certificates with noRevAvail out.
type Journal struct{ s *Store }

// Journal is the view of the ledger that publications read.
func (s *Store) Journal() Journal { return Journal{s} }

// reserved remembers, for each issuer, the first index that was not set aside
// yet, so that serials beyond it are refused without a query.
type reserved struct {
	mu   sync.Mutex
	next map[string]uint64
	read map[string]time.Time
}

func (r *reserved) raise(issuer string, next uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next, r.read = map[string]uint64{}, map[string]time.Time{}
	}
	r.next[issuer] = max(r.next[issuer], next)
}

// known is what is remembered, and whether it is time to read it again.
func (r *reserved) known(issuer string, now time.Time) (next uint64, again bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, ok := r.read[issuer]; ok && now.Sub(last).Abs() < rereadReserved {
		return r.next[issuer], false
	}
	if r.read == nil {
		r.next, r.read = map[string]uint64{}, map[string]time.Time{}
	}
	r.read[issuer] = now
	return r.next[issuer], true
}

// rereadReserved is how long a certificate of another process, the first of its
// block, may be taken for one that was never issued.
const rereadReserved = 100 * time.Millisecond

// issuedBelow is an index that none of the issuer's certificates has reached.
func (j Journal) issuedBelow(ctx context.Context, issuer string, index uint64) (uint64, error) {
	r := &j.s.reserved
	r.mu.Lock()
	next := r.next[issuer]
	r.mu.Unlock()
	if index < next {
		return next, nil
	}
	next, again := r.known(issuer, j.s.now())
	if !again {
		return next, nil
	}
	var value int64
	err := j.s.reads.QueryRowContext(ctx, "SELECT next FROM issuance_index WHERE issuer = ?", issuer).Scan(&value)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, err
	}
	r.raise(issuer, uint64(value))
	return uint64(value), nil
}

const selectStatus = `SELECT c.not_after, c.no_status, r.sequence, r.revoked, r.reason, r.invalid
FROM certificate c LEFT JOIN revocation r ON r.certificate = c.id WHERE c.serial = ? AND c.issuer = ?`

// Status is part of ocsp.Source.
func (j Journal) Status(ctx context.Context, issuer string, serial ca.Serial) (ocsp.Status, error) {
	below, err := j.issuedBelow(ctx, issuer, serial.Index())
	if err != nil {
		return ocsp.Status{}, j.s.fault(err)
	}
	if serial.Index() >= below {
		return ocsp.Status{}, nil
	}
	status, err := one(ctx, j.s, selectStatus, func(row scanner) (*ocsp.Status, error) {
		var notAfter int64
		var noStatus bool
		var r nullRevocation
		if err := row.Scan(append([]any{&notAfter, &noStatus}, r.columns()...)...); err != nil || noStatus {
			return &ocsp.Status{}, err
		}
		return &ocsp.Status{Issued: true, NotAfter: fromMicros(notAfter), Revocation: r.value()}, nil
	}, serial[:], issuer)
	if errors.Is(err, sql.ErrNoRows) {
		return ocsp.Status{}, nil
	}
	if err != nil {
		return ocsp.Status{}, j.s.fault(err)
	}
	return *status, nil
}

// selectHead asks for one end of an index each: max() over both would read all.
const selectHead = `SELECT max(
	coalesce((SELECT sequence FROM revocation WHERE issuer = ?1 AND no_status = 0 ORDER BY sequence DESC LIMIT 1), 0),
	coalesce((SELECT sequence FROM release WHERE issuer = ?1 AND no_status = 0 ORDER BY sequence DESC LIMIT 1), 0))`

// Head is part of crl.Source. There is one writer, which commits in the order of
// sequences: nothing below the head can become visible later.
func (j Journal) Head(ctx context.Context, issuer string) (int64, error) {
	head, err := one(ctx, j.s, selectHead, func(row scanner) (*int64, error) {
		var head int64
		return &head, row.Scan(&head)
	}, issuer)
	if err != nil {
		return 0, j.s.fault(err)
	}
	return *head, nil
}

// NextNumber is part of crl.Source.
func (j Journal) NextNumber(ctx context.Context, issuer string) (int64, error) {
	return j.next(ctx, "crl:"+issuer)
}

// NextSequence is NextNumber for the states of an issuer's revocation packs.
func (j Journal) NextSequence(ctx context.Context, issuer string) (int64, error) {
	return j.next(ctx, "pack:"+issuer)
}

func (j Journal) next(ctx context.Context, counter string) (number int64, err error) {
	err = j.s.write(ctx, func(t *tx) error {
		number, err = t.count(counter, 1)
		return err
	})
	return number, err
}

// journalPage is how many lines one query reads: a read that stays open keeps
// the WAL from being written back, and publishers stop to write files.
const journalPage = 4096

// stream yields the rows of query after query, each beginning behind the key of the last row.
func stream[T, K any](ctx context.Context, s *Store, query string, args []any, after K, scan func(scanner) (T, error), key func(*T) K) iter.Seq2[T, error] {
	query += " LIMIT ?"
	return func(yield func(T, error) bool) {
		page := make([]T, 0, journalPage)
		for {
			page = page[:0]
			err := ctx.Err()
			if err == nil {
				err = s.scans.use(ctx, func(d *direct) error {
					rows, err := d.query(query, append(append([]any{after}, args...), journalPage)...)
					if err != nil {
						return err
					}
					for err == nil && rows.Next() {
						var v T
						if v, err = scan(rows); err == nil {
							page = append(page, v)
						}
					}
					return errors.Join(err, rows.Err(), rows.Close())
				})
			}
			if len(page) > 0 {
				after = key(&page[len(page)-1])
			}
			for _, v := range page {
				if !yield(v, nil) {
					return
				}
			}
			if err != nil {
				var zero T
				yield(zero, s.fault(err))
				return
			}
			if len(page) < journalPage {
				return
			}
		}
	}
}

// Changes is part of crl.Source.
func (j Journal) Changes(ctx context.Context, issuer string, after, upTo int64) iter.Seq2[crl.Change, error] {
	revoked := stream(ctx, j.s, `SELECT sequence, serial, revoked, reason, invalid FROM revocation
		WHERE sequence > ? AND issuer = ? AND sequence <= ? AND no_status = 0 ORDER BY sequence`, []any{issuer, upTo}, after,
		func(row scanner) (c crl.Change, err error) {
			var serial sql.RawBytes
			var at int64
			var invalid sql.NullInt64
			err = row.Scan(&c.Sequence, &serial, &at, &c.Reason, &invalid)
			c.Entry = entry(serial, at, c.Reason, invalid)
			return c, err
		}, sequenceOf)
	released := stream(ctx, j.s, `SELECT sequence, serial, released FROM release
		WHERE sequence > ? AND issuer = ? AND sequence <= ? AND no_status = 0 ORDER BY sequence`, []any{issuer, upTo}, after,
		func(row scanner) (c crl.Change, err error) {
			var serial sql.RawBytes
			var at int64
			err = row.Scan(&c.Sequence, &serial, &at)
			c.Entry, c.Released = entry(serial, at, 0, sql.NullInt64{}), true
			return c, err
		}, sequenceOf)
	return func(yield func(crl.Change, error) bool) {
		for _, part := range []iter.Seq2[crl.Change, error]{revoked, released} {
			for c, err := range part {
				if !yield(c, err) || err != nil {
					return
				}
			}
		}
	}
}

func sequenceOf(c *crl.Change) int64 { return c.Sequence }

func entry(serial []byte, revoked int64, reason int, invalid sql.NullInt64) crl.Entry {
	e := crl.Entry{Revoked: time.UnixMicro(revoked), Reason: reason}
	copy(e.Serial[:], serial)
	if invalid.Valid {
		e.Invalid = fromMicros(invalid.Int64)
	}
	return e
}

// Revoked is part of crl.Source. Serials begin with their index, so that a range
// of indexes is a range of serials.
func (j Journal) Revoked(ctx context.Context, issuer string, q crl.Query) iter.Seq2[crl.Entry, error] {
	since := int64(math.MinInt64)
	if !q.Since.IsZero() {
		since = micros(q.Since)
	}
	if q.From > ca.MaxIndex {
		return func(func(crl.Entry, error) bool) {}
	}
	first, end := ca.NewSerial(q.From, [12]byte{}), ca.Serial{2} // beyond the last
	if q.To <= ca.MaxIndex {
		end = ca.NewSerial(q.To, [12]byte{})
	}
	var ( // for all rows: there may be millions
		serial     sql.RawBytes
		at, reason int64
		invalid    sql.NullInt64
		columns    = []any{&serial, &at, &reason, &invalid}
	)
	// The key is the serial that was read last; before the first there is the
	// one below, which is no certificate's: it would need 12 random zeros.
	return stream(ctx, j.s, `SELECT serial, revoked, reason, invalid FROM revocation
		WHERE serial > ? AND issuer = ? AND serial < ? AND no_status = 0 AND (not_after >= ? OR sequence > ?) ORDER BY serial`,
		[]any{issuer, end[:], since, q.After}, first[:],
		func(row scanner) (e crl.Entry, err error) {
			err = row.Scan(columns...)
			return entry(serial, at, int(reason), invalid), err
		}, func(e *crl.Entry) []byte { return slices.Clone(e.Serial[:]) })
}

// indexSlack is how far an issuance that was begun earlier may lag behind one
// that is recorded already: a certificate on its way must not fall out below
// the oldest index.
const indexSlack = 1024

// Indexes is part of crl.Source. oldest may be lower than it has to be.
func (j Journal) Indexes(ctx context.Context, issuer string, now time.Time) (oldest, next uint64, err error) {
	defer func() { err = j.s.fault(err) }()
	if next, err = j.issuedNext(ctx, issuer); err != nil {
		return 0, 0, err
	}
	gaps, err := j.Gaps(ctx, issuer)
	if err != nil {
		return 0, 0, err
	}
	if n := len(gaps); n > 0 {
		next = max(next, gaps[n-1].Next) // no certificate need have an index that high yet
	}
	oldest, err = j.oldest(ctx, issuer, now, next)
	return min(oldest, next-min(next, indexSlack)), next, err
}

// Gaps is part of crl.Source.
func (j Journal) Gaps(ctx context.Context, issuer string) ([]crl.Gap, error) {
	return list(ctx, j.s, "SELECT first, next FROM index_gap WHERE issuer = ? ORDER BY first", []any{issuer},
		func(row scanner) (g crl.Gap, err error) { return g, row.Scan(&g.First, &g.Next) })
}

// issuedNext is one above the highest index recorded.
func (j Journal) issuedNext(ctx context.Context, issuer string) (uint64, error) {
	var reserved sql.NullInt64
	if err := j.s.reads.QueryRowContext(ctx, "SELECT max(next) FROM issuance_index WHERE issuer = ?", issuer).Scan(&reserved); err != nil || reserved.Int64 == 0 {
		return 0, err
	}
	top := ca.Serial{2}
	if reserved.Int64 <= ca.MaxIndex {
		top = ca.NewSerial(uint64(reserved.Int64), [12]byte{})
	}
	var serial []byte
	err := j.s.reads.QueryRowContext(ctx, "SELECT serial FROM certificate WHERE serial < ? AND issuer = ? ORDER BY serial DESC LIMIT 1", top[:], issuer).Scan(&serial)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return indexOf(serial) + 1, err
}

func indexOf(raw []byte) uint64 {
	var serial ca.Serial
	copy(serial[:], raw)
	return serial.Index()
}

// oldest looks for the lowest certificate that has not expired, from where the
// last look ended: all below were expired then, so they are now, unless
// the clock was put back. The place is kept, since expired certificates are many.
func (j Journal) oldest(ctx context.Context, issuer string, now time.Time, next uint64) (uint64, error) {
	name := "oldest." + issuer
	var mark [16]byte // index, and when all below it had expired
	kept, err := j.s.Setting(ctx, name)
	if err != nil && !errors.Is(err, ca.ErrNoRecord) {
		return 0, err
	}
	if len(kept) == len(mark) && int64(binary.BigEndian.Uint64(kept[8:])) <= micros(now) {
		copy(mark[:], kept)
	}
	from := binary.BigEndian.Uint64(mark[:])
	first := ca.NewSerial(from, [12]byte{})
	var serial []byte
	err = j.s.reads.QueryRowContext(ctx, "SELECT serial FROM certificate WHERE serial >= ? AND issuer = ? AND +not_after > ? ORDER BY serial LIMIT 1",
		first[:], issuer, micros(now)).Scan(&serial)
	found := indexOf(serial)
	if errors.Is(err, sql.ErrNoRows) {
		found, err = next, nil
	}
	if err != nil {
		return 0, err
	}
	if found < from+oldestStep {
		return found, nil
	}
	binary.BigEndian.PutUint64(mark[:], found-indexSlack)
	binary.BigEndian.PutUint64(mark[8:], uint64(micros(now)))
	return found, j.s.PutSetting(ctx, name, mark[:])
}

// oldestStep is how far the oldest index moves before its place is kept anew.
const oldestStep = 8192
