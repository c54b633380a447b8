package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/client"
)

// deviceTemplate is what a device's key looks like: made in this TPM, never to leave it, and
// signing what it is given, as TLS and certificate requests need it.
func deviceTemplate(kind client.KeyType) (tpm2.TPMTPublic, error) {
	ecc := func(curve tpm2.TPMECCCurve) (tpm2.TPMTPublic, error) {
		return tpm2.TPMTPublic{Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: deviceAttributes,
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: curve})}, nil
	}
	rsa := func(bits tpm2.TPMKeyBits) (tpm2.TPMTPublic, error) {
		return tpm2.TPMTPublic{Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: deviceAttributes,
			Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: bits})}, nil
	}
	switch kind {
	case "", client.ECDSAP256:
		return ecc(tpm2.TPMECCNistP256)
	case client.ECDSAP384:
		return ecc(tpm2.TPMECCNistP384)
	case client.RSA2048:
		return rsa(2048)
	case client.RSA3072:
		return rsa(3072)
	}
	return tpm2.TPMTPublic{}, fmt.Errorf("a TPM makes no key of kind %q: use %s, %s, %s or %s", kind, client.ECDSAP256, client.ECDSAP384, client.RSA2048, client.RSA3072)
}

var deviceAttributes = tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true,
	UserWithAuth: true, NoDA: true, SignEncrypt: true}

// Signer is the device's key; it works until Close.
func (d *Device) Signer() crypto.Signer { return signer{d} }

type signer struct{ device *Device }

func (s signer) Public() crypto.PublicKey { return s.device.key.key }

// Sign signs a digest, as crypto.Signer has it: ECDSA in DER, RSA by PKCS #1 v1.5 or, with *rsa.PSSOptions, PSS.
// What the TPM gives back is verified before it is handed out: TPMs differ in the salt of PSS, for one thing.
func (s signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := opts.HashFunc()
	id, ok := hashID(hash)
	if !ok || len(digest) != hash.Size() {
		return nil, fmt.Errorf("tpm: a digest of SHA-256, SHA-384 or SHA-512 is due, and this is one of %d octets by %v", len(digest), hash)
	}
	d := s.device
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := tpm2.TPMAlgECDSA
	pss, isPSS := opts.(*rsa.PSSOptions)
	if _, isRSA := d.key.key.(*rsa.PublicKey); isRSA {
		kind = tpm2.TPMAlgRSASSA
		if isPSS {
			kind = tpm2.TPMAlgRSAPSS
		}
	}
	r, err := tpm2.Sign{
		KeyHandle:  d.key.auth(),
		Digest:     tpm2.TPM2BDigest{Buffer: digest},
		InScheme:   sigScheme(kind, id),
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(d.tpm)
	if err != nil {
		return nil, local("the TPM did not sign", err, "")
	}
	signature, err := bare(r.Signature)
	if err != nil {
		return nil, local("the TPM's signature cannot be read", err, "")
	}
	valid := false
	switch key := d.key.key.(type) {
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(key, digest, signature)
	case *rsa.PublicKey:
		if isPSS {
			valid = rsa.VerifyPSS(key, hash, digest, signature, pss) == nil
		} else {
			valid = rsa.VerifyPKCS1v15(key, hash, digest, signature) == nil
		}
	}
	if !valid {
		return nil, local("the TPM's signature does not verify", nil, "with an RSA key for TLS 1.3, this may be the salt of PSS: use an ECDSA key")
	}
	return signature, nil
}

func hashID(h crypto.Hash) (tpm2.TPMIAlgHash, bool) {
	switch h {
	case crypto.SHA256:
		return tpm2.TPMAlgSHA256, true
	case crypto.SHA384:
		return tpm2.TPMAlgSHA384, true
	case crypto.SHA512:
		return tpm2.TPMAlgSHA512, true
	}
	return 0, false
}

func sigScheme(kind tpm2.TPMAlgID, hash tpm2.TPMIAlgHash) tpm2.TPMTSigScheme {
	by := tpm2.TPMSSchemeHash{HashAlg: hash}
	return tpm2.TPMTSigScheme{Scheme: kind, Details: tpm2.NewTPMUSigScheme(kind, &by)}
}

// bare is a signature without the TPM's wrapping: RSA's octets, or ECDSA's DER.
func bare(s tpm2.TPMTSignature) ([]byte, error) {
	switch s.SigAlg {
	case tpm2.TPMAlgRSASSA:
		r, err := s.Signature.RSASSA()
		if err != nil {
			return nil, err
		}
		return r.Sig.Buffer, nil
	case tpm2.TPMAlgRSAPSS:
		r, err := s.Signature.RSAPSS()
		if err != nil {
			return nil, err
		}
		return r.Sig.Buffer, nil
	case tpm2.TPMAlgECDSA:
		e, err := s.Signature.ECDSA()
		if err != nil {
			return nil, err
		}
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1BigInt(new(big.Int).SetBytes(e.SignatureR.Buffer))
			b.AddASN1BigInt(new(big.Int).SetBytes(e.SignatureS.Buffer))
		})
		return b.Bytes()
	}
	return nil, errors.New("a signature by an unknown algorithm")
}
