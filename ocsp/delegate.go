package ocsp

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Certifier issues responder certificates.
type Certifier interface {
	// IssueResponder issues, with the key of the issuer named, a certificate for
	// pub: extended key usage id-kp-OCSPSigning alone, key usage
	// digitalSignature, id-pkix-ocsp-nocheck (NULL, not critical), no OCSP and no CRL pointer
	// (RFC 6960 §4.2.2.2), short-lived: at least twice the validity of the
	// answers, or those get shorter. It is durably recorded before it returns. DER.
	// Errors: *ca.Error of kind Unavailable if the token or database is away.
	IssueResponder(ctx context.Context, issuer string, pub crypto.PublicKey) ([]byte, error)
}

// DelegateOptions configures a Delegate. Issuer, IssuerCert and Certifier are needed.
type DelegateOptions struct {
	Issuer     string // name with generation, "issuing-1"
	IssuerCert *x509.Certificate
	Certifier  Certifier
	// Key lies in a token and is certified again and again; its signatures are
	// verified. nil makes a P-256 key in memory with each certificate.
	Key crypto.Signer
	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default
}

// Delegate keeps the responder certificate of one issuer current. It renews
// when half of the time from receipt to end is over: by itself ([Delegate.Run]),
// or without Run when it is next asked. While there is a valid certificate nobody waits for the
// next one; where renewal keeps failing, answers end with the certificate that is left.
type Delegate struct {
	opts    DelegateOptions
	current atomic.Pointer[held]

	mu      sync.Mutex // held while renewing, for what follows
	retryAt time.Time  // after a failure: not before
	failed  error
	pause   time.Duration
}

// held is a credential and when to replace it.
type held struct {
	*Credential
	renewAt time.Time
}

// ahead reports whether the certificate begins in the future: it was issued by a clock that was ahead.
func (h *held) ahead(now time.Time) bool { return now.Before(h.cert.NotBefore) }

// Waits between attempts to renew that failed, and how long one may take.
const (
	firstPause   = time.Second
	lastPause    = time.Minute
	renewTimeout = 30 * time.Second
)

// NewDelegate makes a Delegate; its first certificate is fetched when it is first needed, or by Run.
func NewDelegate(opts DelegateOptions) *Delegate {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Delegate{opts: opts}
}

// Credential implements Signer.
func (d *Delegate) Credential(ctx context.Context) (*Credential, error) {
	c, now := d.current.Load(), d.opts.Now()
	if c != nil && !c.ahead(now) && now.Before(c.NotAfter()) {
		if !now.Before(c.renewAt) && d.mu.TryLock() {
			go func() {
				defer d.mu.Unlock()
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), renewTimeout)
				defer cancel()
				d.renew(ctx)
			}()
		}
		return c.Credential, nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.renew(ctx); err != nil {
		return nil, err
	}
	return d.current.Load().Credential, nil
}

// Run renews ahead until ctx ends, and returns its error.
func (d *Delegate) Run(ctx context.Context) error {
	for {
		d.mu.Lock()
		attempt, cancel := context.WithTimeout(ctx, renewTimeout)
		err := d.renew(attempt)
		cancel()
		next := d.retryAt
		if err == nil {
			next = d.current.Load().renewAt
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(next.Sub(d.opts.Now()), firstPause)):
		}
	}
}

// renew fetches a certificate if one is due; d.mu is held. After a failure it
// leaves the CA alone for a while, whoever calls.
func (d *Delegate) renew(ctx context.Context) error {
	now := d.opts.Now()
	if c := d.current.Load(); c != nil && !c.ahead(now) && now.Before(c.renewAt) {
		return nil
	}
	if d.failed != nil && now.Before(d.retryAt) && d.retryAt.Sub(now) <= lastPause {
		return d.failed
	}
	next, err := d.fetch(ctx)
	if err != nil {
		d.pause = min(max(2*d.pause, firstPause), lastPause)
		d.retryAt, d.failed = now.Add(d.pause), ca.Away("the OCSP responder's certificate", err)
		d.opts.Log.Warn("OCSP responder certificate not renewed", "issuer", d.opts.Issuer, "retry", d.retryAt, "error", err)
		return d.failed
	}
	c := &held{next, now.Add(next.NotAfter().Sub(now) / 2)}
	d.current.Store(c)
	d.failed, d.pause = nil, 0
	d.opts.Log.Info("OCSP responder certificate renewed", "issuer", d.opts.Issuer,
		"serial", hex.EncodeToString(next.cert.SerialNumber.Bytes()), "expires", next.NotAfter(), "renewal", c.renewAt)
	return nil
}

func (d *Delegate) fetch(ctx context.Context) (*Credential, error) {
	key := d.opts.Key
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	raw, err := d.opts.Certifier.IssueResponder(ctx, d.opts.Issuer, key.Public())
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("the responder's certificate cannot be read: %w", err)
	}
	if now := d.opts.Now(); now.Before(cert.NotBefore) || !now.Before(cert.NotAfter) {
		return nil, fmt.Errorf("the responder's certificate is valid from %s to %s, not now; check the clock", cert.NotBefore, cert.NotAfter)
	}
	return NewCredential(key, cert, d.opts.IssuerCert, d.opts.Key != nil)
}
