package client

import (
	"context"
	"crypto"
)

// Attester proves where a key lives and whose device that is. Package client knows none: the
// programs give one that speaks to the hardware at hand.
type Attester interface {
	// Attest makes evidence about its key that is bound to an ACME key authorization (RFC 8555 §8.1).
	Attest(ctx context.Context, keyAuthorization string) (*Attestation, error)
	// Identifiers are what the evidence names the device by: a permanent-identifier ("ID" or "ID/ASSIGNER") or a
	// hardware-module ("SERIAL/TYPE"), as draft-ietf-acme-device-attest §3.1 and §4.1 write them. None may be known.
	Identifiers() []Identifier
}

// Attestation is what an Attester made.
type Attestation struct {
	// Key is the key that is attested. The request must be for it (Config.Signer).
	Key crypto.Signer
	// Object is the WebAuthn attestation object, in CBOR (draft-ietf-acme-device-attest §5).
	Object []byte
	// Quote is evidence about the state of the device that goes along, in the format's own terms; nil for none.
	Quote []byte
	// Warnings are for the device's administrator: what the evidence lacks, what may go wrong later.
	Warnings []string
}
