//go:build cgo

package keys

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// token is the PKCS#11 Provider.
//
// A call takes a place in the pool (admit), then the live connection
// (connected), then a session of it, and returns all three. When a call shows
// that the connection is lost, the connection is dropped whole and one
// goroutine makes the next (heal); until then callers fail at once.
type token struct {
	m    *module
	uri  *URI // of the token alone
	pin  PINSource
	opts Options

	// places bounds the sessions in use, those stuck in the module included;
	// with it, the sessions ever open.
	places  chan struct{}
	waiting atomic.Int64
	making  chan struct{} // held while a key is made, so that a label stays unique

	live   atomic.Pointer[conn] // nil while the token is away
	known  atomic.Pointer[tokenKey]
	failed atomic.Pointer[tokenKey] // its last signature failed as if the token were away
	wrap   atomic.Pointer[wrapping]

	healer sync.WaitGroup
	stop   chan struct{} // closed by Close

	mu       sync.Mutex
	closed   bool
	cause    error         // why live is nil
	tried    chan struct{} // closed after the first attempt at reconnecting
	ping     *pinging
	loaded   map[string]*tokenKey // every key that was given out, by CKA_ID
	watching bool                 // suspect keys are being tried
	resting  int                  // places that the token has no session for; see rest
	made     [][]byte             // CKA_IDs of what this value made, for Undo
}

func openToken(ctx context.Context, u URI, opts Options) (Provider, error) {
	t := &token{
		pin:    opts.PIN,
		opts:   opts,
		stop:   make(chan struct{}),
		making: make(chan struct{}, 1),
		loaded: make(map[string]*tokenKey),
	}
	path, err := t.configure(u)
	if err != nil {
		return nil, err
	}
	if t.m, err = acquireModule(path); err != nil {
		return nil, err
	}
	if err := t.open(ctx, u); err != nil {
		return nil, errors.Join(err, t.m.release())
	}
	return t, nil
}

// configure checks what the URI says, and gives the path of the module.
func (t *token) configure(u URI) (string, error) {
	switch {
	case u.SlotID != "":
		return "", errors.New("keys: slot-id does not name a token for good: use token=LABEL or serial=NUMBER")
	case u.Token == "" && u.Serial == "":
		return "", errors.New("keys: the URI names no token: add token=LABEL or serial=NUMBER")
	case u.Object != "" || len(u.ID) > 0 || u.Type != "":
		return "", errors.New("keys: a provider is a token: leave object, id and type out of its URI")
	case !u.PINSource.IsZero() && !t.pin.IsZero():
		return "", errors.New("keys: the PIN is named twice: by pin-source in the URI and beside it")
	case u.ModulePath != "" && u.ModuleName != "":
		return "", errors.New("keys: module-path and module-name are both given: leave one out")
	case u.ModulePath == "" && u.ModuleName == "":
		return "", errors.New("keys: the URI names no module: add ?module-path=/path/to/module.so")
	}
	if t.pin.IsZero() {
		t.pin = u.PINSource
	}
	u.PINSource = PINSource{}
	t.uri = &u
	if u.ModuleName != "" {
		return findModule(u.ModuleName)
	}
	return u.ModulePath, nil
}

func (t *token) open(ctx context.Context, u URI) error {
	if err := t.matchLibrary(u); err != nil {
		return err
	}
	c, err := t.reconnect(t.m.current())
	if errors.Is(err, ErrUnavailable) {
		// A module that others of this process hold may not have seen the token yet.
		if err = t.m.restart(t.m.current()); err == nil {
			c, err = t.reconnect(t.m.current())
		}
	}
	if tooMany(err) {
		return fmt.Errorf("keys: the token gives no second session, and two are needed, one to hold the login and one to work: end other programs' sessions, or raise its limit: %w", err)
	}
	if err != nil {
		return err
	}
	sessions := t.opts.Sessions
	if c.max == 1 {
		c.drop()
		return errors.New("keys: the token allows one session at a time, and two are needed: one to hold the login, one to work")
	}
	if c.max != 0 && uint(sessions) > c.max-1 {
		sessions = int(c.max - 1)
		t.opts.Logger.Warn("the token allows fewer sessions than configured", "token", u.Token, "sessions", sessions)
	}
	t.places = make(chan struct{}, sessions)
	t.live.Store(c)
	return ctx.Err()
}

// matchLibrary compares the library attributes of the URI.
func (t *token) matchLibrary(u URI) error {
	if u.LibraryManufacturer == "" && u.LibraryDescription == "" && u.LibraryVersion == "" {
		return nil
	}
	if err := t.m.enter(t.m.current()); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer t.m.leave()
	info, err := t.m.ctx.GetInfo()
	if err != nil {
		return ckError("C_GetInfo", err)
	}
	version := fmt.Sprintf("%d.%d", info.LibraryVersion.Major, info.LibraryVersion.Minor)
	if !match(u.LibraryManufacturer, info.ManufacturerID) || !match(u.LibraryDescription, info.LibraryDescription) ||
		u.LibraryVersion != "" && u.LibraryVersion != version && u.LibraryVersion+".0" != version {
		return fmt.Errorf("keys: the module is %q of %q, version %s: not what the library attributes of the URI say",
			clean(info.LibraryDescription), clean(info.ManufacturerID), version)
	}
	return nil
}

