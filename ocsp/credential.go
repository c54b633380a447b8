package ocsp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// Signer gives the credential that signs for one issuer now.
type Signer interface {
	// Credential returns a credential that is valid now. The responder never
	// signs an answer that outlives it. It may block while one is fetched, and is called by many
	// at once. Errors: *ca.Error of kind Unavailable if the key or the CA is
	// away, which askers see as tryLater.
	Credential(ctx context.Context) (*Credential, error)
}

// Credential is a key that may sign status for one issuer, with the
// certificate that says so. Make it with NewCredential.
type Credential struct {
	key     crypto.Signer
	cert    *x509.Certificate
	check   bool
	alg     *der.Signature
	keyHash []byte
	certs   []byte // the encoded certs field; shared by every response
}

// NewCredential checks that cert is issuer itself or a delegate that issuer
// signed (RFC 6960 §4.2.2.2), and that it holds key's public key.
//
// With check, every signature is verified before it is given out: for keys that
// lie in a token or elsewhere. A key in this process's memory needs none.
func NewCredential(key crypto.Signer, cert, issuer *x509.Certificate, check bool) (*Credential, error) {
	alg, err := der.SignatureFor(key.Public())
	if err != nil {
		return nil, err
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(cert.PublicKey) {
		return nil, errors.New("the responder's certificate is for another key")
	}
	c := &Credential{key: key, cert: cert, check: check, alg: alg, keyHash: SHA1.sum(publicKeyBits(cert))}
	if bytes.Equal(cert.Raw, issuer.Raw) {
		return c, nil // the relying party has it already
	}
	if err := cert.CheckSignatureFrom(issuer); err != nil || !der.SameName(cert.RawIssuer, issuer.RawSubject) {
		return nil, fmt.Errorf("the responder's certificate is not from %s: %w", issuer.Subject, err)
	}
	if !slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
		return nil, errors.New("the responder's certificate lacks the OCSP signing key usage")
	}
	var b cryptobyte.Builder
	b.AddASN1(explicit(0), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
	})
	c.certs, err = b.Bytes()
	return c, err
}

// NotAfter is when the certificate ends.
func (c *Credential) NotAfter() time.Time { return c.cert.NotAfter }

// sign makes a whole response; it ends with c.certs. Every answer in it must end no later than the credential.
func (c *Credential) sign(producedAt time.Time, singles []SingleResponse, nonce []byte) ([]byte, error) {
	for i := range singles {
		if singles[i].NextUpdate.After(c.cert.NotAfter) {
			return nil, errors.New("an OCSP answer would outlive the responder's certificate")
		}
	}
	tbs, err := responseData(c.keyHash, producedAt, singles, nonce)
	if err != nil {
		return nil, err
	}
	signature, err := c.alg.Sign(c.key, c.alg.Digest(tbs))
	if err != nil {
		return nil, err
	}
	if c.check {
		if err := c.cert.CheckSignature(c.alg.X509, tbs, signature); err != nil {
			return nil, fmt.Errorf("the responder's key made a wrong signature: %w", err)
		}
	}
	return wrap(tbs, c.alg.ID, signature, c.certs), nil
}
