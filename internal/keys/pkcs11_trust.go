//go:build cgo

package keys

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// A key is trusted for the public half that was loaded first, under its CKA_ID.
// One that signs wrongly, is gone, or has another public half now is suspect: it
// signs nothing, and Ping says so, until a trial shows that it is what it was.

var errOtherPublic = errors.New("the public key object of its CKA_ID is another one now")

// remember gives the key that was loaded first under a CKA_ID, which k becomes if none was.
func (t *token) remember(k *tokenKey) (*tokenKey, error) {
	t.mu.Lock()
	old := t.loaded[string(k.id)]
	same := old != nil && samePublic(old.pub, k.pub)
	if old == nil || same && old.label != k.label {
		t.loaded[string(k.id)] = k
	}
	t.mu.Unlock()
	switch {
	case old == nil:
		return k, nil
	case !same:
		return nil, old.distrust(errOtherPublic)
	case old.label != k.label:
		k.suspicion.Store(old.suspicion.Load())
		return k, nil
	}
	old.at.Store(k.at.Load())
	return old, nil
}

// remembered are the keys that were loaded, in the order of their labels.
func (t *token) remembered() []*tokenKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(maps.Values(t.loaded), func(a, b *tokenKey) int { return strings.Compare(a.label, b.label) })
}

// suspected are those of them that are suspect.
func (t *token) suspected() []*tokenKey {
	return slices.DeleteFunc(t.remembered(), func(k *tokenKey) bool { return k.trusted() == nil })
}

// trusted says why k may not sign.
func (k *tokenKey) trusted() error {
	if s := k.suspicion.Load(); s != nil {
		return *s
	}
	return nil
}

// distrust makes k suspect, and has it tried until it is not. The error is for
// whoever wanted a signature.
func (k *tokenKey) distrust(cause error) error {
	err := fmt.Errorf("%w: the key %q (CKA_ID %x) on the token is not the key that was loaded: %w", ErrUnavailable, k.label, k.id, cause)
	if k.suspicion.Swap(&err) == nil {
		k.t.opts.Logger.Error("a key on the token is not the key that was loaded: it signs nothing until it is again",
			"token", k.t.uri.Token, "serial", k.t.uri.Serial, "key", k.label, "err", cause)
	}
	k.t.watch()
	return err
}

// watch tries suspect keys until there are none, so that they serve again by
// themselves when they are put back.
func (t *token) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.watching {
		return
	}
	t.watching = true
	t.healer.Go(func() {
		for pause := firstPause; ; pause = min(2*pause, longestPause) {
			select {
			case <-t.stop:
				return
			case <-time.After(pause):
			}
			t.do(context.Background(), always, t.tryKeys)
			if t.watched() {
				return
			}
		}
	})
}

// watched ends the watch if no key is suspect.
func (t *token) watched() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.loaded {
		if k.trusted() != nil {
			return false
		}
	}
	t.watching = false
	return true
}

// tryKeys tries the keys that are suspect, and says which of them still are.
func (t *token) tryKeys(c *conn, s pkcs11.SessionHandle) error {
	var faults []error
	for _, k := range t.suspected() {
		if err := k.try(c, s); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}

// try looks a suspect key up anew, and trusts it if its public half is the
// right one and a trial signature verifies.
func (k *tokenKey) try(c *conn, s pkcs11.SessionHandle) error {
	k.at.Store(nil)
	err := k.compare(c, s)
	if err == nil {
		err = k.trySign(c, s)
	}
	if lost(err) {
		return err // the token's trouble, not the key's
	}
	if err != nil {
		return k.distrust(err)
	}
	if k.suspicion.Swap(nil) != nil {
		k.t.opts.Logger.Info("a key on the token is what it was, and signs again", "token", k.t.uri.Token, "serial", k.t.uri.Serial, "key", k.label)
	}
	return nil
}

// compareKeys makes those keys suspect whose public half changed while the
// token was away. Keys that were deleted are none of its business: they show when they should sign.
func (t *token) compareKeys(c *conn, s pkcs11.SessionHandle) error {
	for _, k := range t.remembered() {
		err := k.compare(c, s)
		if errors.Is(err, errOtherPublic) {
			k.distrust(err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// compare reads the public key objects of k's CKA_ID: there may be none, and any other
// than the one that was loaded is errOtherPublic.
func (k *tokenKey) compare(c *conn, s pkcs11.SessionHandle) error {
	found, err := c.publicKeys(s, k.id)
	if err != nil {
		return err
	}
	for _, o := range found {
		pub, err := c.publicKey(s, o)
		if lost(err) {
			return err
		}
		if err != nil || !samePublic(pub, k.pub) {
			return errOtherPublic
		}
	}
	return nil
}

// publicKeys finds the public key objects of a CKA_ID.
func (c *conn) publicKeys(s pkcs11.SessionHandle, id []byte) ([]pkcs11.ObjectHandle, error) {
	return c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id))
}

// publicOf reads the public key object that shares a private key's CKA_ID.
func (c *conn) publicOf(s pkcs11.SessionHandle, private pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	id, err := c.bytesOf(s, private, pkcs11.CKA_ID)
	if err != nil {
		return nil, err
	}
	public, err := c.publicKeys(s, id)
	if err != nil {
		return nil, err
	}
	if len(id) == 0 || len(public) != 1 {
		return nil, fmt.Errorf("keys: a private key (CKA_ID %x) has %d public key objects of its CKA_ID: it needs exactly one", id, len(public))
	}
	return c.publicKey(s, public[0])
}
