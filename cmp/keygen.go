package cmp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	encasn1 "encoding/asn1"
	"errors"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/internal/der"
)

const keyGeneration = "RFC 9483 §4.1.6"

// oidKGA is id-kp-cmKGA (RFC 9480 §2.2).
var oidKGA = encasn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 32}

// KGA is a key generation authority: it makes keys for others, and signs that it
// did (RFC 9483 §4.1.6). [NewKGA] makes one.
type KGA struct{ signer cms.Signer }

// NewKGA makes a key generation authority of a key and its certificate, which must have
// the extended key usage id-kp-cmKGA and a subject key identifier, with the chain to send along.
func NewKGA(key crypto.Signer, cert *x509.Certificate, chain ...*x509.Certificate) (*KGA, error) {
	switch own, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); {
	case !ok || !own.Equal(cert.PublicKey):
		return nil, errors.New("the KGA's certificate is not for this key")
	case !isKGA(cert):
		return nil, errors.New("the KGA's certificate lacks the extended key usage id-kp-cmKGA")
	case len(cert.SubjectKeyId) == 0:
		return nil, errors.New("the KGA's certificate has no subject key identifier")
	}
	s := cms.Signer{Key: key, ID: cms.ID{KeyID: cert.SubjectKeyId}, Certs: [][]byte{cert.Raw}, InOrder: true}
	for _, c := range chain {
		if !bytes.Equal(c.RawSubject, c.RawIssuer) {
			s.Certs = append(s.Certs, c.Raw)
		}
	}
	return &KGA{s}, nil
}

func isKGA(cert *x509.Certificate) bool {
	return slices.ContainsFunc(cert.UnknownExtKeyUsage, oidKGA.Equal)
}

// SealKey makes the privateKey of a [KeyPair]: the key with its public key
// (RFC 5958, version 2), signed by the authority, encrypted to its future holder.
// Zero now leaves signingTime out. What it held in clear in between is wiped; key is the caller's to wipe.
func (g *KGA) SealKey(key crypto.Signer, to Recipient, now time.Time) (*EncryptedKey, error) {
	one, err := cms.OneAsymmetricKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(one)
	pkg, err := cms.KeyPackage(one)
	if err != nil {
		return nil, err
	}
	defer clear(pkg.Bytes)
	signer := g.signer
	signer.Time = now
	signed, err := cms.Sign(pkg, signer)
	if err != nil {
		return nil, err
	}
	defer clear(signed.Bytes)
	sealed, err := to.seal(signed)
	return &EncryptedKey{EnvelopedData: sealed}, err
}

// OpenKey opens the privateKey of a [KeyPair]: decrypts it, verifies who has made
// the key, and reads it. Trust decides whether that certificate may make keys; see
// [TrustKGA]. It may be nil where the answer is protected by the shared secret that also
// opens it (RFC 9483 §4.1.6), not otherwise. That the key is the certificate's is
// for the caller to see. Errors carry badDataFormat, badAlg, badMessageCheck or signerNotTrusted.
func (k *EncryptedKey) OpenKey(with Opener, trust func(kga *x509.Certificate, others []*x509.Certificate) error) (crypto.Signer, error) {
	if trust == nil && with.public != nil {
		return nil, errors.New("who has made the key must be verified: give a function that trusts, as TrustKGA makes")
	}
	content, err := with.open(k.EnvelopedData, cms.TypeSigned)
	if err != nil {
		return nil, err
	}
	defer clear(content.Bytes)
	signed, err := cms.ParseSigned(content)
	if err != nil {
		return nil, unopened(err)
	}
	kga, others := kgaOf(signed)
	switch {
	case kga == nil:
		return nil, refuse(BadMessageCheck, keyGeneration, "the key does not come with the certificate of who made it")
	case kga.KeyUsage != 0 && kga.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, refuse(BadMessageCheck, keyGeneration, "the key usage of the KGA's certificate lacks digitalSignature")
	}
	if err := signed.Verify(kga.PublicKey); err != nil {
		return nil, &Error{Info: BadMessageCheck, Section: keyGeneration, Reason: "the KGA's signature does not verify", Err: err}
	}
	if trust != nil {
		if err := trust(kga, others); err != nil {
			return nil, &Error{Info: SignerNotTrusted, Section: keyGeneration, Reason: "the KGA is not trusted", Err: err}
		}
	}
	key, err := cms.ParseKeyPackage(signed.Content)
	if err != nil {
		return nil, unopened(err)
	}
	return key, nil
}

// kgaOf finds the signer's certificate. All are copied: what they came in is wiped.
func kgaOf(signed *cms.Signed) (kga *x509.Certificate, others []*x509.Certificate) {
	for _, raw := range signed.Certs {
		c, err := der.Certificate(bytes.Clone(raw))
		switch {
		case err != nil || tooLarge(c.PublicKey):
		case kga == nil && signed.Signer.Names(c):
			kga = c
		default:
			others = append(others, c)
		}
	}
	return kga, others
}

// TrustKGA is [TrustRoots] for who makes keys: the certificate must lead to a root
// and have the extended key usage id-kp-cmKGA.
func TrustKGA(roots *x509.CertPool, now func() time.Time) func(*x509.Certificate, []*x509.Certificate) error {
	path := TrustRoots(roots, now)
	return func(kga *x509.Certificate, others []*x509.Certificate) error {
		if !isKGA(kga) {
			return errors.New("its certificate lacks the extended key usage id-kp-cmKGA")
		}
		return path(kga, others)
	}
}
