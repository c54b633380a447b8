package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/acme"
	"github.com/deviceca/deviceca/ca"
	cmpserver "github.com/deviceca/deviceca/cmp/server"
	"github.com/deviceca/deviceca/est"
	"github.com/deviceca/deviceca/internal/admin"
)

// drainTime is how long requests in flight may take once the server is told to stop.
const drainTime = 20 * time.Second

// server is `serve`: a system, and the listeners that lead to it.
type server struct {
	*system
	proxies est.Proxies
	metrics *metrics
	turns   *turns
	bound   listeners
	cert    *serverCert
	cmp     *cmpserver.Server
	acme    *acme.Server
	fails   chan error
	// casMoved has room for one: the CAs are others now.
	casMoved chan struct{}
	running  sync.WaitGroup
	stops    []func(context.Context) error
}

// serve runs the CA until ctx ends, in this order, so that a server that cannot serve leaves nothing behind:
//
//  1. Take the home and every address.
//  2. Open token, ledger and policy, and check what else is configured.
//  3. Issue the certificates of the server itself.
//  4. Answer, and publish. ready is called then.
func serve(ctx context.Context, home Home, cfg Config, log *slog.Logger, ready func(*server)) (err error) {
	// Requests leave much garbage and the live heap is a few megabytes: with the
	// usual 100 % the collector would run all the time, for a tenth of the CPU.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	// Signed OCSP answers are the exception: they stay, so that garbage may not be
	// four times as much. Twice what they take, and the rest.
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(256<<20 + int64(cfg.OCSP.Answers)*2*550)
	}
	proxies, err := cfg.proxies()
	if err != nil {
		return err
	}
	unlock, err := home.take()
	if err != nil {
		return err
	}
	defer unlock()
	bound, err := bind(home, cfg)
	if err != nil {
		return err
	}
	defer bound.close()
	sys, err := openTaken(ctx, home, cfg, log, time.Now())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sys.Close()) }()
	s := &server{system: sys, proxies: proxies, bound: bound, fails: make(chan error, 8), casMoved: make(chan struct{}, 1)}
	for _, w := range sys.rootWarnings(ctx, time.Now()) {
		log.Warn(w)
	}
	s.metrics = newMetrics(sys)
	s.turns = newTurns(sys.service.OftenRefused, proxies.Networks)
	// What the configuration may have wrong comes before what is issued and recorded at each start.
	if s.acme, err = s.newACME(); err != nil {
		return fmt.Errorf("acme: %w", err)
	}
	hook, err := newWebhook(sys)
	if err != nil {
		return err
	}
	if s.cert, err = newServerCert(ctx, sys.service, cfg.serverNames(), log); err != nil {
		err = fmt.Errorf("the server's own certificate: %w", err)
		if text := sys.service.Warning(sys.service.Named("issuing")); text != "" {
			return hinted(err, "%s: %s", sys.service.Named("issuing"), text)
		}
		return err
	}
	if s.cmp, err = s.newCMP(ctx); err != nil {
		return err
	}
	sys.casChanged = func() {
		s.cert.casChanged()
		s.cmp.CAsChanged()
		select {
		case s.casMoved <- struct{}{}:
		default:
		}
	}
	if err := sys.writeCAFiles(); err != nil {
		return err
	}

	background, stop := context.WithCancel(ctx)
	defer s.running.Wait()
	defer stop()
	s.background(background, s.checkAtStart, s.service.Run, s.cert.keepFresh, s.cmp.Run, s.acme.Run, s.keepCheckpoints, s.keepPolicy, s.keepCAs, s.remindClosed)
	s.background(background, s.revocation.run)
	s.startWebhook(background, hook)
	defer s.shutDown()
	if err := s.listen(background); err != nil {
		return err
	}
	ready(s)
	select {
	case <-ctx.Done():
		log.Info("stopping")
		return nil
	case err := <-s.fails:
		return err
	}
}

func (s *server) background(ctx context.Context, tasks ...func(context.Context)) {
	for _, task := range tasks {
		s.running.Go(func() { task(ctx) })
	}
}

// listen serves on every listener: https for devices and remote administrators,
// http for what is signed by itself, the socket for the host's administrator, and metrics.
func (s *server) listen(ctx context.Context) error {
	minVersion := uint16(tls.VersionTLS13)
	if s.cfg.TLS.MinVersion == "1.2" {
		minVersion = tls.VersionTLS12
	}
	// Client certificates are asked for and verified per request by the core,
	// not by the handshake: so a resumed session cannot outlive a revocation, and
	// a refusal is an answer that says why. Those that Go cannot parse end the handshake
	// all the same; that is logged, and there are names and a listener that ask for none.
	//
	// Whole records: strongSwan 5.9 reads a reply that comes in two records only
	// if both are there when it looks, and Go begins connections with small ones.
	secure := &tls.Config{MinVersion: minVersion, ClientAuth: tls.RequestClientCert, GetCertificate: s.cert.get,
		NextProtos: []string{"h2", "http/1.1"}, DynamicRecordSizingDisabled: true, VerifyPeerCertificate: boundChain}
	sessions, err := newTickets(s.tickets, secure, s.cfg.TLS.NoClientCertNames, time.Now, s.mayResume)
	if err != nil {
		return err
	}
	s.background(ctx, sessions.keepTurning)
	routes := s.secureRoutes()
	s.start("https", routes, sessions.serve())
	s.start("https_nocert", routes, sessions.askNobody())
	s.start("http", s.publicRoutes(), nil)
	s.start("metrics", s.metrics.handler(), nil)
	s.start("admin", s.api.Socket(), nil)
	return nil
}

