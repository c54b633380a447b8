package cmp

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"

	"github.com/deviceca/deviceca/internal/cms"
)

const envelopes = "RFC 9810 §5.2.2"

// Recipient is to whom EnvelopedData is encrypted: made by [ToCertificate],
// [ToKey] or [ToSecret]. The zero value is nobody.
type Recipient struct{ to cms.Recipient }

// ToCertificate encrypts to the key of a certificate (RFC 9483 §4.1.6.1, §4.1.6.2):
// RSA by OAEP with SHA-256, an EC key on P-256 or P-384 by ephemeral-static ECDH. A key
// usage, if there is any, must allow it: keyEncipherment for RSA, keyAgreement for
// EC. Errors carry notAuthorized (the key usage) or badAlg (the key).
//
// RFC 9483 §4.1.6.2 has the originator named by a certificate, which is for a static
// key that RFC 9481 §4.1.2 forbids: it is the ephemeral key, as in RFC 5753 §3.1.1.
func ToCertificate(cert *x509.Certificate) (Recipient, error) {
	id := cms.ID{KeyID: cert.SubjectKeyId}
	if len(id.KeyID) == 0 {
		id = cms.IDOf(cert)
	}
	usage, name := x509.KeyUsageKeyAgreement, "keyAgreement"
	if _, ok := cert.PublicKey.(*rsa.PublicKey); ok {
		usage, name = x509.KeyUsageKeyEncipherment, "keyEncipherment"
	}
	to, err := toPublic(id, cert.PublicKey)
	if err != nil {
		return to, err
	}
	if cert.KeyUsage != 0 && cert.KeyUsage&usage == 0 {
		return Recipient{}, refuse(NotAuthorized, "RFC 9483 §4.1.6", "the certificate's key may not be encrypted to: its key usage lacks %s", name)
	}
	return to, nil
}

// ToKey encrypts to a key that has no certificate yet, for a [Challenge]: it is
// named by the certReqId and the NULL-DN (RFC 9810 §5.2.8.3.3). Errors carry badAlg.
func ToKey(pub crypto.PublicKey, certReqID int64) (Recipient, error) {
	return toPublic(cms.ID{Issuer: nullDN, Serial: big.NewInt(certReqID)}, pub)
}

// minRSA is the least that a secret is entrusted to, in bits.
const minRSA = 2048

func toPublic(id cms.ID, pub crypto.PublicKey) (Recipient, error) {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return Recipient{}, refuse(BadAlg, envelopes, "an RSA key of %d bits is not encrypted to: %d to %d bits", bits, minRSA, maxRSA)
		}
		return Recipient{cms.ToRSA(id, key)}, nil
	case *ecdsa.PublicKey:
		if bits := key.Curve.Params().BitSize; bits == 256 || bits == 384 {
			return Recipient{cms.ToECDH(id, key)}, nil
		}
	}
	return Recipient{}, refuse(BadAlg, envelopes, "a key of this kind is not encrypted to: use RSA, or EC on P-256 or P-384")
}

// secretIterations are enough for secrets of 128 bits and more, which is what may
// protect a private key (RFC 9483 §4.1.6.3).
const secretIterations = cms.MinIterations

// ToSecret encrypts to a shared secret by PBKDF2 with a salt of its own and AES
// key wrap (RFC 9483 §4.1.6.3). The secret must have 128 bits of entropy.
func ToSecret(secret []byte) Recipient {
	return Recipient{cms.ToPasswordAESWrap(secret, secretIterations)}
}

// Opener opens EnvelopedData: made by [WithKey] or [WithSecret]. The zero value opens nothing.
type Opener struct {
	key    cms.Key
	public crypto.PublicKey // nil with a secret
}

