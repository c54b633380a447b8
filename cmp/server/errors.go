package server

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// failInfos is what each kind of error is in CMP. Who is not authenticated by a
// signature is told signerNotTrusted instead of badMessageCheck.
var failInfos = map[ca.Kind]cmp.FailInfo{
	ca.Internal:        cmp.SystemFailure,
	ca.Malformed:       cmp.BadDataFormat,
	ca.BadPOP:          cmp.BadPOP,
	ca.BadKey:          cmp.BadCertTemplate,
	ca.Unauthenticated: cmp.BadMessageCheck,
	ca.Denied:          cmp.NotAuthorized,
	ca.BadEvidence:     cmp.NotAuthorized,
	ca.Pending:         cmp.SystemUnavail, // the request itself is answered by waiting
	ca.Conflict:        cmp.DuplicateCertReq,
	ca.RateLimited:     cmp.SystemUnavail,
	ca.Unavailable:     cmp.SystemUnavail,
	ca.NotFound:        cmp.BadRequest,
}

// refuse makes the error of a rule of CMP.
func refuse(info cmp.FailInfo, section, format string, args ...any) error {
	return &cmp.Error{Info: info, Section: section, Reason: fmt.Sprintf(format, args...)}
}

// maxText bounds the text of a status, in octets: reasons quote what clients sent.
const maxText = 1000

// status translates an error into what the peer is told, and nothing of our insides.
func status(err error, signed bool) cmp.StatusInfo {
	if e, ok := errors.AsType[*cmp.Error](err); ok {
		info := e.Status()
		info.Text = []string{printable(e.Reason)}
		return info
	}
	known := ca.AsError(err)
	info, ok := failInfos[known.Kind]
	if !ok {
		info = cmp.SystemFailure
	}
	if signed && known.Kind == ca.Unauthenticated {
		info = cmp.SignerNotTrusted
	}
	says := known.Reason
	if known.Rule != "" {
		says += " (rule " + known.Rule + ")"
	}
	if known.Kind == ca.RateLimited && known.RetryAfter > 0 { // CMP has no field for it
		says += fmt.Sprintf("; ask again in %d s", (known.RetryAfter+time.Second-1)/time.Second)
	}
	if info == cmp.SystemFailure {
		says = "internal error: the server's log says more"
	}
	return cmp.StatusInfo{Status: cmp.Rejection, Text: []string{printable(says)}, FailInfo: info}
}

// printable makes s one line of printable UTF-8 within maxText.
func printable(s string) string { return ca.OneLine(s, maxText) }

// httpError is a refusal below CMP: the message was not even looked at.
type httpError struct {
	status  int
	outcome string
	text    string
}

func (e *httpError) Error() string { return e.outcome + ": " + e.text }

var (
	errNoOperation = &httpError{http.StatusNotFound, "noOperation",
		"no CMP operation here: the path is " + Prefix + "[/p/PROFILE][/OPERATION]"}
	errMethod    = &httpError{http.StatusMethodNotAllowed, "method", "CMP messages are sent by POST (RFC 9811 §3.1)"}
	errMediaType = &httpError{http.StatusUnsupportedMediaType, "mediaType", "the request is not of Content-Type application/pkixcmp"}
	errTooLarge  = &httpError{http.StatusRequestEntityTooLarge, "tooLarge", "the message is larger than " + strconv.Itoa(MaxBody) + " octets"}
	errSlow      = &httpError{http.StatusRequestTimeout, "slow", "the body took too long to arrive"}
	errCut       = &httpError{http.StatusBadRequest, "cut", "the body ended before it was complete"}
)
