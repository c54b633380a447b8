package est

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/hkdf"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/cms"
	"github.com/deviceca/deviceca/policy"
)

// The attributes that say how the key is to be encrypted (RFC 7030 §4.4.1):
//
//	SMIMECapabilities               what the client reads
//	DecryptKeyIdentifier            OCTET STRING: a secret that both know (RFC 4108 §2.2.5)
//	AsymmetricDecryptKeyIdentifier  OCTET STRING: a public key of the client
const (
	attrCapabilities = "1.2.840.113549.1.9.15"
	attrSecretKeyID  = "1.2.840.113549.1.9.16.2.37"
	attrPublicKeyID  = "1.2.840.113549.1.9.16.2.54"
)

// kekInfo is the HKDF label of [KEK].
const kekInfo = "deviceca est serverkeygen"

// KEK is the key that serverkeygen encrypts to when DecryptKeyIdentifier is the
// reference of the enrolment credential that the request comes with: 32 octets
// by HKDF-SHA256 (RFC 5869) of the secret's ASCII, without salt.
func KEK(secret device.Secret) []byte {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, kekInfo, 32)
	if err != nil {
		panic(err) // lengths are constants
	}
	return key
}

// envelope is how a key is handed out: in clear if to is nil.
type envelope struct {
	to     cms.Recipient
	cipher cms.Cipher
}

// envelope is the one that the request asks for, if it may.
func (s *server) envelope(ctx context.Context, requester ca.Requester, csr *ca.CSR, allowed Keygen) (envelope, error) {
	to, caps, err := s.recipient(ctx, requester, csr)
	switch {
	case err != nil:
		return envelope{}, err
	case to == nil && allowed != KeygenClear:
		return envelope{}, ca.Errorf(ca.Denied, "the profile hands keys out encrypted only: name a key by AsymmetricDecryptKeyIdentifier or DecryptKeyIdentifier, with SMIMECapabilities (RFC 7030 §4.4.1)")
	case to == nil:
		return envelope{}, nil
	case s.Responder == nil:
		return envelope{}, errNotImplemented
	}
	cipher, ok := caps.Cipher(to)
	if !ok {
		return envelope{}, ca.Errorf(ca.BadKey, "SMIMECapabilities lists no way that we have to encrypt to that key: RSA wants RSA-OAEP, EC an AES key wrap, a secret AES-256 key wrap")
	}
	return envelope{to, cipher}, nil
}

// seal encodes the key as the first part of the reply (RFC 7030 §4.4.2): PKCS#8
// in clear, or EnvelopedData(SignedData(AsymmetricKeyPackage)).
func (s *server) seal(ctx context.Context, e envelope, key crypto.Signer) (part, error) {
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return part{}, fmt.Errorf("encoding a key just made: %w", err)
	}
	defer clear(pkcs8)
	if e.to == nil {
		return part{"application/pkcs8", encodeBody(pkcs8)}, nil
	}
	responder, err := s.Responder(ctx)
	if err != nil {
		return part{}, err
	}
	pkg, err := cms.KeyPackage(pkcs8)
	if err != nil {
		return part{}, err
	}
	defer clear(pkg.Bytes)
	signed, err := cms.Sign(pkg, responder.signer(s.Now()))
	if err != nil {
		return part{}, err
	}
	defer clear(signed.Bytes)
	sealed, err := cms.Seal(signed, e.cipher, e.to)
	if err != nil {
		return part{}, &ca.Error{Kind: ca.BadKey, Reason: "the key named cannot be encrypted to: use RSA, or EC on P-256 or P-384", Err: err}
	}
	return part{"application/pkcs7-mime; smime-type=server-generated-key", encodeBody(sealed.Info())}, nil
}

func (r Responder) signer(now time.Time) cms.Signer {
	out := cms.Signer{Key: r.Key, ID: cms.IDOf(r.Chain[0]), Time: now}
	for _, cert := range r.Chain {
		out.Certs = append(out.Certs, cert.Raw)
	}
	return out
}