// WithKey opens what is encrypted to a private key: an RSA key that decrypts
// (crypto.Decrypter), an *ecdsa.PrivateKey or *ecdh.PrivateKey on a NIST curve.
func WithKey(private crypto.PrivateKey) (Opener, error) {
	switch key := private.(type) {
	case *ecdsa.PrivateKey:
		agreement, err := key.ECDH()
		if err != nil {
			return Opener{}, err
		}
		return Opener{cms.FromECDH(cms.ID{}, agreement), key.Public()}, nil
	case *ecdh.PrivateKey:
		return Opener{cms.FromECDH(cms.ID{}, key), key.Public()}, nil
	case crypto.Decrypter:
		if _, ok := key.Public().(*rsa.PublicKey); ok {
			return Opener{cms.FromRSA(cms.ID{}, key), key.Public()}, nil
		}
	}
	return Opener{}, errors.New("the key does not decrypt: use RSA, or EC on P-256 or P-384")
}

// WithSecret opens what is encrypted to a shared secret.
func WithSecret(secret []byte) Opener { return Opener{cms.FromPassword(secret), nil} }

// seal makes EnvelopedData.
func (r Recipient) seal(content cms.Content) ([]byte, error) {
	if r.to == nil {
		return nil, errors.New("there is nobody to encrypt to")
	}
	sealed, err := cms.Seal(content, cms.AES256CBC, r.to)
	return sealed.Bytes, err
}

// open decrypts EnvelopedData whose content must be of a type. Errors carry
// badDataFormat or badAlg, and say nothing of why something did not decrypt.
func (o Opener) open(enveloped []byte, want cms.OID) (cms.Content, error) {
	if o.key == nil {
		return cms.Content{}, errors.New("there is no key to open EnvelopedData with")
	}
	content, err := cms.Open(cms.Content{Type: cms.TypeEnveloped, Bytes: enveloped}, o.key)
	if err != nil {
		return cms.Content{}, unopened(err)
	}
	if !content.Type.Equal(want) {
		clear(content.Bytes)
		return cms.Content{}, refuse(BadDataFormat, envelopes, "EnvelopedData holds %s, not %s", oidName(content.Type), oidName(want))
	}
	return content, nil
}

func unopened(err error) error {
	info := BadDataFormat
	if errors.Is(err, cms.ErrAlgorithm) {
		info = BadAlg
	}
	return &Error{Info: info, Section: envelopes, Reason: "EnvelopedData cannot be opened: " + err.Error(), Err: err}
}

// SealCertificate encrypts a certificate in DER to its own key, for the indirect
// proof of possession (RFC 9810 §5.2.8.3.2). Errors are those of [ToCertificate].
func SealCertificate(cert []byte) (*EncryptedKey, error) {
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, err
	}
	to, err := ToCertificate(parsed)
	if err != nil {
		return nil, err
	}
	sealed, err := to.seal(cms.Content{Type: cms.TypeData, Bytes: cert})
	return &EncryptedKey{EnvelopedData: sealed}, err
}

// OpenCertificate decrypts the certificate of an indirect proof of possession,
// which must be one for the key that opens it: nothing else that decrypts is
// handed out (RFC 9810 §8.2). Confirm it with [Confirmation]. Errors carry
// badDataFormat or badAlg.
func (k *EncryptedKey) OpenCertificate(with Opener) (*x509.Certificate, error) {
	content, err := with.open(k.EnvelopedData, cms.TypeData)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(content.Bytes)
	if err != nil {
		return nil, refuse(BadDataFormat, "RFC 9810 §8.2", "what is encrypted is no certificate")
	}
	public := cert.PublicKey
	if key, ok := public.(*ecdsa.PublicKey); ok {
		if _, agreement := with.public.(*ecdh.PublicKey); agreement {
			if public, err = key.ECDH(); err != nil {
				return nil, unopened(err)
			}
		}
	}
	if own, ok := with.public.(interface{ Equal(crypto.PublicKey) bool }); !ok || !own.Equal(public) {
		return nil, refuse(BadDataFormat, "RFC 9810 §8.2", "the certificate is for another key than the one that it is encrypted to")
	}
	return cert, nil
}
