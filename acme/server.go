package acme

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/deviceca/deviceca/attest"
	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Prefix is where every ACME path begins.
const Prefix = "/acme"

// Authority is what ACME needs of the core. Errors that are no *ca.Error count as
// internal faults. All methods are safe for concurrent use.
type Authority interface {
	// CredentialSecret gives the secret that an external account binding is checked with,
	// a random one for an unknown reference. A credential that is not usable comes with its
	// secret and an error of kind Unauthenticated, which is for whoever knows the secret alone.
	CredentialSecret(ctx context.Context, reference string) (ca.Requester, device.Secret, error)
	// WrongSecret notes a binding whose MAC is wrong, and is what to answer.
	WrongSecret(reference string, from netip.Addr) error
	// AccountRequester is who asks when an account does, for an order with these names.
	AccountRequester(ctx context.Context, account int64, credential string, sans []ca.SAN) (ca.Requester, error)
	// AuthenticateCertificate finds the requester behind a certificate whose key has signed a request.
	AuthenticateCertificate(ctx context.Context, chain []*x509.Certificate) (ca.Requester, error)
	// MayActFor reports why the requester may not do something for a device. Consider and Enroll ask by themselves.
	MayActFor(ctx context.Context, r ca.Requester, deed ca.Deed) error
	// Consider says what a request may come to, without its key and evidence.
	Consider(ctx context.Context, r ca.Request) (*ca.Prospect, error)
	// Enroll decides and issues. The record is durable, and the order valid, when it returns.
	Enroll(ctx context.Context, r ca.Request) (*ca.Issued, error)
	// Spend takes an act of the requester for a device (beside a certificate) out of their budgets: RateLimited.
	Spend(r ca.Requester, device, address string) error
	// Revoke revokes one certificate: NotFound, or Conflict if it is revoked already.
	Revoke(ctx context.Context, serial ca.Serial, reason int, invalid *time.Time, actor string) (*ca.Certificate, error)
	// Attesting lists the manufacturers that vouch by evidence of a format.
	Attesting(ctx context.Context, format string) ([]ca.Attesting, error)
	// Chains are the ways from a CA's certificates to a root, best first, DER.
	Chains(issuer string) [][][]byte
	// Issuers are the CAs, root first.
	Issuers() []ca.IssuerRecord
	// RenewAt is the fraction of its validity after which a certificate should be renewed.
	RenewAt(c *ca.Certificate) float64
	// Policy is the policy in force.
	Policy() *policy.Policy
}

var _ Authority = (*ca.Service)(nil)

// Options are what the server is made of.
type Options struct {
	Authority Authority
	Ledger    Ledger
	// Nonces default to NewNonces.
	Nonces Nonces
	// Validators look at the network, by challenge type; those that are not there are not offered.
	Validators map[string]Validator
	// Verifiers judge evidence. A format is offered while a manufacturer's anchors are registered for it.
	Verifiers []attest.Verifier
	// URL is the base under which clients reach the server, "https://ca.example:8443", whatever host a request
	// names. "" is https, the host that each request names, which must be one of Hosts, and the port that it came to.
	URL string
	// Hosts are the server's names, in small letters, and its addresses, without ports.
	Hosts []string
	// Terms and Website are URLs for the directory. With terms, new accounts must agree to them.
	Terms, Website string
	// OpenAccounts lets accounts in that no credential vouches for.
	OpenAccounts bool
	Limits       Limits
	// BodyTimeout is how long a client may take to send one message; default 10 s.
	BodyTimeout time.Duration
	// Observe, if set, is told of each request when its reply is ready: outcome is a policy outcome, "ok",
	// the type of the problem, or the name of an HTTP-level refusal.
	Observe func(operation, outcome string, took time.Duration)
	Now     func() time.Time // default time.Now
	Logger  *slog.Logger     // default slog.Default()
}

// Server is the ACME server: an http.Handler for everything under [Prefix], on an
// https listener. Safe for concurrent use.
type Server struct {
	Options
	routes http.Handler
	limits *limiter
	queue  *queue         // challenges to validate
	waits  [64]sync.Mutex // by order: one look at a time whether what waits was approved
}

