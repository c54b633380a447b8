package store

import (
	"context"
	"iter"
	"math"

	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/pack/publisher"
)

var _ publisher.Source = Packs{}

// Packs is the journal in the terms of packs, which know indexes alone.
type Packs struct{ Journal }

// Changes is part of publisher.Source.
func (s Packs) Changes(ctx context.Context, issuer string, after, upTo int64) iter.Seq2[publisher.Change, error] {
	return func(yield func(publisher.Change, error) bool) {
		for c, err := range s.Journal.Changes(ctx, issuer, after, upTo) {
			if !yield(publisher.Change{Sequence: c.Sequence, Index: c.Serial.Index(), Released: c.Released}, err) {
				return
			}
		}
	}
}

// Revoked is part of publisher.Source. An index comes once, also if two serials have it: one may
// stand for a certificate of which a pack told the index alone (Store.RecordLost).
func (s Packs) Revoked(ctx context.Context, issuer string, from uint64) iter.Seq2[uint64, error] {
	return func(yield func(uint64, error) bool) {
		last, some := uint64(0), false
		for e, err := range s.Journal.Revoked(ctx, issuer, crl.Query{From: from, To: math.MaxUint64}) {
			index := e.Serial.Index()
			if err == nil && some && index == last {
				continue
			}
			if last, some = index, true; !yield(index, err) {
				return
			}
		}
	}
}
