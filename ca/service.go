package ca

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Options are what a Service is made of.
type Options struct {
	Ledger Ledger
	Sealer *device.Sealer
	Policy *policy.Policy
	// Key finds the key of a CA below the root by IssuerRecord.Key. The roots'
	// keys are never asked for: they are not there in a running server. Its Sign must
	// return no signature that it did not verify: signers fail too, and a token that
	// returns a wrong signature once gives its key away (RSA-CRT) or a certificate that nobody can use.
	Key func(ctx context.Context, label string) (crypto.Signer, error)
	URL string // public base of AIA, OCSP and CRL pointers, "http://ca.example:8080"
	// Verifiable lists, for each protocol, the evidence kinds that its server can verify.
	Verifiable map[string][]string
	// LintShare is the share of certificates that are linted whole, 0 to 1. A finding is an alarm and refuses nothing.
	LintShare float64
	// WrongPerReference and WrongPerAddress are how many wrong secrets a minute
	// are answered as such; 10 and 60 if zero. A right secret always passes.
	WrongPerReference, WrongPerAddress int
	Budgets                            Budgets
	// Reloaded, if set, is told the CAs whenever they have changed.
	Reloaded func([]IssuerRecord)
	// Changed, if set, is told of certificates whose revocation changed (revoked or
	// released), once that is durable and before the change is answered.
	Changed func(ctx context.Context, issuer string, serials []Serial)
	// Closed, if set, reports that nobody is served at the moment: the error is what all
	// requesters get. The CA's own certificates are issued nevertheless.
	Closed   func(ctx context.Context) error
	Approval ApprovalOptions
	Now      func() time.Time
	Logger   *slog.Logger
}

// Service is the certificate authority: every certificate is made here. Safe
// for concurrent use.
type Service struct {
	opts     Options
	ledger   Ledger
	now      func() time.Time
	log      *slog.Logger
	attempts *attempts
	budgets  *budgets
	refusals *refusals

	compiled  sync.Map   // of registered manufacturers: ID to *compiledManufacturer
	compiling sync.Mutex // one at a time
	counts    counts
	applying  sync.Mutex // one Apply at a time

	policyKept atomic.Bool                   // the ledger has the policy in force
	replayed   atomic.Pointer[policy.Policy] // by Explain, last
	current    atomic.Pointer[state]
}

type counts struct{ signatures, issued, refused, wrongSecrets, lintFindings, shortened atomic.Int64 }

// Stats are counts since the service was made. Shortened are the certificates that end before
// their policy says, since their CA does.
type Stats struct{ Signatures, Issued, Refused, WrongSecrets, LintFindings, Shortened int64 }

// Stats reads the counts.
func (s *Service) Stats() Stats {
	c := &s.counts
	return Stats{c.signatures.Load(), c.issued.Load(), c.refused.Load(), c.wrongSecrets.Load(), c.lintFindings.Load(), c.shortened.Load()}
}

// state is what Apply replaces as a whole: a request sees one policy,
// one set of issuers, and the profiles compiled from both.
type state struct {
	policy   *policy.Policy
	issuers  map[string]*Issuer // by name, and by role for the generation that is active
	ordered  []*Issuer          // roots first, the quarantine root last of them, cross-certificates, then by role and generation
	profiles map[string]*Profile
}

// NewService reads the issuers from the ledger, and compiles and lints every profile of the policy.
func NewService(ctx context.Context, opts Options) (*Service, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Service{opts: opts, ledger: opts.Ledger, now: opts.Now, log: opts.Logger,
		attempts: newAttempts(cmp.Or(opts.WrongPerReference, 10), cmp.Or(opts.WrongPerAddress, 60)),
		budgets:  newBudgets(opts.Budgets), refusals: newRefusals()}
	issuers, err := s.loadIssuers(ctx)
	if err != nil {
		return nil, err
	}
	st, err := s.compile(ctx, opts.Policy, issuers)
	if err != nil {
		return nil, err
	}
	s.current.Store(st)
	s.warnUnusable(st)
	s.keepPolicy(ctx)
	return s, nil
}

