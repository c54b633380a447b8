package client

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Kind says what went wrong, so that a caller knows what to do about it.
type Kind int

const (
	Usage           Kind = iota // the configuration cannot work; nothing was sent
	Local                       // a file, a key or the local clock
	Unreachable                 // no answer; may come back
	Untrusted                   // the server did not prove that it is the one meant
	Busy                        // 429, 503 and the like, for longer than we were told to wait
	Pending                     // the CA waits for a person; ask again with the same request
	Unauthenticated             // the server does not accept the credential or certificate
	Refused                     // the server knows who asks and says no
	BadRequest                  // the server cannot use the request
	BadReply                    // the answer is not what a CA may send; nothing was written
)

func (k Kind) String() string {
	names := [...]string{"usage", "local", "unreachable", "untrusted", "busy", "pending", "unauthenticated", "refused",
		"bad request", "bad reply"}
	if k < 0 || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Error is the error type of this package.
type Error struct {
	Kind       Kind
	Op         string        // what was being done: "cacerts", "simpleenroll", "save", …
	Status     int           // HTTP status, 0 where there was none
	Text       string        // what is wrong; the server's own words where it gave any, made printable
	Hint       string        // what to do about it, may be ""
	RetryAfter time.Duration // with Pending and Busy: when the server wants to be asked again, at most a day
	Asked      time.Duration // what the server asked for, where it is longer than RetryAfter
	Err        error
}

// wait sets RetryAfter to what the server asks for, within bounds.
func (e *Error) wait(asked time.Duration) *Error {
	if e.RetryAfter = min(asked, maxWait); asked > maxWait {
		e.Asked = asked
	}
	return e
}

// Error is one line for each error joined in it, fit to show on a terminal: the errors beneath, of TLS and HTTP, repeat what
// a server sent.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	b.WriteString(e.Text)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Asked > 0 {
		fmt.Fprintf(&b, " (the server asks to wait %v; this client waits %v at most)", e.Asked, e.RetryAfter)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	const limit = 4000
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return '.'
		}
		return r
	}, b.String()[:min(b.Len(), limit)])
}

func (e *Error) Unwrap() error { return e.Err }

// Final reports whether asking again with the same means is pointless.
func (e *Error) Final() bool {
	switch e.Kind {
	case Unreachable, Busy, Pending:
		return false
	}
	return true
}

// KindOf is the kind of the first Error in err, Local when there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Local
}

// HintOf is the hint of the first Error in err that has one, else "".
func HintOf(err error) string {
	for err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}

// printable makes a server's text fit to show on a terminal or in a log: one line,
// no control characters, at most 500 characters.
func printable(s string) string {
	const limit = 500
	var b strings.Builder
	n := 0
	for _, r := range strings.Join(strings.Fields(s), " ") {
		if n == limit {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = '.'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
