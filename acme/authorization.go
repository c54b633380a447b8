package acme

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// deviceAttest is the challenge that is met by evidence (draft-ietf-acme-device-attest §5).
const deviceAttest = "device-attest-01"

// authorize finds or makes the authorization of each identifier of an order. Those that are
// there already have an ID.
func (x *exchange) authorize(o *Order, p *ca.Prospect) ([]*Authorization, error) {
	var all []*Authorization
	var refused []Problem
	for i := range o.Identifiers {
		a := &Authorization{Account: o.Account, Identifier: o.Identifiers[i], Device: p.Device.ID, Status: Pending, Created: o.Created, Expires: o.Expires}
		if name, ok := strings.CutPrefix(a.Identifier.Value, "*."); ok && a.Identifier.Type == "dns" {
			a.Identifier.Value, a.Wildcard = name, true // RFC 8555 §7.1.4
		}
		ways := p.ACME.Authorize[a.Identifier.Type]
		there, err := x.reusable(a, ways, p.ACME.Reuse)
		if err != nil {
			return nil, err
		}
		if there != nil {
			all = append(all, there)
			continue
		}
		if err := x.challenges(a, ways); err != nil {
			return nil, err
		}
		if a.Status == Pending && len(a.Challenges) == 0 {
			refused = append(refused, Problem{Type: rejectedIdentifier, Identifier: &o.Identifiers[i], Detail: visible("level " + p.Device.Level + " wants this name authorized by " +
				strings.Join(ways, " or ") + ", which this server cannot do for it at the moment")})
		}
		all = append(all, a)
	}
	return all, compound(refused)
}

// reusable finds a valid authorization that policy lets serve again; nil if there is none.
func (x *exchange) reusable(a *Authorization, ways []string, reuse time.Duration) (*Authorization, error) {
	if reuse <= 0 {
		return nil, nil
	}
	there, err := x.Ledger.ValidAuthorization(x.ctx(), a.Account, a.Identifier, a.Wildcard, x.now.Add(-reuse), x.now)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && (!device.SameID(there.Device, a.Device) || !slices.Contains(ways, there.Way)) {
		return nil, nil
	}
	return there, err
}

// challenges gives an authorization its challenges, or makes it valid where the account's binding is enough.
func (x *exchange) challenges(a *Authorization, ways []string) error {
	a.Challenges = []Challenge{}
	for _, way := range ways {
		switch {
		case way == policy.ByBinding:
			if x.who.Credential != "" && !a.Wildcard {
				a.Status, a.Way, a.Validated, a.Challenges = Valid, way, x.now, []Challenge{}
				return nil
			}
			continue
		case way == deviceAttest:
			formats, err := x.formats()
			if err != nil {
				return err
			}
			if len(formats) == 0 {
				continue
			}
		case a.Wildcard && way != "dns-01", x.Validators[way] == nil: // RFC 8555 §7.4.1
			continue
		}
		a.Challenges = append(a.Challenges, Challenge{Type: way, Token: newToken(), Status: Pending})
	}
	return nil
}

// newToken is 256 random bits in base64url (RFC 8555 §8.1 wants 128).
func newToken() string {
	var raw [32]byte
	rand.Read(raw[:])
	return base64url.EncodeToString(raw[:])
}

// format is a format of evidence with its verifier and the manufacturers that vouch by it.
type format struct {
	attest.Verifier
	manufacturers []ca.Attesting
}

// formats are those that can be used now: without anchors, nothing could be believed.
func (x *exchange) formats() ([]format, error) {
	var usable []format
	for _, v := range x.Verifiers {
		manufacturers, err := x.Authority.Attesting(x.ctx(), v.Format())
		if err != nil {
			return nil, err
		}
		if len(manufacturers) > 0 {
			usable = append(usable, format{v, manufacturers})
		}
	}
	return usable, nil
}

// authorizationObject is an authorization as clients see it (RFC 8555 §7.1.4).
type authorizationObject struct {
	Identifier Identifier        `json:"identifier"`
	Status     Status            `json:"status"`
	Expires    time.Time         `json:"expires"`
	Challenges []challengeObject `json:"challenges"`
	Wildcard   bool              `json:"wildcard,omitempty"`
}

func (x *exchange) showAuthorization(a *Authorization) *reply {
	status := a.StatusAt(x.now)
	v := authorizationObject{Identifier: a.Identifier, Status: status, Expires: a.Expires.UTC().Truncate(time.Second), Wildcard: a.Wildcard, Challenges: []challengeObject{}}
	for _, c := range a.Challenges {
		// Of one that is decided, what decided it (RFC 8555 §7.1.4).
		if status == Pending || c.Status == Valid || c.Status == Invalid {
			v.Challenges = append(v.Challenges, x.challengeObject(a, c))
		}
	}
	answer := &reply{body: v}
	if a.Busy() {
		answer.retryAfter = retryProcessing
	}
	return answer
}

// ownAuthorization reads the authorization of the path.
func (x *exchange) ownAuthorization() (*Authorization, error) {
	id, err := x.pathID()
	if err != nil {
		return nil, err
	}
	a, err := x.Ledger.Authorization(x.ctx(), id)
	if errors.Is(err, ca.ErrNoRecord) || err == nil && a.Account != x.who.ID {
		return nil, notFound()
	}
	return a, err
}

// authorization shows an authorization, or deactivates it (RFC 8555 §7.5, §7.5.2).
func (x *exchange) authorization() (*reply, error) {
	a, err := x.ownAuthorization()
	if err != nil {
		return nil, err
	}
	if x.asGet {
		return x.showAuthorization(a), nil
	}
	if status, err := x.body.text("status"); err != nil || status != string(Deactivated) {
		return nil, problem(malformed, `an authorization can be made deactivated ({"status": "deactivated"}), and nothing else`)
	}
	if now := a.StatusAt(x.now); now != Pending && now != Valid && now != Deactivated {
		return nil, problem(malformed, "the authorization is %s and cannot be deactivated", now)
	}
	a.Status = Deactivated
	for i := range a.Challenges {
		if c := &a.Challenges[i]; c.Status == Processing {
			c.Status = Pending // nobody looks at it any more
		}
	}
	err = x.Ledger.SaveAuthorization(x.ctx(), a)
	if errors.Is(err, ErrStale) {
		return nil, problem(malformed, "the authorization was changed meanwhile: try again").with(409)
	}
	if err != nil {
		return nil, err
	}
	return x.showAuthorization(a), nil
}
