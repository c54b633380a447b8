package ca

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Rotation: a new generation of a CA is made in three steps, so that the
// server never holds a root's key. The server makes a key and a request
// (Request); whoever holds the root signs it; the server takes the certificate
// (Take). It is published at once, and issues from when its record says. The generation before goes
// on being served until the last of its certificates has expired.

// Next is the name and number of the generation of a role that would come next.
func (s *Service) Next(role string) (name string, generation int) {
	for _, i := range s.current.Load().ordered {
		if i.Record.Role == role {
			generation = max(generation, i.Record.Generation)
		}
	}
	return fmt.Sprintf("%s-%d", role, generation+1), generation + 1
}

// MayRotate refuses a new generation while one of the role waits to be active: Conflict.
func (s *Service) MayRotate(role string) error {
	for _, g := range s.Generations() {
		if g.Role == role && g.Stage == StagePublished {
			return Errorf(Conflict, "CA %s is published and issues from %s: let it (`ca activate %s` does at once), or revoke it, before you make another",
				g.Name, g.Since().UTC().Format(time.RFC3339), g.Name)
		}
	}
	return nil
}

// Take enters a CA certificate, which issues from r.Activates on (zero: at once): of a new issuing or
// quarantine generation, whose key must be at Options.Key under its name and
// which must be signed by one of our roots of that role; or of a root or cross-certificate.
// Errors: Malformed (what is wrong with the certificate), Conflict.
func (s *Service) Take(ctx context.Context, r IssuerRecord, actor string) error {
	if r.Subordinate() {
		key, err := s.opts.Key(ctx, r.Key)
		if err != nil {
			return fmt.Errorf("the key of CA %s: %w", r.Name, err)
		}
		if err := s.checkBelowRoot(r, key.Public()); err != nil {
			return Errorf(Malformed, "%w", err)
		}
	} else if err := s.checkRoot(r); err != nil {
		return Errorf(Malformed, "%w", err)
	}
	if err := s.MayRotate(r.Role); err != nil {
		return err
	}
	sum := sha256.Sum256(r.Cert)
	r.Created = s.now()
	e := Event{Time: r.Created, Kind: EventIssuerAdded, Actor: actor, Issuer: r.Name, Digest: hex.EncodeToString(sum[:])}
	switch {
	case !r.Activates.After(r.Created):
		r.Activates = time.Time{}
	case !r.Subordinate():
		return Errorf(Malformed, "a root has no time from which it issues: the next CA stands below it")
	default:
		e.Reason = "published, and active from " + r.Activates.UTC().Format(time.RFC3339)
	}
	err := s.ledger.AddIssuer(ctx, r, e)
	if errors.Is(err, ErrRecorded) {
		return Errorf(Conflict, "CA %s has its certificate already", r.Name)
	}
	if err != nil {
		return err
	}
	return s.Reload(ctx)
}

// checkRoot checks a root or a cross-certificate.
func (s *Service) checkRoot(r IssuerRecord) error {
	if r.Role != "cross" && !r.IsRoot() {
		return fmt.Errorf("%q is not the role of a CA", r.Role)
	}
	if _, err := newIssuer(r, nil); err != nil {
		return err
	}
	if r.Role != "quarantine-root" {
		return nil
	}
	var others [][]byte
	for _, i := range s.current.Load().ordered {
		if i.Record.Role == "root" {
			others = append(others, i.Cert.Raw)
		}
	}
	return CheckQuarantineRoot(r.Cert, others, s.now())
}

// checkBelowRoot checks a new generation against each root of its kind; the newest root's complaint is told.
// A home from before quarantine had a root of its own, with an external root, may go on without.
func (s *Service) checkBelowRoot(r IssuerRecord, pub crypto.PublicKey) error {
	st, role := s.current.Load(), RootOf(r.Role)
	if st.issuers[role] == nil {
		role = "root"
	}
	err := errors.New("there is no root")
	for _, i := range st.ordered {
		if i.Record.Role != role {
			continue
		}
		if err = CheckSubordinate(r.Cert, i.Cert.Raw, r.Role, pub, s.now()); err == nil {
			return CheckUsable(st.policy, r.Cert, i.Cert.Raw, r.Role, s.opts.URL, s.now())
		}
	}
	return err
}

// Reload reads the CAs anew from the ledger and compiles the policy in force
// against them. On error everything stays as it was.
func (s *Service) Reload(ctx context.Context) error {
	s.applying.Lock()
	defer s.applying.Unlock()
	issuers, err := s.loadIssuers(ctx)
	if err != nil {
		return err
	}
	st, err := s.compile(ctx, s.current.Load().policy, issuers)
	if err != nil {
		return err
	}
	s.current.Store(st)
	if s.opts.Reloaded != nil {
		s.opts.Reloaded(s.Issuers())
	}
	return nil
}

// RevokeCA takes a CA out of service for good: it signs nothing any more, its
// certificates authenticate nobody, and cacerts leaves it out. The root's CRL
// must say so too: `ca revoke` signs one. The active generation of a role
// cannot be revoked before there is another; one that is only published can. Errors: NotFound, Conflict.
func (s *Service) RevokeCA(ctx context.Context, name string, reason int, actor string) error {
	st := s.current.Load()
	i := st.issuers[name]
	switch {
	case i == nil || i.Record.Name != name:
		return Errorf(NotFound, "there is no CA %s; name one generation, such as issuing-1", name)
	case i.Record.Role == "cross":
		return Errorf(Denied, "%s leads from one root to another, and ends with them", name)
	case !i.Record.Subordinate():
		return Errorf(Denied, "%s is a root: what trusts it cannot be told by a list that it signs; take it out of the devices' trust stores", name)
	case st.issuers[i.Record.Role] == i:
		return Errorf(Conflict, "%s is the newest %s CA in force: make another one first with `ca rotate %s`, and activate it", name, i.Record.Role, i.Record.Role)
	}
	now := s.now()
	err := s.ledger.RevokeIssuer(ctx, name, Revocation{Time: now, Reason: reason},
		Event{Time: now, Kind: EventIssuerRevoked, Actor: actor, Issuer: name, Reason: ReasonName(reason)})
	if errors.Is(err, ErrRecorded) {
		return Errorf(Conflict, "CA %s is revoked already", name)
	}
	if err != nil {
		return err
	}
	return s.Reload(ctx)
}
