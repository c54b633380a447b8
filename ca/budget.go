package ca

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/limit"
	"github.com/deviceca/deviceca/policy"
)

// Budgets bound what authenticated requesters may cause that lasts. 0 is no limit.
//
// An act is what makes the ledger grow: a certificate, a revocation or its end, a
// request that waits for approval, a CMP transaction. What administrators do costs
// nothing, and a refusal neither: the audit log counts repeated ones (see refusals).
type Budgets struct {
	// CertificatesPerDevice is a burst of certificates of the same validity, of which
	// as many come back in each validity: 60 of 90 days, then one each 36 hours.
	CertificatesPerDevice int
	// The rest is per minute. An act for a device by someone else counts for both.
	ActsPerDevice     int // but for certificates, which have their own budget
	ActsPerCredential int
	ActsPerAccount    int // of ACME
	ActsPerRegistrar  int // registration authority or manufacturer
	ActsPerAddress    int // host, or IPv6 /64
	// RefusalsPerAddress refuses nothing: see OftenRefused.
	RefusalsPerAddress int
}

// budgets holds the buckets. Each kind of key has a table of its own, so that
// no one who can make up keys of one kind pushes others out.
type budgets struct {
	Budgets
	certificates, devices, credentials, accounts, registrars, addresses, refusals *limit.Buckets
}

func newBudgets(b Budgets) *budgets {
	table := func() *limit.Buckets { return limit.NewBuckets(maxKeys) }
	return &budgets{b, table(), table(), table(), table(), table(), table(), table()}
}

// payment is tokens that one act took.
type payment []token

type token struct {
	from *limit.Buckets
	key  string
	rate limit.Rate
}

// refund gives back what was paid for something that did not happen.
func (p payment) refund() {
	for _, t := range p {
		t.from.Return(t.key, t.rate)
	}
}

// take takes one token more, or refunds the payment and refuses. whose and what
// say in the refusal which budget it is, setting is its configuration key.
func (p payment) take(t token, now time.Time, whose, what, setting string) (payment, error) {
	wait := t.from.Take(t.key, t.rate, now)
	if wait == 0 {
		return append(p, t), nil
	}
	p.refund()
	return nil, &Error{Kind: RateLimited, RetryAfter: wait, Reason: fmt.Sprintf(
		"%s has used its budget of %d %s, and gets one more each %s (%s): wait, and ask less often", whose, t.rate.Burst, what, rounded(t.rate.Every), setting)}
}

// rounded is a duration as people read it.
func rounded(d time.Duration) time.Duration {
	if d > time.Second {
		return d.Round(time.Second)
	}
	return max(d.Round(time.Millisecond), time.Millisecond)
}

// certificate takes one token of the device's certificates. Certificates that live a
// day and those that live a year have a budget each: else the short ones would wait for years.
func (b *budgets) certificate(id string, validity time.Duration, now time.Time) (payment, error) {
	rate := limit.Rate{Burst: b.CertificatesPerDevice}
	if rate.Burst > 0 {
		rate.Every = validity / time.Duration(rate.Burst)
	}
	return payment(nil).take(token{b.certificates, device.Fold(id) + " " + validity.String(), rate}, now,
		"device "+id, "certificates", "limits.certificates_per_device")
}

// act takes a token from each budget that an act of the requester from that address counts for.
func (b *budgets) act(r Requester, address string, now time.Time) (p payment, err error) {
	switch {
	case r.Account != 0:
		p, err = p.take(token{b.accounts, r.Actor(), limit.PerMinute(b.ActsPerAccount)}, now, "this account", "acts", "limits.acts_per_account")
	case r.RA != nil || r.Manufacturer != nil:
		p, err = p.take(token{b.registrars, r.Actor(), limit.PerMinute(b.ActsPerRegistrar)}, now, r.Actor(), "acts", "limits.acts_per_registrar")
	}
	if err == nil && r.Credential != nil { // of which there may be many accounts
		p, err = p.take(token{b.credentials, r.Credential.Reference, limit.PerMinute(b.ActsPerCredential)}, now, "this credential", "acts", "limits.acts_per_credential")
	}
	if network := networkOf(address); err == nil && network != "" {
		p, err = p.take(token{b.addresses, network, limit.PerMinute(b.ActsPerAddress)}, now, "address "+network, "acts", "limits.acts_per_address")
	}
	return p, err
}

