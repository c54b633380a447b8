package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/policy"
)

// estRules is what profiles say about EST alone.
func estRules(p policy.Profile) est.Rules {
	r := est.Rules{Binding: p.ChannelBinding}
	switch {
	case p.ServerKeygen.Clear:
		r.Keygen = est.KeygenClear
	case p.ServerKeygen.Allow:
		r.Keygen = est.KeygenSealed
	}
	return r
}

// cmcLife is that of the certificate that signs CMC answers; it is renewed at half of it.
const cmcLife = 7 * 24 * time.Hour

// cmcResponder signs CMC answers and keys made for devices, with a key in
// memory: it signs answers to strangers too, which are none of the token's business.
type cmcResponder struct {
	service *ca.Service
	mu      sync.Mutex
	current est.Responder
}

// get is est.Options.Responder. The certificate is issued when it is first needed.
func (c *cmcResponder) get(ctx context.Context) (est.Responder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current.Key != nil && fresh(c.current.Chain[0], cmcLife, time.Now()) {
		return c.current, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return est.Responder{}, err
	}
	issued, err := c.service.IssueBuiltin(ctx, ca.BuiltinCMC, "issuing", key.Public(), nil, cmcLife)
	if err != nil {
		return est.Responder{}, err
	}
	r := est.Responder{Key: key}
	for _, der := range append([][]byte{issued.Certificate.DER}, issued.Chain...) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return est.Responder{}, err
		}
		r.Chain = append(r.Chain, cert)
	}
	c.current = r
	return r, nil
}
