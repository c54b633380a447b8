package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/policy"
)

// serverCertLife is short: the certificate renews itself, and its key is never
// written anywhere.
const serverCertLife = 7 * 24 * time.Hour

// serverCert is the certificate of our own https listener: issued by this CA to
// a key in memory, and renewed at half of its life.
type serverCert struct {
	service *ca.Service
	names   []ca.SAN
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
	changed chan struct{} // has room for one
}

func newServerCert(ctx context.Context, service *ca.Service, names []ca.SAN, log *slog.Logger) (*serverCert, error) {
	c := &serverCert{service: service, names: names, log: log, changed: make(chan struct{}, 1)}
	return c, c.renew(ctx)
}

func (c *serverCert) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	issued, err := c.service.IssueBuiltin(ctx, ca.BuiltinServer, "issuing", key.Public(), c.names, serverCertLife)
	if err != nil {
		return err
	}
	chain := append([][]byte{issued.Certificate.DER}, issued.Chain...)
	cert := &tls.Certificate{Certificate: chain, PrivateKey: key}
	if cert.Leaf, err = parseCert(issued.Certificate.DER); err != nil {
		return err
	}
	c.current.Store(cert)
	c.log.Info("server certificate issued", "serial", issued.Certificate.Serial, "not_after", issued.Certificate.NotAfter)
	return nil
}

// fresh reports whether a certificate of the server's own will do for now: half of its life is left, and it has
// begun. One that has not was issued by a clock that was ahead.
func fresh(cert *x509.Certificate, life time.Duration, now time.Time) bool {
	return !now.Before(cert.NotBefore) && now.Before(cert.NotAfter.Add(-life/2))
}

// keepFresh renews until ctx ends. It looks every minute, since the clock may be set. A token that is away is tried
// again as often, for which half of the certificate's life is left.
func (c *serverCert) keepFresh(ctx context.Context) {
	for {
		leaf := c.current.Load().Leaf
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		case <-time.After(time.Minute):
			if fresh(leaf, serverCertLife, time.Now()) {
				continue
			}
		}
		if err := c.renew(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the server certificate could not be renewed; trying again in a minute", "not_after", leaf.NotAfter, "err", err)
		}
	}
}

// casChanged renews at once: devices that trust only a new root need the
// certificates that lead to it.
func (c *serverCert) casChanged() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *serverCert) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// serverNames are the names that clients may reach the https listeners by: the
// configured ones first, then what this host is called.
func (c *Config) serverNames() []ca.SAN {
	var names []ca.SAN
	add := func(name string) {
		san := ca.SAN{Form: "dns", Value: name}
		if addr, err := netip.ParseAddr(name); err == nil {
			if addr.IsUnspecified() {
				return
			}
			san = ca.SAN{Form: "ip", Value: addr.String()}
		}
		if name != "" && !slices.Contains(names, san) {
			names = append(names, san)
		}
	}
	for _, name := range slices.Concat(c.TLS.Names, c.TLS.NoClientCertNames) {
		add(name)
	}
	add("localhost")
	if host, err := os.Hostname(); err == nil && len(host) <= 64 && policy.IsHostName(host) {
		add(host)
	}
	for _, listen := range []string{c.Listen.HTTPS, c.Listen.HTTPSNoCert} {
		if host, _, err := net.SplitHostPort(listen); err == nil {
			add(host)
		}
	}
	add("127.0.0.1")
	add("::1")
	return names
}
