//go:build cgo

package keys

import (
	"crypto/hmac"

	"github.com/miekg/pkcs11"
)

// cbcMethod has the token encrypt the content key, and then make a MAC of what that gave: encrypt-then-MAC under
// two keys.
var cbcMethod = &method{
	how: sealCBC,
	needs: []mechanism{
		{pkcs11.CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN"}, {pkcs11.CKM_AES_CBC, "CKM_AES_CBC"},
		{pkcs11.CKM_GENERIC_SECRET_KEY_GEN, "CKM_GENERIC_SECRET_KEY_GEN"}, {pkcs11.CKM_SHA256_HMAC, "CKM_SHA256_HMAC"},
	},
	keys: []wrapKey{
		{wrapLabel + "-cbc", pkcs11.CKO_SECRET_KEY, makeAES},
		{wrapLabel + "-mac", pkcs11.CKO_SECRET_KEY, makeHMAC},
	},
	seal: sealByCBC,
	open: openByCBC,
}

const (
	cbcBlock = 16
	macSize  = 32
)

func makeHMAC(c *conn, s pkcs11.SessionHandle, label string, id []byte) error {
	return c.makeSecret(s, pkcs11.CKM_GENERIC_SECRET_KEY_GEN, pkcs11.CKK_GENERIC_SECRET, label, id, pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY)
}

func sealByCBC(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	iv, contentKey := random(cbcBlock), random(contentKeySize)
	if err := c.m.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC, iv)}, k[0]); err != nil {
		return nil, ckError("C_EncryptInit", err)
	}
	encrypted, err := c.m.ctx.Encrypt(s, contentKey)
	if err != nil {
		return nil, ckError("C_Encrypt", err)
	}
	wrapped := append(iv, encrypted...)
	mac, err := c.mac(s, k[1], wrapped)
	if err != nil {
		return nil, err
	}
	sealed, err := envelope(contentKey, plaintext, aad)
	if err != nil {
		return nil, err
	}
	return append(append(wrapped, mac...), sealed...), nil
}

func openByCBC(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, body, aad []byte) ([]byte, error) {
	wrapped, rest, err := cut(body, cbcBlock+contentKeySize)
	if err != nil {
		return nil, err
	}
	mac, sealed, err := cut(rest, macSize)
	if err != nil {
		return nil, err
	}
	// Before anything is decrypted.
	right, err := c.mac(s, k[1], wrapped)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, right) {
		return nil, ErrSealed
	}
	if err := c.m.ctx.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_CBC, wrapped[:cbcBlock])}, k[0]); err != nil {
		return nil, ckError("C_DecryptInit", err)
	}
	contentKey, err := c.m.ctx.Decrypt(s, wrapped[cbcBlock:])
	if err != nil {
		return nil, ckError("C_Decrypt", err)
	}
	return openEnvelope(contentKey, sealed, aad)
}

// mac has the token make HMAC-SHA-256.
func (c *conn) mac(s pkcs11.SessionHandle, key pkcs11.ObjectHandle, message []byte) ([]byte, error) {
	if err := c.m.ctx.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_SHA256_HMAC, nil)}, key); err != nil {
		return nil, ckError("C_SignInit", err)
	}
	mac, err := c.m.ctx.Sign(s, message)
	if err != nil {
		return nil, ckError("C_Sign", err)
	}
	return mac, nil
}
