package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

// TPM_ALG_ID (TPM 2.0 Library, Part 2, §6.3), those that are named here.
const (
	algSHA256 = 0x000b
	algSHA384 = 0x000c
	algSHA512 = 0x000d
	algRSA    = 0x0001
	algECC    = 0x0023
	algNull   = 0x0010
	algRSASSA = 0x0014
	algRSAPSS = 0x0016
	algECDSA  = 0x0018
)

// tpmHash is the hash of a TPM_ALG_ID; 0 for those that are not accepted, SHA-1 among them.
func tpmHash(id uint16) crypto.Hash {
	switch id {
	case algSHA256:
		return crypto.SHA256
	case algSHA384:
		return crypto.SHA384
	case algSHA512:
		return crypto.SHA512
	}
	return 0
}

func sum(h crypto.Hash, data ...[]byte) []byte {
	d := h.New()
	for _, part := range data {
		d.Write(part)
	}
	return d.Sum(nil)
}

// algorithm is a signature algorithm by its COSE number, with the scheme and hash by
// which a TPM knows it.
type algorithm struct {
	cose   int64
	name   string
	scheme uint16
	hash   uint16
}

var algorithms = [...]algorithm{
	{-7, "ES256", algECDSA, algSHA256},
	{-35, "ES384", algECDSA, algSHA384},
	{-36, "ES512", algECDSA, algSHA512},
	{-37, "PS256", algRSAPSS, algSHA256},
	{-38, "PS384", algRSAPSS, algSHA384},
	{-39, "PS512", algRSAPSS, algSHA512},
	{-257, "RS256", algRSASSA, algSHA256},
	{-258, "RS384", algRSASSA, algSHA384},
	{-259, "RS512", algRSASSA, algSHA512},
}

// coseRS1 is RSASSA with SHA-1, which WebAuthn lists and nobody should take.
const coseRS1 = -65535

// algorithmFor finds the algorithm of a COSE number, if the key can sign by it.
func algorithmFor(cose int64, key crypto.PublicKey) (*algorithm, error) {
	if cose == coseRS1 {
		return nil, errors.New("alg is RS1, which signs SHA-1: use an attestation key with SHA-256")
	}
	for i := range algorithms {
		a := &algorithms[i]
		if a.cose != cose {
			continue
		}
		switch key.(type) {
		case *rsa.PublicKey:
			if a.scheme == algECDSA {
				return nil, fmt.Errorf("alg is %s, and the AK's key is RSA", a.name)
			}
		case *ecdsa.PublicKey:
			if a.scheme != algECDSA {
				return nil, fmt.Errorf("alg is %s, and the AK's key is ECC", a.name)
			}
		default:
			return nil, fmt.Errorf("the AK's key is a %T", key)
		}
		return a, nil
	}
	return nil, fmt.Errorf("alg %d is not one of ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512", cose)
}

func (a *algorithm) sum(data []byte) []byte { return sum(tpmHash(a.hash), data) }

var errSignature = errors.New("it does not verify under the AK's key")

// verify checks a signature by a key that algorithmFor let pass. Two forms are taken, as both are
// in use and neither can be read as the other: TPMT_SIGNATURE, as WebAuthn has it, and what the algorithm itself
// puts out (RSA: the bare octets; ECDSA: DER), as Windows has it.
func (a *algorithm) verify(key crypto.PublicKey, message, sig []byte) error {
	digest := a.sum(message)
	if key, ok := key.(*rsa.PublicKey); ok {
		if len(sig) != key.Size() {
			in, err := a.unwrap(sig)
			if err != nil {
				return err
			}
			var bare []byte
			if !readSized(&in, &bare, key.Size()) || len(bare) != key.Size() || !in.Empty() {
				return errors.New("not an RSA signature of the AK's size")
			}
			sig = bare
		}
		var err error
		if a.scheme == algRSAPSS {
			err = rsa.VerifyPSS(key, tpmHash(a.hash), digest, sig, nil) // TPMs differ in the salt's length
		} else {
			err = rsa.VerifyPKCS1v15(key, tpmHash(a.hash), digest, sig)
		}
		if err != nil {
			return errSignature
		}
		return nil
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("the AK's key is a %T", key)
	}
	if sig[0] == 0x30 { // SEQUENCE; a TPMT_SIGNATURE starts with 0
		if !ecdsa.VerifyASN1(ec, digest, sig) {
			return errSignature
		}
		return nil
	}
	in, err := a.unwrap(sig)
	if err != nil {
		return err
	}
	var r, s []byte
	size := (ec.Params().BitSize + 7) / 8
	if !readSized(&in, &r, size) || !readSized(&in, &s, size) || !in.Empty() {
		return errors.New("not an ECDSA signature of the AK's size")
	}
	if !ecdsa.Verify(ec, digest, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)) {
		return errSignature
	}
	return nil
}

// unwrap takes scheme and hash off a TPMT_SIGNATURE (Part 2, §11.3.4):
//
//	TPMT_SIGNATURE = sigAlg UINT16, hash UINT16, ( sig TPM2B | r TPM2B, s TPM2B )
func (a *algorithm) unwrap(sig []byte) (cryptobyte.String, error) {
	in := cryptobyte.String(sig)
	var scheme, hash uint16
	if !in.ReadUint16(&scheme) || !in.ReadUint16(&hash) {
		return nil, errors.New("not a TPMT_SIGNATURE")
	}
	if scheme != a.scheme || hash != a.hash {
		return nil, fmt.Errorf("a TPMT_SIGNATURE of scheme %#04x and hash %#04x, and alg is %s", scheme, hash, a.name)
	}
	return in, nil
}
