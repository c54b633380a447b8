package ca

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/policy"
)

const (
	oidRSAKey     = "1.2.840.113549.1.1.1"
	oidECKey      = "1.2.840.10045.2.1"
	oidEd25519Key = "1.3.101.112"
)

// otherKeys are algorithms of keys that are not certified, by the names that people know them by.
var otherKeys = map[string]string{
	"1.2.840.113549.1.1.7": "RSA limited to OAEP", "1.2.840.113549.1.1.10": "RSA limited to PSS", "1.2.840.10040.4.1": "DSA",
	"1.2.840.10046.2.1": "Diffie-Hellman", "1.3.132.1.12": "EC limited to ECDH", "1.3.132.1.13": "EC limited to ECMQV",
	"1.3.101.110": "X25519", "1.3.101.111": "X448", "1.3.101.113": "Ed448",
	"2.16.840.1.101.3.4.3.17": "ML-DSA-44", "2.16.840.1.101.3.4.3.18": "ML-DSA-65", "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
	"2.16.840.1.101.3.4.4.1": "ML-KEM-512", "2.16.840.1.101.3.4.4.2": "ML-KEM-768", "2.16.840.1.101.3.4.4.3": "ML-KEM-1024",
}

// curves are the named curves that are certified, with the octets of a coordinate.
var curves = map[string]int{"1.2.840.10045.3.1.7": 32, "1.3.132.0.34": 48, "1.3.132.0.35": 66}

var otherCurves = map[string]string{
	"1.2.840.10045.3.1.1": "P-192", "1.3.132.0.33": "P-224", "1.3.132.0.10": "secp256k1", "1.2.156.10197.1.301": "SM2",
	"1.3.36.3.3.2.8.1.1.7": "brainpoolP256r1", "1.3.36.3.3.2.8.1.1.11": "brainpoolP384r1", "1.3.36.3.3.2.8.1.1.13": "brainpoolP512r1",
}

const makeAnother = "; make one on P-256, P-384 or P-521, of Ed25519, or of RSA with at least 2048 bits"

// ParseKey reads a SubjectPublicKeyInfo, DER, and vets the key as [policy.KeyAlgorithm] does. There is one
// encoding of each key: by the octets it is known again under another device. The error is BadKey
// and says what is wrong.
func ParseKey(spki []byte) (crypto.PublicKey, error) {
	err := checkKeyEncoding(spki)
	if err != nil {
		return nil, Errorf(BadKey, "the key cannot be certified: %v", err)
	}
	pub, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, Errorf(BadKey, "the key cannot be certified, as it cannot be read: %v", err)
	}
	if _, err := policy.KeyAlgorithm(pub); err != nil {
		return nil, Errorf(BadKey, "the key cannot be certified: %v", err)
	}
	return pub, nil
}

// checkKeyEncoding reads
//
//	SubjectPublicKeyInfo ::= SEQUENCE {
//	    algorithm SEQUENCE { algorithm OBJECT IDENTIFIER, parameters ANY OPTIONAL }, subjectPublicKey BIT STRING }
func checkKeyEncoding(spki []byte) error {
	body, err := der.Whole(spki, cbasn1.SEQUENCE)
	if err != nil {
		return fmt.Errorf("its SubjectPublicKeyInfo: %w", err)
	}
	var algorithm cryptobyte.String
	var key []byte
	oid, ok := "", body.ReadASN1(&algorithm, cbasn1.SEQUENCE)
	if ok {
		oid, ok = der.OID(&algorithm)
	}
	if !ok || !body.ReadASN1BitStringAsBytes(&key) || !body.Empty() {
		return errors.New("it is not a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)")
	}
	switch oid {
	case oidRSAKey:
		if string(algorithm) != "\x05\x00" {
			return errors.New("the parameters of an RSA key must be NULL (RFC 4055 §1.2): encode the key anew")
		}
		return checkRSAEncoding(key)
	case oidECKey:
		return checkECEncoding(algorithm, key)
	case oidEd25519Key:
		if !algorithm.Empty() {
			return errors.New("an Ed25519 key has no parameters (RFC 8410 §3): encode the key anew without them")
		}
		return nil
	}
	if name, known := otherKeys[oid]; known {
		return errors.New("keys of " + name + " are not accepted" + makeAnother)
	}
	return errors.New("keys of algorithm " + oid + " are not accepted" + makeAnother)
}

// checkRSAEncoding reads RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }.
func checkRSAEncoding(key cryptobyte.String) error {
	var body, modulus, exponent cryptobyte.String
	if !key.ReadASN1(&body, cbasn1.SEQUENCE) || !key.Empty() || !body.ReadASN1(&modulus, cbasn1.INTEGER) ||
		!body.ReadASN1(&exponent, cbasn1.INTEGER) || !body.Empty() {
		return errors.New("it is not an RSAPublicKey (RFC 8017 §A.1.1)")
	}
	if len(exponent) > 4 || len(exponent) == 4 && exponent[0] >= 0x80 {
		return errors.New("its exponent is negative or 2^31 or above; use 65537")
	}
	return nil
}

// checkECEncoding reads the curve's name, and the point as RFC 5480 §2.2 has it.
func checkECEncoding(parameters, point cryptobyte.String) error {
	if parameters.Empty() || parameters.PeekASN1Tag(cbasn1.NULL) {
		return errors.New("it does not name its curve; implicit curves must not be used (RFC 5480 §2.1.1)")
	}
	if parameters.PeekASN1Tag(cbasn1.SEQUENCE) {
		return errors.New("it spells out the parameters of its curve, which must not be used (RFC 5480 §2.1.1): encode the key with the name of the curve")
	}
	curve, ok := der.OID(&parameters)
	if !ok || !parameters.Empty() {
		return errors.New("its parameters are no curve's name (RFC 5480 §2.1.1)")
	}
	size, known := curves[curve]
	if !known {
		name := otherCurves[curve]
		if name == "" {
			name = curve
		}
		return errors.New("the curve " + name + " is not accepted" + makeAnother)
	}
	switch {
	case len(point) == 0 || point[0] == 0:
		return errors.New("its point is empty or at infinity")
	case point[0] == 2 || point[0] == 3:
		return errors.New("its point is compressed, which need not be supported (RFC 5480 §2.2): encode the key with the uncompressed point")
	case point[0] != 4:
		return errors.New("its point is neither compressed nor uncompressed (RFC 5480 §2.2): encode the key with the uncompressed point")
	case len(point) != 1+2*size:
		return fmt.Errorf("its point has %d octets, and on this curve it must have %d", len(point), 1+2*size)
	}
	return nil
}
