//go:build cgo

package keys_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// swapper puts other objects in the place of a key's, past the provider.
type swapper struct {
	t   *testing.T
	ctx *pkcs11.Ctx
	id  []byte
	// spent counts what was swapped in and is out again.
	spent int
}

func newSwapper(t *testing.T, k keys.Key) *swapper {
	t.Helper()
	u, err := keys.ParseURI(k.URI())
	if err != nil {
		t.Fatal(err)
	}
	return &swapper{t: t, ctx: pkcs11.New(keystest.Module(t)), id: u.ID}
}

// aside is the CKA_ID of what was swapped out.
var aside = []byte("aside")

// in makes another key pair and gives its halves the CKA_ID of the key: of both, or of the private one alone.
func (w *swapper) in(both bool) {
	w.t.Helper()
	_, s := rawSession(w.t)
	public, private, err := w.ctx.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte("other")),
			pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07})},
		[]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte("other")),
			pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.rename(s, pkcs11.CKO_PRIVATE_KEY, w.id, aside)
	w.set(s, private, w.id)
	if both {
		w.rename(s, pkcs11.CKO_PUBLIC_KEY, w.id, aside)
		w.set(s, public, w.id)
	}
}

// out puts the key back.
func (w *swapper) out(both bool) {
	w.t.Helper()
	_, s := rawSession(w.t)
	w.spent++
	w.rename(s, pkcs11.CKO_PRIVATE_KEY, w.id, []byte(fmt.Sprint("spent ", w.spent)))
	w.rename(s, pkcs11.CKO_PRIVATE_KEY, aside, w.id)
	if both {
		w.rename(s, pkcs11.CKO_PUBLIC_KEY, w.id, []byte(fmt.Sprint("spent ", w.spent)))
		w.rename(s, pkcs11.CKO_PUBLIC_KEY, aside, w.id)
	}
}

func (w *swapper) rename(s pkcs11.SessionHandle, class uint, from, to []byte) {
	w.t.Helper()
	if err := w.ctx.FindObjectsInit(s, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_ID, from)}); err != nil {
		w.t.Fatal(err)
	}
	found, _, err := w.ctx.FindObjects(s, 2)
	if err != nil || len(found) != 1 {
		w.t.Fatalf("%d objects of CKA_ID %q: %v", len(found), from, err)
	}
	if err := w.ctx.FindObjectsFinal(s); err != nil {
		w.t.Fatal(err)
	}
	w.set(s, found[0], to)
}

func (w *swapper) set(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, id []byte) {
	w.t.Helper()
	label := string(id)
	if bytes.Equal(id, w.id) {
		label = "k"
	}
	if err := w.ctx.SetAttributeValue(s, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}); err != nil {
		w.t.Fatal(err)
	}
}

// reconnect makes the provider find its keys anew: handles do not tell what lies under a CKA_ID now.
func (w *swapper) reconnect() {
	w.t.Helper()
	if err := w.ctx.Finalize(); err != nil {
		w.t.Fatal(err)
	}
}

func wantSuspect(t *testing.T, err error, k keys.Key, cause string) {
	t.Helper()
	keystest.WantSuspect(t, err, k)
	if err == nil || !strings.Contains(err.Error(), cause) {
		t.Errorf("got %v, want the cause %q", err, cause)
	}
}

// A key object that is swapped under its CKA_ID signs nothing, Ping names it, other
// keys go on, and it serves again by itself when it is put back.
func TestSwappedKey(t *testing.T) {
	for _, c := range []struct {
		name, cause string
		both        bool
	}{
		{"both halves", "public key object of its CKA_ID is another", true},
		{"the private half", "does not verify", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			uri, _ := keystest.SoftHSM(t)
			p := open(t, uri, keys.Options{})
			k := generate(t, p)
			w := newSwapper(t, k)
			keystest.Swapped(t, p, k, func() {
				w.in(c.both)
				w.reconnect()
				keystest.WaitFor(t, c.cause, func() bool { err := sign(k); return err != nil && strings.Contains(err.Error(), c.cause) })
			}, func() { w.out(c.both) })
		})
	}
}

// A key that was deleted is missed when it should sign, and from then on.
func TestDeletedKey(t *testing.T) {
	uri, _ := keystest.SoftHSM(t)
	p := open(t, uri, keys.Options{})
	k := generate(t, p)
	w := newSwapper(t, k)
	_, s := rawSession(t)
	w.rename(s, pkcs11.CKO_PRIVATE_KEY, w.id, aside)
	w.reconnect()
	keystest.WaitFor(t, "the key is missed", func() bool { return isErr(sign(k), keys.ErrNotFound) })
	keystest.WaitFor(t, "Ping names it", func() bool { return isErr(p.Ping(t.Context()), keys.ErrNotFound) })
	_, s = rawSession(t)
	w.rename(s, pkcs11.CKO_PRIVATE_KEY, aside, w.id)
	wantBack(t, p, k)
}

// Whatever the token gives that is no signature by the key, Sign gives nothing.
func TestWrongSignature(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{})
	k := generate(t, p)
	for name, octet := range map[string]string{"first octet": "0", "last octet": "3f"} {
		t.Run(name, func(t *testing.T) {
			proxy.control(t, "C_Sign spoil "+octet)
			wantSuspect(t, sign(k), k, "does not verify")
			wantSuspect(t, p.Ping(t.Context()), k, "does not verify")
			proxy.control(t, "")
			wantBack(t, p, k)
		})
	}
}
