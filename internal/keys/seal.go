package keys

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// A sealed secret is
//
//	version (1 octet, 1) || nonce (12) || AES-256-GCM ciphertext || tag (16)
//
// and its additional data is a fixed prefix, the label of the wrapping key
// (length first), and the caller's aad: so that no ciphertext made under the
// key for another purpose opens.

// wrapLabel is the label of the key that Seal uses.
const wrapLabel = "deviceca-wrapping"

const (
	sealVersion  = 1
	nonceSize    = 12
	tagSize      = 16
	sealOverhead = 1 + nonceSize + tagSize
)

func sealAAD(aad []byte) []byte {
	b := []byte("deviceca sealed secret\x00")
	b = binary.BigEndian.AppendUint16(b, uint16(len(wrapLabel)))
	b = append(b, wrapLabel...)
	return append(b, aad...)
}

func joinSealed(nonce, ciphertext []byte) []byte {
	return bytes.Join([][]byte{{sealVersion}, nonce, ciphertext}, nil)
}

func splitSealed(sealed []byte) (nonce, ciphertext []byte, err error) {
	if len(sealed) < sealOverhead || len(sealed) > sealOverhead+MaxSecret {
		return nil, nil, fmt.Errorf("%w: %d bytes is not its size", ErrSealed, len(sealed))
	}
	if sealed[0] != sealVersion {
		return nil, nil, fmt.Errorf("%w: unknown version %d", ErrSealed, sealed[0])
	}
	return sealed[1 : 1+nonceSize], sealed[1+nonceSize:], nil
}
