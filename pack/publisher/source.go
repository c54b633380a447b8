package publisher

import (
	"context"
	"crypto"
	"iter"
	"time"
)

// Source is the revocation journal of the ledger.
type Source interface {
	// NextSequence returns the next sequence of an issuer's packs, at least 1. It is
	// durable before it returns, and never given twice: not after a crash, a
	// restore, nor by another server. Gaps do not matter.
	NextSequence(ctx context.Context, issuer string) (int64, error)
	// Head is the sequence of the issuer's latest durable change, 0 if there is
	// none. No change with this sequence or a lower one may become visible later.
	Head(ctx context.Context, issuer string) (int64, error)
	// Changes yields each change with after < Sequence ≤ upTo, in any order. Its
	// cost is that of the changes it yields.
	Changes(ctx context.Context, issuer string, after, upTo int64) iter.Seq2[Change, error]
	// Revoked yields the indexes at or above from that are revoked now, or on
	// hold, ascending. It may, but need not, show changes past Head.
	Revoked(ctx context.Context, issuer string, from uint64) iter.Seq2[uint64, error]
	// Indexes returns an index that no certificate which is valid at now lies
	// below, and the next to be issued: every change read before lies below it.
	Indexes(ctx context.Context, issuer string, now time.Time) (oldest, next uint64, err error)
}

// Change is one line of the revocation journal.
type Change struct {
	Sequence int64
	Index    uint64
	Released bool // from hold; else revoked
}

// Certifier issues the certificates that packs are signed under.
type Certifier interface {
	// IssueSigner issues, with the key of the issuer named, a certificate for
	// pub as pack.NewSigner wants it of a delegate. Its life bounds that of the
	// packs: at least twice Every and Overlap, or they get shorter. DER.
	IssueSigner(ctx context.Context, issuer string, pub crypto.PublicKey) ([]byte, error)
}
