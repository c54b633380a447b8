package cms

import (
	"crypto"
	"crypto/ecdh"
	"crypto/x509"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// A private key as content (RFC 5958 §2):
//
//	AsymmetricKeyPackage ::= SEQUENCE SIZE (1..MAX) OF OneAsymmetricKey
//
//	OneAsymmetricKey ::= SEQUENCE {
//	    version             INTEGER,                 -- 0, or 1 with publicKey
//	    privateKeyAlgorithm AlgorithmIdentifier,
//	    privateKey          OCTET STRING,
//	    attributes      [0] IMPLICIT SET OF Attribute OPTIONAL,
//	    publicKey       [1] IMPLICIT BIT STRING OPTIONAL }

// OneAsymmetricKey encodes a private key with its public key, version 2, as RFC 9483
// §4.1.6 wants it. Readers of PKCS#8 before RFC 5958 want x509.MarshalPKCS8PrivateKey's version 1.
func OneAsymmetricKey(key crypto.Signer) ([]byte, error) {
	v1, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	defer clear(v1)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, unsupported("%w", err)
	}
	var body, algorithm, private, info cryptobyte.String
	var bits []byte
	var version int
	in, pub := cryptobyte.String(v1), cryptobyte.String(spki)
	if !in.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Integer(&version) || !body.ReadASN1Element(&algorithm, asn1.SEQUENCE) ||
		!body.ReadASN1(&private, asn1.OCTET_STRING) || !body.Empty() ||
		!pub.ReadASN1(&info, asn1.SEQUENCE) || !info.SkipASN1(asn1.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&bits) {
		return nil, fmt.Errorf("cms: unexpected form of a %T", key)
	}
	return encode(len(v1)+len(spki)+32, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1Int64(1)
			b.AddBytes(algorithm)
			b.AddASN1OctetString(private)
			b.AddASN1(asn1.Tag(1).ContextSpecific(), func(b *cryptobyte.Builder) {
				b.AddUint8(0) // unused bits
				b.AddBytes(bits)
			})
		})
	})
}

// KeyPackage is an AsymmetricKeyPackage of one key: the DER of a PKCS#8
// PrivateKeyInfo or a OneAsymmetricKey. Wipe its Bytes when they are sealed.
func KeyPackage(key []byte) (Content, error) {
	if err := der.Check(key, maxDepth); err != nil {
		return Content{}, malformed("%w", err)
	}
	out, err := encode(len(key)+16, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(key) })
	})
	return Content{TypeKeyPackage, out}, err
}

// ParseKeyPackage returns the key of an AsymmetricKeyPackage that holds one. A
// public key that comes along must be its own. Errors wrap ErrMalformed or ErrAlgorithm.
func ParseKeyPackage(c Content) (crypto.Signer, error) {
	keys, err := c.open(TypeKeyPackage)
	if err != nil {
		return nil, err
	}
	var element, body, bits cryptobyte.String
	var version int
	var hasPublic bool
	if !keys.ReadASN1Element(&element, asn1.SEQUENCE) || !keys.Empty() {
		return nil, malformed("AsymmetricKeyPackage does not hold one key")
	}
	one := element
	if !one.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1Integer(&version) || version != 0 && version != 1 ||
		!body.SkipASN1(asn1.SEQUENCE) || !body.SkipASN1(asn1.OCTET_STRING) || !body.SkipOptionalASN1(tag0) ||
		!body.ReadOptionalASN1(&bits, &hasPublic, asn1.Tag(1).ContextSpecific()) || !body.Empty() || hasPublic && version == 0 {
		return nil, malformed("OneAsymmetricKey is not as RFC 5958 §2 has it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(element)
	if err != nil {
		return nil, unsupported("%w", err)
	}
	key, ok := parsed.(crypto.Signer)
	if _, agreement := parsed.(*ecdh.PrivateKey); agreement || !ok {
		return nil, unsupported("a private key that does not sign")
	}
	if hasPublic {
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return nil, unsupported("%w", err)
		}
		var info cryptobyte.String
		var own []byte
		pub := cryptobyte.String(spki)
		if !pub.ReadASN1(&info, asn1.SEQUENCE) || !info.SkipASN1(asn1.SEQUENCE) || !info.ReadASN1BitStringAsBytes(&own) ||
			len(bits) == 0 || bits[0] != 0 || string(own) != string(bits[1:]) {
			return nil, malformed("the public key beside the private one is another")
		}
	}
	return key, nil
}