// recipient is the key that the request names, nil if it names none.
func (s *server) recipient(ctx context.Context, requester ca.Requester, csr *ca.CSR) (cms.Recipient, cms.Capabilities, error) {
	capsDER, hasCaps := csr.Attributes[attrCapabilities]
	secretID, bySecret := csr.Attributes[attrSecretKeyID]
	publicID, byPublic := csr.Attributes[attrPublicKeyID]
	switch {
	case !bySecret && !byPublic:
		return nil, nil, nil
	case bySecret && byPublic:
		return nil, nil, ca.Errorf(ca.Malformed, "the request has both DecryptKeyIdentifier and AsymmetricDecryptKeyIdentifier: name one key")
	case !hasCaps:
		return nil, nil, ca.Errorf(ca.Malformed, "the request names a key to encrypt to, and has no SMIMECapabilities (RFC 7030 §4.4.1)")
	}
	caps, err := cms.ParseCapabilities(capsDER)
	if err != nil {
		return nil, nil, &ca.Error{Kind: ca.Malformed, Reason: "SMIMECapabilities cannot be read", Err: err}
	}
	named := secretID
	if byPublic {
		named = publicID
	}
	in := cryptobyte.String(named)
	var id cryptobyte.String
	if !in.ReadASN1(&id, asn1.OCTET_STRING) || !in.Empty() || len(id) == 0 || len(id) > 255 {
		return nil, nil, ca.Errorf(ca.Malformed, "the key identifier is not an OCTET STRING of 1 to 255 octets")
	}
	var to cms.Recipient
	if bySecret {
		to, err = s.secretRecipient(ctx, requester, id)
	} else {
		to, err = publicRecipient(requester, id)
	}
	return to, caps, err
}

// secretRecipient is the credential that the request came with: what another one
// could decrypt is not for this requester to ask.
func (s *server) secretRecipient(ctx context.Context, requester ca.Requester, id []byte) (cms.Recipient, error) {
	if c := requester.Credential; c == nil || c.Reference != string(id) {
		return nil, ca.Errorf(ca.Denied, "DecryptKeyIdentifier is not the reference of the credential that the request comes with")
	}
	_, secret, err := s.Authority.CredentialSecret(ctx, string(id))
	if err != nil {
		return nil, err
	}
	return cms.ToKEK(id, KEK(secret)), nil
}

// publicRecipient is the key of the certificate that the request came with.
func publicRecipient(requester ca.Requester, id []byte) (cms.Recipient, error) {
	if requester.Certificate == nil {
		return nil, ca.Errorf(ca.Denied, "AsymmetricDecryptKeyIdentifier names a key of a certificate, and the request comes with none of ours: show it as TLS client certificate")
	}
	cert, err := x509.ParseCertificate(requester.Certificate.DER)
	if err != nil {
		return nil, fmt.Errorf("a certificate of ours does not parse: %w", err)
	}
	if !bytes.Equal(cert.SubjectKeyId, id) {
		return nil, ca.Errorf(ca.Denied, "AsymmetricDecryptKeyIdentifier is not the subject key identifier of the client certificate")
	}
	if _, err := policy.KeyAlgorithm(cert.PublicKey); err != nil {
		return nil, ca.Errorf(ca.BadKey, "the client certificate's key cannot be encrypted to: %w", err)
	}
	// RFC 7030 §4.4.1.2: support key transport or agreement, or be unrestricted.
	named := cms.ID{KeyID: id}
	switch pub := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		if cert.KeyUsage == 0 || cert.KeyUsage&x509.KeyUsageKeyEncipherment != 0 {
			return cms.ToRSA(named, pub), nil
		}
	case *ecdsa.PublicKey:
		if cert.KeyUsage == 0 || cert.KeyUsage&x509.KeyUsageKeyAgreement != 0 {
			return cms.ToECDH(named, pub), nil
		}
	}
	return nil, ca.Errorf(ca.BadKey, "the client certificate's key may not be encrypted to: it needs the key usage keyEncipherment (RSA) or keyAgreement (EC)")
}
