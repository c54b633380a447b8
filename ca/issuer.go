package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

// Issuer is one CA certificate generation with its key.
type Issuer struct {
	Record IssuerRecord
	Cert   *x509.Certificate
	signer crypto.Signer // nil: the key is elsewhere (the root's), so it cannot sign here
	alg    *der.Signature
	index  indexes
	// liveUntil is when the last of its certificates expires, as of the last reload.
	liveUntil time.Time
}

// algorithmFor is how a CA's key signs.
func algorithmFor(pub crypto.PublicKey) (*der.Signature, error) {
	if ec, ok := pub.(*ecdsa.PublicKey); ok && ec.Curve != elliptic.P256() && ec.Curve != elliptic.P384() {
		return nil, fmt.Errorf("a CA key on curve %s: use P-256 or P-384", ec.Curve.Params().Name)
	}
	return der.SignatureFor(pub)
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

// sign signs tbs. The signature verifies: Options.Key promises it, and newIssuer
// has seen that the key is the certificate's.
func (i *Issuer) sign(tbs []byte) ([]byte, error) {
	sig, err := i.alg.Sign(i.signer, i.alg.Digest(tbs))
	if err != nil {
		return nil, Away("the token that holds the CA key", err)
	}
	return sig, nil
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
