package ca

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what went wrong, in terms that every protocol can translate. Each
// protocol maps all kinds once, in its errors.go.
type Kind int

const (
	Internal        Kind = iota // a fault of ours; the client gets no detail
	Malformed                   // the message cannot be read
	BadPOP                      // proof of possession failed
	BadKey                      // the key is weak, of an unlisted kind, or known elsewhere
	Unauthenticated             // who asks is not proven
	Denied                      // who asks is known, and may not have this
	BadEvidence                 // evidence was given and does not verify
	Pending                     // an administrator must approve; ask again
	Conflict                    // at odds with an earlier request
	RateLimited                 // too much, too fast
	Unavailable                 // token or database away; it comes back
	NotFound                    // no such profile, certificate, device, …
	numKinds
)

// Kinds is every kind, for tests that must cover them all.
func Kinds() []Kind {
	all := make([]Kind, numKinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

func (k Kind) String() string {
	names := [numKinds]string{"internal", "malformed", "badPOP", "badKey", "unauthenticated", "denied", "badEvidence",
		"pending", "conflict", "rateLimited", "unavailable", "notFound"}
	if k < 0 || k >= numKinds {
		return "internal"
	}
	return names[k]
}

// Error is the one error type of the core. Reason may be shown to the
// requester; Err is for the log alone.
type Error struct {
	Kind       Kind
	Reason     string        // a sentence, saying what to do where that is known
	Rule       string        // the policy rule that refused, if one did
	RetryAfter time.Duration // with Pending, RateLimited, Unavailable
	Until      time.Time     // with Pending: when the request is forgotten
	Err        error
}

func (e *Error) Error() string {
	s := e.Kind.String() + ": " + e.Reason
	if e.Rule != "" {
		s += " (rule " + e.Rule + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error whose reason may be shown to the requester. An error
// among the arguments wrapped with %w is kept for the log as well.
func Errorf(kind Kind, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Reason: err.Error(), Err: errors.Unwrap(err)}
}

// retryUnavailable is how long a client waits for a token or database that went away.
const retryUnavailable = 5 * time.Second

// Away makes the Unavailable error: what is away is shown, why is logged.
func Away(what string, err error) *Error {
	return &Error{Kind: Unavailable, Reason: what + " does not answer at the moment; try again", RetryAfter: retryUnavailable, Err: err}
}

// AsError finds the *Error in err; anything else becomes Internal.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Kind: Internal, Reason: "internal error", Err: err}
}

// KindOf is AsError(err).Kind.
func KindOf(err error) Kind { return AsError(err).Kind }
