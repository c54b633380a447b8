package ca

import (
	"context"
	"crypto"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Options are what a Service is made of.
type Options struct {
	Ledger Ledger
	Sealer *device.Sealer
	Policy *policy.Policy
	// Signers holds the key of each issuer that may sign, by IssuerRecord.Key.
	// The root's is never among them in a running server.
	Signers map[string]crypto.Signer
	URL     string // public base of AIA, OCSP and CRL pointers, "http://ca.example:8080"
	// Verifiable lists the evidence kinds that the protocol servers can verify.
	Verifiable []string
	// LintShare is the share of certificates that are linted whole before they are recorded, 0 to 1.
	LintShare float64
	Now       func() time.Time
	Logger    *slog.Logger
}

// Service is the certificate authority: every certificate is made here.
type Service struct{ opts Options }

// NewService reads the issuers from the ledger, compiles and lints every profile.
func NewService(ctx context.Context, opts Options) (*Service, error) { panic("soon") }

// Enroll decides on a request, and issues.
func (s *Service) Enroll(ctx context.Context, r Request) (*Issued, error) { panic("soon") }

// AuthenticateSecret finds the requester behind a credential's reference and
// secret. Errors: Unauthenticated (the same for an unknown reference and a
// wrong secret), RateLimited after too many wrong ones from the address or for the reference, Unavailable.
func (s *Service) AuthenticateSecret(ctx context.Context, reference, secret string, from netip.Addr) (Requester, error) {
	panic("soon")
}

// AuthenticateCertificate finds the requester behind a certificate whose key
// was proven by the protocol (TLS, CMP signature). chain is leaf first, as the peer sent it.
func (s *Service) AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (Requester, error) {
	panic("soon")
}

// Policy is the policy in force.
func (s *Service) Policy() *policy.Policy { panic("soon") }

// Apply compiles and lints a new policy and, if nothing is wrong with it, puts
// it in force and records that actor did it. On error the old one stays.
func (s *Service) Apply(ctx context.Context, p *policy.Policy, actor string) error { panic("soon") }

// Explain decides again, with the trace. See policy.Input.
func (s *Service) Explain(in policy.Input) policy.Decision { panic("soon") }

// Input is what Enroll would let policy decide on, for csrattrs and dry runs.

// Anchors are the certificates that devices trust and chain by: root, all
// live issuing generations, quarantine; root first, DER.
func (s *Service) Anchors() [][]byte { panic("soon") }

// CACert is the certificate of an issuer by its name or alias ("issuing" is
// the newest generation), DER.
func (s *Service) CACert(name string) ([]byte, bool) { panic("soon") }

// ProfileFor is the profile a requester would get for the one asked for
// ("" the default); NotFound if there is no such profile, Denied if it is not for this requester.
func (s *Service) ProfileFor(r Requester, asked string) (policy.Profile, error) { panic("soon") }

// Revoke revokes one certificate. Conflict if it is revoked already, NotFound.
func (s *Service) Revoke(ctx context.Context, serial Serial, reason int, invalid *time.Time, actor string) (*Certificate, error) {
	panic("soon")
}

// AddDevice enters a device (state claimed) and makes its credential. The
// secret is shown here and never again. Conflict if the device is there.
func (s *Service) AddDevice(ctx context.Context, d device.Device, uses int, ttl time.Duration, actor string) (*Grant, error) {
	panic("soon")
}

// ImportDevices enters up to 1000 devices without credentials; per device nil, or why not.
func (s *Service) ImportDevices(ctx context.Context, devices []device.Device, actor string) ([]error, error) {
	panic("soon")
}

// AddCredential makes a credential for a known device or a group.
func (s *Service) AddCredential(ctx context.Context, c device.Credential, ttl time.Duration, actor string) (*Grant, error) {
	panic("soon")
}

// RevokeCredential ends a credential.
func (s *Service) RevokeCredential(ctx context.Context, reference, actor string) error { panic("soon") }

// MoveDevice suspends, resumes (to Active or Claimed, as it was), or retires a
// device. Retiring revokes its certificates (reason cessationOfOperation unless another is given) and returns them.
func (s *Service) MoveDevice(ctx context.Context, id string, to device.State, reason int, actor string) ([]Certificate, error) {
	panic("soon")
}

// IssueServer issues a certificate of the built-in server profile
// (serverAuth) for our own TLS listener: recorded like every other.
func (s *Service) IssueServer(ctx context.Context, pub crypto.PublicKey, names []SAN, validity time.Duration) (*Issued, error) {
	panic("soon")
}

// Grant is a new credential with its secret, in the form that the CLI and the admin API print.
type Grant struct {
	ID        string `json:"id,omitempty"`
	Group     string `json:"group,omitempty"`
	Level     string `json:"level"`
	Reference string `json:"reference"`
	Secret    string `json:"secret"`
	ACME      struct {
		KID     string `json:"kid"`
		HMACKey string `json:"hmac_key"` // base64url
	} `json:"acme"`
	Uses    int       `json:"uses"`
	Expires time.Time `json:"expires"`
}
