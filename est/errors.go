package est

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// statuses is what each kind of error is in EST.
var statuses = map[ca.Kind]int{
	ca.Internal:        http.StatusInternalServerError,
	ca.Malformed:       http.StatusBadRequest,
	ca.BadPOP:          http.StatusBadRequest,
	ca.BadAlg:          http.StatusBadRequest,
	ca.BadKey:          http.StatusBadRequest,
	ca.Unauthenticated: http.StatusUnauthorized,
	ca.Denied:          http.StatusForbidden,
	ca.BadEvidence:     http.StatusForbidden,
	ca.Pending:         http.StatusAccepted, // RFC 7030 §4.2.3
	ca.Conflict:        http.StatusConflict,
	ca.RateLimited:     http.StatusTooManyRequests,
	ca.Unavailable:     http.StatusServiceUnavailable,
	ca.NotFound:        http.StatusNotFound,
}

// httpError is a refusal below EST.
type httpError struct {
	status  int
	outcome string
	text    string
	allow   string
}

func (e *httpError) Error() string { return e.outcome + ": " + e.text }

var (
	errNoTLS = &httpError{status: http.StatusForbidden, outcome: "noTLS",
		text: "EST is served over TLS only (RFC 7030 §3.3): use https"}
	errNoOperation = &httpError{status: http.StatusNotFound, outcome: "noOperation",
		text: "no EST operation here: the path is " + Prefix + "[LABEL/] and cacerts, csrattrs, simpleenroll, simplereenroll, serverkeygen or fullcmc"}
	errNotImplemented = &httpError{status: http.StatusNotImplemented, outcome: "notImplemented",
		text: "this server does not offer that EST operation: use simpleenroll or simplereenroll"}
	errTooLarge = &httpError{status: http.StatusRequestEntityTooLarge, outcome: "tooLarge",
		text: "the certificate request is larger than " + strconv.Itoa(ca.MaxCSR) + " octets"}
	errGone = &httpError{status: http.StatusServiceUnavailable, outcome: "gone",
		text: "the client left before the answer was ready"} // which nobody reads
	errSlow = &httpError{status: http.StatusRequestTimeout, outcome: "slow",
		text: "the body took too long to arrive"}
)

func wrongMediaType(want string) error {
	return &httpError{status: http.StatusUnsupportedMediaType, outcome: "mediaType", text: "the request is not of Content-Type " + want}
}

func wrongMethod(allow string) error {
	return &httpError{status: http.StatusMethodNotAllowed, outcome: "method", text: "this EST operation wants " + allow, allow: allow}
}

// challenge asks for an enrolment credential (RFC 7617).
const challenge = `Basic realm="est", charset="UTF-8"`

// defaultRetry is what clients are told to wait where the error does not say.
const defaultRetry = 30 * time.Second

// Bounds of texts, in octets.
const (
	maxText   = 1000
	maxLogged = 4000
)

// refuse translates an error into a short plain text (RFC 8951 §5.1) that says
// what is wrong and nothing of our insides.
func refuse(err error) *reply {
	if t, ok := errors.AsType[*told](err); ok {
		return t.answer
	}
	answer := &reply{contentType: "text/plain; charset=utf-8", header: http.Header{}}
	if low, ok := errors.AsType[*httpError](err); ok {
		answer.status, answer.outcome = low.status, low.outcome
		answer.body = text(low.text)
		if low.allow != "" {
			answer.header.Set("Allow", low.allow)
		}
		return answer
	}
	known := ca.AsError(err)
	answer.status, answer.outcome = status(known.Kind), known.Kind.String()
	says := known.Reason
	if known.Rule != "" {
		says += " (rule " + known.Rule + ")"
	}
	switch answer.status {
	case http.StatusInternalServerError:
		says = "internal error: the server's log says more"
	case http.StatusUnauthorized:
		answer.header.Set("WWW-Authenticate", challenge)
	case http.StatusAccepted, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		wait := known.RetryAfter
		if wait <= 0 {
			wait = defaultRetry
		}
		seconds := (wait + time.Second - 1) / time.Second
		answer.header.Set("Retry-After", strconv.Itoa(int(seconds)))
	}
	answer.body = text(says)
	return answer
}

func status(k ca.Kind) int {
	if s, ok := statuses[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

func text(s string) []byte { return []byte(ca.OneLine(s, maxText) + "\n") }
