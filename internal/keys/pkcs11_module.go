//go:build cgo

package keys

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// module owns one PKCS#11 library. C_Initialize and C_Finalize are process-wide:
// they end every session and login of every token of the library. So all
// providers of a library share one module; each call into the library passes
// enter and leave, and the module waits until none is inside before it
// finalizes.
//
// The library is loaded once and stays loaded: unloading one that has started
// threads, or registered destructors for ours, crashes the process later.
type module struct {
	path string
	ctx  *pkcs11.Ctx

	// starting serialises C_Initialize and C_Finalize. It is never held by calls.
	starting sync.Mutex

	// sessions serialises C_OpenSession and C_CloseSession: tpm2-pkcs11 1.9 gives two sessions
	// one handle if they are opened at the same moment.
	sessions sync.Mutex

	mu      sync.Mutex
	refs    int
	epoch   uint64        // grows with each C_Initialize: handles of another epoch are void
	running bool          // initialised
	fenced  bool          // no call may enter
	calls   int           // inside the library now
	empty   chan struct{} // closed when calls falls to 0 behind the fence
	alone   *alone        // one call has the library to itself, or waits to
}

// alone is a call during which no other may enter.
type alone struct {
	reached chan struct{} // closed when no other call is inside any more; nil if nobody waits for that
	over    chan struct{} // closed when it has left
}

// modules is the process's one table of owners: a second owner of the same
// library could not know when the first finalizes it.
var modules struct {
	sync.Mutex
	byPath map[string]*module
}

// errStale means that the module was initialised again since.
var errStale = errors.New("the PKCS#11 module was initialised again")

// drainWait is how long finalizing waits for calls inside the library.
const drainWait = 2 * time.Second

// acquireModule loads and initialises a library, or joins those who use it.
func acquireModule(path string) (*module, error) {
	// Two names of one file are one library to the loader, and to C_Initialize.
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, fmt.Errorf("keys: PKCS#11 module: %w", err)
	}
	modules.Lock()
	defer modules.Unlock()
	m := modules.byPath[path]
	if m == nil {
		ctx, err := load(path)
		if err != nil {
			return nil, err
		}
		m = &module{path: path, ctx: ctx}
		if modules.byPath == nil {
			modules.byPath = make(map[string]*module)
		}
		modules.byPath[path] = m
	}
	if m.refs == 0 {
		if err := m.restart(m.epoch); err != nil {
			return nil, fmt.Errorf("%w: PKCS#11 module %s: %w", ErrUnavailable, path, err)
		}
	}
	m.mu.Lock()
	m.refs++
	m.mu.Unlock()
	return m, nil
}

// release finalizes the library when nobody uses it any more.
func (m *module) release() error {
	modules.Lock()
	defer modules.Unlock()
	m.mu.Lock()
	m.refs--
	last := m.refs == 0
	m.mu.Unlock()
	if !last {
		return nil
	}
	m.starting.Lock()
	defer m.starting.Unlock()
	if err := m.fence(); err != nil {
		return err
	}
	defer m.unfence()
	return m.finalize()
}

// enter begins one call, or a few that belong together, by handles of epoch. It
// waits while another call has the library to itself, but no longer than that should take.
func (m *module) enter(epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a := m.alone; a != nil {
		m.mu.Unlock()
		within(a.over, aloneWait)
		m.mu.Lock()
	}
	return m.admit(epoch)
}

// admit counts a call in; m.mu is held.
func (m *module) admit(epoch uint64) error {
	if m.fenced || !m.running || m.epoch != epoch {
		return errStale
	}
	m.calls++
	return nil
}

// aloneWait is how long a call that wants the library to itself waits for those
// inside, and others for it. A library that holds a call for longer is not waited for:
// what needed quiet then takes its chance.
const aloneWait = 2 * time.Second

// enterAlone is enter for a call that makes an object. SoftHSM 2.6 reads the token's directory
// at the start of many calls, finds the half-written object of another session, and
// spoils it: the creation fails, and so do all that follow until the module is initialised anew.
func (m *module) enterAlone(epoch uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.alone != nil {
		over := m.alone.over
		m.mu.Unlock()
		taken := within(over, aloneWait)
		m.mu.Lock()
		if !taken {
			return fmt.Errorf("the PKCS#11 module %s has been making an object for %v", m.path, aloneWait)
		}
	}
	if err := m.admit(epoch); err != nil {
		return err
	}
	m.alone = &alone{over: make(chan struct{})}
	if m.calls > 1 {
		reached := make(chan struct{})
		m.alone.reached = reached
		m.mu.Unlock()
		within(reached, aloneWait)
		m.mu.Lock()
	}
	return nil
}

func (m *module) leaveAlone() {
	m.mu.Lock()
	close(m.alone.over)
	m.alone = nil
	m.mu.Unlock()
	m.leave()
}

// within reports whether done was closed in time.
func within(done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// openSession opens a session in which objects can be made. The caller has entered.
func (m *module) openSession(slot uint) (pkcs11.SessionHandle, error) {
	m.sessions.Lock()
	defer m.sessions.Unlock()
	return m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
}

// closeSession is for sessions that are of no more use: what it says is, too.
func (m *module) closeSession(s pkcs11.SessionHandle) {
	m.sessions.Lock()
	defer m.sessions.Unlock()
	m.ctx.CloseSession(s)
}

func (m *module) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls--
	if a := m.alone; a != nil && m.calls == 1 && a.reached != nil {
		close(a.reached)
		a.reached = nil
	}
	if m.calls == 0 && m.fenced {
		close(m.empty)
	}
}

// current gives the epoch to enter with, waiting for a restart under way.
func (m *module) current() uint64 {
	m.starting.Lock()
	defer m.starting.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.epoch
}

// restart finalizes and initialises the library, unless another provider did
// that since seen. Every token of the library loses its sessions, and brings
// them back by itself.
func (m *module) restart(seen uint64) error {
	m.starting.Lock()
	defer m.starting.Unlock()
	m.mu.Lock()
	done := m.epoch != seen && m.running
	m.mu.Unlock()
	if done {
		return nil
	}
	if err := m.fence(); err != nil {
		return err
	}
	defer m.unfence()
	if err := m.finalize(); err != nil {
		return err
	}
	err := m.ctx.Initialize()
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		err = nil // something else in this process uses it too
	}
	if err != nil {
		return fmt.Errorf("C_Initialize: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running = true
	m.epoch++
	return nil
}

// finalize runs behind the fence.
func (m *module) finalize() error {
	m.mu.Lock()
	running := m.running
	m.running = false
	m.mu.Unlock()
	if !running {
		return nil
	}
	err := m.ctx.Finalize()
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("C_Finalize: %w", err)
	}
	return nil
}

// fence keeps new calls out and waits for those inside. A library that holds a
// call for longer cannot be finalized safely: then the fence is taken down again.
func (m *module) fence() error {
	m.mu.Lock()
	m.fenced = true
	m.empty = make(chan struct{})
	inside := m.calls
	empty := m.empty
	m.mu.Unlock()
	if inside == 0 {
		return nil
	}
	select {
	case <-empty:
		return nil
	case <-time.After(drainWait):
	}
	m.unfence()
	return fmt.Errorf("%w: the PKCS#11 module %s holds %d calls and does not return them", ErrUnavailable, m.path, inside)
}

func (m *module) unfence() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fenced = false
}
