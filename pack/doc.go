// Package pack is the offline revocation pack: all that is revoked among the certificates of one issuing CA, in about one
// octet for each revoked one, signed, with deltas of a few hundred octets. docs/revocation-pack.md specifies it
// bit by bit. The package stands alone: it needs the standard library and nothing else, so that relying parties can
// use it without a CA behind it.
//
// # Relying parties
//
// [Verify] checks a pack, and the deltas that follow it, against the certificate of the issuing CA and the [Floor] kept
// from the last time. Look-ups go to the result:
//
//	p, err := pack.Verify(full, pack.Options{Issuer: issuing, Floor: floor}, deltas...)
//	…
//	status, err := p.Certificate(leaf, time.Now()) // whose chain has been verified before
//	switch {
//	case status == pack.Revoked: // refuse, however stale the pack
//	case status != pack.Good: // unknown or expired: your policy for unknown status
//	case err != nil: // stale, or the clock is wrong: deny, grace or allow, your policy again
//	default: // accept
//	}
//
// Persist p.Floor() once accepted. A later delta goes to [Pack.Apply], which leaves p as it is; whatever its error, a
// full pack mends it.
//
// # Publishers
//
// A [State] is what one publication says. [NewState] makes the first from the ledger, [State.Next] each further one from the
// journal, at a cost that does not follow the number of revoked certificates. [State.Sign] makes the full pack of a state,
// [State.Delta] the delta between any two. The [Signer] holds the issuer's own key or, so that a hardware module stays
// out of the hot path, that of a delegate.
package pack
