// Package server answers the Certificate Management Protocol in the Lightweight
// Profile (RFC 9483 on RFC 9810), over HTTP (RFC 9811), in front of the certificate
// authority:
//
//	POST /.well-known/cmp[/p/PROFILE][/OPERATION]    application/pkixcmp
//
// A profile is a certificate profile of the policy. The operation, if it is given,
// must be what the message asks for.
//
// One request goes a straight line, which is [exchange.run]: decoded within bounds,
// looked up among the transactions (a repeated request gets the stored answer),
// authenticated, carried out by the core, made durable with its answer, protected in
// kind. What a client is told is decided in errors.go alone.
package server

import (
	"context"
	"crypto"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Prefix is where every CMP path begins (RFC 9811 §3.3).
const Prefix = "/.well-known/cmp"

// Authority is what CMP needs of the core. Errors that are no *ca.Error count as
// internal faults. All methods are safe for concurrent use.
type Authority interface {
	// CredentialSecret gives the secret that a MAC is checked with, a random one
	// for an unknown reference. A credential that is not usable comes with its
	// secret and an error of kind Unauthenticated, which is for whoever knows the secret alone.
	CredentialSecret(ctx context.Context, reference string) (ca.Requester, device.Secret, error)
	// WrongSecret notes a MAC that fails, and is what to answer: Unauthenticated, or
	// RateLimited beyond the limits per reference and address.
	WrongSecret(reference string, from netip.Addr) error
	// SecretsLimited reports whether too many wrong secrets came lately for the reference
	// or from the network of an address, that is, whether WrongSecret would answer RateLimited.
	SecretsLimited(reference string, from netip.Addr) bool
	// AuthenticateCertificate finds the requester behind a certificate whose key
	// has signed the message, leaf first.
	AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (ca.Requester, error)
	// MayActFor reports why the requester may not do something for a device. Enroll asks by itself.
	MayActFor(ctx context.Context, r ca.Requester, deed ca.Deed) error
	// Enroll decides and issues. The record is durable when it returns.
	Enroll(ctx context.Context, r ca.Request) (*ca.Issued, error)
	// Revoke revokes one certificate: NotFound, or Conflict if it is revoked already.
	Revoke(ctx context.Context, serial ca.Serial, reason int, invalid *time.Time, actor string) (*ca.Certificate, error)
	// Release ends the hold of one certificate: NotFound, or Conflict if it is not on hold.
	Release(ctx context.Context, serial ca.Serial, actor string) (*ca.Certificate, error)
	// Spend takes an act of the requester for a device (beside a certificate) out of their budgets: RateLimited.
	Spend(r ca.Requester, device, address string) error
	// IssueBuiltin issues the certificate that protects our answers.
	IssueBuiltin(ctx context.Context, which ca.Builtin, issuer string, pub crypto.PublicKey, names []ca.SAN, validity time.Duration) (*ca.Issued, error)
	// Anchors are the certificates of caCerts, DER.
	Anchors() [][]byte
	// Issuers are the CAs, root first.
	Issuers() []ca.IssuerRecord
	// CACert is the certificate of a CA by name, DER.
	CACert(name string) ([]byte, bool)
	// ProfileFor is the profile that the requester would get when asking for a name, "" for none.
	ProfileFor(r ca.Requester, asked string) (policy.Profile, error)
	// LevelFor is the level of the policy that the requester has; false if it has none.
	LevelFor(r ca.Requester) (policy.Level, bool)
}

var _ Authority = (*ca.Service)(nil)

// Options are what the server is made of.
type Options struct {
	Authority Authority
	Ledger    Ledger
	Lists     Lists        // nil: CRLs are not asked for here
	Logger    *slog.Logger // default slog.Default()
	// TimeWindow is how far the messageTime of a request may be off, either way;
	// default 5 minutes. For as long a repeated request gets the answer it got
	// before, so that nothing can be replayed.
	TimeWindow time.Duration
	// ConfirmWait is how long a certificate waits for its certConf before it is
	// revoked; default 10 minutes.
	ConfirmWait time.Duration
	// MAC bounds the protection by shared secrets. Its Begin is the server's own.
	MAC cmp.MACPolicy
	// BodyTimeout is how long a client may take to send one message; default 10 s.
	BodyTimeout time.Duration
	// Observe, if set, is told of each request when its reply is ready: op is the
	// type of the body or "other", outcome a policy outcome, "ok", the failInfo
	// sent, or the name of an HTTP-level refusal.
	Observe func(op, outcome string, took time.Duration)
	Now     func() time.Time // default time.Now
}

// Server is the CMP responder: an http.Handler for everything under [Prefix], on
// http and https listeners alike, as CMP brings its own protection.
type Server struct {
	Options
	delegate    delegate
	kga         keyAuthority
	derivations derivations
	registrars  registrars
}

// New makes the server and the certificate that it signs its answers with. [Server.Run]
// must run beside it.
func New(ctx context.Context, opts Options) (*Server, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&opts.TimeWindow, 5 * time.Minute}, {&opts.ConfirmWait, 10 * time.Minute}, {&opts.BodyTimeout, 10 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	s := &Server{Options: opts, delegate: delegate{stale: make(chan struct{}, 1)}, derivations: newDerivations()}
	return s, s.renewDelegate(ctx)
}

// sweepEvery is how often unconfirmed certificates are looked for.
const sweepEvery = 15 * time.Second

// Run keeps the server's certificate fresh, revokes certificates that nobody
// confirmed, and forgets old transactions, until ctx ends. What fails is tried
// again at the next turn.
func (s *Server) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for due := false; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.delegate.stale:
			due = true
		case <-tick.C:
			due = due || s.delegateDue()
		}
		if due {
			err := s.renewDelegate(ctx)
			if due = err != nil; due && ctx.Err() == nil {
				s.Logger.Error("the CMP signer's certificate could not be renewed; trying again", "protocol", "cmp", "err", err)
			}
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Error("CMP transactions could not be swept; trying again", "protocol", "cmp", "err", err)
		}
	}
}
