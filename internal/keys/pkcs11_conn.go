//go:build cgo

package keys

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// conn is one login to one token: its sessions, and the epoch of the module in
// which its handles mean something. When any of it breaks, the whole conn is
// dropped and another made; a conn is never repaired.
type conn struct {
	m     *module
	epoch uint64
	slot  uint
	made  time.Time
	max   uint // sessions that the token allows; 0 if it does not say

	// keeper only holds the login, which ends with the last session: those that
	// work come and go.
	keeper pkcs11.SessionHandle
	broad  atomic.Bool // the token takes no false for what a private key may do; see makePair

	mu     sync.Mutex
	idle   []pkcs11.SessionHandle
	broken bool
}

// connect finds the token, opens the keeper, and logs in.
func connect(m *module, epoch uint64, u *URI, pin PINSource) (*conn, error) {
	if err := m.enter(epoch); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer m.leave()
	slot, info, err := findToken(m.ctx, u)
	if err != nil {
		return nil, err
	}
	c := &conn{m: m, epoch: epoch, slot: slot, made: time.Now(), max: maxSessions(info)}
	s, err := m.openSession(slot)
	if err != nil {
		return nil, ckError("C_OpenSession", err)
	}
	if info.Flags&pkcs11.CKF_LOGIN_REQUIRED != 0 {
		if err := c.login(s, pin); err != nil {
			m.closeSession(s)
			return nil, err
		}
	}
	c.keeper = s
	return c, nil
}

// login logs all sessions of this process in, those opened later too.
func (c *conn) login(s pkcs11.SessionHandle, source PINSource) error {
	pin, err := source.Read()
	if err != nil {
		return err
	}
	err = c.m.ctx.Login(s, pkcs11.CKU_USER, pin)
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		return nil // another provider of this process, for the same token
	}
	if err != nil {
		return ckError("C_Login", err)
	}
	return nil
}

// session takes an idle session or opens one. How many there are at most is
// for the caller to bound.
func (c *conn) session() (pkcs11.SessionHandle, error) {
	c.mu.Lock()
	if n := len(c.idle); n > 0 {
		s := c.idle[n-1]
		c.idle = c.idle[:n-1]
		c.mu.Unlock()
		return s, nil
	}
	c.mu.Unlock()
	s, err := c.m.openSession(c.slot)
	if err != nil {
		return 0, ckError("C_OpenSession", err)
	}
	return s, nil
}

// call runs f on a session of its own, inside the module. After an error the
// session is closed: an operation may be half begun in it.
func (c *conn) call(f func(*conn, pkcs11.SessionHandle) error) error {
	if err := c.m.enter(c.epoch); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer c.m.leave()
	return c.inside(f)
}

// callAlone is call for what makes an object: no other call is in the module meanwhile.
func (c *conn) callAlone(f func(*conn, pkcs11.SessionHandle) error) error {
	if err := c.m.enterAlone(c.epoch); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer c.m.leaveAlone()
	return c.inside(f)
}

func (c *conn) inside(f func(*conn, pkcs11.SessionHandle) error) error {
	s, err := c.session()
	if err != nil {
		return err
	}
	err = f(c, s)
	c.mu.Lock()
	keep := err == nil && !c.broken
	if keep {
		c.idle = append(c.idle, s)
	}
	c.mu.Unlock()
	if !keep {
		c.m.closeSession(s)
	}
	return err
}

// drop closes the idle sessions and the keeper; those in use close as they come
// back. The login ends with the last of all (PKCS#11 2.40 §5.6): C_Logout and C_CloseAllSessions
// would also hit other providers of the same token.
func (c *conn) drop() {
	c.mu.Lock()
	idle := c.idle
	c.idle, c.broken = nil, true
	c.mu.Unlock()
	if c.m.enter(c.epoch) != nil {
		return // finalized since: they are gone
	}
	defer c.m.leave()
	for _, s := range append(idle, c.keeper) {
		c.m.closeSession(s)
	}
}

