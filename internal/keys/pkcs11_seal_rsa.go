//go:build cgo

package keys

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for tokens that know OAEP with nothing else, where it is as good
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// rsaMethod encrypts the content key to a public key whose private half is in the token.
var rsaMethod = &method{
	how:   sealRSA,
	needs: []mechanism{{pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, "CKM_RSA_PKCS_KEY_PAIR_GEN"}, {pkcs11.CKM_RSA_PKCS_OAEP, "CKM_RSA_PKCS_OAEP"}},
	keys:  []wrapKey{{wrapLabel + "-rsa", pkcs11.CKO_PRIVATE_KEY, makeRSA}},
	seal:  sealByRSA,
	open:  openByRSA,
}

// oaep are the hashes of RSAES-OAEP (RFC 8017 §7.1), of the label and of MGF1 alike, as the
// sealed form numbers them from 1. Tokens differ in which they know (SoftHSM 2.6: SHA-1).
var oaep = []struct {
	hash      crypto.Hash
	ckm, ckg1 uint
}{{crypto.SHA256, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256}, {crypto.SHA1, pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1}}

// makeRSA makes the largest of 3072 and 2048 bits that the token makes.
func makeRSA(c *conn, s pkcs11.SessionHandle, label string, id []byte) error {
	bits := 3072
	if most := c.longestRSA(); most != 0 && most < bits {
		bits = 2048
	}
	r := recipeFor(RSA3072)
	r.public = [][]*pkcs11.Attribute{rsaParams(bits)}
	_, err := c.makePair(s, r, label, id, pkcs11.CKA_DECRYPT)
	return err
}

func sealByRSA(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, plaintext, aad []byte) ([]byte, error) {
	pub, err := c.rsaOf(s, k[0])
	if err != nil {
		return nil, err
	}
	contentKey := random(contentKeySize)
	sealed, err := envelope(contentKey, plaintext, aad)
	if err != nil {
		return nil, err
	}
	var failures []error
	for i, o := range oaep {
		wrapped, err := rsa.EncryptOAEP(o.hash.New(), rand.Reader, pub, contentKey, nil)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		rest := append(binary.BigEndian.AppendUint16([]byte{byte(i + 1)}, uint16(len(wrapped))), wrapped...)
		rest = append(rest, sealed...)
		body := append(rsaChecksum(pub, rest, aad), rest...)
		if _, err = openByRSA(c, s, k, body, aad); err == nil {
			return body, nil
		}
		failures = append(failures, err)
		if lost(err) && c.present(s) != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

// rsaChecksum keeps from the token what is damaged, or meant for another key or purpose: tokens say the same of a wrong
// ciphertext as of a failure of their own, and libtpms answers nothing any more after one. It proves nothing else.
func rsaChecksum(pub *rsa.PublicKey, rest, aad []byte) []byte {
	h := sha256.New()
	for _, part := range [][]byte{pub.N.Bytes(), rest, aad} {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(part))))
		h.Write(part)
	}
	return h.Sum(nil)
}

// rsaOf reads the public half of the token's key.
func (c *conn) rsaOf(s pkcs11.SessionHandle, private pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	public, err := c.publicOf(s, private)
	if err != nil {
		return nil, err
	}
	pub, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("keys: the key %q on the token is a %T, not RSA", wrapLabel+"-rsa", public)
	}
	return pub, nil
}

func openByRSA(c *conn, s pkcs11.SessionHandle, k []pkcs11.ObjectHandle, body, aad []byte) ([]byte, error) {
	checksum, rest, err := cut(body, sha256.Size)
	if err != nil {
		return nil, err
	}
	pub, err := c.rsaOf(s, k[0])
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(checksum, rsaChecksum(pub, rest, aad)) {
		return nil, ErrSealed
	}
	head, rest, err := cut(rest, 3)
	if err != nil {
		return nil, err
	}
	if head[0] == 0 || int(head[0]) > len(oaep) {
		return nil, fmt.Errorf("%w: unknown hash %d", ErrSealed, head[0])
	}
	o := oaep[head[0]-1]
	wrapped, sealed, err := cut(rest, int(binary.BigEndian.Uint16(head[1:])))
	if err != nil {
		return nil, err
	}
	params := pkcs11.NewOAEPParams(o.ckm, o.ckg1, pkcs11.CKZ_DATA_SPECIFIED, nil)
	if err := c.m.ctx.DecryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, params)}, k[0]); err != nil {
		return nil, ckError("C_DecryptInit", err)
	}
	contentKey, err := c.m.ctx.Decrypt(s, wrapped)
	if err != nil {
		return nil, ckError("C_Decrypt", err)
	}
	return openEnvelope(contentKey, sealed, aad)
}
