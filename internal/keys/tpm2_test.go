//go:build cgo

package keys_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// tpm2-pkcs11 is the second module that keeps the whole contract, for what it has: ECDSA keys, and sealing by RSA-OAEP.
// Its RSA keys sign by PKCS #1 v1.5 and have no PSS, which the suite wants of RSA; Ed25519 it has not.
func TestTPM2(t *testing.T) {
	uri := keystest.TPM2(t)
	keystest.Run(t, func(t *testing.T) keys.Provider { return open(t, uri, keys.Options{}) }, []keys.Spec{keys.ECDSAP256, keys.ECDSAP384})
	p := open(t, uri, keys.Options{})
	t.Run("RSA", func(t *testing.T) {
		k, err := p.Generate(t.Context(), "rsa", keys.RSA3072)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte("message"))
		sig, err := k.Sign(nil, digest[:], crypto.SHA256)
		if err != nil || rsa.VerifyPKCS1v15(k.Public().(*rsa.PublicKey), crypto.SHA256, digest[:], sig) != nil {
			t.Errorf("PKCS #1 v1.5: %v", err)
		}
	})
	t.Run("what it has not", func(t *testing.T) {
		for spec, hint := range map[keys.Spec]string{keys.RSA4096: "longer than 3072 bits", keys.Ed25519: "CKM_EC_EDWARDS_KEY_PAIR_GEN"} {
			if err := p.Check(t.Context(), map[string]keys.Spec{"no": spec}, true); err == nil || !strings.Contains(err.Error(), hint) {
				t.Errorf("%s: %v", spec, err)
			}
		}
	})
	sealed, err := p.Seal(t.Context(), []byte("secret"), nil)
	if err != nil || keys.SealedBy(sealed) != "RSA-OAEP" {
		t.Errorf("sealed by %s, %v", keys.SealedBy(sealed), err)
	}
}
