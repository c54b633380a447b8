package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Issuer is one CA certificate generation with its key.
type Issuer struct {
	Record IssuerRecord
	Cert   *x509.Certificate
	signer crypto.Signer // nil: the key is elsewhere (the root's), so it cannot sign here
	alg    signatureAlgorithm
	index  indexes
	// liveUntil is when the last of its certificates expires, as of the last reload.
	liveUntil time.Time
}

// signatureAlgorithm is how one kind of CA key signs.
type signatureAlgorithm struct {
	der  []byte      // AlgorithmIdentifier
	hash crypto.Hash // 0: the message itself is signed (Ed25519)
}

var (
	oidECDSAWithSHA256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSAWithSHA384 = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidSHA256WithRSA   = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	oidEd25519         = asn1.ObjectIdentifier{1, 3, 101, 112}
)

func algorithmFor(pub crypto.PublicKey) (signatureAlgorithm, error) {
	var id pkix.AlgorithmIdentifier
	var hash crypto.Hash
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		switch pub.Curve {
		case elliptic.P256():
			id.Algorithm, hash = oidECDSAWithSHA256, crypto.SHA256
		case elliptic.P384():
			id.Algorithm, hash = oidECDSAWithSHA384, crypto.SHA384
		default:
			return signatureAlgorithm{}, fmt.Errorf("a CA key on curve %s: use P-256 or P-384", pub.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		// RFC 4055 §5: the parameters are NULL, not absent.
		id.Algorithm, hash, id.Parameters = oidSHA256WithRSA, crypto.SHA256, asn1.NullRawValue
	case ed25519.PublicKey:
		id.Algorithm = oidEd25519
	default:
		return signatureAlgorithm{}, fmt.Errorf("a CA key of type %T", pub)
	}
	der, err := asn1.Marshal(id)
	return signatureAlgorithm{der, hash}, err
}

func newIssuer(record IssuerRecord, signer crypto.Signer) (*Issuer, error) {
	cert, err := x509.ParseCertificate(record.Cert)
	if err != nil {
		return nil, fmt.Errorf("CA %s: its certificate does not parse: %w", record.Name, err)
	}
	alg, err := algorithmFor(cert.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("CA %s: %w", record.Name, err)
	}
	if signer != nil {
		have, err := x509.MarshalPKIXPublicKey(signer.Public())
		if err != nil || !bytes.Equal(have, cert.RawSubjectPublicKeyInfo) {
			return nil, fmt.Errorf("CA %s: the key %q is not the one in its certificate", record.Name, record.Key)
		}
	}
	return &Issuer{Record: record, Cert: cert, signer: signer, alg: alg}, nil
}

// sign signs tbs and verifies what came back before anyone sees it: signers
// fail too, and a token that returns a wrong signature once gives its key away
// (RSA-CRT) or a certificate that nobody can use.
func (i *Issuer) sign(tbs []byte) ([]byte, error) {
	digest := i.alg.digest(tbs)
	sig, err := i.signer.Sign(rand.Reader, digest, i.alg.hash)
	if err != nil {
		return nil, Away("the token that holds the CA key", err)
	}
	if !verifies(i.Cert.PublicKey, i.alg.hash, digest, sig) {
		return nil, &Error{Kind: Internal, Reason: "internal error",
			Err: fmt.Errorf("the token returned a signature that does not verify under the key of CA %s", i.Record.Name)}
	}
	return sig, nil
}

// digest is what the key signs: the hash of the message, or the message itself.
func (a signatureAlgorithm) digest(message []byte) []byte {
	if a.hash == 0 {
		return message
	}
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

func verifies(pub crypto.PublicKey, hash crypto.Hash, digest, sig []byte) bool {
	switch pub := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(pub, hash, digest, sig) == nil
	case ed25519.PublicKey:
		return ed25519.Verify(pub, digest, sig)
	}
	return false
}

// indexBlock is how many issuance indexes are set aside at a time: what a
// crash skips at most, and how often a reservation is committed.
const indexBlock = 1024

// indexes hands out issuance indexes from durable blocks.
type indexes struct {
	mu        sync.Mutex
	next, end uint64
}

func (x *indexes) take(ctx context.Context, ledger Ledger, issuer string) (uint64, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next == x.end {
		first, err := ledger.ReserveIndexes(ctx, issuer, indexBlock)
		if err != nil {
			return 0, err
		}
		x.next, x.end = first, first+indexBlock
	}
	if x.next > MaxIndex {
		return 0, &Error{Kind: Internal, Reason: "internal error", Err: errors.New("the issuance index of " + issuer + " is exhausted: rotate the CA")}
	}
	x.next++
	return x.next - 1, nil
}

// keyID is how the ledger knows a key: SHA-256 of its SubjectPublicKeyInfo.
func keyID(spki []byte) [32]byte { return sha256.Sum256(spki) }
