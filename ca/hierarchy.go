package ca

import (
	"context"
	"crypto"
	"time"
)

// Hierarchy says what the CA certificates look like.
type Hierarchy struct {
	Organization string
	URL          string        // public base for AIA and CRL pointers
	RootLife     time.Duration // default 20 years
	IssuingLife  time.Duration // default 5 years
	Now          time.Time
}

// RemediationEKU is what quarantine certificates are for, and all that the
// quarantine CA may issue beside OCSP responders. Ordinary relying parties know
// no such use and refuse them by path validation.
const RemediationEKU = "1.3.6.1.4.1.55555.1.1"

// NewRoot makes the self-signed root certificate.
func NewRoot(key crypto.Signer, h Hierarchy) ([]byte, error) { panic("soon") }

// NewSubordinate makes the certificate of a CA below the root: role "issuing"
// or "quarantine" (EKU restricted to remediation and OCSP signing), path length 0.
func NewSubordinate(root []byte, rootKey crypto.Signer, role string, generation int, pub crypto.PublicKey, h Hierarchy) ([]byte, error) {
	panic("soon")
}

// SubordinateCSR makes the request for a root that lives elsewhere.
func SubordinateCSR(key crypto.Signer, role string, generation int, h Hierarchy) ([]byte, error) {
	panic("soon")
}

// CheckSubordinate checks a certificate that an external root made against the key and role it is for.
func CheckSubordinate(cert, root []byte, role string, pub crypto.PublicKey, now time.Time) error {
	panic("soon")
}

// RootCRL signs the root's CRL (RFC 5280 §5) over revoked subordinate serials.
func RootCRL(ctx context.Context, root []byte, key crypto.Signer, number int64, revoked []IssuerRecord, now, next time.Time) ([]byte, error) {
	panic("soon")
}
