package ca

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// PendingRequest is a request that waits for an administrator, because the profile
// that policy grants says `approval: true`. It is durable, and found again by
// Key when the device asks anew, on whatever protocol. It holds what an
// administrator decides on, and no secret.
type PendingRequest struct {
	ID    int64        `json:"id"` // in order of asking; the paging key
	Key   [32]byte     `json:"-"`
	State PendingState `json:"state"`

	Device     string          `json:"device"`
	Level      string          `json:"level"`
	Profile    string          `json:"profile"` // that would be issued
	Protocol   string          `json:"protocol"`
	Operation  string          `json:"operation"` // "enroll", "renew"
	Names      []policy.Name   `json:"names,omitempty"`
	Algorithm  string          `json:"key"`
	KeySHA256  string          `json:"key_sha256"` // of the SubjectPublicKeyInfo, hex: to compare with the device's own
	Requester  string          `json:"requester"`  // Requester.Kind
	Actor      string          `json:"actor"`      // Requester.Actor
	Address    string          `json:"address,omitempty"`
	Credential string          `json:"credential,omitempty"` // reference, if one was used
	Decision   policy.Decision `json:"decision"`             // as it was when the device asked; it is made anew at issuance

	Created time.Time `json:"created"`
	// Expires is when the request is forgotten, decided or not: an approval not
	// fetched by then is void, and a device that was denied may ask again.
	Expires time.Time  `json:"expires"`
	Decided *time.Time `json:"decided,omitempty"`
	By      string     `json:"by,omitempty"` // actor who decided
	Reason  string     `json:"reason,omitempty"`
	Serial  Serial     `json:"serial,omitzero"` // of the certificate that spent the approval
}

// PendingState is how far a request has come.
type PendingState string

const (
	PendingWaiting  PendingState = "waiting"
	PendingApproved PendingState = "approved" // not yet fetched
	PendingDenied   PendingState = "denied"
	PendingIssued   PendingState = "issued"
	// PendingExpired is what a request is that was waiting or approved when its
	// time ran out. It is not recorded: the clock says it.
	PendingExpired PendingState = "expired"
	// PendingVoid is what a waiting or approved request is when what it was asked with
	// ended (the credential was revoked, the account deactivated, …), when the device was
	// suspended or retired, or when it made room for others. Asked again, it is a new one.
	PendingVoid PendingState = "void"
)

// PendingStates is every state.
func PendingStates() []PendingState {
	return []PendingState{PendingWaiting, PendingApproved, PendingDenied, PendingIssued, PendingExpired, PendingVoid}
}

// PendingFilter selects requests; zero fields select all.
type PendingFilter struct {
	State         PendingState
	Device        string
	device.Window // by Created
}

// PendingLimits bound how many requests wait at once: of one device, of one
// requester (a credential with all accounts bound to it, else the actor), and of all.
type PendingLimits struct{ PerDevice, PerRequester, Overall int }

// Ruling is an administrator's decision on a request.
type Ruling struct {
	Approve bool
	By      string // actor
	Reason  string // shown to the device if denied
	Time    time.Time
}

// PendingLedger is the part of the Ledger that remembers requests. What ends a credential,
// an account, a registration authority or a manufacturer, or suspends or retires a device, makes its
// requests that wait or are approved void in the same transaction, with an event EventRequestVoid for them.
type PendingLedger interface {
	// Pending finds the newest request of a key; ErrNoRecord if there is none.
	Pending(ctx context.Context, key [32]byte) (*PendingRequest, error)
	// AddPending remembers a request and sets its ID, and e.Request. If one of the same key
	// is waiting, approved or denied, and not expired at p.Created, that one is
	// returned and nothing changes. If as many wait as limits allow it is one of the errors
	// that wrap ErrCrowded; but where only Overall is reached, and a requester has at
	// least two more waiting than this one, the newest of whoever has most is made void for it.
	AddPending(ctx context.Context, p *PendingRequest, limits PendingLimits, e Event) (*PendingRequest, error)
	// DecidePending rules on a request and returns it. One that is not waiting
	// is returned as it is, with ErrDecided; ErrNoRecord if there is none.
	DecidePending(ctx context.Context, id int64, r Ruling, e Event) (*PendingRequest, error)
}

// Errors of PendingLedger, and of Record where an approval is to be spent.
var (
	ErrCrowded          = errors.New("too many requests wait for approval")
	ErrCrowdedDevice    = fmt.Errorf("%w: of this device", ErrCrowded)
	ErrCrowdedRequester = fmt.Errorf("%w: of this requester", ErrCrowded)
	ErrDecided          = errors.New("the request is not waiting")
	ErrUnapproved       = errors.New("the approval was spent, or has expired")
)

// Events of approval.
const (
	EventRequestPending  EventKind = "request.pending"
	EventRequestApproved EventKind = "request.approved"
	EventRequestDenied   EventKind = "request.denied"
	EventRequestVoid     EventKind = "request.void"
)

// ApprovalOptions adjust approval. The zero value is good.
type ApprovalOptions struct {
	RetryAfter time.Duration // what waiting devices are told; default a minute
	Lifetime   time.Duration // of a request, at most; default 7 days. A credential's own end comes first.
	MaxWaiting int           // requests that wait at once; default 1000
	// MaxPerRequester is how many of them one requester may have: a tenth of MaxWaiting, and no less than 4, if zero.
	MaxPerRequester int
}

const (
	defaultRetryPending = time.Minute
	defaultLifePending  = 7 * 24 * time.Hour
	defaultMaxWaiting   = 1000
	maxWaitingPerDevice = 4
	maxRulingReason     = 500 // octets
)