// admit takes a place in the pool, or says at once that too many wait for one.
func (t *token) admit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-t.stop:
		return errClosed
	case t.places <- struct{}{}:
		return nil
	default:
	}
	if t.waiting.Add(1) > int64(t.opts.Queue) {
		t.waiting.Add(-1)
		return fmt.Errorf("%w: %d callers wait for a session already", ErrUnavailable, t.opts.Queue)
	}
	defer t.waiting.Add(-1)
	return t.place(ctx)
}

// place waits for a place in the pool.
func (t *token) place(ctx context.Context) error {
	timer := time.NewTimer(t.opts.Wait)
	defer timer.Stop()
	select {
	case t.places <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: no session came free in %v", ErrUnavailable, t.opts.Wait)
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stop:
		return errClosed
	}
}

// connected gives the live connection. Just after it was lost, it waits for the
// first attempt at a new one; later it fails at once.
func (t *token) connected(ctx context.Context) (*conn, error) {
	if c := t.live.Load(); c != nil {
		return c, nil
	}
	t.mu.Lock()
	tried := t.tried
	t.mu.Unlock()
	if tried != nil {
		timer := time.NewTimer(t.opts.Wait)
		defer timer.Stop()
		select {
		case <-tried:
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.stop:
			return nil, errClosed
		}
	}
	if c := t.live.Load(); c != nil {
		return c, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, t.cause)
}

// do runs f with a session. If the connection turns out to be lost and again
// agrees, f runs once more on the next one.
func (t *token) do(ctx context.Context, again func(error) bool, f func(*conn, pkcs11.SessionHandle) error) error {
	return t.try(ctx, again, func(c *conn) error { return c.call(f) })
}

// make is do for what makes an object on the token, which runs again only if the
// token refused before it did anything.
func (t *token) make(ctx context.Context, f func(*conn, pkcs11.SessionHandle) error) error {
	return t.try(ctx, harmless, func(c *conn) error { return c.callAlone(f) })
}

func (t *token) try(ctx context.Context, again func(error) bool, call func(*conn) error) error {
	if err := t.admit(ctx); err != nil {
		return err
	}
	admitted := true
	defer func() {
		if admitted {
			<-t.places
		}
	}()
	began := time.Now()
	for attempt := 1; ; attempt++ {
		c, err := t.connected(ctx)
		if err != nil {
			return err
		}
		err = call(c)
		if tooMany(err) && time.Since(began) < t.opts.Wait {
			attempt--
			if admitted = !t.rest(); !admitted {
				err = t.place(ctx)
				admitted = err == nil
			} else {
				err = t.pause(ctx)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err == nil || !lost(err) {
			return err
		}
		t.lose(c, err)
		if attempt == 2 || !again(err) {
			return err
		}
	}
}

func always(error) bool { return true }

// pinging is one Ping under way, which all who ask meanwhile share: a module
// that hangs holds one goroutine, not one for each question.
type pinging struct {
	done chan struct{}
	err  error
}

// Ping reads an object of the token; if the last signature failed, or a key is
// suspect, it makes one.
func (t *token) Ping(ctx context.Context) error {
	t.mu.Lock()
	p := t.ping
	if p == nil {
		p = &pinging{done: make(chan struct{})}
		t.ping = p
		go func() {
			p.err = t.do(context.Background(), always, func(c *conn, s pkcs11.SessionHandle) error {
				if err := t.probe(c, s); err != nil {
					return err
				}
				return t.tryKeys(c, s)
			})
			t.mu.Lock()
			t.ping = nil
			t.mu.Unlock()
			close(p.done)
		}()
	}
	t.mu.Unlock()
	timer := time.NewTimer(t.opts.Wait)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err
	case <-timer.C:
		return fmt.Errorf("%w: no answer from the token in %v", ErrUnavailable, t.opts.Wait)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// probe asks the token for something that only a present, logged-in token has.
func (t *token) probe(c *conn, s pkcs11.SessionHandle) error {
	if err := c.present(s); err != nil {
		return err
	}
	if k := t.failed.Load(); k != nil {
		err := k.trySign(c, s)
		if lost(err) {
			return err
		}
		t.failed.CompareAndSwap(k, nil)
		if err != nil {
			k.distrust(err) // the token answers; what is wrong is the key
		}
		return nil
	}
	k := t.known.Load()
	if k == nil {
		return nil
	}
	h, err := k.locate(c, s)
	if errors.Is(err, ErrNotFound) {
		t.known.CompareAndSwap(k, nil) // deleted; the token itself is well
		return nil
	}
	if err != nil {
		return err
	}
	_, err = c.bytesOf(s, h, pkcs11.CKA_ID)
	return err
}

// Close waits a little for calls under way, then ends all sessions, and the
// module if nobody else uses it.
func (t *token) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	close(t.stop)
	t.mu.Unlock()
	t.healer.Wait()
	deadline := time.After(drainWait)
drain:
	for range cap(t.places) {
		select {
		case t.places <- struct{}{}:
		case <-deadline:
			break drain // stuck in the module; release says so
		}
	}
	if c := t.live.Swap(nil); c != nil {
		c.drop()
	}
	return t.m.release()
}