// Spend takes the price of one act for a device, other than a certificate, out of
// the budgets of the device ("" if that is not known yet), the requester, and the
// address, with or without a port. A protocol calls it before it has anything recorded for a requester.
//
// Errors: RateLimited, with RetryAfter.
func (s *Service) Spend(r Requester, id, address string) error {
	now := s.now()
	p, err := s.budgets.act(r, address, now)
	if err == nil && id != "" {
		_, err = p.take(token{s.budgets.devices, device.Fold(id), limit.PerMinute(s.budgets.ActsPerDevice)}, now,
			"device "+id, "acts", "limits.acts_per_device")
	}
	return err
}

// buy pays for a certificate that policy grants. The caller calls settle, once, with what came of it.
// If the device has used its budget, the very certificate that it asks for again, if there is
// one, is returned in place of a refusal.
func (s *Service) buy(ctx context.Context, r Request, d *device.Device, decision policy.Decision, newest Serial, digest [32]byte, now time.Time) (settle func(error), there *Certificate, err error) {
	certificate, err := s.budgets.certificate(d.ID, decision.Validity, now)
	if err != nil {
		if there, lookErr := s.same(ctx, r, d.ID, decision, newest, digest, now); there != nil || lookErr != nil {
			return nil, there, lookErr
		}
		return nil, nil, err
	}
	act, err := s.budgets.act(r.Requester, r.Address, now)
	if err != nil {
		certificate.refund()
		return nil, nil, err
	}
	return func(err error) {
		if err == nil {
			return
		}
		certificate.refund()
		if KindOf(err) != Pending { // else there is a request to keep
			act.refund()
		}
	}, nil, nil
}

// same is newest, the newest certificate of a device for the key of a request, if that is
// what the request would come to: the same names and profile, as policy decides now,
// neither revoked nor expired. An ACME order has to have a certificate of its own.
func (s *Service) same(ctx context.Context, r Request, id string, decision policy.Decision, newest Serial, digest [32]byte, now time.Time) (*Certificate, error) {
	if r.Requester.Account != 0 || newest.IsZero() {
		return nil, nil
	}
	c, err := s.ledger.CertificateBySerial(ctx, newest)
	if errors.Is(err, ErrNoRecord) {
		return nil, nil
	}
	if err != nil || !device.SameID(c.Device, id) || c.Request != digest || c.Revocation != nil || !now.Before(c.NotAfter) ||
		c.Decision.Profile != decision.Profile || c.Decision.Outcome != decision.Outcome || c.Decision.Level != decision.Level {
		return nil, err
	}
	return c, nil
}

// refusal counts a refusal for the address that it goes to.
func (b *budgets) refusal(address string, now time.Time) {
	if network := networkOf(address); network != "" {
		b.refusals.Take(network, limit.PerMinute(b.RefusalsPerAddress), now)
	}
}

// networkOf is the Network of an address with or without a port; "" if it is none, as where nobody asks over the network.
func networkOf(address string) string {
	if from, err := netip.ParseAddrPort(address); err == nil {
		return Network(from.Addr())
	}
	if from, err := netip.ParseAddr(address); err == nil {
		return Network(from)
	}
	return ""
}

// OftenRefused reports whether requests from an address were lately refused more often than
// Budgets.RefusalsPerAddress, wrong secrets included. The next may be good, so it is no reason to
// refuse it: but those of others go first.
func (s *Service) OftenRefused(from netip.Addr) bool {
	now, network := s.now(), Network(from)
	return s.budgets.refusals.Wait(network, limit.PerMinute(s.budgets.RefusalsPerAddress), now) > 0 || s.attempts.limitedFrom(network, now)
}
