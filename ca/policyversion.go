package ca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"time"

	"github.com/deviceca/deviceca/policy"
)

// PolicyVersion is a policy that is or was in force.
type PolicyVersion struct {
	ID      int64     `json:"-"`       // the paging key
	Version string    `json:"version"` // policy.Policy.Version
	SHA256  string    `json:"sha256"`  // of the source, hex
	First   time.Time `json:"first_applied"`
	Last    time.Time `json:"last_applied"` // First, if it was never put in force again
	Source  []byte    `json:"-"`
}

// PolicyLedger remembers policies.
type PolicyLedger interface {
	// RecordPolicy enters a policy as in force from v.Last on, once for each source, with the event.
	RecordPolicy(ctx context.Context, v PolicyVersion, e Event) error
	// PolicyVersion finds a policy with its source, "" the one that was put in force last; ErrNoRecord if there is none.
	PolicyVersion(ctx context.Context, version string) (*PolicyVersion, error)
}

// recordPolicy makes durable that p is in force.
func (s *Service) recordPolicy(ctx context.Context, p *policy.Policy, actor, reason string) error {
	now, sum := s.now(), sha256.Sum256(p.Source())
	digest := hex.EncodeToString(sum[:])
	return s.ledger.RecordPolicy(ctx, PolicyVersion{Version: p.Version(), SHA256: digest, First: now, Last: now, Source: p.Source()},
		Event{Time: now, Kind: EventPolicyApplied, Actor: actor, Policy: p.Version(), Digest: digest, Reason: reason})
}

// keepPolicy records the policy that the service was made with, if it is not the one that was in force last: somebody
// has edited the file.
func (s *Service) keepPolicy(ctx context.Context) {
	if s.policyKept.Load() {
		return
	}
	s.applying.Lock()
	defer s.applying.Unlock()
	p := s.Policy()
	last, err := s.ledger.PolicyVersion(ctx, "")
	if errors.Is(err, ErrNoRecord) || err == nil && last.Version != p.Version() {
		err = s.recordPolicy(ctx, p, "system", "read from the policy file at start")
	}
	if err != nil {
		// It decides all the same: what it decides is recorded only where this could be, too.
		s.log.Warn("the policy in force is not recorded yet; trying again", "policy", p.Version(), "err", err)
		return
	}
	s.policyKept.Store(true)
}

// Explain decides on a hypothetical or past request by the policy of that version, with the trace. A nil
// in.Verifiable is what the protocol verifies today. Errors: NotFound if the policy was not kept, Conflict if this program no longer reads it.
func (s *Service) Explain(ctx context.Context, version string, in policy.Input) (policy.Decision, error) {
	if in.Verifiable == nil {
		in.Verifiable = s.opts.Verifiable[in.Protocol]
	}
	p := s.Policy()
	if version != p.Version() {
		if p = s.replayed.Load(); p == nil || p.Version() != version {
			kept, err := s.ledger.PolicyVersion(ctx, version)
			if errors.Is(err, ErrNoRecord) {
				return policy.Decision{}, Errorf(NotFound, "policy %s was not kept", version)
			}
			if err != nil {
				return policy.Decision{}, err
			}
			if p, err = policy.Parse("policy "+version, kept.Source); err != nil {
				return policy.Decision{}, &Error{Kind: Conflict, Err: err, Reason: "policy " + version + " is kept, and this version of the program no longer reads it"}
			}
			s.replayed.Store(p)
		}
	}
	return p.Explain(in), nil
}
