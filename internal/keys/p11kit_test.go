//go:build cgo

package keys_test

import (
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// A token on the other side of a socket keeps the whole contract. p11-kit 0.24 passes no mechanism on
// whose parameters it does not know, so Ed25519, AES-GCM and AES-CBC are not offered, and the next way to seal is taken.
func TestP11Kit(t *testing.T) {
	uri := keystest.P11Kit(t)
	specs := []keys.Spec{keys.ECDSAP256, keys.ECDSAP384, keys.RSA3072}
	keystest.Run(t, func(t *testing.T) keys.Provider { return open(t, uri, keys.Options{}) }, specs)
	p := open(t, uri, keys.Options{})
	sealed, err := p.Seal(t.Context(), []byte("secret"), nil)
	if err != nil || keys.SealedBy(sealed) != "RSA-OAEP" {
		t.Errorf("sealed by %s, %v", keys.SealedBy(sealed), err)
	}
}
