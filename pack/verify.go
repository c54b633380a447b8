package pack

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"
)

// Status is what a pack says of a certificate. The zero value is Unknown.
type Status uint8

const (
	// Unknown: the serial is not one of this issuer's form, or its index lies beyond the universe: the certificate is
	// newer than the pack, or never was.
	Unknown Status = iota
	// Good: the index lies in the universe and is not revoked.
	Good
	// Revoked: the index is revoked, for good or on hold.
	Revoked
	// Expired: the index lies below the universe, where every certificate has expired. Treat it as Unknown: a pack no
	// longer tells whether it was revoked.
	Expired
)

func (s Status) String() string {
	switch s {
	case Good:
		return "good"
	case Revoked:
		return "revoked"
	case Expired:
		return "expired"
	}
	return "unknown"
}

// Limits bound what input may cost. Zero fields have the default.
type Limits struct {
	Bytes   int // of a pack or delta; default 2 MiB
	Revoked int // indices in a state or delta; default 4,194,304
}

func (l Limits) orDefault() Limits {
	if l.Bytes == 0 {
		l.Bytes = 2 << 20
	}
	if l.Revoked == 0 {
		l.Revoked = 4 << 20
	}
	return l
}

// Options of [Verify].
type Options struct {
	// Issuer is the issuing CA, whose certificate the caller trusts. Required.
	Issuer *x509.Certificate
	// Floor is what the caller has persisted. The zero Floor refuses nothing.
	Floor  Floor
	Limits Limits
}

// Pack is a state whose signature holds. It is immutable and safe for concurrent use.
type Pack struct {
	*State
	base   Hash
	issuer *x509.Certificate
	signer *x509.Certificate // the issuer, or the delegate last met
	limits Limits
}

// Verify checks a full pack and the deltas that follow it, in their order, and returns the state that they lead to. The
// floor applies to that state, so that an old pack with newer deltas passes. Freshness is not checked here but with
// each look-up. Errors are those of this package, or a [*RollbackError].
func Verify(data []byte, o Options, deltas ...[]byte) (*Pack, error) {
	p, err := open(data, o)
	if err != nil {
		return nil, err
	}
	for i, delta := range deltas {
		if p, err = p.Apply(delta); err != nil {
			return nil, fmt.Errorf("delta %d: %w", i+1, err)
		}
	}
	if p.Floor().Compare(o.Floor) < 0 {
		return nil, &RollbackError{Got: p.Floor(), Floor: o.Floor}
	}
	return p, nil
}

// IssuerOf reads which issuing CA a full pack says it is of. Nothing is verified: it is for choosing [Options.Issuer]
// among several CAs.
func IssuerOf(data []byte) (issuer Hash, err error) {
	if limit := (Limits{}).orDefault().Bytes; len(data) > limit {
		return issuer, fmt.Errorf("%w: %d octets, limit %d", ErrLimit, len(data), limit)
	}
	e, err := parseEnvelope(data, contentType)
	if err != nil {
		return issuer, err
	}
	r := &reader{rest: e.payload}
	r.expect(majorArray, 12, "payload")
	r.expect(majorUint, kindPack, "kind")
	copy(issuer[:], r.fixed(len(issuer), "issuer"))
	return issuer, r.err
}

// open verifies a full pack. Nothing in it is believed before step 4, and what comes before is bounded by its length.
func open(data []byte, o Options) (*Pack, error) {
	if o.Issuer == nil {
		return nil, fmt.Errorf("%w: no issuer given", ErrSigner)
	}
	p := &Pack{issuer: o.Issuer, limits: o.Limits.orDefault()}

	// 1. The size, before anything else is looked at.
	if len(data) > p.limits.Bytes {
		return nil, fmt.Errorf("%w: %d octets, limit %d", ErrLimit, len(data), p.limits.Bytes)
	}
	// 2. The envelope, which has one form.
	e, err := parseEnvelope(data, contentType)
	if err != nil {
		return nil, err
	}
	// 3. The signing key: the issuer's, or that of a certificate that the issuer signed for this purpose alone.
	if p.signer, err = p.signerOf(e, nil); err != nil {
		return nil, err
	}
	// 4. The signature.
	if err := e.verify(p.signer, nil); err != nil {
		return nil, err
	}
	// 5. The payload, canonical throughout.
	if p.State, p.base, err = parsePack(e.payload, p.limits); err != nil {
		return nil, err
	}
	// 6. A delegate of two issuers with one name and key must not carry the packs of one over to the other.
	if p.header.Issuer != IssuerHash(p.issuer) {
		return nil, ErrIssuer
	}
	// 7. The delegate's validity and revocation, which take the payload to tell.
	if err := vouches(p.issuer, p.signer, p.State); err != nil {
		return nil, err
	}
	return p, nil
}

