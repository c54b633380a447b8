package cms

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
)

// AES key wrap (RFC 3394; in CMS, RFC 3565 §2.3.2), and the wrap with a password
// (RFC 3211 §2.3).

var (
	oidAES128Wrap = OID{2, 16, 840, 1, 101, 3, 4, 1, 5}
	oidAES192Wrap = OID{2, 16, 840, 1, 101, 3, 4, 1, 25}
	oidAES256Wrap = OID{2, 16, 840, 1, 101, 3, 4, 1, 45}
)

// wrapOID is the wrap with a key of that many octets, nil if there is none.
func wrapOID(keySize int) OID {
	switch keySize {
	case 16:
		return oidAES128Wrap
	case 24:
		return oidAES192Wrap
	case 32:
		return oidAES256Wrap
	}
	return nil
}

// wrapKeySize is the inverse of wrapOID, 0 for an algorithm that is none.
func wrapKeySize(oid OID) int {
	for _, size := range []int{16, 24, 32} {
		if wrapOID(size).Equal(oid) {
			return size
		}
	}
	return 0
}

const wrapIV = 0xa6a6a6a6a6a6a6a6 // RFC 3394 §2.2.3.1

// wrap encrypts a key of 16 octets or more, a multiple of 8 (RFC 3394 §2.2.1).
func wrap(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	if len(key) < 16 || len(key)%8 != 0 {
		return nil, unsupported("a key of %d octets cannot be wrapped", len(key))
	}
	out := make([]byte, 8+len(key))
	copy(out[8:], key)
	n := len(key) / 8
	var work [16]byte
	a := uint64(wrapIV)
	for step := range 6 * n {
		r := out[8+8*(step%n):][:8]
		binary.BigEndian.PutUint64(work[:], a)
		copy(work[8:], r)
		block.Encrypt(work[:], work[:])
		a = binary.BigEndian.Uint64(work[:]) ^ uint64(step+1)
		copy(r, work[8:])
	}
	binary.BigEndian.PutUint64(out, a)
	clear(work[:])
	return out, nil
}

// unwrap is the inverse of wrap (RFC 3394 §2.2.2).
func unwrap(kek, wrapped []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil || len(wrapped) < 24 || len(wrapped) > 8+maxCEK || len(wrapped)%8 != 0 {
		return nil, ErrDecrypt
	}
	out := make([]byte, len(wrapped)-8)
	copy(out, wrapped[8:])
	n := len(out) / 8
	var work [16]byte
	a := binary.BigEndian.Uint64(wrapped)
	for step := 6*n - 1; step >= 0; step-- {
		r := out[8*(step%n):][:8]
		binary.BigEndian.PutUint64(work[:], a^uint64(step+1))
		copy(work[8:], r)
		block.Decrypt(work[:], work[:])
		a = binary.BigEndian.Uint64(work[:])
		copy(r, work[8:])
	}
	clear(work[:])
	if a != wrapIV {
		clear(out)
		return nil, ErrDecrypt
	}
	return out, nil
}

// passwordWrap encrypts a key under one made of a password: length, complement
// of the first three octets as check, key and random padding, at least two
// blocks, in CBC twice over, the second pass going on with the first one's chain.
func passwordWrap(kek, iv, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	size := max(2*aes.BlockSize, (4+len(key)+aes.BlockSize-1)/aes.BlockSize*aes.BlockSize)
	out := make([]byte, size)
	out[0] = byte(len(key))
	for i := range 3 {
		out[1+i] = ^key[i]
	}
	rand.Read(out[4+copy(out[4:], key):])
	chain := cipher.NewCBCEncrypter(block, iv)
	chain.CryptBlocks(out, out)
	chain.CryptBlocks(out, out)
	return out, nil
}

// passwordUnwrap is the inverse of passwordWrap.
func passwordUnwrap(kek, iv, wrapped []byte) ([]byte, error) {
	const bs = aes.BlockSize
	block, err := aes.NewCipher(kek)
	if err != nil || len(iv) != bs || len(wrapped) < 2*bs || len(wrapped) > 4+maxCEK+bs || len(wrapped)%bs != 0 {
		return nil, ErrDecrypt
	}
	out := make([]byte, len(wrapped))
	last := len(wrapped) - bs
	// The second pass began with the last block of the first as its chain, and that
	// block can be had from the last two alone.
	cipher.NewCBCDecrypter(block, wrapped[last-bs:last]).CryptBlocks(out[last:], wrapped[last:])
	cipher.NewCBCDecrypter(block, out[last:]).CryptBlocks(out[:last], wrapped[:last])
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, out)
	n := int(out[0])
	check := [3]byte{^out[4], ^out[5], ^out[6]}
	if subtle.ConstantTimeCompare(check[:], out[1:4]) != 1 || n < 16 || 4+n > len(out) {
		clear(out)
		return nil, ErrDecrypt
	}
	return out[4 : 4+n], nil
}
