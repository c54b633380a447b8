//go:build cgo

package keys

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/miekg/pkcs11"
)

// InitToken initialises a token in the first free slot of a module: label (1 to
// 32 bytes), security officer's PIN and user's PIN. A label that another token
// of the module bears is ErrExists. It works with modules that offer
// uninitialised tokens, as SoftHSM2 does; a hardware module is initialised with
// its maker's tools. For SoftHSM2 the caller sets SOFTHSM2_CONF first.
func InitToken(modulePath, label, soPIN, userPIN string) error {
	if err := checkLabel(label); err != nil {
		return err
	}
	if len(label) > 32 || !utf8.ValidString(label) {
		return errors.New("keys: a token label has at most 32 bytes")
	}
	if soPIN == "" || userPIN == "" {
		return errors.New("keys: a token needs a security officer PIN and a user PIN")
	}
	m, err := acquireModule(modulePath)
	if err != nil {
		return err
	}
	return errors.Join(m.initToken(label, soPIN, userPIN), m.release())
}

func (m *module) initToken(label, soPIN, userPIN string) error {
	if err := m.enter(m.current()); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer m.leave()
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return ckError("C_GetSlotList", err)
	}
	free := -1
	for i, slot := range slots {
		info, err := m.ctx.GetTokenInfo(slot)
		switch {
		case err != nil:
			continue
		case info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0:
			if free < 0 {
				free = i
			}
		case clean(info.Label) == label:
			return fmt.Errorf("%w: token %q", ErrExists, label)
		}
	}
	if free < 0 {
		return fmt.Errorf("keys: the module %s has no free slot: initialise the token with its maker's tools", m.path)
	}
	if err := m.ctx.InitToken(slots[free], soPIN, label); err != nil {
		return ckError("C_InitToken", err)
	}
	s, err := m.openSession(slots[free])
	if err != nil {
		return ckError("C_OpenSession", err)
	}
	defer m.closeSession(s) // ends the officer's login too
	if err := m.ctx.Login(s, pkcs11.CKU_SO, soPIN); err != nil {
		return ckError("C_Login", err)
	}
	if err := m.ctx.InitPIN(s, userPIN); err != nil {
		return ckError("C_InitPIN", err)
	}
	return nil
}
