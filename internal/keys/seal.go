package keys

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// A sealed secret is one octet, which says how, and what that makes of it:
//
//	1  nonce (12) || AES-256-GCM ciphertext || tag (16)        the provider's own AES-GCM
//	2  iv (16) || AES-256-CBC of K (32) || HMAC-SHA-256 of both (32) || envelope
//	3  checksum (32) || hash (1) || length (2) || RSA-OAEP of K || envelope
//	4  ephemeral P-256 point (65) || envelope
//
// where K is a content key that seals this one secret, and the
//
//	envelope = nonce (12) || AES-256-GCM ciphertext under K || tag (16)
//
// is made in this process. In 4, K is HKDF of the shared secret. Additional data is always a fixed prefix, the label of
// the wrapping key (length first), and the caller's aad: so that no ciphertext made under the
// key for another purpose opens.

// wrapLabel is the label of the key that Seal uses with AES-GCM.
const wrapLabel = "deviceca-wrapping"

// The ways to seal, in the order of preference: the first two show also that nobody
// else sealed it. With a public key, anyone who knows it can seal.
const (
	sealGCM  = 1
	sealCBC  = 2
	sealRSA  = 3
	sealECDH = 4
)

var sealNames = map[byte]string{sealGCM: "AES-GCM", sealCBC: "AES-CBC and HMAC", sealRSA: "RSA-OAEP", sealECDH: "ECDH"}

// SealedBy names the mechanism of the provider that a result of Seal needs: AES-GCM, AES-CBC and HMAC, RSA-OAEP or ECDH.
func SealedBy(sealed []byte) string {
	if len(sealed) == 0 || sealNames[sealed[0]] == "" {
		return "unknown"
	}
	return sealNames[sealed[0]]
}

const (
	nonceSize = 12
	tagSize   = 16
	// maxSealed has room for RSA of 16384 bits.
	maxSealed = MaxSecret + 2200
)

func sealAAD(label string, aad []byte) []byte {
	b := []byte("deviceca sealed secret\x00")
	b = binary.BigEndian.AppendUint16(b, uint16(len(label)))
	b = append(b, label...)
	return append(b, aad...)
}

// splitSealed gives what follows the octet that says how.
func splitSealed(sealed []byte) (how byte, body []byte, err error) {
	if len(sealed) < 1+nonceSize+tagSize || len(sealed) > maxSealed {
		return 0, nil, fmt.Errorf("%w: %d bytes is not its size", ErrSealed, len(sealed))
	}
	if sealNames[sealed[0]] == "" {
		return 0, nil, fmt.Errorf("%w: unknown version %d", ErrSealed, sealed[0])
	}
	return sealed[0], sealed[1:], nil
}

// splitGCM splits the body of version 1.
func splitGCM(body []byte) (nonce, ciphertext []byte, err error) {
	if len(body) < nonceSize+tagSize || len(body) > nonceSize+tagSize+MaxSecret {
		return nil, nil, fmt.Errorf("%w: %d bytes is not its size", ErrSealed, len(body))
	}
	return body[:nonceSize], body[nonceSize:], nil
}

// cut takes n octets from the front.
func cut(body []byte, n int) (front, rest []byte, err error) {
	if n < 0 || len(body) < n {
		return nil, nil, fmt.Errorf("%w: it is cut off", ErrSealed)
	}
	return body[:n], body[n:], nil
}

func joinSealed(how byte, parts ...[]byte) []byte {
	return append([]byte{how}, bytes.Join(parts, nil)...)
}

// envelope encrypts a secret under a content key that encrypts nothing else.
func envelope(contentKey, plaintext, aad []byte) ([]byte, error) {
	g, err := contentCipher(contentKey)
	if err != nil {
		return nil, err
	}
	return g.Seal(nil, nil, plaintext, aad), nil
}

func openEnvelope(contentKey, sealed, aad []byte) ([]byte, error) {
	g, err := contentCipher(contentKey)
	if err != nil {
		return nil, err
	}
	plaintext, err := g.Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, ErrSealed
	}
	return plaintext, nil
}

const contentKeySize = 32

func contentCipher(contentKey []byte) (cipher.AEAD, error) {
	if len(contentKey) != contentKeySize {
		return nil, fmt.Errorf("%w: its content key has %d bytes", ErrSealed, len(contentKey))
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