// pendingKey is what makes a request that is made anew the same request: who
// asks, for which device, the key, the names and what would be issued. The
// protocol is not part of it, nor are the octets of the message.
func (r *Request) pendingKey(device, profile string) [32]byte {
	h := sha256.New()
	enc := json.NewEncoder(h)
	spki := r.SPKI
	if r.ServerKey {
		spki = nil // made anew for each request
	}
	for _, part := range []any{r.Requester.Kind, r.Requester.mark(), device, profile, spki, r.Names} {
		enc.Encode(part)
	}
	return [32]byte(h.Sum(nil))
}

// approval finds what an administrator said about a request that policy grants.
// It returns the approval to spend, or why there is none: Pending (with
// RetryAfter), Denied, RateLimited.
func (s *Service) approval(ctx context.Context, r Request, in policy.Input, d policy.Decision, now time.Time) (*PendingRequest, error) {
	key := r.pendingKey(device.Fold(in.Device.ID), d.Profile)
	p, err := s.ledger.Pending(ctx, key)
	if err != nil && !errors.Is(err, ErrNoRecord) {
		return nil, err
	}
	if p == nil || p.State == PendingIssued || p.State == PendingVoid || !now.Before(p.Expires) {
		if p, err = s.askApproval(ctx, r, in, d, key, now); err != nil {
			return nil, err
		}
	}
	switch p.State {
	case PendingApproved:
		return p, nil
	case PendingDenied:
		return nil, Errorf(Denied, "an administrator denied request %d: %s", p.ID, p.Reason)
	}
	return nil, &Error{Kind: Pending, RetryAfter: s.retryPending(), Until: p.Expires,
		Reason: fmt.Sprintf("request %d waits for an administrator's approval: ask again with the same key and names", p.ID)}
}

// askApproval remembers a request. What it returns may be another's who was quicker.
func (s *Service) askApproval(ctx context.Context, r Request, in policy.Input, d policy.Decision, key [32]byte, now time.Time) (*PendingRequest, error) {
	o := s.opts.Approval
	sum := keyID(r.SPKI)
	p := &PendingRequest{Key: key, State: PendingWaiting, Device: in.Device.ID, Level: d.Level, Profile: d.Profile, Protocol: r.Protocol, Operation: in.Operation,
		Names: in.Names, Algorithm: in.Key, KeySHA256: hex.EncodeToString(sum[:]), Requester: string(r.Requester.Kind), Actor: r.Requester.Actor(),
		Address: r.Address, Decision: d, Created: now, Expires: now.Add(cmp.Or(o.Lifetime, defaultLifePending))}
	if c := r.Requester.Credential; c != nil {
		p.Credential = c.Reference
		if r.Requester.Account == 0 && c.Expires.Before(p.Expires) {
			p.Expires = c.Expires // nobody could fetch it later
		}
	}
	e := Event{Time: now, Kind: EventRequestPending, Actor: p.Actor, Protocol: r.Protocol, Device: p.Device,
		Outcome: string(d.Outcome), Rule: d.Rule, Policy: d.Version, Reason: "profile " + d.Profile}
	overall := cmp.Or(o.MaxWaiting, defaultMaxWaiting)
	limits := PendingLimits{maxWaitingPerDevice, cmp.Or(o.MaxPerRequester, max(maxWaitingPerDevice, overall/10)), overall}
	found, err := s.ledger.AddPending(ctx, p, limits, e)
	if errors.Is(err, ErrCrowded) {
		return nil, &Error{Kind: RateLimited, RetryAfter: s.retryPending(),
			Reason: err.Error() + ": have an administrator decide on those, then ask again"}
	}
	return found, err
}

func (s *Service) retryPending() time.Duration {
	return cmp.Or(s.opts.Approval.RetryAfter, defaultRetryPending)
}

// DecideRequest approves or denies a request that waits. A denial needs a
// reason, which the device is told. The first decision stands.
//
// Errors: Malformed, NotFound, Conflict (decided already, or expired).
func (s *Service) DecideRequest(ctx context.Context, id int64, approve bool, reason, actor string) (*PendingRequest, error) {
	reason = strings.TrimSpace(reason)
	switch {
	case !approve && reason == "":
		return nil, Errorf(Malformed, "a denial needs a reason: the device is told it")
	case len(reason) > maxRulingReason:
		return nil, Errorf(Malformed, "the reason is longer than %d octets", maxRulingReason)
	}
	now, kind := s.now(), EventRequestDenied
	if approve {
		kind = EventRequestApproved
	}
	p, err := s.ledger.DecidePending(ctx, id, Ruling{Approve: approve, By: actor, Reason: reason, Time: now},
		Event{Time: now, Kind: kind, Actor: actor, Reason: reason, Request: id})
	switch {
	case errors.Is(err, ErrNoRecord):
		return nil, Errorf(NotFound, "there is no request %d; list them with `request list`", id)
	case errors.Is(err, ErrDecided) && p.State == PendingExpired:
		return nil, Errorf(Conflict, "request %d expired at %s; the device has to ask again", id, p.Expires.UTC().Format(time.RFC3339))
	case errors.Is(err, ErrDecided):
		return nil, Errorf(Conflict, "request %d was decided already: %s by %s at %s", id, p.ruling(), p.By, p.Decided.UTC().Format(time.RFC3339))
	}
	return p, err
}

// ruling is what was decided; an approval that was spent is one too.
func (p *PendingRequest) ruling() PendingState {
	if p.State == PendingIssued {
		return PendingApproved
	}
	return p.State
}
