package ca

import (
	"context"
	"time"
)

// retryClosed is how long a client waits for a CA that is closed: people open it.
const retryClosed = 2 * time.Minute

// Closed is what to answer while the CA is closed: its ledger was restored from a backup, and until an administrator has
// acknowledged that, nobody is told anything that may have changed since.
func Closed() *Error {
	return &Error{Kind: Unavailable, Reason: "this CA was restored from a backup and is closed until its administrator opens it; try again later", RetryAfter: retryClosed}
}

// closed reports that no requester is served at the moment: who was suspended, revoked or removed since the backup may have
// come back with it.
func (s *Service) closed(ctx context.Context) error {
	if s.opts.Closed == nil {
		return nil
	}
	return s.opts.Closed(ctx)
}
