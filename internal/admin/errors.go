package admin

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// Problem is an error as the API sends it (RFC 9457, application/problem+json)
// and as the client returns it.
type Problem struct {
	Type       string        `json:"type"` // "urn:deviceca:problem:" and the kind
	Title      string        `json:"title"`
	Status     int           `json:"status"`
	Detail     string        `json:"detail,omitempty"`
	Kind       string        `json:"kind"`                  // ca.Kind
	Rule       string        `json:"rule,omitempty"`        // the policy rule that refused
	RetryAfter int           `json:"retry_after,omitempty"` // seconds; as the header
	Faults     policy.Faults `json:"faults,omitempty"`      // of a policy file
}

// Error is the detail, or every fault of a policy.
func (p *Problem) Error() string {
	s := p.Detail
	if s == "" {
		s = fmt.Sprintf("%s (HTTP %d)", p.Title, p.Status)
	}
	if p.Rule != "" {
		s += " (rule " + p.Rule + ")"
	}
	return s
}

// mapping says what each kind of the core is over HTTP.
var mapping = map[ca.Kind]struct {
	status int
	title  string
}{
	ca.Internal:        {http.StatusInternalServerError, "internal error"},
	ca.Malformed:       {http.StatusBadRequest, "the request cannot be read"},
	ca.BadPOP:          {http.StatusBadRequest, "proof of possession failed"},
	ca.BadAlg:          {http.StatusBadRequest, "the signature algorithm is not accepted"},
	ca.BadKey:          {http.StatusBadRequest, "the key is not acceptable"},
	ca.Unauthenticated: {http.StatusUnauthorized, "not authenticated"},
	ca.Denied:          {http.StatusForbidden, "not allowed"},
	ca.BadEvidence:     {http.StatusForbidden, "the evidence does not verify"},
	// Nothing an administrator asks for waits for another; were it to, this is no success.
	ca.Pending:     {http.StatusConflict, "waiting for approval"},
	ca.Conflict:    {http.StatusConflict, "conflict"},
	ca.RateLimited: {http.StatusTooManyRequests, "too many requests"},
	ca.Unavailable: {http.StatusServiceUnavailable, "not available at the moment"},
	ca.NotFound:    {http.StatusNotFound, "not found"},
}

// statusError is an error of HTTP itself, for which the kind alone is too coarse.
type statusError struct {
	status int
	err    *ca.Error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

func failure(status int, kind ca.Kind, reason string) error {
	return &statusError{status, &ca.Error{Kind: kind, Reason: reason}}
}

// problem is the one place where errors become answers.
func problem(err error) *Problem {
	e := ca.AsError(err)
	m := mapping[e.Kind]
	p := &Problem{
		Type:   "urn:deviceca:problem:" + e.Kind.String(),
		Title:  m.title,
		Status: m.status,
		Kind:   e.Kind.String(),
		Detail: e.Reason,
		Rule:   e.Rule,
	}
	if e.Kind == ca.Internal {
		p.Detail = "the server's log says more"
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		p.Status, p.Title = s.status, strings.ToLower(http.StatusText(s.status))
	}
	if faults, ok := errors.AsType[policy.Faults](err); ok {
		p.Faults = faults
	}
	if e.RetryAfter > 0 {
		p.RetryAfter = int(math.Ceil(e.RetryAfter.Seconds()))
	}
	return p
}

// fail answers with an error, and logs what is not the client's doing.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem(err)
	if p.Status >= http.StatusInternalServerError {
		a.Logger.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "outcome", p.Kind, "err", err)
	} else {
		a.Logger.Debug("admin request refused", "method", r.Method, "path", r.URL.Path, "outcome", p.Kind, "err", err)
	}
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		// RFC 9110 §11.6.1 wants a challenge; TLS client certificates have no registered scheme.
		w.Header().Set("WWW-Authenticate", `ClientCertificate realm="deviceca admin"`)
	}
	writeJSON(w, p.Status, "application/problem+json", p)
}

// missing turns "no such record" into NotFound with a name; other errors pass.
func missing(err error, format string, args ...any) error {
	if errors.Is(err, ca.ErrNoRecord) {
		return ca.Errorf(ca.NotFound, format, args...)
	}
	return err
}