// present asks the token for its state, and whether s is still logged in. It
// tells an empty answer from a token that is gone: SoftHSM finds no objects,
// and no error, in a token whose directory vanished.
func (c *conn) present(s pkcs11.SessionHandle) error {
	info, err := c.m.ctx.GetTokenInfo(c.slot)
	if err != nil {
		return ckError("C_GetTokenInfo", err)
	}
	if info.Flags&pkcs11.CKF_LOGIN_REQUIRED == 0 {
		return nil
	}
	si, err := c.m.ctx.GetSessionInfo(s)
	if err == nil && si.State != pkcs11.CKS_RW_USER_FUNCTIONS {
		err = pkcs11.Error(pkcs11.CKR_USER_NOT_LOGGED_IN)
	}
	if err != nil {
		return ckError("C_GetSessionInfo", err)
	}
	return nil
}

// findToken looks for the one token that u names. Slot numbers change with
// each initialisation (SoftHSM) or with the cabling, so they are never used.
func findToken(ctx *pkcs11.Ctx, u *URI) (uint, pkcs11.TokenInfo, error) {
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		return 0, pkcs11.TokenInfo{}, ckError("C_GetSlotList", err)
	}
	var found []uint
	var token pkcs11.TokenInfo
	var labels []string
	var failed error
	for _, slot := range slots {
		info, err := ctx.GetTokenInfo(slot)
		if err != nil {
			failed = ckError("C_GetTokenInfo", err) // perhaps not ours
			continue
		}
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		labels = append(labels, clean(info.Label))
		if !matchToken(u, info) || !matchSlot(ctx, u, slot) {
			continue
		}
		found = append(found, slot)
		token = info
	}
	switch {
	case len(found) == 1:
		return found[0], token, nil
	case len(found) > 1:
		return 0, token, errors.New("keys: several tokens match the URI: add the serial attribute of the right one")
	case failed != nil:
		return 0, token, failed
	}
	return 0, token, fmt.Errorf("%w: no token matches %v; the module has %q", ErrUnavailable, u, labels)
}

// maxSessions reads the token's limits, of which 0 and all ones say nothing.
func maxSessions(info pkcs11.TokenInfo) uint {
	limit := uint(0)
	for _, n := range []uint{info.MaxSessionCount, info.MaxRwSessionCount} {
		if n != 0 && n != ^uint(0) && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return limit
}

// clean removes the padding of PKCS#11's fixed-size fields; some modules pad with NUL.
func clean(s string) string { return strings.TrimRight(s, " \x00") }

func matchToken(u *URI, t pkcs11.TokenInfo) bool {
	return match(u.Token, t.Label) && match(u.Serial, t.SerialNumber) &&
		match(u.Manufacturer, t.ManufacturerID) && match(u.Model, t.Model)
}

func match(want, have string) bool { return want == "" || clean(want) == clean(have) }

func matchSlot(ctx *pkcs11.Ctx, u *URI, slot uint) bool {
	if u.SlotManufacturer == "" && u.SlotDescription == "" {
		return true
	}
	info, err := ctx.GetSlotInfo(slot)
	return err == nil && match(u.SlotManufacturer, info.ManufacturerID) && match(u.SlotDescription, info.SlotDescription)
}

// find gives the handles that match a template.
func (c *conn) find(s pkcs11.SessionHandle, template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	if err := c.m.ctx.FindObjectsInit(s, template); err != nil {
		return nil, ckError("C_FindObjectsInit", err)
	}
	var all []pkcs11.ObjectHandle
	for {
		some, _, err := c.m.ctx.FindObjects(s, 16)
		if err != nil {
			return nil, ckError("C_FindObjects", err)
		}
		all = append(all, some...)
		if len(some) == 0 {
			break
		}
	}
	if err := c.m.ctx.FindObjectsFinal(s); err != nil {
		return nil, ckError("C_FindObjectsFinal", err)
	}
	if len(all) == 0 {
		return nil, c.present(s)
	}
	return all, nil
}

// bytesOf reads one attribute.
func (c *conn) bytesOf(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, attribute uint) ([]byte, error) {
	a, err := c.m.ctx.GetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, ckError("C_GetAttributeValue", err)
	}
	return a[0].Value, nil
}

// isTrue reads a CK_BBOOL.
func (c *conn) isTrue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, attribute uint) (bool, error) {
	v, err := c.bytesOf(s, o, attribute)
	return len(v) == 1 && v[0] != 0, err
}