// Bounds of a client's certificate chain: its certificates are parsed, kept while
// the connection lasts, and written into its session ticket.
const (
	maxChain       = 10
	maxChainOctets = 64 << 10
)

// boundChain refuses, in the handshake, a chain that no device has.
func boundChain(chain [][]byte, _ [][]*x509.Certificate) error {
	octets := 0
	for _, c := range chain {
		octets += len(c)
	}
	if len(chain) > maxChain || octets > maxChainOctets {
		return fmt.Errorf("the client's chain has %d certificates of %d octets: send at most %d of %d", len(chain), octets, maxChain, maxChainOctets)
	}
	return nil
}

// mayResume reports whether a client with these certificates may resume its TLS
// session: administrators and registration authorities prove that they have their key on each connection.
func (s *server) mayResume(chain []*x509.Certificate) bool {
	if len(chain) == 0 {
		return true
	}
	if ca.MayBeRA(chain[0]) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // the handshake waits
	defer cancel()
	_, err := s.store.AdminByKey(ctx, sha256.Sum256(chain[0].RawSubjectPublicKeyInfo))
	return errors.Is(err, ca.ErrNoRecord)
}

// secureRoutes is what the https listener serves.
func (s *server) secureRoutes() http.Handler {
	public := s.publicRoutes()
	administrators, accounts := s.api.TLS(), s.acmeUnlessClosed(s.acme)
	devices := est.New(est.Options{
		Authority: s.service, BodyTimeout: time.Duration(s.cfg.Limits.ReadTimeout), Observe: s.metrics.observe("est"), Logger: s.log,
		Rules: estRules, Responder: (&cmcResponder{service: s.service}).get, Proxies: s.proxies,
	})
	// By hand, not by a router in front: that would answer methods it does not
	// know by itself, in nobody's terms.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.HasPrefix(path, est.Prefix):
			s.turns.serve(devices, w, r)
		case strings.HasPrefix(path, acme.Prefix+"/"):
			s.turns.serve(accounts, w, r)
		case strings.HasPrefix(path, admin.Prefix+"/"):
			administrators.ServeHTTP(w, r)
		default:
			public.ServeHTTP(w, r)
		}
	})
}

// publicRoutes is what the http listener serves, and https too: nothing secret,
// nothing that needs TLS to know who asks (CMP protects each message by itself).
func (s *server) publicRoutes() http.Handler {
	mux := chi.NewRouter()
	s.public(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.revocation.handler(r.URL.Path); h != nil {
			h.ServeHTTP(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, cmpserver.Prefix) {
			s.turns.serve(s.cmp, w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// An HTTP/2 connection may cost about as much as a few of HTTP/1: requests that it
// has under way, each of which may hold a body, and octets that it sends ahead of our reading.
const (
	maxStreams      = 32
	maxStreamBuffer = 256 << 10 // octets: the largest body of CMP and ACME
)

// start serves on one of the listeners, unless it is off.
func (s *server) start(name string, handler http.Handler, secure *tls.Config) {
	l, limits := s.bound[name], s.cfg.Limits
	if l == nil {
		return
	}
	if name != "admin" {
		l = newFairListener(l, limits.Connections, limits.ConnectionsPerAddress, s.proxies.Networks, s.metrics.connectionsRefused(name))
	}
	srv := &http.Server{
		Handler:           recovered(handler, s.log.With("listener", name)),
		TLSConfig:         secure,
		ReadHeaderTimeout: time.Duration(limits.HeaderTimeout),
		ReadTimeout:       time.Duration(limits.ReadTimeout),
		WriteTimeout:      time.Duration(limits.WriteTimeout),
		IdleTimeout:       time.Duration(limits.IdleTimeout),
		MaxHeaderBytes:    limits.HeaderBytes,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxStreamBuffer, MaxReceiveBufferPerStream: maxStreamBuffer},
		ErrorLog:          stdlog.New(newHandshakeLog(s.log.With("listener", name), s.metrics.handshakesFailed(name)), "", 0),
	}
	if name == "admin" {
		srv.ReadTimeout, srv.WriteTimeout = 0, 0 // imports and backups take as long as they take; the peer is the owner
	}
	s.stops = append(s.stops, srv.Shutdown)
	s.log.Info("listening", "listener", name, "address", l.Addr().String())
	s.running.Go(func() {
		run := srv.Serve
		if secure != nil {
			run = func(l net.Listener) error { return srv.ServeTLS(l, "", "") } // the certificate is in TLSConfig
		}
		if err := run(l); !errors.Is(err, http.ErrServerClosed) {
			s.fails <- fmt.Errorf("%s: %w", name, err)
		}
	})
}

// recovered answers a request whose handler panicked with 500, and logs it as
// the fault that it is: net/http would cut the connection, and its log is at debug.
func recovered(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if fault := recover(); fault == http.ErrAbortHandler {
				panic(fault)
			} else if fault != nil {
				log.Error("a handler panicked", "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
				http.Error(w, "internal error", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func (s *server) shutDown() {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var all sync.WaitGroup
	for _, stop := range s.stops {
		all.Go(func() {
			if err := stop(ctx); err != nil {
				s.log.Warn("requests were cut off", "err", err)
			}
		})
	}
	all.Wait()
}

// keepPolicy applies policy.yaml anew at each SIGHUP; a faulty one changes nothing.
func (s *server) keepPolicy(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		rules, err := readPolicy(s.cfg.Policy)
		if err == nil {
			err = s.service.Apply(ctx, rules, "system:SIGHUP")
		}
		if err != nil {
			s.log.Error("the policy was not reloaded; the one before stays in force", "err", err)
		}
	}
}
