package ca

import (
	"context"
	"time"
)

// Stage is where a CA generation is in its life.
type Stage string

const (
	// StagePublished: its certificate, CRL, pack and OCSP answers are out, so that relying parties and
	// devices get to know it. It issues nothing to devices before it is activated.
	StagePublished Stage = "published"
	// StageActive: it issues; of a root: the next CA stands below it. One of each role does.
	StageActive Stage = "active"
	// StageRetiring: another one issues, and certificates of this one live.
	StageRetiring Stage = "retiring"
	// StageEnded: it expired, or the last of its certificates did.
	StageEnded Stage = "ended"
	// StageRevoked: it was revoked.
	StageRevoked Stage = "revoked"
)

// Live reports whether relying parties and devices need the CA's certificate and lists.
func (s Stage) Live() bool { return s == StagePublished || s == StageActive || s == StageRetiring }

// Generation is a CA with what is known of it now.
type Generation struct {
	IssuerRecord
	Stage     Stage
	NotAfter  time.Time
	LiveUntil time.Time // of one that retires: when the last of its certificates expires
}

// Generations are the CAs in the order of Issuers.
func (s *Service) Generations() []Generation {
	st, now := s.current.Load(), s.now()
	var all []Generation
	for _, i := range st.ordered {
		g := Generation{IssuerRecord: i.Record, Stage: st.stage(i, now), NotAfter: i.Cert.NotAfter}
		if g.Stage == StageRetiring {
			g.LiveUntil = i.Cert.NotAfter
			if i.Record.Subordinate() {
				g.LiveUntil = i.liveUntil
			}
		}
		all = append(all, g)
	}
	return all
}

// Live are the certificates of a role's CAs that relying parties need, DER: the active one
// first, then those that are published, then those that retire, each newest first.
func (s *Service) Live(role string) (certs [][]byte) {
	for _, g := range s.LiveGenerations(role) {
		certs = append(certs, g.Cert)
	}
	return certs
}

// LiveGenerations are those of Live.
func (s *Service) LiveGenerations(role string) (live []Generation) {
	all := s.Generations()
	for _, stage := range []Stage{StageActive, StagePublished, StageRetiring} {
		for n := len(all) - 1; n >= 0; n-- { // oldest first they are
			if all[n].Role == role && all[n].Stage == stage {
				live = append(live, all[n])
			}
		}
	}
	return live
}

func (st *state) stage(i *Issuer, now time.Time) Stage {
	switch {
	case i.Record.Revoked != nil:
		return StageRevoked
	case !now.Before(i.Cert.NotAfter):
		return StageEnded
	case i.Record.Role == "cross" || st.issuers[i.Record.Role] == i:
		return StageActive
	case i.Record.Activates.After(now) || st.issuers[i.Record.Role].Record.Generation < i.Record.Generation: // the latter until the state is made anew
		return StagePublished
	case i.Record.Subordinate() && !now.Before(i.liveUntil):
		return StageEnded
	}
	return StageRetiring
}

// NextActivation is when the next CA that is published begins to issue; zero if none waits. Whoever
// runs the service calls Reload then.
func (s *Service) NextActivation() (next time.Time) {
	for _, g := range s.Generations() {
		if at := g.Since(); g.Stage == StagePublished && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

// Activate lets a CA that is published issue at once. Errors: NotFound, Conflict.
func (s *Service) Activate(ctx context.Context, name, actor string) error {
	st, now := s.current.Load(), s.now()
	i := st.issuers[name]
	switch {
	case i == nil || i.Record.Name != name:
		return Errorf(NotFound, "there is no CA %s; name one generation, such as issuing-2", name)
	case st.stage(i, now) != StagePublished:
		return Errorf(Conflict, "CA %s is %s: only one that is published can be activated", name, st.stage(i, now))
	}
	if err := s.ledger.ActivateIssuer(ctx, name, now, Event{Time: now, Kind: EventIssuerActivated, Actor: actor, Issuer: name}); err != nil {
		return err
	}
	return s.Reload(ctx)
}
