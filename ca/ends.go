package ca

import (
	"fmt"
	"time"
)

// rotationLead is how long before certificates are shortened an administrator is warned: time to
// rotate a CA, to let it be published, and to ask for the root's token.
const rotationLead = 30 * 24 * time.Hour

// rootLead is the same of a root: time for every device and relying party to learn the next one.
const rootLead = 365 * 24 * time.Hour

// retryEnded is when a client may ask a CA again that has expired: a person must act first.
const retryEnded = 10 * time.Minute

// ended is the error of what a CA that has expired should issue; nil while it is valid.
func (i *Issuer) ended(now time.Time) error {
	if now.Before(i.Cert.NotAfter) {
		return nil
	}
	return &Error{Kind: Unavailable, RetryAfter: retryEnded,
		Reason: fmt.Sprintf("the CA %s expired at %s and issues nothing any more, until its operator makes the next one", i.Record.Name, i.Cert.NotAfter.UTC().Format(time.RFC3339))}
}

// Warning says that a CA in force nears its end, or has passed it; "" if it does not.
func (s *Service) Warning(name string) string {
	st, now := s.current.Load(), s.now()
	i := st.issuers[name]
	if i == nil || st.issuers[i.Record.Role] != i || i.Record.Role == "cross" {
		return ""
	}
	end, left, role := i.Cert.NotAfter.UTC().Format(time.RFC3339), i.Cert.NotAfter.Sub(now), i.Record.Role
	if left <= 0 {
		return fmt.Sprintf("it expired at %s: nothing is issued; make the next one with: deviceca ca rotate %s --now", end, role)
	}
	if s.MayRotate(role) != nil {
		return "" // the next one waits
	}
	longest := st.longest(role)
	switch {
	case i.Record.IsRoot() && left < rootLead:
		return fmt.Sprintf("it ends at %s, and all that stands below it: make the next one, so that everybody learns it before", end)
	case i.Record.IsRoot():
	case left < longest:
		return fmt.Sprintf("it ends at %s, so certificates are cut short: make the next one with: deviceca ca rotate %s", end, role)
	case left < longest+rotationLead:
		return fmt.Sprintf("it ends at %s, and from %s on certificates are cut short: make the next one with: deviceca ca rotate %s",
			end, i.Cert.NotAfter.Add(-longest).UTC().Format(time.RFC3339), role)
	}
	return ""
}

// longest is the longest life that a certificate of a role's CA may be given.
func (st *state) longest(role string) time.Duration {
	longest := time.Duration(builtinLife)
	for g := range st.policy.Grants() {
		if p := st.profiles[g.Profile]; p != nil && p.Profile.Issuer == role {
			longest = max(longest, g.Validity)
		}
	}
	return longest
}
