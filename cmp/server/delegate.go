package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// delegateLife is short: the certificate renews itself, and its key is in memory alone.
const delegateLife = 7 * 24 * time.Hour

// delegate is who signs our answers: a certificate with id-kp-cmcCA below the
// issuing CA (RFC 9483 §1.5), whose chain goes into extraCerts.
type delegate struct {
	current atomic.Pointer[cmp.Signer]
	stale   chan struct{} // has room for one
}

// CAsChanged makes a new certificate at once, under the issuing CA that is the
// newest now and with the certificates that lead to each root. Until it is
// there, the one before goes on: its chain is as good as it was. [Server.Run] must run.
func (s *Server) CAsChanged() {
	s.kga.forget()
	select {
	case s.delegate.stale <- struct{}{}:
	default:
	}
}

// issueDelegate has a certificate of the CA's own issued to a new key; its chain follows it.
func (s *Server) issueDelegate(ctx context.Context, which ca.Builtin) (*ecdsa.PrivateKey, []*x509.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	issued, err := s.Authority.IssueBuiltin(ctx, which, "issuing", key.Public(), nil, delegateLife)
	if err != nil {
		return nil, nil, err
	}
	var certs []*x509.Certificate
	for _, raw := range append([][]byte{issued.Certificate.DER}, issued.Chain...) {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, nil, err
		}
		certs = append(certs, c)
	}
	return key, certs, nil
}

func (s *Server) renewDelegate(ctx context.Context) error {
	key, certs, err := s.issueDelegate(ctx, ca.BuiltinCMP)
	if err != nil {
		return fmt.Errorf("the CMP signer's certificate: %w", err)
	}
	signer, err := cmp.NewSigner(key, certs[0], cmp.SignerOptions{Chain: certs[1:]})
	if err != nil {
		return err
	}
	s.delegate.current.Store(signer)
	s.Logger.Info("CMP signer certificate issued", "serial", hex.EncodeToString(certs[0].SerialNumber.Bytes()), "not_after", certs[0].NotAfter)
	return nil
}

func (s *Server) delegateDue() bool { return s.due(s.delegate.current.Load().Certificate()) }

// due reports whether a certificate of the CA's own must be made anew: at half of its life, so that a token that is
// away for days does no harm; and where it has not begun, since the clock was ahead when it was issued.
func (s *Server) due(cert *x509.Certificate) bool {
	now := s.Now()
	return now.Before(cert.NotBefore) || !now.Before(cert.NotAfter.Add(-delegateLife/2))
}