func (s *Service) loadIssuers(ctx context.Context) ([]*Issuer, error) {
	records, err := s.ledger.Issuers(ctx)
	if err != nil {
		return nil, err
	}
	var issuers []*Issuer
	for _, r := range records {
		var signer crypto.Signer
		if r.Subordinate() {
			if signer, err = s.opts.Key(ctx, r.Key); err != nil {
				return nil, fmt.Errorf("the key of CA %s: %w", r.Name, err)
			}
		}
		i, err := newIssuer(r, signer)
		if err != nil {
			return nil, err
		}
		// Of the newest generation it does not matter, and would cost a search at each start.
		if r.Subordinate() && slices.ContainsFunc(records, func(o IssuerRecord) bool { return o.Role == r.Role && o.Generation > r.Generation }) {
			if i.liveUntil, err = s.ledger.LiveUntil(ctx, r.Name); err != nil {
				return nil, err
			}
		}
		issuers = append(issuers, i)
	}
	return issuers, nil
}

// compile makes the state of a policy over issuers; its error lists every fault.
func (s *Service) compile(ctx context.Context, p *policy.Policy, issuers []*Issuer) (*state, error) {
	st, now := &state{policy: p, issuers: map[string]*Issuer{}, profiles: map[string]*Profile{}}, s.now()
	for _, role := range []string{"root", "quarantine-root", "cross", "issuing", "quarantine"} {
		for _, i := range issuers {
			if i.Record.Role != role {
				continue
			}
			st.issuers[i.Record.Name] = i
			st.ordered = append(st.ordered, i)
			if active := st.issuers[role]; i.Record.Revoked == nil && !i.Record.Activates.After(now) && (active == nil || active.Record.Generation < i.Record.Generation) {
				st.issuers[role] = i
			}
		}
	}
	var faults []error
	for _, spec := range profilesOf(p) {
		issuer := st.issuers[spec.Issuer]
		if issuer == nil || issuer.signer == nil {
			faults = append(faults, fmt.Errorf("profile %s: there is no CA %q with a key here", spec.Name, spec.Issuer))
			continue
		}
		compiled, err := newProfile(spec, issuer, s.opts.URL)
		if err != nil {
			faults = append(faults, &profileError{spec.Name, err})
			continue
		}
		st.profiles[spec.Name] = compiled
	}
	return st, errors.Join(append(faults, s.lintAll(ctx, st), s.lintBuiltins(st))...)
}

func profilesOf(p *policy.Policy) (all []policy.Profile) {
	for _, name := range p.Profiles() {
		profile, _ := p.Profile(name)
		all = append(all, profile)
	}
	return all
}

// maxLints bounds the pairs of a profile and a life that are linted when a policy is
// loaded: each takes a millisecond or two.
const maxLints = 1000

// lintAll lints each profile with each life that the policy can give it.
func (s *Service) lintAll(ctx context.Context, st *state) error {
	lives, pairs := map[string]map[time.Duration]bool{}, 0
	for g := range st.policy.Grants() {
		if lives[g.Profile][g.Validity] {
			continue
		}
		if pairs++; pairs > maxLints {
			return fmt.Errorf("the policy gives its profiles more than %d different validities in all: let more levels and outcomes share theirs", maxLints)
		}
		if lives[g.Profile] == nil {
			lives[g.Profile] = map[time.Duration]bool{}
		}
		lives[g.Profile][g.Validity] = true
	}
	var faults []error
	for name, validities := range lives {
		profile := st.profiles[name]
		if profile == nil {
			continue // it did not compile, and that was said
		}
		for validity := range validities {
			if err := context.Cause(ctx); err != nil {
				return err
			}
			if err := profile.lint(s.now(), validity); err != nil {
				faults = append(faults, &profileError{name, err})
				break
			}
		}
	}
	return errors.Join(faults...)
}

// Policy is the policy in force.
func (s *Service) Policy() *policy.Policy { return s.current.Load().policy }

