package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// How many transactionIDs of messages without messageTime are remembered, of one owner: a row of about 120 octets each.
const (
	seenOfOne  = 4096    // of what is one device's
	seenOfMany = 1 << 16 // of a group's credential
)

// checkTimeless looks at a message that begins a transaction and has no messageTime (OPTIONAL in RFC 9483 §3.1). The level of
// the requester says whether it may: a device without a clock has no other way. Nothing bounds then when such a message may
// be replayed, so the transactionID of each one that had an effect is remembered until what protects it has ended. What
// only asks, and what was refused, has had none. A message within a transaction is bound by its recipNonce.
//
// It comes after authentication, so that strangers learn and leave nothing. The answer is that to the same message, where another
// connection was quicker.
func (x *exchange) checkTimeless(ctx context.Context) (answer []byte, err error) {
	level, known := x.Authority.LevelFor(x.requester)
	switch {
	case x.requester.RA != nil:
		return nil, refuse(cmp.BadTime, "RFC 9483 §3.5", "there is no messageTime: a registration authority gives one")
	case !known || !level.CMP.Timeless:
		return nil, refuse(cmp.BadTime, "RFC 9483 §3.5", "there is no messageTime: give it, or set cmp.message_time to optional for level %q of the policy", level.Name)
	case x.in.Body.Type() == cmp.GenM:
		return nil, nil
	}
	seen, most := x.remembered()
	there, owned, err := x.Ledger.SeenTransaction(ctx, transactionID(x.in.Header.TransactionID), seen.Owner, most)
	switch {
	case err != nil:
		return nil, err
	case there:
		if answer, err = x.answered(ctx); errors.Is(err, ca.ErrNoRecord) {
			err = errInUse
		}
		return answer, err
	case owned >= most:
		return nil, ca.Errorf(ca.RateLimited, "%d messages without messageTime are remembered for this credential or certificate, and no more can be: give a messageTime, or use another credential", owned)
	}
	x.seen = seen
	return nil, nil
}

// remembered is for how long the transactionID is remembered, and how many may be.
func (x *exchange) remembered() (seen *Seen, most int) {
	if c := x.requester.Credential; c != nil {
		if most = seenOfOne; c.Device == "" {
			most = seenOfMany
		}
		return &Seen{Owner: x.actor, Until: c.Expires.Add(abandoned)}, most
	}
	sum := sha256.Sum256(x.by.Certificate.Raw)
	return &Seen{Owner: "certificate:" + hex.EncodeToString(sum[:]), Until: x.worthUntil().Add(abandoned)}, seenOfOne
}

// worthUntil is until when a message that the certificate signs may have an effect: one of ours may renew after its end.
func (x *exchange) worthUntil() time.Time {
	end := x.by.Certificate.NotAfter
	if own := x.requester.Certificate; own != nil {
		if p, err := x.Authority.ProfileFor(x.requester, own.Profile); err == nil {
			end = end.Add(p.RenewExpired)
		}
	}
	return end
}
