//go:build cgo

package keys

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// ecdhMethod agrees on the content key with a P-256 key in the token, by an ephemeral one.
var ecdhMethod = &method{
	how:   sealECDH,
	needs: []mechanism{{pkcs11.CKM_EC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"}, {pkcs11.CKM_ECDH1_DERIVE, "CKM_ECDH1_DERIVE"}},
	keys:  []wrapKey{{wrapLabel + "-ecdh", pkcs11.CKO_PRIVATE_KEY, makeECDH}},
	seal:  sealByECDH,
	open:  openByECDH,
}

const p256PointSize = 65

func makeECDH(c *conn, s pkcs11.SessionHandle, label string, id []byte) error {
	_, err := c.makePair(s, recipeFor(ECDSAP256), label, id, pkcs11.CKA_DERIVE)
	return err
}

// staticPoint reads the public half of the token's key.
func staticPoint(c *conn, s pkcs11.SessionHandle, private pkcs11.ObjectHandle) (*ecdh.PublicKey, error) {
	public, err := c.publicOf(s, private)
	if err != nil {
		return nil, err
	}
	pub, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("keys: the key %q on the token is a %T, not EC", wrapLabel+"-ecdh", public)
	}
	return pub.ECDH()
}

func sealByECDH(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	static, err := staticPoint(c, s, k[0])
	if err != nil {
		return nil, err
	}
	ephemeral, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	shared, err := ephemeral.ECDH(static)
	if err != nil {
		return nil, fmt.Errorf("keys: ECDH: %w", err)
	}
	contentKey, err := agreedKey(shared, ephemeral.PublicKey(), static)
	if err != nil {
		return nil, err
	}
	sealed, err := envelope(contentKey, plaintext, aad)
	if err != nil {
		return nil, err
	}
	return append(ephemeral.PublicKey().Bytes(), sealed...), nil
}

func openByECDH(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, body, aad []byte) ([]byte, error) {
	point, sealed, err := cut(body, p256PointSize)
	if err != nil {
		return nil, err
	}
	ephemeral, err := ecdh.P256().NewPublicKey(point)
	if err != nil {
		return nil, ErrSealed // no point of the curve: not for the token to find out
	}
	static, err := staticPoint(c, s, k[0])
	if err != nil {
		return nil, err
	}
	shared, err := c.derive(s, k[0], point)
	if err != nil {
		return nil, err
	}
	contentKey, err := agreedKey(shared, ephemeral, static)
	if err != nil {
		return nil, err
	}
	return openEnvelope(contentKey, sealed, aad)
}

// agreedKey is HKDF (RFC 5869) with SHA-256, without salt, over the shared secret; both public keys are in its info.
func agreedKey(shared []byte, ephemeral, static *ecdh.PublicKey) ([]byte, error) {
	info := "deviceca sealed secret ECDH\x00" + string(ephemeral.Bytes()) + string(static.Bytes())
	return hkdf.Key(sha256.New, shared, nil, info, contentKeySize)
}

// derive has the token compute the shared secret. The point goes bare, as PKCS#11 §2.3.21 says, or
// in an OCTET STRING to modules that want that.
func (c *conn) derive(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, point []byte) ([]byte, error) {
	wrapped, err := asn1.Marshal(point)
	if err != nil {
		return nil, err
	}
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
	}
	var failures []error
	for _, p := range [][]byte{point, wrapped} {
		mechanism := pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, p))
		h, err := c.m.ctx.DeriveKey(s, []*pkcs11.Mechanism{mechanism}, key, template)
		if err != nil {
			failures = append(failures, ckError("C_DeriveKey", err))
			continue
		}
		shared, err := c.bytesOf(s, h, pkcs11.CKA_VALUE)
		return shared, errors.Join(err, c.m.ctx.DestroyObject(s, h))
	}
	return nil, errors.Join(failures...)
}
