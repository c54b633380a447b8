package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// KeyAlgorithm names the algorithm of a public key as policy files do:
// "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-" and the bits of
// the modulus. The error says why a key is unfit for any profile: another
// curve or algorithm, an Ed25519 key of small order, an RSA modulus below 2048 or above 8192 bits or
// with a weakness that is seen from outside (a prime factor below 2^16, primes close together, the
// fingerprint of ROCA), an RSA exponent that is even or below 65537.
func KeyAlgorithm(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			break
		}
		switch k.Curve {
		case elliptic.P256():
			return "ecdsa-p256", nil
		case elliptic.P384():
			return "ecdsa-p384", nil
		case elliptic.P521():
			return "ecdsa-p521", nil
		}
		return "", fmt.Errorf("the curve %s is not accepted; make a key on P-256, P-384 or P-521", k.Curve.Params().Name)
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return "", fmt.Errorf("an Ed25519 key has %d octets, this one %d", ed25519.PublicKeySize, len(k))
		}
		if smallOrder(k) {
			return "", errors.New("the Ed25519 key is a point of small order, for which anyone can sign; make a new key")
		}
		return "ed25519", nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			break
		}
		return rsaAlgorithm(k)
	}
	return "", errors.New("the key is of a kind that is not accepted; use ECDSA on P-256, P-384 or P-521, Ed25519, or RSA")
}

// smallOrder reports whether an Ed25519 key is one of the eight points whose order divides 8, in any
// encoding that verifiers take. The sign bit and values beyond the prime 2^255-19 make the others.
func smallOrder(k ed25519.PublicKey) bool {
	y := [ed25519.PublicKeySize]byte(k)
	y[31] &= 0x7f
	return slices.Contains(smallOrderPoints(), y)
}

var smallOrderPoints = sync.OnceValue(func() (points [][ed25519.PublicKeySize]byte) {
	for _, y := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, _ := hex.DecodeString(y)
		points = append(points, [ed25519.PublicKeySize]byte(raw))
	}
	return points
})

var keyAlgorithms = []string{"ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-2048", "rsa-3072", "rsa-4096"}

// keyName vets the name of a key algorithm in a policy file.
func (d *document) keyName(v value, name string) (string, bool) {
	if size, ok := strings.CutPrefix(name, "rsa-"); ok {
		if bits, err := strconv.Atoi(size); err == nil && strconv.Itoa(bits) == size {
			if bits >= minRSABits && bits <= maxRSABits {
				return name, true
			}
			d.fault(v, fmt.Sprintf("RSA keys have %d to %d bits", minRSABits, maxRSABits), "%q is out of range", name)
			return "", false
		}
	}
	return d.oneOf("key algorithm", keyAlgorithms...)(v, name)
}
