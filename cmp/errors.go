package cmp

import (
	"errors"
	"fmt"
)

// Error says why a message was refused, and what to answer.
type Error struct {
	Info    FailInfo // the bit to answer with
	Section string   // the rule that was broken, such as "RFC 9483 §3.5"
	Reason  string   // what is wrong, for a log and, as it holds no secrets, for the peer
	Err     error    // the cause, if there is one
}

// Error implements error.
func (e *Error) Error() string {
	s := fmt.Sprintf("%s (%s, %s)", e.Reason, e.Info, e.Section)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Status makes the PKIStatusInfo that tells the peer (RFC 9483 §3.6.4): a
// rejection with the reason and the bit, without the cause.
func (e *Error) Status() StatusInfo {
	return StatusInfo{Status: Rejection, Text: []string{e.Reason}, FailInfo: e.Info}
}

// StatusOf makes the PKIStatusInfo for any error: that of the [Error] in its
// chain, or else systemFailure without detail.
func StatusOf(err error) StatusInfo {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status()
	}
	return StatusInfo{Status: Rejection, FailInfo: SystemFailure}
}

func refuse(info FailInfo, section, format string, args ...any) *Error {
	return &Error{Info: info, Section: section, Reason: fmt.Sprintf(format, args...)}
}

const generic = "RFC 9483 §3.5"
