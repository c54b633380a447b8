package pack

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrMalformed means input that is no pack or delta: cut short, not deterministic CBOR, out of range, not
	// in its one canonical form.
	ErrMalformed = errors.New("pack: malformed")

	// ErrLimit means input beyond the [Limits] of the caller.
	ErrLimit = errors.New("pack: larger than the limit")

	// ErrIssuer means a pack or certificate of another issuing CA.
	ErrIssuer = errors.New("pack: of another issuer")

	// ErrSigner means a signing key that may not sign packs for this issuer: neither the issuer's own nor that of a
	// delegated certificate that holds to every rule.
	ErrSigner = errors.New("pack: signer not acceptable")

	// ErrSignature means a signature that does not verify.
	ErrSignature = errors.New("pack: bad signature")

	// ErrParent means a delta made for another state than the one it was applied to. Apply the deltas between, or
	// fetch a full pack.
	ErrParent = errors.New("pack: delta is for another parent state")

	// ErrResult means a delta that verified but did not give the state that its signer had. Fetch a full pack.
	ErrResult = errors.New("pack: delta does not give the state it promises")

	// ErrOrder means a state that does not follow its predecessor: epoch and sequence not higher, or a universe or time
	// that moves back.
	ErrOrder = errors.New("pack: state does not follow its parent")

	// ErrStale is matched by a [FreshnessError] after nextUpdate.
	ErrStale = errors.New("pack: stale")

	// ErrNotYet is matched by a [FreshnessError] before thisUpdate; the local clock may be wrong.
	ErrNotYet = errors.New("pack: not valid yet")
)

// RollbackError means a pack, authentic but older than one that the caller has seen.
type RollbackError struct {
	Got, Floor Floor
}

func (e *RollbackError) Error() string {
	return fmt.Sprintf("pack: rolled back to epoch %d sequence %d, but epoch %d sequence %d was seen; fetch a newer pack",
		e.Got.Epoch, e.Got.Sequence, e.Floor.Epoch, e.Floor.Sequence)
}

// FreshnessError means that Now lies outside [ThisUpdate, NextUpdate]. The status that comes with it is what the pack
// says; whether a Good still counts is for the caller's policy to decide.
type FreshnessError struct {
	Now, ThisUpdate, NextUpdate time.Time
}

func (e *FreshnessError) Error() string {
	if e.Now.Before(e.ThisUpdate) {
		return fmt.Sprintf("pack: made at %s, %s from now; check the clock",
			e.ThisUpdate.Format(time.RFC3339), e.ThisUpdate.Sub(e.Now).Round(time.Second))
	}
	return fmt.Sprintf("pack: stale since %s (%s); fetch a newer pack or delta",
		e.NextUpdate.Format(time.RFC3339), e.Now.Sub(e.NextUpdate).Round(time.Second))
}

// Is tells [ErrStale] from [ErrNotYet].
func (e *FreshnessError) Is(target error) bool {
	if e.Now.Before(e.ThisUpdate) {
		return target == ErrNotYet
	}
	return target == ErrStale
}
