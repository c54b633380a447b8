//go:build cgo

package keys

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// errNoWrap means that nothing was sealed on this token yet.
var errNoWrap = fmt.Errorf("%w: this token has sealed nothing yet", ErrSealed)

// ckrAEADDecryptFailed is PKCS#11 3.0's name for a wrong tag.
const ckrAEADDecryptFailed = 0x42

func (t *token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if err := checkSecret(plaintext); err != nil {
		return nil, err
	}
	var sealed []byte
	seal := func(c *conn, s pkcs11.SessionHandle) error {
		h, err := t.wrapping(c, s)
		if err != nil {
			return err
		}
		sealed, err = c.seal(s, h, plaintext, sealAAD(aad))
		return err
	}
	err := t.do(ctx, always, seal)
	if !errors.Is(err, errNoWrap) {
		return sealed, err
	}
	select {
	case t.making <- struct{}{}:
		defer func() { <-t.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.stop:
		return nil, errClosed
	}
	if err := t.make(ctx, t.makeWrapping); err != nil {
		return nil, err
	}
	err = t.do(ctx, always, seal)
	return sealed, err
}

func (t *token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	nonce, ciphertext, err := splitSealed(sealed)
	if err != nil {
		return nil, err
	}
	var plaintext []byte
	err = t.do(ctx, always, func(c *conn, s pkcs11.SessionHandle) error {
		h, err := t.wrapping(c, s)
		if err != nil {
			return err
		}
		plaintext, err = c.unseal(s, h, nonce, ciphertext, sealAAD(aad))
		return err
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// wrapping finds the wrapping key.
func (t *token) wrapping(c *conn, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	if p := t.wrap.Load(); p != nil && p.c == c {
		return p.h, nil
	}
	found, err := c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, wrapLabel))
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, errNoWrap
	case len(found) > 1:
		return 0, fmt.Errorf("keys: %d secret keys on the token are labelled %q: give all but the one in use another label", len(found), wrapLabel)
	}
	t.wrap.Store(&place{c, found[0]})
	return found[0], nil
}

// makeWrapping makes the wrapping key unless another caller was first.
func (t *token) makeWrapping(c *conn, s pkcs11.SessionHandle) error {
	if _, err := t.wrapping(c, s); !errors.Is(err, errNoWrap) {
		return err
	}
	if err := c.wraps(); err != nil {
		return err
	}
	id := random(16)
	t.note(id)
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, wrapLabel),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	var h pkcs11.ObjectHandle
	err := insist(func() (err error) {
		h, err = c.m.ctx.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
		return err
	})
	if err != nil {
		return ckError("C_GenerateKey", err)
	}
	if err := c.checkSafe(s, h); err != nil {
		return errors.Join(err, c.m.ctx.DestroyObject(s, h))
	}
	return nil
}

func (c *conn) seal(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(random(nonceSize), aad, tagSize*8)
	defer params.Free()
	if err := c.m.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, ckError("C_EncryptInit", err)
	}
	ciphertext, err := c.m.ctx.Encrypt(s, plaintext)
	if err != nil {
		return nil, ckError("C_Encrypt", err)
	}
	// Some modules choose the nonce themselves and write it over ours.
	nonce := params.IV()
	if len(nonce) != nonceSize || len(ciphertext) != len(plaintext)+tagSize {
		return nil, fmt.Errorf("keys: the token's AES-GCM gave a nonce of %d and a ciphertext of %d bytes", len(nonce), len(ciphertext))
	}
	return joinSealed(nonce, ciphertext), nil
}

func (c *conn) open(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, nonce, ciphertext, aad []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(nonce, aad, tagSize*8)
	defer params.Free()
	if err := c.m.ctx.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, h); err != nil {
		return nil, ckError("C_DecryptInit", err)
	}
	plaintext, err := c.m.ctx.Decrypt(s, ciphertext)
	if err != nil {
		return nil, ckError("C_Decrypt", err)
	}
	return plaintext, nil
}

// unseal tells a wrong tag from a failing token. The standard's codes for the
// former are young, and modules say CKR_GENERAL_ERROR and the like too: then the
// key is tried on something that must open.
func (c *conn) unseal(s pkcs11.SessionHandle, h pkcs11.ObjectHandle, nonce, ciphertext, aad []byte) ([]byte, error) {
	plaintext, err := c.open(s, h, nonce, ciphertext, aad)
	ck, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return plaintext, err
	}
	switch ck {
	case pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, ckrAEADDecryptFailed:
		return nil, ErrSealed
	}
	sealed, errTest := c.seal(s, h, []byte("test"), aad)
	if errTest != nil {
		return nil, err
	}
	if _, errTest = c.open(s, h, sealed[1:1+nonceSize], sealed[1+nonceSize:], aad); errTest != nil {
		return nil, err
	}
	return nil, ErrSealed
}