// New makes the server. [Server.Run] must run beside it.
func New(opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Nonces == nil {
		opts.Nonces = NewNonces()
	}
	if opts.BodyTimeout <= 0 {
		opts.BodyTimeout = 10 * time.Second
	}
	s := &Server{Options: opts, limits: newLimiter(opts.Limits), queue: newQueue()}
	s.routes = s.newRoutes()
	return s
}

// route is one line of the table.
type route struct {
	path, operation string
	get             func(*exchange) (*reply, error) // without a JWS
	post            func(*exchange) (*reply, error)
	key             keyRule // that the JWS of a POST must have
}

func (s *Server) table() []route {
	return []route{
		{path: "/directory", operation: "directory", get: (*exchange).directory},
		{path: "/new-nonce", operation: "newNonce", get: (*exchange).newNonce},
		{path: "/new-account", operation: "newAccount", post: (*exchange).newAccount, key: byJWK},
		{path: "/account/{id}", operation: "account", post: (*exchange).account},
		{path: "/account/{id}/orders", operation: "orders", post: (*exchange).orders},
		{path: "/key-change", operation: "keyChange", post: (*exchange).keyChange},
		{path: "/new-order", operation: "newOrder", post: (*exchange).newOrder},
		{path: "/order/{id}", operation: "order", post: (*exchange).order},
		{path: "/order/{id}/finalize", operation: "finalize", post: (*exchange).finalize},
		{path: "/authorization/{id}", operation: "authorization", post: (*exchange).authorization},
		{path: "/challenge/{id}/{type}", operation: "challenge", post: (*exchange).challenge},
		{path: "/certificate/{serial}", operation: "certificate", post: (*exchange).certificate},
		{path: "/certificate/{serial}/{chain}", operation: "certificate", post: (*exchange).certificate},
		{path: "/revoke-cert", operation: "revokeCert", post: (*exchange).revokeCert, key: byEither},
		{path: "/renewal-info/{cert}", operation: "renewalInfo", get: (*exchange).renewalInfo},
	}
}

func (s *Server) newRoutes() http.Handler {
	mux := chi.NewRouter()
	mux.NotFound(s.serve("other", func(*exchange) (*reply, error) {
		return nil, problem(malformed, "there is nothing here: begin at %s/directory", Prefix).with(http.StatusNotFound)
	}))
	mux.MethodNotAllowed(s.serve("other", (*exchange).wrongMethod))
	for _, rt := range s.table() {
		if rt.get != nil {
			h := s.serve(rt.operation, rt.get)
			mux.Get(Prefix+rt.path, h)
			mux.Head(Prefix+rt.path, h)
			continue
		}
		mux.Post(Prefix+rt.path, s.serve(rt.operation, func(x *exchange) (*reply, error) {
			if err := x.read(rt.key); err != nil {
				return nil, err
			}
			return rt.post(x)
		}))
	}
	return mux
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.routes.ServeHTTP(w, r) }

// pruneEvery is how often what has expired is forgotten; keepExpired is for how long it is still shown, and
// keepUnbound for how long accounts are kept that no credential vouches for and that have no orders.
const (
	pruneEvery  = 10 * time.Minute
	keepExpired = 24 * time.Hour
	keepUnbound = 30 * 24 * time.Hour
)

// Run validates challenges, those that were begun before the server's start first, and
// forgets what has expired, until ctx ends. What fails is tried again at the next turn.
func (s *Server) Run(ctx context.Context) {
	defer s.queue.run(ctx)()
	look, prune := time.NewTicker(lookEvery), time.NewTicker(pruneEvery)
	defer look.Stop()
	defer prune.Stop()
	for {
		if err := s.resume(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Error("challenges could not be resumed; trying again", "protocol", "acme", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		case <-prune.C:
			if err := s.prune(ctx); err != nil && ctx.Err() == nil {
				s.Logger.Error("expired orders could not be forgotten; trying again", "protocol", "acme", "err", err)
			}
		}
	}
}

// prune forgets what has expired.
func (s *Server) prune(ctx context.Context) error {
	now := s.Now()
	_, err := s.Ledger.PruneACME(ctx, now.Add(-keepExpired))
	if err == nil {
		_, err = s.Ledger.PruneAccounts(ctx, now.Add(-keepUnbound))
	}
	return err
}
