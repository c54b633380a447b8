package acme

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Problem is an error as clients are told it: a problem document (RFC 7807, RFC 8555
// §6.7). Type is the last word of the type URN.
type Problem struct {
	Type        string      `json:"type"`
	Detail      string      `json:"detail,omitempty"`
	Status      int         `json:"status,omitempty"` // of HTTP
	Identifier  *Identifier `json:"identifier,omitempty"`
	Subproblems []Problem   `json:"subproblems,omitempty"`
	// Algorithms come with badSignatureAlgorithm: those that we take (RFC 8555 §6.2).
	Algorithms []string `json:"algorithms,omitempty"`

	retryAfter time.Duration
	location   string // of what is there already
	terms      bool   // with a link to the terms of service
	cause      error  // for the log
}

const urn = "urn:ietf:params:acme:error:"

func (p *Problem) Error() string {
	s := p.Type + ": " + p.Detail
	if p.cause != nil {
		s += ": " + p.cause.Error()
	}
	return s
}

func (p *Problem) Unwrap() error { return p.cause }

// The types of problems that we tell of (RFC 8555 §6.7, RFC 9773 §7.4, and the drafts on
// profiles §6.3 and device attestation §9.3), each with its usual HTTP status.
var statuses = map[string]int{
	"accountDoesNotExist": http.StatusBadRequest,
	"alreadyReplaced":     http.StatusConflict,
	"alreadyRevoked":      http.StatusBadRequest,
	badAttestation:        http.StatusForbidden,
	"badCSR":              http.StatusBadRequest,
	badNonce:              http.StatusBadRequest,
	"badPublicKey":        http.StatusBadRequest,
	"badRevocationReason": http.StatusBadRequest,
	badAlgorithm:          http.StatusBadRequest,
	"connection":          http.StatusForbidden,
	"dns":                 http.StatusForbidden,
	"tls":                 http.StatusForbidden,
	"incorrectResponse":   http.StatusForbidden,
	externalAccount:       http.StatusForbidden,
	"invalidContact":      http.StatusBadRequest,
	"invalidProfile":      http.StatusBadRequest,
	malformed:             http.StatusBadRequest,
	"orderNotReady":       http.StatusForbidden,
	"rateLimited":         http.StatusTooManyRequests,
	rejectedIdentifier:    http.StatusForbidden,
	serverInternal:        http.StatusInternalServerError,
	unauthorized:          http.StatusForbidden,
	"unsupportedContact":  http.StatusBadRequest,
	unsupportedIdentifier: http.StatusBadRequest,
	"userActionRequired":  http.StatusForbidden,
}

const (
	badAlgorithm          = "badSignatureAlgorithm"
	badAttestation        = "badAttestationStatement"
	badNonce              = "badNonce"
	externalAccount       = "externalAccountRequired"
	malformed             = "malformed"
	rejectedIdentifier    = "rejectedIdentifier"
	serverInternal        = "serverInternal"
	unauthorized          = "unauthorized"
	unsupportedIdentifier = "unsupportedIdentifier"
)

// problem makes one of a type of statuses. An error wrapped with %w is kept for the log.
func problem(kind, format string, args ...any) *Problem {
	err := fmt.Errorf(format, args...)
	return &Problem{Type: kind, Detail: visible(err.Error()), Status: statuses[kind], cause: errors.Unwrap(err)}
}

// with sets another HTTP status.
func (p *Problem) with(status int) *Problem {
	p.Status = status
	return p
}

// notFound is the one answer to resources that are not there and to those of others,
// so that nobody learns which there are.
func notFound() *Problem {
	return problem(malformed, "there is no such resource of this account").with(http.StatusNotFound)
}

// mapped says what each kind of error is in ACME.
var mapped = map[ca.Kind]struct {
	problem string
	status  int
}{
	ca.Internal:        {serverInternal, http.StatusInternalServerError},
	ca.Malformed:       {malformed, http.StatusBadRequest},
	ca.BadPOP:          {"badCSR", http.StatusBadRequest},
	ca.BadKey:          {"badPublicKey", http.StatusBadRequest},
	ca.Unauthenticated: {unauthorized, http.StatusForbidden},
	ca.Denied:          {unauthorized, http.StatusForbidden},
	ca.BadEvidence:     {badAttestation, http.StatusForbidden},
	ca.Pending:         {"orderNotReady", http.StatusForbidden}, // the order itself says processing
	ca.Conflict:        {"orderNotReady", http.StatusForbidden},
	ca.RateLimited:     {"rateLimited", http.StatusTooManyRequests},
	ca.Unavailable:     {serverInternal, http.StatusServiceUnavailable},
	ca.NotFound:        {malformed, http.StatusNotFound},
}

// defaultRetry is what a client is told to wait where the core does not say.
const defaultRetry = 5 * time.Second

// refuse translates an error into what the client is told, and nothing of our insides.
func refuse(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	known := ca.AsError(err)
	to, ok := mapped[known.Kind]
	if !ok {
		to = mapped[ca.Internal]
	}
	says := known.Reason
	if known.Rule != "" {
		says += " (rule " + known.Rule + ")"
	}
	if to.status == http.StatusInternalServerError {
		says = "internal error: the server's log says more"
	}
	p := &Problem{Type: to.problem, Status: to.status, Detail: visible(says), retryAfter: known.RetryAfter, cause: err}
	if p.retryAfter <= 0 && (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests) {
		p.retryAfter = defaultRetry
	}
	return p
}

// document is the problem as it is sent, its types made whole.
func (p *Problem) document() *Problem {
	d := *p
	d.Type = urn + p.Type
	d.Subproblems = nil
	for i := range p.Subproblems {
		d.Subproblems = append(d.Subproblems, *p.Subproblems[i].document())
	}
	return &d
}

// maxText bounds what is told, in octets: reasons quote what clients sent.
const maxText = 1000

// visible makes s one line of printable UTF-8 within maxText.
func visible(s string) string { return ca.OneLine(s, maxText) }
