package crl

import (
	"context"
	"iter"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Source is the revocation journal of the ledger. Errors of all methods are
// *ca.Error of kind Unavailable if the database is away.
type Source interface {
	// NextNumber returns the next CRL number of an issuer, at least 1. It is durable
	// before it returns, so that no number is ever given twice: not after a
	// crash, a restore, nor by another server. Gaps do not matter.
	NextNumber(ctx context.Context, issuer string) (int64, error)
	// Head is the sequence of the issuer's latest durable change, 0 if there is
	// none. No change with this sequence or a lower one may become visible
	// later: where transactions overlap, Head stays below the oldest open one.
	Head(ctx context.Context, issuer string) (int64, error)
	// Changes yields each change with after < Sequence ≤ upTo, in any order; of
	// several to one certificate, the last will do. Its cost is that of the changes it yields.
	Changes(ctx context.Context, issuer string, after, upTo int64) iter.Seq2[Change, error]
	// Revoked yields what is revoked now and selected by q, in ascending order
	// of serials. It may, but need not, show changes past Head.
	Revoked(ctx context.Context, issuer string, q Query) iter.Seq2[Entry, error]
	// Indexes returns the lowest issuance index among certificates that have not
	// expired at now (next, if all have) and the next index to be issued.
	Indexes(ctx context.Context, issuer string, now time.Time) (oldest, next uint64, err error)
	// Gaps lists the ranges of indexes below next that were passed over, ascending.
	Gaps(ctx context.Context, issuer string) ([]Gap, error)
}

// Gap is a range of indexes, First ≤ index < Next, that a restore passed over. No certificate
// on record has one of them, but for those that were entered as revoked since.
type Gap struct{ First, Next uint64 }

// Change is one line of the journal: revoked (Entry), or released from hold.
type Change struct {
	Sequence int64
	Entry
	Released bool // Entry.Revoked is when; the reason does not matter
}

// Query selects revoked certificates of one issuer: those with From ≤ index < To
// that had not expired at Since, or whose revocation has a sequence above After.
//
// A publisher gives the time and the head of the last scheduled complete list:
// so an entry leaves only after it was on one such list issued past the
// certificate's end (RFC 5280 §3.3), also if it was revoked after that end or first seen on a delta (§5.2.4).
type Query struct {
	From, To uint64
	Since    time.Time
	After    int64
}

// Match is that selection for sources that keep journals in memory.
func (q Query) Match(serial ca.Serial, notAfter time.Time, sequence int64) bool {
	index := serial.Index()
	return q.From <= index && index < q.To && (!notAfter.Before(q.Since) || sequence > q.After)
}
