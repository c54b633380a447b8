package publisher

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/deviceca/deviceca/pack"
)

// signer is a delegate: a key in memory, and the certificate that says what it may sign.
type signer struct {
	*pack.Signer
	cert    *x509.Certificate
	renewAt time.Time
}

// signerFor finds who signs a state of now, and until when it may last. The
// delegate is renewed at half of its life. While renewal fails the old one goes on, and
// states end with it.
func (p *Publisher) signerFor(ctx context.Context, is *publication, now time.Time) (*pack.Signer, time.Time, error) {
	ahead := is.signer != nil && now.Before(is.signer.cert.NotBefore) // it was issued by a clock that was ahead
	if is.signer == nil || ahead || !now.Before(is.signer.renewAt) {
		next, err := p.newSigner(ctx, is, now)
		switch {
		case err == nil:
			is.signer = next
			p.opts.Log.Info("pack signer certificate renewed", "issuer", is.Name, "serial", hex.EncodeToString(next.cert.SerialNumber.Bytes()),
				"expires", next.cert.NotAfter, "renewal", next.renewAt)
		case is.signer == nil || ahead || !now.Before(is.signer.cert.NotAfter):
			return nil, time.Time{}, fmt.Errorf("the pack signer's certificate: %w", err)
		default:
			is.signer.renewAt = now.Add(lastPause)
			p.opts.Log.Warn("pack signer certificate not renewed", "issuer", is.Name, "expires", is.signer.cert.NotAfter, "error", err)
		}
	}
	until := now.Add(p.opts.Every + p.opts.Overlap)
	if is.signer.cert.NotAfter.Before(until) {
		until = is.signer.cert.NotAfter
	}
	return is.signer.Signer, until, nil
}

func (p *Publisher) newSigner(ctx context.Context, is *publication, now time.Time) (*signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	raw, err := p.opts.Certifier.IssueSigner(ctx, is.Name, key.Public())
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	s, err := pack.NewSigner(is.Cert, key, cert)
	if err != nil {
		return nil, err
	}
	return &signer{s, cert, now.Add(cert.NotAfter.Sub(now) / 2)}, nil
}
