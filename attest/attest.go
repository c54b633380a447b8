// Package attest judges evidence about a device's key: where it lives, and whose
// device that is. There is one file per format, and one [Verifier] each. A verifier
// reads no database and no clock: what it may trust comes with the statement, what it
// found goes to policy as facts and as a trustworthiness vector (AR4SI).
//
// A verdict here is never "issue". It says what is proven; what that earns, policy decides.
package attest

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// Statement is one attestation as a protocol received it, and what it is held against.
type Statement struct {
	// Raw is attStmt of a WebAuthn attestation object (Level 2 §6.5.4), as CBOR; AuthData
	// its authData, nil where it is absent, as ACME would have it. See [ParseObject].
	Raw      []byte
	AuthData []byte
	// Quote is what came along about the state of the device, in the format's own terms; nil if nothing did.
	Quote []byte
	// Challenge is what the evidence must be bound to, so that it is fresh and this
	// requester's: the ACME key authorization, as octets.
	Challenge []byte
	// Anchors are those registered for the format. Each is tried by itself: what one
	// manufacturer's anchor issued says nothing under another's name.
	Anchors []Anchor
	Now     time.Time
}

// Anchor is a manufacturer's set of CA certificates for one format.
type Anchor struct {
	Manufacturer string
	Certificates []*x509.Certificate
	// Revoked looks a certificate up on the revocation list of its issuer: checked is
	// false where there is none, and it is an error, which may be shown to the requester, if the
	// certificate is listed or the list out of date. Nil is no list at all. The fact
	// revocation_checked says which it was.
	Revoked func(cert, issuer *x509.Certificate, now time.Time) (checked bool, err error)
}

// Result is what a statement proves.
type Result struct {
	Manufacturer string            // whose anchor it leads to
	Attester     *x509.Certificate // that signed the statement, for the constraints of its manufacturer
	PublicKey    crypto.PublicKey  // attested
	SPKI         []byte            // PublicKey as SubjectPublicKeyInfo, DER: the CSR must be for this very key
	// Identifiers are the device's, as the statement has them. None is an error of the
	// statement for whoever needs to know whose device it is.
	Identifiers []Identifier
	Evidence    policy.Evidence
}

// Identifier names a device or its hardware. Type is "permanent-identifier" (RFC 4043,
// Value "ID" or "ID/ASSIGNER") or "hardware-module" (RFC 4108, Value "SERIAL/TYPE"), as in
// draft-ietf-acme-device-attest §3.1 and §4.1.
type Identifier struct{ Type, Value string }

// Verifier judges statements of one format. Safe for concurrent use.
type Verifier interface {
	// Format is the WebAuthn attestation statement format identifier.
	Format() string
	// Verify returns what the statement proves. Errors wrap ErrEvidence, and their
	// text may be shown to the requester.
	Verify(s Statement) (*Result, error)
}

// ErrEvidence is wrapped by the errors of statements that do not verify.
var ErrEvidence = errors.New("the evidence does not verify")

// refuse makes an error of a statement that does not verify.
func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrEvidence, fmt.Errorf(format, args...))
}
