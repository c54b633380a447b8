package keys_test

import (
	"crypto/ecdsa"
	"errors"

	"github.com/deviceca/deviceca/internal/keys"
)

func isErr(err, want error) bool { return errors.Is(err, want) }

func verifies(k keys.Key, digest, sig []byte) bool {
	return ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest, sig)
}
