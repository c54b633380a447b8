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

// Check is part of Provider.
func (t *token) Check(ctx context.Context, want map[string]Spec, seal bool) error {
	return t.do(ctx, always, func(c *conn, s pkcs11.SessionHandle) error {
		for label, spec := range want {
			spec, err := spec.normal()
			if err != nil {
				return err
			}
			if err := checkLabel(label); err != nil {
				return err
			}
			if err := c.free(s, label); err != nil {
				return err
			}
			if err := c.makes(spec); err != nil {
				return err
			}
		}
		if !seal {
			return nil
		}
		for _, m := range methods {
			if _, err := m.find(c, s); !errors.Is(err, errNoWrap) {
				return err
			}
		}
		return c.wraps()
	})
}

// free refuses a label that a private key of the token bears.
func (c *conn) free(s pkcs11.SessionHandle, label string) error {
	taken, err := c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	if err == nil && len(taken) > 0 {
		err = fmt.Errorf("%w: %q", ErrExists, label)
	}
	return err
}

// makes refuses a kind of key that the token has not all mechanisms for.
func (c *conn) makes(spec Spec) error {
	r := recipeFor(spec)
	for i, mechanism := range []uint{r.generate, r.sign} {
		if err := c.offers(mechanism, r.names[i]); err != nil {
			return err
		}
	}
	if most := c.longestRSA(); r.generate == pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN && most != 0 && most < rsaBits(spec) {
		return fmt.Errorf("%w: the token does not offer RSA keys longer than %d bits: choose another kind of key or another module", ErrNotOffered, most)
	}
	return nil
}

// note remembers the CKA_ID of what is about to be made: a call that fails may have made it.
func (t *token) note(id []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.ContainsFunc(t.made, func(one []byte) bool { return bytes.Equal(one, id) }) {
		t.made = append(t.made, id)
	}
}

// Undo is part of Provider. It finds what it made by CKA_ID, which is random.
func (t *token) Undo(ctx context.Context) error {
	t.mu.Lock()
	made := slices.Clone(t.made)
	t.mu.Unlock()
	var errs []error
	for _, id := range made {
		errs = append(errs, t.make(ctx, func(c *conn, s pkcs11.SessionHandle) error {
			return c.destroy(s, id)
		}))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	t.wrap.Store(nil)
	t.known.Store(nil) // Ping's example: any key that is asked for next
	t.mu.Lock()
	for _, id := range made {
		delete(t.loaded, string(id)) // or Ping would miss them
	}
	t.made = nil
	t.mu.Unlock()
	return nil
}
