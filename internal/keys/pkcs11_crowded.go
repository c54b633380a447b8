//go:build cgo

package keys

import (
	"context"
	"errors"
	"time"

	"github.com/miekg/pkcs11"
)

// A token may allow fewer sessions than the pool has places, and not say so; or other programs have
// some of them. Only C_OpenSession tells. Then the place rests that has no session, and its caller
// waits for another, whose session is open.

const (
	// restTime is how long a place rests: then the token is asked anew, for others may have gone.
	restTime = time.Minute
	// crowdedPause is how long the holder of the last place, which never rests, waits before it asks again.
	crowdedPause = 20 * time.Millisecond
)

// tooMany reports whether the token had no session left. It did nothing then.
func tooMany(err error) bool {
	return errors.Is(err, pkcs11.Error(pkcs11.CKR_SESSION_COUNT))
}

// rest takes the caller's place out of the pool for a while, unless it is the last.
func (t *token) rest() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.resting >= cap(t.places)-1 {
		return false
	}
	if t.resting++; t.resting == 1 {
		t.opts.Logger.Warn("the token has fewer sessions free than configured: callers wait for those that it gives",
			"token", t.uri.Token, "serial", t.uri.Serial, "configured", cap(t.places))
	}
	t.healer.Go(func() {
		select {
		case <-t.stop:
		case <-time.After(restTime):
		}
		t.mu.Lock()
		t.resting--
		t.mu.Unlock()
		<-t.places
	})
	return true
}

// pause waits before the token is asked for a session again.
func (t *token) pause(ctx context.Context) error {
	select {
	case <-time.After(crowdedPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stop:
		return errClosed
	}
}
