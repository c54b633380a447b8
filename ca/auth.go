package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// wrongSecret is the one answer to an unknown reference and to a wrong secret,
// so that nobody learns which references exist.
func wrongSecret() *Error {
	return Errorf(Unauthenticated, "unknown reference or wrong secret")
}

// AuthenticateSecret finds the requester behind a credential's reference and
// secret. A credential without uses left still authenticates: whether the
// request is one that was answered before is only known later.
//
// Errors: Unauthenticated (the same for an unknown reference and a wrong
// secret), RateLimited for wrong ones beyond the limits per reference and
// address (a right secret is never limited: it has 256 bits, so that guesses
// need no lock that an attacker could close on an honest device), Unavailable.
func (s *Service) AuthenticateSecret(ctx context.Context, reference, secret string, from netip.Addr) (Requester, error) {
	c, real, err := s.secret(ctx, reference)
	if err != nil {
		return Requester{}, err
	}
	if !real.Equal(secret) || c == nil {
		return Requester{}, s.WrongSecret(reference, from)
	}
	return s.credentialRequester(c)
}

// WrongSecret notes that somebody proved not to know a credential's secret (a wrong
// password, or a MAC that fails), and is what to answer: Unauthenticated, or RateLimited
// beyond the limits of AuthenticateSecret.
func (s *Service) WrongSecret(reference string, from netip.Addr) error {
	s.counts.wrongSecrets.Add(1)
	if wait := s.attempts.wrong(reference, from, s.now()); wait > 0 {
		return &Error{Kind: RateLimited, Reason: "too many wrong secrets; wait", RetryAfter: wait}
	}
	return wrongSecret()
}

// SecretsLimited reports whether WrongSecret would answer RateLimited: a protocol for
// which the check of a secret is much work then lets others go first.
func (s *Service) SecretsLimited(reference string, from netip.Addr) bool {
	return s.attempts.limited(reference, from, s.now())
}

// CredentialSecret gives a protocol that proves knowledge of the secret by a MAC (CMP,
// ACME's external account binding) the secret to check with. A reference that
// does not exist gets a random secret and a requester that earns nothing, so
// that the MAC fails as a wrong one does.
func (s *Service) CredentialSecret(ctx context.Context, reference string) (Requester, device.Secret, error) {
	c, secret, err := s.secret(ctx, reference)
	if err != nil || c == nil {
		return Requester{}, secret, err
	}
	r, err := s.credentialRequester(c)
	return r, secret, err
}

// secret finds a credential and opens its secret; for an unknown reference it
// does the same work on a secret made up.
func (s *Service) secret(ctx context.Context, reference string) (*device.Credential, device.Secret, error) {
	if err := s.closed(ctx); err != nil {
		return nil, "", err
	}
	c, err := s.ledger.Credential(ctx, reference)
	if errors.Is(err, ErrNoRecord) {
		sealed := s.opts.Sealer.Seal(reference, device.NewSecret())
		made, err := s.opts.Sealer.Open(reference, sealed)
		return nil, made, err
	}
	if err != nil {
		return nil, "", err
	}
	secret, err := s.opts.Sealer.Open(c.Reference, c.Sealed)
	return c, secret, err
}

func (s *Service) credentialRequester(c *device.Credential) (Requester, error) {
	if err := c.Usable(s.now()); err != nil {
		return Requester{}, Errorf(Unauthenticated, "%w", err)
	}
	return Requester{Kind: policy.ByCredential, Device: c.Device, Credential: c}, nil
}

// AuthenticateCertificate finds the requester behind a certificate whose key
// was proven by the protocol (TLS, CMP signature); chain is leaf first, as the
// peer sent it. It is a registration authority's if registered as such, else a
// device's own, else one that a registered manufacturer issued (see authenticateIDevID).
//
// Of our own certificates the ledger is the judge: what the peer shows must be,
// octet for octet, a certificate that the ledger says we issued, which is
// stronger than verifying its signature once more, and costs less. A certificate that expired still
// authenticates, with Lapsed set, and so does one of a suspended device: what
// either may have, Enroll knows.
//
// Errors: Unauthenticated (foreign, revoked, not yet valid), Unavailable.
func (s *Service) AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (Requester, error) {
	if len(chain) == 0 {
		return Requester{}, Errorf(Unauthenticated, "no client certificate")
	}
	if err := s.closed(ctx); err != nil {
		return Requester{}, err
	}
	leaf, now := chain[0], s.now()
	ra, err := s.authenticateRA(ctx, leaf, now)
	if err != nil {
		return Requester{}, err
	}
	if ra != nil {
		return Requester{Kind: policy.ByRA, RA: ra}, nil
	}
	serial, ours := SerialFromBig(leaf.SerialNumber)
	if !ours {
		return s.authenticateIDevID(ctx, chain, now)
	}
	c, d, err := s.ledger.Presented(ctx, serial)
	if errors.Is(err, ErrNoRecord) || err == nil && !bytes.Equal(c.DER, leaf.Raw) {
		return s.authenticateIDevID(ctx, chain, now)
	}
	if err != nil {
		return Requester{}, err
	}
	if IsBuiltin(c.Profile) || d == nil {
		return Requester{}, Errorf(Unauthenticated, "the client certificate is one of the CA's own, which ask for nothing")
	}
	if c.Revocation != nil {
		return Requester{}, revoked(c)
	}
	if now.Before(c.NotBefore) {
		return Requester{}, Errorf(Unauthenticated, "the client certificate is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	issuer := s.current.Load().issuers[c.Issuer]
	if issuer == nil || issuer.Record.Revoked != nil {
		return Requester{}, Errorf(Unauthenticated, "the CA that issued the client certificate was revoked: enrol with a credential")
	}
	r := Requester{Kind: policy.ByCertificate, Device: c.Device, Certificate: c, Lapsed: max(0, now.Sub(c.NotAfter)), standing: d, leaf: leaf}
	if issuer.Record.Role == "quarantine" {
		r.Kind = policy.ByQuarantine
	}
	return r, nil
}

func revoked(c *Certificate) *Error {
	return Errorf(Unauthenticated, "the client certificate was revoked at %s (%s)",
		c.Revocation.Time.UTC().Format(time.RFC3339), ReasonName(c.Revocation.Reason))
}

// certificateNames reads the names of one of our own certificates.
func certificateNames(cert *x509.Certificate) (Names, error) {
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			return ParseNames(cert.RawSubject, e.Value)
		}
	}
	return ParseNames(cert.RawSubject, nil)
}