// Check compiles and lints a policy against this CA without putting it in force. It
// ends early, with the context's error, when ctx ends.
func (s *Service) Check(ctx context.Context, p *policy.Policy) error {
	_, err := s.compile(ctx, p, s.current.Load().ordered)
	return err
}

// Apply compiles and lints a new policy and, if nothing is wrong with it, puts
// it in force and records that actor did it. On error the old one stays.
func (s *Service) Apply(ctx context.Context, p *policy.Policy, actor string) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	st, err := s.compile(ctx, p, s.current.Load().ordered)
	if err != nil {
		return &Error{Kind: Malformed, Reason: err.Error(), Err: err}
	}
	if err := s.recordPolicy(ctx, p, actor, ""); err != nil {
		return err
	}
	s.policyKept.Store(true)
	s.current.Store(st)
	s.warnUnusable(st)
	s.log.Info("policy applied", "policy", p.Version(), "actor", actor)
	return nil
}

// Anchors are the certificates that devices trust and chain by: roots, what
// leads from one root to another, and every generation of issuing and
// quarantine CAs that is live (Stage); roots first, DER.
func (s *Service) Anchors() [][]byte {
	var anchors [][]byte
	st, now := s.current.Load(), s.now()
	for _, i := range st.ordered {
		if st.stage(i, now).Live() {
			anchors = append(anchors, i.Cert.Raw)
		}
	}
	return anchors
}

// Issuers are the CAs, root first; nothing that signs is reachable through them.
func (s *Service) Issuers() []IssuerRecord {
	var records []IssuerRecord
	for _, i := range s.current.Load().ordered {
		records = append(records, i.Record)
	}
	return records
}

// CACert is the certificate of a CA by its name or role ("issuing" is the
// generation that is active), DER.
func (s *Service) CACert(name string) ([]byte, bool) {
	i, ok := s.current.Load().issuers[name]
	if !ok {
		return nil, false
	}
	return i.Cert.Raw, true
}

// Named is the full name of a CA by its name or role: "issuing" is "issuing-2"; "" if there is none.
func (s *Service) Named(name string) string {
	if i, ok := s.current.Load().issuers[name]; ok {
		return i.Record.Name
	}
	return ""
}

// ProfileFor is the profile a requester would get for the one asked for
// ("" the default); NotFound if there is no such profile, Denied if it is not
// for this requester. A zero requester sees every profile, and the first as default.
func (s *Service) ProfileFor(r Requester, asked string) (policy.Profile, error) {
	p := s.Policy()
	allowed := p.Profiles()
	level, named := r.level()
	if named {
		l, ok := p.Level(level)
		if !ok {
			return policy.Profile{}, Errorf(Denied, "the policy no longer has a level %q", level)
		}
		allowed = l.Profiles
	}
	if asked == "" && len(allowed) > 0 {
		asked = allowed[0]
	}
	profile, ok := p.Profile(asked)
	if !ok {
		return policy.Profile{}, Errorf(NotFound, "there is no certificate profile %q", asked)
	}
	if slices.Contains(allowed, asked) {
		return profile, nil
	}
	return policy.Profile{}, Errorf(Denied, "level %s may not have profile %s; it may have %s", level, asked, strings.Join(allowed, ", "))
}

// LevelFor is the level of the policy in force that a requester has; false if it has none. A registration authority has several,
// and the first counts.
func (s *Service) LevelFor(r Requester) (policy.Level, bool) {
	level, named := r.level()
	if !named {
		return policy.Level{}, false
	}
	return s.Policy().Level(level)
}

// level is the name of the requester's level.
func (r Requester) level() (name string, ok bool) {
	switch {
	case r.Credential != nil:
		return r.Credential.Level, true
	case r.Certificate != nil:
		return r.Certificate.Level, true
	case r.Manufacturer != nil:
		return r.Manufacturer.Level, true
	case r.RA != nil:
		return r.RA.Levels[0], true
	}
	return "", false
}

// HasProfile reports whether the policy in force has a profile of that name.
func (s *Service) HasProfile(name string) bool {
	_, ok := s.Policy().Profile(name)
	return ok
}
