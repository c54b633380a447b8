package policy

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // checking a signature costs the square of the size
)

// KeyAlgorithm names the algorithm of a public key as policy files do:
// "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519", "rsa-" and the bits of
// the modulus. The error says why a key is unfit for any profile: another
// curve or algorithm, an RSA modulus below 2048 or above 8192 bits, an RSA
// exponent that is even or below 65537.
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
			return "", fmt.Errorf("an Ed25519 key has %d bytes, this one %d", ed25519.PublicKeySize, len(k))
		}
		return "ed25519", nil
	case *rsa.PublicKey:
		if k == nil || k.N == nil {
			break
		}
		bits := k.N.BitLen()
		switch {
		case bits < minRSABits:
			return "", fmt.Errorf("an RSA key of %d bits is too short; make one of at least %d", bits, minRSABits)
		case bits > maxRSABits:
			return "", fmt.Errorf("an RSA key of %d bits is too long; make one of at most %d", bits, maxRSABits)
		case k.N.Bit(0) == 0:
			return "", errors.New("the RSA modulus is even, so it is no RSA key; make a new one")
		case k.E < 65537 || k.E%2 == 0:
			return "", fmt.Errorf("the RSA exponent %d is not accepted; use 65537", k.E)
		}
		return "rsa-" + strconv.Itoa(bits), nil
	}
	return "", fmt.Errorf("keys of type %T are not accepted; use ECDSA, Ed25519 or RSA", pub)
}

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
