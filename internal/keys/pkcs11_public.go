//go:build cgo

package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// publicKey reads a public key object.
func (c *conn) publicKey(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) (crypto.PublicKey, error) {
	raw, err := c.bytesOf(s, o, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return nil, err
	}
	kind, err := ulong(raw)
	if err != nil {
		return nil, err
	}
	switch kind {
	case pkcs11.CKK_RSA:
		n, err := c.bytesOf(s, o, pkcs11.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		e, err := c.bytesOf(s, o, pkcs11.CKA_PUBLIC_EXPONENT)
		if err != nil {
			return nil, err
		}
		return rsaPublic(n, e)
	case pkcs11.CKK_EC, ckkECEdwards:
		params, err := c.bytesOf(s, o, pkcs11.CKA_EC_PARAMS)
		if err != nil {
			return nil, err
		}
		point, err := c.bytesOf(s, o, pkcs11.CKA_EC_POINT)
		if err != nil {
			return nil, err
		}
		if kind == ckkECEdwards {
			return edPublic(point)
		}
		return ecPublic(params, point)
	}
	return nil, fmt.Errorf("keys: key type %#x of the public key object is none that signs here", kind)
}

// ulong reads a CK_ULONG, which has the size and order of the machine.
func ulong(b []byte) (uint64, error) {
	switch len(b) {
	case 4:
		return uint64(binary.NativeEndian.Uint32(b)), nil
	case 8:
		return binary.NativeEndian.Uint64(b), nil
	}
	return 0, fmt.Errorf("keys: the token gave a number of %d bytes", len(b))
}

func rsaPublic(n, e []byte) (*rsa.PublicKey, error) {
	exponent := new(big.Int).SetBytes(e)
	pub := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(exponent.Int64())}
	if exponent.BitLen() > 31 || pub.E < 3 || pub.N.BitLen() < 2048 {
		return nil, errors.New("keys: the token holds an RSA key under 2048 bits or with an odd exponent")
	}
	return pub, nil
}

// unwrapPoint gives the bare point of size octets: by PKCS#11 §2.3.3 it lies in
// an OCTET STRING, but some modules give it bare.
func unwrapPoint(point []byte, size int) ([]byte, error) {
	if len(point) == size {
		return point, nil
	}
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err != nil || len(rest) > 0 || len(inner) != size {
		return nil, fmt.Errorf("keys: the token gave an elliptic curve point of %d bytes, not %d", len(point), size)
	}
	return inner, nil
}

func ecPublic(params, point []byte) (*ecdsa.PublicKey, error) {
	for curve, oid := range curveOIDs {
		if !bytes.Equal(params, oid) {
			continue
		}
		point, err := unwrapPoint(point, 1+2*((curve.Params().BitSize+7)/8))
		if err != nil {
			return nil, err
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(curve, point)
		if err != nil {
			return nil, fmt.Errorf("keys: public key on the token: %w", err)
		}
		return pub, nil
	}
	return nil, fmt.Errorf("keys: the token's key is on a curve (%x) other than P-256 and P-384", params)
}

func edPublic(point []byte) (ed25519.PublicKey, error) {
	point, err := unwrapPoint(point, ed25519.PublicKeySize)
	return ed25519.PublicKey(point), err
}
