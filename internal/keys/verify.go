package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
)

// errWrongSignature means that what came back is no signature by the key. A
// signer that fails once gives its key away (RSA-CRT), or makes a certificate that nobody can use.
var errWrongSignature = errors.New("its signature does not verify under the public key that was loaded")

// verifies reports whether a signature that Sign would return is one by pub.
// checkDigest has passed.
func verifies(pub crypto.PublicKey, digest, signature []byte, opts crypto.SignerOpts) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, signature)
	case *rsa.PublicKey:
		if pss, ok := opts.(*rsa.PSSOptions); ok {
			return rsa.VerifyPSS(pub, pss.HashFunc(), digest, signature, pss) == nil
		}
		return rsa.VerifyPKCS1v15(pub, opts.HashFunc(), digest, signature) == nil
	}
	return false
}

// samePublic reports whether two public keys are one.
func samePublic(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
