//go:build cgo

package keys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// errNoWrap means that nothing was sealed on this token yet.
var errNoWrap = fmt.Errorf("%w: this token has sealed nothing yet", ErrSealed)

// ckrAEADDecryptFailed is PKCS#11 3.0's name for a wrong tag.
const ckrAEADDecryptFailed = 0x42

// method is one way to seal with what a token has. Its functions take the handles of its
// keys, in their order, and the whole additional data.
type method struct {
	how   byte // as seal.go numbers them
	needs []mechanism
	keys  []wrapKey
	seal  func(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error)
	open  func(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, body, aad []byte) ([]byte, error)
}

type mechanism struct {
	number uint
	name   string
}

// wrapKey is a key that seals: a secret one, or a private one with its public half.
type wrapKey struct {
	label string
	class uint
	make  func(c *conn, s pkcs11.SessionHandle, label string, id []byte) error
}

// methods are those that are tried, in this order, on a token that has sealed nothing yet.
// Once it has, its key decides.
var methods = []*method{gcmMethod, cbcMethod, rsaMethod, ecdhMethod}

func (m *method) aad(aad []byte) []byte { return sealAAD(m.keys[0].label, aad) }

// wrapping is a method with its keys on one connection.
type wrapping struct {
	*method
	c *conn
	k []pkcs11.ObjectHandle
}

func (t *token) Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error) {
	if err := checkSecret(plaintext); err != nil {
		return nil, err
	}
	var sealed []byte
	seal := func(find func(*conn, pkcs11.SessionHandle) (*wrapping, error)) error {
		return t.do(ctx, always, func(c *conn, s pkcs11.SessionHandle) error {
			w, err := find(c, s)
			if err != nil {
				return err
			}
			sealed, err = w.seal(s, plaintext, aad)
			return err
		})
	}
	if err := seal(t.chosen); !errors.Is(err, errNoWrap) {
		return sealed, err
	}
	// Behind whoever makes the key now: the one that it tries may not stay.
	select {
	case t.making <- struct{}{}:
		defer func() { <-t.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.stop:
		return nil, errClosed
	}
	err := seal(t.choose)
	if errors.Is(err, errNoWrap) {
		if err = t.makeWrapping(ctx); err == nil {
			err = seal(t.choose)
		}
	}
	return sealed, err
}

func (t *token) Unseal(ctx context.Context, sealed, aad []byte) ([]byte, error) {
	how, body, err := splitSealed(sealed)
	if err != nil {
		return nil, err
	}
	var plaintext []byte
	err = t.do(ctx, always, func(c *conn, s pkcs11.SessionHandle) error {
		w, err := t.chosen(c, s)
		if err != nil || w.how != how {
			w, err = methods[how-1].find(c, s)
		}
		if err != nil {
			return err
		}
		plaintext, err = w.unseal(s, body, aad)
		return err
	})
	if err != nil {
		return nil, err
	}
	return plaintext, nil
}

// chosen gives the keys that seal on this connection, if choose found them.
func (t *token) chosen(c *conn, _ pkcs11.SessionHandle) (*wrapping, error) {
	if w := t.wrap.Load(); w != nil && w.c == c {
		return w, nil
	}
	return nil, errNoWrap
}

// choose finds the keys that seal. t.making is held.
func (t *token) choose(c *conn, s pkcs11.SessionHandle) (*wrapping, error) {
	for _, m := range methods {
		w, err := m.find(c, s)
		if errors.Is(err, errNoWrap) {
			continue
		}
		if err == nil {
			t.wrap.Store(w)
		}
		return w, err
	}
	return nil, errNoWrap
}

// find looks for the keys of one method.
func (m *method) find(c *conn, s pkcs11.SessionHandle) (*wrapping, error) {
	w := &wrapping{method: m, c: c}
	for _, k := range m.keys {
		h, err := k.find(c, s)
		if err != nil {
			return nil, err
		}
		w.k = append(w.k, h)
	}
	return w, nil
}

func (k wrapKey) find(c *conn, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	found, err := c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, k.class),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.label))
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, errNoWrap
	case len(found) > 1:
		return 0, fmt.Errorf("keys: %d keys on the token are labelled %q: give all but the one in use another label", len(found), k.label)
	}
	return found[0], nil
}

// offered says what the token lacks for a method.
func (m *method) offered(c *conn) error {
	var lacks []error
	for _, n := range m.needs {
		err := c.offers(n.number, n.name)
		if err != nil && !errors.Is(err, ErrNotOffered) {
			return err
		}
		lacks = append(lacks, err)
	}
	return errors.Join(lacks...)
}

// wraps refuses a token that none of the methods works on.
func (c *conn) wraps() error {
	for _, m := range methods {
		err := m.offered(c)
		if err == nil || !errors.Is(err, ErrNotOffered) {
			return err
		}
	}
	return errNoMethod
}

var errNoMethod = errors.New("keys: the token can seal nothing: it needs CKM_AES_GCM, or CKM_AES_CBC and CKM_SHA256_HMAC with keys of its own, or CKM_RSA_PKCS_OAEP, or CKM_ECDH1_DERIVE")

