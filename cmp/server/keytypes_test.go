package server

import (
	"slices"
	"testing"

	"github.com/deviceca/deviceca/policy"
)

// RFC 9810 §5.3.19.2, §5.3.19.3: the key usage of a profile decides what its keys are for.
func TestKeyTypes(t *testing.T) {
	keys := []string{"rsa-3072", "ecdsa-p256", "ed25519"}
	for _, c := range []struct{ usage, signs, encrypts []string }{
		{[]string{"digitalSignature"}, keys, nil},
		{[]string{"digitalSignature", "keyEncipherment"}, keys, []string{"rsa-3072"}},
		{[]string{"keyAgreement"}, nil, []string{"ecdsa-p256"}},
		{[]string{"keyEncipherment", "keyAgreement"}, nil, []string{"rsa-3072", "ecdsa-p256"}},
		{[]string{"contentCommitment", "dataEncipherment"}, keys, []string{"rsa-3072"}},
	} {
		p := policy.Profile{Keys: keys, KeyUsage: c.usage}
		if got := signingKeys(p); !slices.Equal(got, c.signs) {
			t.Errorf("%v: %v sign", c.usage, got)
		}
		if got := encryptionKeys(p); !slices.Equal(got, c.encrypts) {
			t.Errorf("%v: %v encrypt", c.usage, got)
		}
	}
}
