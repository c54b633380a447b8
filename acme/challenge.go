package acme

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/ca"
)

// challengeObject is a challenge as clients see it (RFC 8555 §7.1.5).
type challengeObject struct {
	Type      string     `json:"type"`
	URL       string     `json:"url"`
	Status    Status     `json:"status"`
	Token     string     `json:"token"`
	Validated *time.Time `json:"validated,omitempty"`
	Error     *Problem   `json:"error,omitempty"`
}

func (x *exchange) challengeObject(a *Authorization, c Challenge) challengeObject {
	v := challengeObject{Type: c.Type, URL: x.url("challenge", a.ID, c.Type), Status: c.Status, Token: c.Token, Validated: c.Validated}
	if c.Error != nil {
		v.Error = c.Error.document()
	}
	return v
}

func (x *exchange) showChallenge(a *Authorization, c Challenge) *reply {
	answer := &reply{body: x.challengeObject(a, c), links: []string{link(x.url("authorization", a.ID), "up")}} // RFC 8555 §7.1
	if c.Status == Processing {
		answer.retryAfter = retryProcessing
	}
	return answer
}

// challenge shows a challenge, or takes the client's word that it is met (RFC 8555 §7.5.1).
func (x *exchange) challenge() (*reply, error) {
	a, err := x.ownAuthorization()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(a.Challenges, func(c Challenge) bool { return c.Type == chi.URLParam(x.r, "type") })
	if i < 0 {
		return nil, notFound()
	}
	c := &a.Challenges[i]
	switch status := a.StatusAt(x.now); {
	case x.asGet || c.Status != Pending: // said twice is said once
		return x.showChallenge(a, *c), nil
	case status != Pending:
		return nil, problem(malformed, "the authorization is %s already", status)
	case a.Busy():
		return nil, problem(malformed, "another challenge of this authorization is being validated")
	}
	if err := x.mayProve(a); err != nil {
		return nil, err
	}
	if err := x.limits.mayTry(x.who.ID, x.now); err != nil {
		return nil, err
	}
	if c.Type == deviceAttest {
		return x.attest(a, c)
	}
	if x.Validators[c.Type] == nil {
		return nil, problem(malformed, "challenges of type %s are no longer validated here: make a new order", c.Type)
	}
	if err := x.queue.room(x.who.ID); err != nil {
		return nil, err
	}
	// Durable first: a restart takes it up again.
	c.Status = Processing
	err = x.Ledger.SaveAuthorization(x.ctx(), a)
	if errors.Is(err, ErrStale) {
		return nil, meanwhile()
	}
	if err != nil {
		return nil, err
	}
	x.submit(job{a.ID, x.who.ID, x.who.Thumbprint})
	return x.showChallenge(a, *c), nil
}

// mayProve asks whether the account still stands for the device whose name it proves: nothing is
// looked up for one whose credential was revoked.
func (x *exchange) mayProve(a *Authorization) error {
	requester, err := x.Authority.AccountRequester(x.ctx(), x.who.ID, x.who.Credential, []ca.SAN{{Form: "permanent-identifier", Value: a.Device}})
	if err != nil {
		return err
	}
	if err := x.Authority.MayActFor(x.ctx(), requester, ca.Deed{Act: ca.ActEnrol, Device: a.Device}); err != nil {
		return x.discreet(err)
	}
	return nil
}

func meanwhile() error {
	return problem(malformed, "the authorization was changed meanwhile: look at it again").with(http.StatusConflict)
}

// keyAuthorization is what shows that a challenge was met on behalf of an account key (RFC 8555 §8.1).
func keyAuthorization(token string, thumbprint [32]byte) string {
	return token + "." + base64url.EncodeToString(thumbprint[:])
}

// validate looks whether a challenge is met, and stores what it found. An error leaves the challenge as it was.
func (s *Server) validate(ctx context.Context, j job) error {
	a, err := s.Ledger.Authorization(ctx, j.authorization)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && !a.Busy() {
		return nil
	}
	if err != nil {
		return err
	}
	c := &a.Challenges[slices.IndexFunc(a.Challenges, func(c Challenge) bool { return c.Status == Processing })]
	if j.thumbprint == [32]byte{} {
		account, err := s.Ledger.Account(ctx, j.account)
		if err != nil {
			return err
		}
		j.thumbprint = account.Thumbprint
	}
	start := time.Now()
	problem := s.look(ctx, a, c, j)
	if ctx.Err() != nil {
		return ctx.Err() // of the server that stops, not of the client
	}
	outcome := "ok"
	if problem == nil {
		s.met(a, c)
	} else {
		s.failed(a, c, problem)
		outcome = problem.Type
	}
	if s.Observe != nil {
		s.Observe("validate", outcome, time.Since(start))
	}
	err = s.Ledger.SaveAuthorization(ctx, a)
	if errors.Is(err, ErrStale) {
		return nil // deactivated meanwhile
	}
	if err == nil {
		s.Logger.Info("challenge", "protocol", "acme", "account", a.Account, "device", a.Device, "type", c.Type, "identifier", visible(a.Identifier.Value), "outcome", outcome)
	}
	return err
}

// look asks the validator; nil if the challenge is met.
func (s *Server) look(ctx context.Context, a *Authorization, c *Challenge, j job) *Problem {
	validator := s.Validators[c.Type]
	if validator == nil {
		return problem(malformed, "challenges of type %s are no longer validated here: make a new order", c.Type)
	}
	err := validator.Validate(ctx, ValidationRequest{Type: c.Type, Identifier: a.Identifier, Token: c.Token,
		KeyAuthorization: keyAuthorization(c.Token, j.thumbprint)})
	if err == nil {
		return nil
	}
	why, ok := errors.AsType[*ValidationError](err)
	if !ok {
		return problem("connection", "there was no result in time")
	}
	if _, known := statuses[why.Problem]; !known {
		why.Problem = unauthorized
	}
	return problem(why.Problem, "%s", why.Detail)
}

// met makes an authorization valid by one of its challenges.
func (s *Server) met(a *Authorization, c *Challenge) {
	now := s.Now().UTC().Truncate(time.Microsecond)
	c.Status, c.Validated = Valid, &now
	a.Status, a.Way, a.Validated = Valid, c.Type, now
	// A valid one serves the orders of its account for as long as policy lets it, and lets the
	// account revoke; its own order knows its own end.
	a.Expires = now.Add(authorizationLife)
}

// authorizationLife is how long a valid authorization is one. What reuse allows is less or more of it, as
// policy says; see reusable.
const authorizationLife = 30 * 24 * time.Hour

// failed makes an authorization invalid, and with it its orders (RFC 8555 §7.1.6).
func (s *Server) failed(a *Authorization, c *Challenge, why *Problem) {
	now := s.Now().UTC().Truncate(time.Microsecond)
	c.Status, c.Validated, c.Error = Invalid, &now, why
	a.Status = Invalid
	s.limits.failed(a.Account, now)
}