// errMethod means that a method does not work on this token, which itself is well.
var errMethod = errors.New("keys: it does not work on this token")

// makeWrapping makes the keys of the first method that works, unless another caller was first.
// Tokens offer mechanisms that then fail: so a method is tried before it is taken.
func (t *token) makeWrapping(ctx context.Context) error {
	failures := []error{errNoMethod}
	for _, m := range methods {
		var made [][]byte
		err := t.make(ctx, func(c *conn, s pkcs11.SessionHandle) error {
			if _, err := t.choose(c, s); !errors.Is(err, errNoWrap) {
				return err
			}
			err := m.offered(c)
			if err == nil {
				made, err = t.tryMethod(c, s, m)
			}
			if err == nil || lost(err) && c.present(s) != nil {
				return err
			}
			return fmt.Errorf("%s: %w: %v", sealNames[m.how], errMethod, err)
		})
		if !errors.Is(err, errMethod) {
			return err
		}
		failures = append(failures, err)
		for _, id := range made { // in a session of its own: the other may be in the midst of something
			if err := t.make(ctx, func(c *conn, s pkcs11.SessionHandle) error { return c.destroy(s, id) }); err != nil {
				return err
			}
		}
	}
	return errors.Join(failures...)
}

// tryMethod makes what a method lacks, and sees that a secret comes back. It gives the CKA_IDs of what it made.
func (t *token) tryMethod(c *conn, s pkcs11.SessionHandle, m *method) (made [][]byte, err error) {
	for _, k := range m.keys {
		if _, err := k.find(c, s); !errors.Is(err, errNoWrap) {
			if err != nil {
				return made, err
			}
			continue // of a try that was cut off
		}
		id := random(16)
		t.note(id)
		made = append(made, id)
		if err := k.make(c, s, k.label, id); err != nil {
			return made, err
		}
	}
	w, err := m.find(c, s)
	if err != nil {
		return made, err
	}
	return made, w.test(s)
}

// destroy removes the objects of one CKA_ID.
func (c *conn) destroy(s pkcs11.SessionHandle, id []byte) error {
	objects, err := c.find(s, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, id))
	if err != nil {
		return err
	}
	for _, object := range objects {
		if err := c.m.ctx.DestroyObject(s, object); err != nil {
			return ckError("C_DestroyObject", err)
		}
	}
	return nil
}

// makeAES makes an AES-256 key that encrypts and decrypts.
func makeAES(c *conn, s pkcs11.SessionHandle, label string, id []byte) error {
	return c.makeSecret(s, pkcs11.CKM_AES_KEY_GEN, pkcs11.CKK_AES, label, id, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
}

// makeSecret makes a secret key of 32 bytes for two purposes.
func (c *conn) makeSecret(s pkcs11.SessionHandle, generate, kind uint, label string, id []byte, purposes ...uint) error {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	for _, p := range purposes {
		template = append(template, pkcs11.NewAttribute(p, true))
	}
	narrow := slices.Clone(template)
	for _, p := range []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP} {
		if !slices.Contains(purposes, p) {
			narrow = append(narrow, pkcs11.NewAttribute(p, false))
		}
	}
	var h pkcs11.ObjectHandle
	var err error
	for _, template := range [][]*pkcs11.Attribute{narrow, template} {
		err = insist(func() (err error) {
			h, err = c.m.ctx.GenerateKey(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(generate, nil)}, template)
			return err
		})
		if err == nil || lost(err) && !errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
			break
		}
	}
	if err != nil {
		return ckError("C_GenerateKey", err)
	}
	if err := c.checkSafe(s, h); err != nil {
		return errors.Join(err, c.m.ctx.DestroyObject(s, h))
	}
	return nil
}

// seal is Seal. What does not open is not given out.
func (w *wrapping) seal(s pkcs11.SessionHandle, plaintext, aad []byte) ([]byte, error) {
	aad = w.aad(aad)
	body, err := w.method.seal(w.c, s, w.k, plaintext, aad)
	if err != nil {
		return nil, err
	}
	opened, err := w.open(w.c, s, w.k, body, aad)
	if err == nil && !bytes.Equal(opened, plaintext) {
		err = errors.New("keys: the token unseals another secret than it sealed")
	}
	if err != nil {
		return nil, err
	}
	return joinSealed(w.how, body), nil
}

// test seals something and opens it.
func (w *wrapping) test(s pkcs11.SessionHandle) error {
	_, err := w.seal(s, []byte("test"), nil)
	return err
}

// unseal tells a wrong ciphertext from a failing token. The standard's codes for the
// former are young, and modules say CKR_GENERAL_ERROR and the like too: then the
// key is tried on something that must open.
func (w *wrapping) unseal(s pkcs11.SessionHandle, body, aad []byte) ([]byte, error) {
	plaintext, err := w.open(w.c, s, w.k, body, w.aad(aad))
	ck, ok := errors.AsType[pkcs11.Error](err)
	if !ok {
		return plaintext, err
	}
	switch ck {
	case pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, ckrAEADDecryptFailed:
		return nil, ErrSealed
	}
	if w.test(s) != nil {
		return nil, err
	}
	return nil, ErrSealed
}
