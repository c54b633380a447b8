//go:build cgo

package keys

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// Names of PKCS#11 3.0 that are missing from miekg/pkcs11.
const (
	ckkECEdwards           = 0x40
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEdDSA               = 0x1057
)

// recipe is what the token is asked for to make one kind of key.
type recipe struct {
	generate, sign uint
	names          [2]string // of these mechanisms
	public         [][]*pkcs11.Attribute
}

// recipeFor lists, in public, the ways in which modules write the same wish;
// the first that the token takes is used.
func recipeFor(spec Spec) recipe {
	params := func(der ...byte) []*pkcs11.Attribute {
		return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, der)}
	}
	switch spec {
	case RSA3072, RSA4096:
		return recipe{pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, pkcs11.CKM_RSA_PKCS, [2]string{"CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS"},
			[][]*pkcs11.Attribute{rsaParams(rsaBits(spec))}}
	case Ed25519:
		return recipe{ckmECEdwardsKeyPairGen, ckmEdDSA, [2]string{"CKM_EC_EDWARDS_KEY_PAIR_GEN", "CKM_EDDSA"},
			[][]*pkcs11.Attribute{
				params(oidEd25519...),
				params(append([]byte{0x13, byte(len(nameEd25519))}, nameEd25519...)...), // PrintableString, PKCS#11 3.0 §2.3.10
			}}
	}
	return recipe{pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA, [2]string{"CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA"},
		[][]*pkcs11.Attribute{params(curveOIDs[curveOf(spec)]...)}}
}

func rsaParams(bits int) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
	}
}

// longestRSA gives the longest RSA key that the token makes, in bits; 0 if it does not say.
func (c *conn) longestRSA() int {
	info, err := c.m.ctx.GetMechanismInfo(c.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)})
	if err != nil || info.MaxKeySize < 2048 || info.MaxKeySize > 1<<20 {
		return 0 // some modules count octets
	}
	return int(info.MaxKeySize)
}

var (
	curveOIDs = map[elliptic.Curve][]byte{
		elliptic.P256(): {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
		elliptic.P384(): {0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22},
	}
	oidEd25519  = []byte{0x06, 0x03, 0x2b, 0x65, 0x70} // RFC 8410 §3
	nameEd25519 = "edwards25519"
)

// Generate makes the pair on the token under a random CKA_ID.
func (t *token) Generate(ctx context.Context, label string, spec Spec) (Key, error) {
	if err := checkLabel(label); err != nil {
		return nil, err
	}
	spec, err := spec.normal()
	if err != nil {
		return nil, err
	}
	select {
	case t.making <- struct{}{}:
		defer func() { <-t.making }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-t.stop:
		return nil, errClosed
	}
	var k *tokenKey
	err = t.make(ctx, func(c *conn, s pkcs11.SessionHandle) error {
		var err error
		k, err = t.generate(c, s, label, spec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return t.keep(k)
}

func (t *token) generate(c *conn, s pkcs11.SessionHandle, label string, spec Spec) (*tokenKey, error) {
	if err := c.free(s, label); err != nil {
		return nil, err
	}
	if err := c.makes(spec); err != nil {
		return nil, err
	}
	id := random(16)
	t.note(id)
	if _, err := c.makePair(s, recipeFor(spec), label, id, pkcs11.CKA_SIGN); err != nil {
		return nil, err
	}
	k, err := t.key(c, s, label)
	if err == nil {
		t.note(k.id) // of a token that chooses by itself
	}
	return k, err
}

// purposes are what a private key may do; that of the public half is the other.
var purposes = []struct{ private, public uint }{
	{pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY}, {pkcs11.CKA_DECRYPT, pkcs11.CKA_ENCRYPT}, {pkcs11.CKA_UNWRAP, pkcs11.CKA_WRAP}, {pkcs11.CKA_DERIVE, 0},
}

// makePair makes a key pair whose private key has one purpose. A token that lets the
// others be refused is told to; some (tpm2-pkcs11) take no false there, and then decide by themselves.
// They are not asked twice: it may cost memory of the device each time.
func (c *conn) makePair(s pkcs11.SessionHandle, r recipe, label string, id []byte, purpose uint) (pkcs11.ObjectHandle, error) {
	publicTemplate := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	privateTemplate := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(purpose, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	narrow := slices.Clone(privateTemplate)
	for _, p := range purposes {
		switch {
		case p.private != purpose:
			narrow = append(narrow, pkcs11.NewAttribute(p.private, false))
		case p.public != 0:
			publicTemplate = append(publicTemplate, pkcs11.NewAttribute(p.public, true))
		}
	}
	var public, private pkcs11.ObjectHandle
	attempt := func(publicTemplate, privateTemplate []*pkcs11.Attribute) error {
		return insist(func() (err error) {
			public, private, err = c.m.ctx.GenerateKeyPair(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(r.generate, nil)}, publicTemplate, privateTemplate)
			return err
		})
	}
	var err error
wishes:
	for _, broad := range []bool{false, true} {
		private := narrow
		if broad {
			private = privateTemplate
		} else if c.broad.Load() {
			continue
		}
		for _, extra := range r.public {
			err = attempt(slices.Concat(publicTemplate, extra), private)
			if err == nil && broad {
				c.broad.Store(true)
			}
			if err == nil || lost(err) && !errors.Is(err, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)) {
				break wishes
			}
		}
	}
	if err != nil {
		return 0, ckError("C_GenerateKeyPair", err)
	}
	if err := c.checkSafe(s, private); err != nil {
		// Not a key to keep, and its label is free again.
		return 0, errors.Join(err, c.m.ctx.DestroyObject(s, private), c.m.ctx.DestroyObject(s, public))
	}
	return private, nil
}

// insist makes an object, and tries again a few times if the token calls the
// template inconsistent: SoftHSM 2.6 says so now and then of a good one, when
// another session reads the token at that moment. It keeps nothing of a failed try.
func insist(create func() error) error {
	for range 3 {
		if err := create(); !errors.Is(err, pkcs11.Error(pkcs11.CKR_TEMPLATE_INCONSISTENT)) {
			return err
		}
	}
	return create()
}

// offers refuses early, and by name, what the token cannot do.
func (c *conn) offers(mechanism uint, name string) error {
	_, err := c.m.ctx.GetMechanismInfo(c.slot, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)})
	if errors.Is(err, pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)) {
		return fmt.Errorf("%w: the token does not offer %s: choose another kind of key or another module", ErrNotOffered, name)
	}
	if err != nil {
		return ckError("C_GetMechanismInfo", err)
	}
	return nil
}

// checkSafe reads back what the token made of the template: a token may ignore
// parts of it. CKA_LOCAL is not asked for: that the token made the key is why there is one, and NSS does not keep it.
func (c *conn) checkSafe(s pkcs11.SessionHandle, key pkcs11.ObjectHandle) error {
	for _, a := range []struct {
		attribute uint
		name      string
		want      bool
	}{
		{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", true},
		{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false},
		{pkcs11.CKA_ALWAYS_SENSITIVE, "CKA_ALWAYS_SENSITIVE", true},
		{pkcs11.CKA_NEVER_EXTRACTABLE, "CKA_NEVER_EXTRACTABLE", true},
	} {
		have, err := c.isTrue(s, key, a.attribute)
		if err != nil {
			return err
		}
		if have != a.want {
			return fmt.Errorf("keys: the token made a key with %s=%v: it is not kept", a.name, have)
		}
	}
	return nil
}
