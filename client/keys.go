package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/deviceca/deviceca/internal/der"
)

// KeyType names a kind of key, as policy files do.
type KeyType string

// The key types that GenerateKey makes.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	RSA2048   KeyType = "rsa-2048"
	RSA3072   KeyType = "rsa-3072"
	Ed25519   KeyType = "ed25519"
)

// KeyTypes is every key type, the default first.
func KeyTypes() []KeyType { return []KeyType{ECDSAP256, ECDSAP384, RSA2048, RSA3072, Ed25519} }

// ParseKeyType reads the name of a key type, in any case.
func ParseKeyType(s string) (KeyType, error) {
	k := KeyType(strings.ToLower(s))
	if !slices.Contains(KeyTypes(), k) {
		return "", &Error{Kind: Usage, Op: "key", Text: fmt.Sprintf("no key type %q", s), Hint: fmt.Sprintf("use one of %v", KeyTypes())}
	}
	return k, nil
}

// GenerateKey makes a key; "" is ecdsa-p256.
func GenerateKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case "", ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		return rsa.GenerateKey(rand.Reader, 3072)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	_, err := ParseKeyType(string(kind))
	return nil, err
}

// KeyTypeOf is the type of a public key, "" for one that GenerateKey does not make.
func KeyTypeOf(public crypto.PublicKey) KeyType {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ECDSAP256
		case elliptic.P384():
			return ECDSAP384
		}
	case *rsa.PublicKey:
		switch k.N.BitLen() {
		case 2048:
			return RSA2048
		case 3072:
			return RSA3072
		}
	case ed25519.PublicKey:
		return Ed25519
	}
	return ""
}

// EncodeKey is key as PEM, PKCS#8 (RFC 5958). A key that does not leave its
// hardware is an error.
func EncodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "key", Text: "the private key cannot be written to a file", Err: err,
			Hint: "give a hardware key as Signer, so that it stays where it is"}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads the first private key in PEM text: PKCS#8, or what OpenSSL
// calls traditional (SEC 1, PKCS#1). Encrypted keys are refused.
func ParseKey(text []byte) (crypto.Signer, error) {
	fail := func(err error) (crypto.Signer, error) {
		return nil, &Error{Kind: Local, Op: "key", Text: "no usable private key", Err: err, Hint: "give an unencrypted PKCS#8 key in PEM"}
	}
	blocks, err := der.PEM(text)
	if err != nil {
		return fail(err)
	}
	for _, block := range blocks {
		var key any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			err = errors.New("it is encrypted")
		default: // OpenSSL puts EC PARAMETERS in front
			continue
		}
		if err != nil {
			return fail(err)
		}
		signer, ok := key.(crypto.Signer)
		if !ok {
			return fail(fmt.Errorf("a %T cannot sign", key))
		}
		return signer, nil
	}
	return fail(errors.New("there is no PRIVATE KEY block"))
}

// samePublic reports whether two public keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
