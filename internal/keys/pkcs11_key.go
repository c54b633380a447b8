//go:build cgo

package keys

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// place is where an object lies: handles mean nothing on another connection.
type place struct {
	c *conn
	h pkcs11.ObjectHandle
}

// tokenKey is a private key on a token.
type tokenKey struct {
	t     *token
	label string
	id    []byte
	pub   crypto.PublicKey
	at    atomic.Pointer[place]
	// suspicion is why the key may not sign; see distrust.
	suspicion atomic.Pointer[error]
}

func (k *tokenKey) Public() crypto.PublicKey { return k.pub }
func (k *tokenKey) Label() string            { return k.label }

// URI names the key by its token, its label and its CKA_ID.
func (k *tokenKey) URI() string {
	u := *k.t.uri
	u.Object, u.ID, u.Type = k.label, k.id, "private"
	return u.String()
}

// Key reads the public key from the public key object that shares the private
// key's CKA_ID.
func (t *token) Key(ctx context.Context, label string) (Key, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	var k *tokenKey
	err := t.do(ctx, always, func(c *conn, s pkcs11.SessionHandle) error {
		var err error
		k, err = t.key(c, s, label)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t.keep(k)
}

// keep gives out a key that was found.
func (t *token) keep(k *tokenKey) (Key, error) {
	k, err := t.remember(k)
	if err != nil {
		return nil, err
	}
	t.known.Store(k)
	return k, nil
}

func (t *token) key(c *conn, s pkcs11.SessionHandle, label string) (*tokenKey, error) {
	private, err := c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
	if err != nil {
		return nil, err
	}
	switch len(private) {
	case 0:
		return nil, fmt.Errorf("%w: no private key %q on the token", ErrNotFound, label)
	case 1:
	default:
		return nil, fmt.Errorf("keys: %d private keys on the token are labelled %q: give all but one another label", len(private), label)
	}
	k := &tokenKey{t: t, label: label}
	k.at.Store(&place{c, private[0]})
	if k.id, err = c.bytesOf(s, private[0], pkcs11.CKA_ID); err != nil {
		return nil, err
	}
	public, err := c.publicKeys(s, k.id)
	if err != nil {
		return nil, err
	}
	if len(k.id) == 0 || len(public) != 1 {
		return nil, fmt.Errorf("keys: the private key %q (CKA_ID %x) has %d public key objects of its CKA_ID: it needs exactly one", label, k.id, len(public))
	}
	k.pub, err = c.publicKey(s, public[0])
	if err != nil {
		return nil, err
	}
	return k, nil
}

// locate gives the private key's handle on c. Looking it up each time would cost
// a third of the signing rate, and more on a token with many objects.
func (k *tokenKey) locate(c *conn, s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	if p := k.at.Load(); p != nil && p.c == c {
		return p.h, nil
	}
	found, err := c.find(s,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, k.id))
	if err != nil {
		return 0, err
	}
	if len(found) != 1 {
		return 0, fmt.Errorf("%w: %d private keys of CKA_ID %x on the token", ErrNotFound, len(found), k.id)
	}
	k.at.Store(&place{c, found[0]})
	return found[0], nil
}

func (k *tokenKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if err := checkDigest(k.pub, digest, opts); err != nil {
		return nil, err
	}
	if err := k.trusted(); err != nil {
		return nil, err
	}
	mechanism, input, err := k.mechanism(digest, opts)
	if err != nil {
		return nil, err
	}
	var raw []byte
	err = k.t.do(context.Background(), always, func(c *conn, s pkcs11.SessionHandle) error {
		var err error
		raw, err = k.sign(c, s, mechanism, input)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return nil, k.distrust(err)
	}
	if err != nil {
		return nil, err
	}
	signature, err := k.checked(raw, digest, opts) // the session is free again: verifying takes as long as signing
	if err != nil {
		return nil, k.distrust(err)
	}
	return signature, nil
}

// checked makes what the token gave a signature, if it verifies.
func (k *tokenKey) checked(raw, digest []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	signature = raw
	if pub, ok := k.pub.(*ecdsa.PublicKey); ok {
		if signature, err = encodeECDSA(raw, (pub.Curve.Params().N.BitLen()+7)/8); err != nil {
			return nil, err
		}
	}
	if !verifies(k.pub, digest, signature, opts) {
		return nil, errWrongSignature
	}
	return signature, nil
}

func (k *tokenKey) sign(c *conn, s pkcs11.SessionHandle, mechanism []*pkcs11.Mechanism, input []byte) ([]byte, error) {
	h, err := k.locate(c, s)
	if err != nil {
		return nil, err
	}
	step := "C_SignInit"
	var signature []byte
	if err = c.m.ctx.SignInit(s, mechanism, h); err == nil {
		step = "C_Sign"
		signature, err = c.m.ctx.Sign(s, input)
	}
	if err != nil {
		if lost(err) {
			k.t.failed.Store(k)
		}
		return nil, ckError(step, err)
	}
	// Read first: the write would bounce between processors.
	if k.t.failed.Load() == k {
		k.t.failed.CompareAndSwap(k, nil)
	}
	return signature, nil
}

// trySign signs random bytes, which mean nothing as a digest or as a message, and
// verifies what comes back.
func (k *tokenKey) trySign(c *conn, s pkcs11.SessionHandle) error {
	var opts crypto.SignerOpts = crypto.SHA256
	if _, ok := k.pub.(ed25519.PublicKey); ok {
		opts = crypto.Hash(0)
	}
	digest := random(32)
	mechanism, input, err := k.mechanism(digest, opts)
	if err != nil {
		return err
	}
	raw, err := k.sign(c, s, mechanism, input)
	if err != nil {
		return err
	}
	_, err = k.checked(raw, digest, opts)
	return err
}

var (
	ecdsaMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	eddsaMechanism = []*pkcs11.Mechanism{pkcs11.NewMechanism(ckmEdDSA, nil)}
	rsaMechanism   = []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)}

	// digestInfo is the DER before the digest in DigestInfo (RFC 8017 §9.2, note 1).
	digestInfo = map[crypto.Hash][]byte{
		crypto.SHA256: {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
		crypto.SHA384: {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
		crypto.SHA512: {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
	}
	pssHash = map[crypto.Hash][2]uint{
		crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
		crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
		crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
	}
)

// mechanism gives the token's mechanism and what it signs. checkDigest has passed.
func (k *tokenKey) mechanism(digest []byte, opts crypto.SignerOpts) ([]*pkcs11.Mechanism, []byte, error) {
	switch pub := k.pub.(type) {
	case *ecdsa.PublicKey:
		// ECDSA uses the leftmost bits up to the order's size; some modules
		// refuse a longer digest instead of cutting it.
		return ecdsaMechanism, digest[:min(len(digest), (pub.Curve.Params().N.BitLen()+7)/8)], nil
	case ed25519.PublicKey:
		return eddsaMechanism, digest, nil
	case *rsa.PublicKey:
		hash := opts.HashFunc()
		pss, ok := opts.(*rsa.PSSOptions)
		if !ok {
			return rsaMechanism, append(digestInfo[hash][:len(digestInfo[hash]):len(digestInfo[hash])], digest...), nil
		}
		salt, err := pssSaltLength(pub, pss)
		if err != nil {
			return nil, nil, err
		}
		params := pkcs11.NewPSSParams(pssHash[hash][0], pssHash[hash][1], uint(salt))
		return []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, params)}, digest, nil
	}
	return nil, nil, fmt.Errorf("keys: a %T cannot sign", k.pub)
}

// encodeECDSA turns r || s, each of size octets, into Ecdsa-Sig-Value (RFC 5480 appendix A).
func encodeECDSA(raw []byte, size int) ([]byte, error) {
	if len(raw) != 2*size {
		return nil, fmt.Errorf("keys: the token gave an ECDSA signature of %d bytes, not %d", len(raw), 2*size)
	}
	r, s := derInteger(raw[:size]), derInteger(raw[size:])
	if len(r) == 0 || len(s) == 0 {
		return nil, errors.New("keys: the token gave an empty ECDSA signature")
	}
	b := make([]byte, 0, 2*size+9)
	b = append(b, 0x30, 0)
	for _, v := range [][]byte{r, s} {
		sign := v[0] >> 7 // a leading zero octet keeps it positive
		b = append(b, 0x02, byte(len(v))+sign)
		b = append(b, make([]byte, sign)...)
		b = append(b, v...)
	}
	b[1] = byte(len(b) - 2) // under 128: both curves fit the short form
	return b, nil
}

// derInteger cuts leading zeros, which DER forbids.
func derInteger(v []byte) []byte { return bytes.TrimLeft(v, "\x00") }
