package est

import (
	"context"
	"crypto"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Authority is what EST needs of the core. Errors that are no *ca.Error count
// as internal faults. All methods are safe for concurrent use.
type Authority interface {
	// AuthenticateSecret finds the requester behind HTTP Basic. It compares in
	// constant time, limits wrong attempts by address and reference, and answers
	// the same Unauthenticated for an unknown reference and a wrong secret.
	AuthenticateSecret(ctx context.Context, reference, secret string, from netip.Addr) (ca.Requester, error)
	// AuthenticateCertificate finds the requester behind a TLS client
	// certificate, leaf first as the peer sent it. TLS proved the key and nothing
	// else: path, validity, revocation and the device are checked here, for each request.
	AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (ca.Requester, error)
	// CredentialSecret gives the secret behind a reference, to derive a key from
	// or to check a MAC with. A reference that does not exist gets a random secret
	// and the zero Requester, which earns nothing.
	CredentialSecret(ctx context.Context, reference string) (ca.Requester, device.Secret, error)
	// Spend takes an act of the requester for a device (beside a certificate) out of their budgets: RateLimited.
	Spend(r ca.Requester, device, address string) error
	// MayActFor reports why the requester may not do something for a device. Enroll asks by itself.
	MayActFor(ctx context.Context, r ca.Requester, deed ca.Deed) error
	// Enroll decides and issues. The record is durable when it returns.
	Enroll(ctx context.Context, r ca.Request) (*ca.Issued, error)
	// Anchors are the certificates of cacerts, DER.
	Anchors() [][]byte
	// HasProfile reports whether the policy in force has a certificate profile
	// of that name, which makes it a label.
	HasProfile(name string) bool
	// ProfileFor is the profile the requester would get when asking for a
	// label, "" for none. Nobody in particular (the zero Requester) is told what
	// the label says, or what the policy names first.
	ProfileFor(r ca.Requester, asked string) (policy.Profile, error)
}

var _ Authority = (*ca.Service)(nil)

// Options are what the server is made of.
type Options struct {
	Authority Authority
	Logger    *slog.Logger // default slog.Default()
	// BodyTimeout is how long a client may take to send the body of one request;
	// default 10 s, negative for no limit. Middleware in front must implement
	// Unwrap (see http.ResponseController), or there is no limit.
	BodyTimeout time.Duration
	// Proxies may stand in front and end TLS for the devices.
	Proxies Proxies
	// Observe, if set, is told of each request when its reply is ready: op is the
	// EST operation or "other", outcome a policy outcome, "ok", an error kind of
	// package ca, or the name of an HTTP-level refusal (see errors.go).
	Observe func(op, outcome string, took time.Duration)
	// Rules says what a profile allows and demands in EST alone. It is asked for
	// each request, with the profile that [Authority.ProfileFor] gave. nil: the zero Rules for every profile.
	Rules func(policy.Profile) Rules
	// Responder signs what EST signs itself: keys made here, and CMC responses.
	// It is asked for each signature, so that its key may rotate. It signs what is
	// told to strangers as well, so its key should not share a token, or a queue,
	// with the CA's. nil: fullcmc answers 501, and no key is handed out encrypted.
	Responder func(context.Context) (Responder, error)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Rules are what one profile says of EST.
type Rules struct {
	Keygen Keygen
	// Binding demands that a request is bound to the TLS connection it comes over (RFC
	// 7030 §3.5). One that is bound is checked in any case.
	Binding bool
}

// Keygen says whether keys are made for devices of a profile.
type Keygen int

const (
	KeygenNever  Keygen = iota // serverkeygen answers 403
	KeygenSealed               // the key is handed out encrypted, beyond what TLS does
	KeygenClear                // or in clear within TLS, if the request names no key to encrypt to
)

// Responder is a key with its certificate, leaf first, then what chains it to
// the root. The leaf should have the purpose id-kp-cmcCA or id-kp-cmKGA
// (RFC 6402 §2.10, RFC 9483 §4.1.6), and must not be the CA's own.
type Responder struct {
	Key   crypto.Signer
	Chain []*x509.Certificate
}

func (s *server) rules(p policy.Profile) Rules {
	if s.Rules == nil {
		return Rules{}
	}
	return s.Rules(p)
}

// profile is the one that the request would get: what the label says, on renewal
// the profile of the old certificate, or the requester's default.
func (s *server) profile(requester ca.Requester, label string) (policy.Profile, error) {
	if old := requester.Certificate; old != nil && label == "" && s.Authority.HasProfile(old.Profile) {
		if p, err := s.Authority.ProfileFor(requester, old.Profile); err == nil {
			return p, nil
		}
	}
	return s.Authority.ProfileFor(requester, label)
}
