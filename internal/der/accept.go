package der

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
)

// RSA keys whose signatures are accepted, in bits. Below the lower bound they can be
// factored; above the upper one a stranger's signature costs too much to verify.
const (
	MinRSA = 2048
	MaxRSA = 8192
)

// AcceptSignature refuses signature algorithms that prove nothing: collisions of MD5 and SHA-1
// let one signature stand under two contents. It is for everything that is judged:
// certificates below an anchor, CRLs, and status answers.
func AcceptSignature(alg x509.SignatureAlgorithm) error {
	switch alg {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519:
		return nil
	case x509.UnknownSignatureAlgorithm:
		return errors.New("its signature algorithm is not accepted: RSA, ECDSA with SHA-256 or better, or Ed25519 is due")
	}
	return fmt.Errorf("it is signed with %s: SHA-256 or better is due", alg)
}

// AcceptKey refuses public keys whose signatures prove nothing, or cost too much to verify.
func AcceptKey(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < MinRSA || n > MaxRSA {
			return fmt.Errorf("its key is RSA of %d bits: %d to %d are accepted", n, MinRSA, MaxRSA)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return errors.New("its key is of a kind that is not accepted: RSA, ECDSA or Ed25519 is due")
	}
	return nil
}
