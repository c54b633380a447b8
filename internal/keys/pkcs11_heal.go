//go:build cgo

package keys

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

const (
	// A token that is away is asked this often, the first pause doubling up to
	// the longest: so it serves again within about a second of its return.
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second

	// youth is how long a connection must last before its loss counts as news.
	// One lost earlier is not replaced at once, or a token that connects but
	// cannot work would be logged into without end.
	youth = 5 * time.Second
)

// lose drops a connection that failed and starts its replacement, once.
func (t *token) lose(c *conn, cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.live.Load() != c {
		return // another caller was first
	}
	t.live.Store(nil)
	t.cause = cause
	tried := make(chan struct{})
	t.tried = tried
	t.healer.Go(func() { t.heal(c, cause, tried) })
}

// heal makes a new connection: at first new sessions and a new login, then with
// the module initialised anew, until it holds or the PIN is refused.
func (t *token) heal(old *conn, cause error, tried chan struct{}) {
	log := t.opts.Logger.With("token", t.uri.Token, "serial", t.uri.Serial)
	level := slog.LevelWarn
	if errors.Is(cause, errStale) {
		level = slog.LevelDebug // another token of the module was away, not this one
	}
	log.Log(context.Background(), level, "token lost", "err", cause)
	began := time.Now()
	old.drop()
	pause := time.Duration(0)
	restart := false
	if !errors.Is(cause, errStale) && time.Since(old.made) < youth {
		close(tried)
		tried, pause, restart = nil, firstPause, true
	}
	seen := old.epoch
	for {
		select {
		case <-t.stop:
			return
		case <-time.After(pause):
		}
		err := error(nil)
		if restart {
			err = t.m.restart(seen)
		}
		seen = t.m.current()
		var c *conn
		if err == nil {
			c, err = t.reconnect(seen)
		}
		t.mu.Lock()
		if t.cause = err; err == nil {
			t.live.Store(c)
		}
		t.mu.Unlock()
		if tried != nil {
			close(tried)
			tried = nil
		}
		if err == nil {
			log.Log(context.Background(), min(level, slog.LevelInfo), "token back", "after", time.Since(began))
			return
		}
		if errors.Is(err, ErrPIN) {
			log.Error("token refuses the PIN; giving up until the next start", "err", err)
			return
		}
		log.Debug("token still away", "err", err)
		restart = true
		pause = min(max(2*pause, firstPause), longestPause)
	}
}

// reconnect makes a connection, tries it, and looks whether the keys are still
// those that were loaded.
func (t *token) reconnect(epoch uint64) (*conn, error) {
	c, err := connect(t.m, epoch, t.uri, t.pin)
	if err != nil {
		return nil, err
	}
	err = c.call(t.probe)
	if err == nil {
		err = c.call(t.compareKeys)
	}
	if err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}
