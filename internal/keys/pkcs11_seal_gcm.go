//go:build cgo

package keys

import (
	"fmt"

	"github.com/miekg/pkcs11"
)

// gcmMethod has the token encrypt the secret itself.
var gcmMethod = &method{
	how:   sealGCM,
	needs: []mechanism{{pkcs11.CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN"}, {pkcs11.CKM_AES_GCM, "CKM_AES_GCM"}},
	keys:  []wrapKey{{wrapLabel, pkcs11.CKO_SECRET_KEY, makeAES}},
	seal:  sealByGCM,
	open:  openByGCM,
}

func sealByGCM(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	params := pkcs11.NewGCMParams(random(nonceSize), aad, tagSize*8)
	defer params.Free()
	if err := c.m.ctx.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k[0]); err != nil {
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
	return append(nonce, ciphertext...), nil
}

func openByGCM(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, body, aad []byte) ([]byte, error) {
	nonce, ciphertext, err := splitGCM(body)
	if err != nil {
		return nil, err
	}
	params := pkcs11.NewGCMParams(nonce, aad, tagSize*8)
	defer params.Free()
	if err := c.m.ctx.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, k[0]); err != nil {
		return nil, ckError("C_DecryptInit", err)
	}
	plaintext, err := c.m.ctx.Decrypt(s, ciphertext)
	if err != nil {
		return nil, ckError("C_Decrypt", err)
	}
	return plaintext, nil
}