// Apply verifies a delta for p and returns the state it leads to, which is newer than p. p stays as it is.
func (p *Pack) Apply(delta []byte) (*Pack, error) {
	// 1, 2. As for a full pack.
	if len(delta) > p.limits.Bytes {
		return nil, fmt.Errorf("%w: %d octets, limit %d", ErrLimit, len(delta), p.limits.Bytes)
	}
	e, err := parseEnvelope(delta, "")
	if err != nil {
		return nil, err
	}
	// 3. The parent, from octets not yet verified: only to tell a delta for another state from a forged one.
	parent, err := deltaParent(e.payload)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(parent, p.hash[:parentPrefix]) {
		return nil, ErrParent
	}
	// 4. The signing key. A delegate that the parent has revoked signs nothing after it.
	signer, err := p.signerOf(e, p.signer)
	if err != nil {
		return nil, err
	}
	if err := notRevoked(p.issuer, signer, p.State); err != nil {
		return nil, err
	}
	// 5. The signature, which covers the whole hash of the parent.
	if err := e.verify(signer, p.hash[:]); err != nil {
		return nil, err
	}
	// 6. The change, and that it leads where the signer said.
	st, err := p.applyDelta(e.payload, p.limits)
	if err != nil {
		return nil, err
	}
	// 7. The delegate once more, by what the new state says.
	if err := vouches(p.issuer, signer, st); err != nil {
		return nil, err
	}
	return &Pack{State: st, base: p.base, issuer: p.issuer, signer: signer, limits: p.limits}, nil
}

// signerOf finds the certificate of the signing key: the one carried, or the issuer's, or the one known from before.
func (p *Pack) signerOf(e *envelope, known *x509.Certificate) (*x509.Certificate, error) {
	cert := p.issuer
	switch {
	case e.cert != nil:
		var err error
		if cert, err = x509.ParseCertificate(e.cert); err != nil {
			return nil, fmt.Errorf("%w: delegated certificate: %w", ErrSigner, err)
		}
		if err := checkDelegate(p.issuer, cert); err != nil {
			return nil, err
		}
	case known != nil && bytes.Equal(e.kid, keyID(known)):
		cert = known
	}
	if cert == p.issuer {
		if err := checkIssuer(cert); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(e.kid, keyID(cert)) {
		return nil, fmt.Errorf("%w: key %x is neither that of issuer %q nor of a certificate at hand", ErrSigner, e.kid, p.issuer.Subject)
	}
	return cert, nil
}

func (e *envelope) verify(signer *x509.Certificate, aad []byte) error {
	alg, err := algorithmOf(signer.PublicKey)
	if err != nil {
		return err
	}
	if e.alg != alg.id {
		return fmt.Errorf("%w: algorithm %d with a key for %d", ErrSignature, e.alg, alg.id)
	}
	if !alg.verify(signer.PublicKey, e.toBeSigned(aad), e.signature) {
		return ErrSignature
	}
	return nil
}

// Index takes the issuance index out of a serial: 19 octets, 0x01, the index in 6 octets, big-endian, and 12 random ones
// (the contents octets of the INTEGER, or SerialNumber.Bytes() of a certificate).
func Index(serial []byte) (index uint64, ok bool) {
	if len(serial) != 19 || serial[0] != 1 {
		return 0, false
	}
	for _, c := range serial[1:7] {
		index = index<<8 | uint64(c)
	}
	return index, true
}

// Status looks a serial up. The certificate that it is from must have been verified to be of this issuer: a pack goes
// by the index alone, and a made-up serial would find somebody else's status.
//
// The status is always what the pack says. The error is a [*FreshnessError] if now lies outside the times of the pack:
// Revoked stays revoked then, and what Good is worth is for the caller to decide (deny, a grace period, allow).
func (p *Pack) Status(serial []byte, now time.Time) (Status, error) {
	status := Unknown
	if index, ok := Index(serial); ok {
		status = p.Index(index)
	}
	if now.Before(p.header.ThisUpdate) || now.After(p.header.NextUpdate) {
		return status, &FreshnessError{Now: now, ThisUpdate: p.header.ThisUpdate, NextUpdate: p.header.NextUpdate}
	}
	return status, nil
}

// Certificate looks a certificate up, whose chain the caller has verified. One that does not name this issuer and its key
// is Unknown, with [ErrIssuer].
func (p *Pack) Certificate(cert *x509.Certificate, now time.Time) (Status, error) {
	if !bytes.Equal(cert.RawIssuer, p.issuer.RawSubject) ||
		len(cert.AuthorityKeyId) > 0 && !bytes.Equal(cert.AuthorityKeyId, p.issuer.SubjectKeyId) {
		return Unknown, fmt.Errorf("%w: certificate of %q, pack of %q", ErrIssuer, cert.Issuer, p.issuer.Subject)
	}
	return p.Status(cert.SerialNumber.Bytes(), now)
}

// Floor is what to persist once p is accepted.
func (p *Pack) Floor() Floor { return p.header.floor() }

// Base returns the hash of the state in the full pack that was published before the one p comes from, or zero.
func (p *Pack) Base() Hash { return p.base }

// Signer returns the certificate whose key signed last: the issuer's, or a delegate's.
func (p *Pack) Signer() *x509.Certificate { return p.signer }
