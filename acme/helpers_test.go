package acme_test

import (
	"crypto"
	"crypto/x509"
	"testing"
)

func publicKey(t testing.TB, key crypto.Signer) []byte {
	return must[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public()))
}
