package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/ocsp"
	"github.com/deviceca/deviceca/pack/publisher"
)

// delegateLife is that of the certificates under which OCSP answers and packs
// are signed. They are renewed at half of it: so long the token may be away before
// OCSP feels it.
const delegateLife = 30 * 24 * time.Hour

// revocation publishes the status of certificates, for every CA whose key is
// here: OCSP answers, CRLs, and packs.
type revocation struct {
	system    *system
	journal   store.Journal
	log       *slog.Logger
	issuers   []string          // names of generations
	aliases   map[string]string // "issuing" to the generation that issues
	responder *ocsp.Responder
	delegates []*ocsp.Delegate
	crls      *crl.Publisher
	packs     *publisher.Publisher
	lists     http.Handler
	packFiles http.Handler
	// bodyTime is how long a question may take to arrive, sendTime a list to leave.
	bodyTime, sendTime time.Duration
}

// newRevocation puts the publications together. It reads and signs nothing yet, so
// that starting does not wait for it.
func newRevocation(ctx context.Context, s *system) (*revocation, error) {
	backdate := func() time.Duration { return s.service.Policy().Backdate() }
	r := &revocation{system: s, journal: s.store.Journal(), log: s.log, aliases: map[string]string{},
		bodyTime: s.cfg.Limits.ReadTimeout, sendTime: 10 * s.cfg.Limits.WriteTimeout}
	var err error
	var shared ocsp.Cache
	if s.cfg.OCSP.Shared {
		shared = s.store.Answers()
	}
	if r.responder, err = ocsp.New(ocsp.Options{
		Source: closedSource{r.journal, s}, Shared: shared, Backdate: backdate, Validity: s.cfg.OCSP.Life, MaxAge: s.cfg.OCSP.MaxAge, Entries: s.cfg.OCSP.Answers, LiveRate: float64(s.cfg.OCSP.LiveRate),
		Retention: s.cfg.OCSP.Retention, Prefix: "/ocsp", Log: s.log,
	}); err != nil {
		return nil, err
	}
	var lists []crl.Issuer
	var packs []publisher.Issuer
	for _, record := range s.service.Issuers() {
		if !record.Subordinate() || record.Revoked != nil {
			continue
		}
		key, err := s.caKey(ctx, record.Key)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(record.Cert)
		if err != nil {
			return nil, err
		}
		r.issuers = append(r.issuers, record.Name)
		r.aliases[record.Role] = s.service.Named(record.Role)
		delegate := ocsp.DelegateOptions{Issuer: record.Name, IssuerCert: cert, Certifier: certifier{s.service}, Log: s.log}
		if s.cfg.OCSP.DelegateKey == "token" {
			if delegate.Key, err = responderKey(ctx, s.keys, record.Name, cert.PublicKey); err != nil {
				return nil, fmt.Errorf("the OCSP responder's key: %w", err)
			}
		}
		d := ocsp.NewDelegate(delegate)
		if err := r.responder.AddIssuer(record.Name, cert, d); err != nil {
			return nil, err
		}
		r.delegates = append(r.delegates, d)
		lists = append(lists, crl.Issuer{Name: record.Name, Cert: cert, Key: key})
		packs = append(packs, publisher.Issuer{Name: record.Name, Cert: cert})
	}
	c := s.cfg.CRL
	if r.crls, err = crl.NewPublisher(crl.Options{
		Source: r.journal, Dir: s.home.path("crl"), URL: s.cfg.PublicURL(), Interval: c.FullEvery, Overlap: c.Overlap,
		FullWithin: cmp.Or(c.FullWithin, -1), DeltaInterval: c.DeltaEvery, DeltaOverlap: c.DeltaOverlap, Backdate: backdate, Log: s.log,
	}, lists...); err != nil {
		return nil, err
	}
	if r.packs, err = publisher.New(publisher.Options{
		Source: store.Packs{Journal: r.journal}, Certifier: certifier{s.service}, Dir: s.home.path("pack"),
		Every: s.cfg.Pack.Every, Refresh: s.cfg.Pack.Refresh, Overlap: s.cfg.Pack.Overlap, Keep: s.cfg.Pack.Keep, Backdate: backdate, Log: s.log,
	}, packs...); err != nil {
		return nil, err
	}
	r.lists = crl.Handler(crl.HandlerOptions{Dir: s.home.path("crl"), Prefix: "/crl", Resolve: r.resolve, MaxAge: c.MaxAge})
	r.packFiles = r.packs.Handler(publisher.HandlerOptions{Prefix: "/pack", Resolve: r.resolve})
	return r, nil
}

// responderKey finds or makes the key of one issuer's OCSP responder in the token.
func responderKey(ctx context.Context, provider keys.Provider, issuer string, issuerKey crypto.PublicKey) (crypto.Signer, error) {
	label := "ocsp-" + issuer
	key, err := provider.Key(ctx, label)
	if !errors.Is(err, keys.ErrNotFound) {
		return key, err
	}
	spec, err := specFor(issuerKey)
	if err == nil {
		spec, err = quickSpec(ctx, provider, spec)
	}
	if err != nil {
		return nil, err
	}
	return provider.Generate(ctx, label, spec)
}

// quickSpec is the kind of a key that signs often, and is no CA's: the default, which is quick, or
// the CA's where the token has no such keys.
func quickSpec(ctx context.Context, provider keys.Provider, ofCA keys.Spec) (keys.Spec, error) {
	err := provider.Check(ctx, map[string]keys.Spec{rand.Text(): keys.DefaultSpec}, false) // no label that is in use
	if errors.Is(err, keys.ErrNotOffered) {
		return ofCA, nil
	}
	return keys.DefaultSpec, err
}

// resolve turns a role into the name of the generation that issues.
func (r *revocation) resolve(name string) string {
	if newest, ok := r.aliases[name]; ok {
		return newest
	}
	return name
}

// handler is what answers a path, nil if none of the publications does. The
// request's path must be as it came: base64 holds double slashes.
func (r *revocation) handler(path string) http.Handler {
	switch {
	case path == "/ocsp" || strings.HasPrefix(path, "/ocsp/"):
		return http.HandlerFunc(r.ocsp)
	case path == "/crl/" || path == "/crl/index.json" || strings.HasPrefix(path, "/crl/") && strings.HasSuffix(path, ".pem"):
		return nil // of all CAs, the roots among them
	case strings.HasPrefix(path, "/pack/") && strings.HasSuffix(path, packSequence):
		return r.system.unlessClosed(r.sending(http.HandlerFunc(r.packBundle)))
	case strings.HasPrefix(path, "/crl/") && !isRootName(strings.TrimPrefix(path, "/crl/")): // the roots' keys are elsewhere, and so are their lists
		return r.system.unlessClosed(r.sending(r.lists))
	case strings.HasPrefix(path, "/pack/"):
		return r.system.unlessClosed(r.sending(r.packFiles))
	}
	return nil
}

// isRootName reports whether a name, or the file name of a list, is that of a root.
func isRootName(name string) bool {
	return strings.HasPrefix(name, "root") || strings.HasPrefix(name, "quarantine-root")
}

func (r *revocation) ocsp(w http.ResponseWriter, q *http.Request) {
	if q.ContentLength != 0 {
		c := http.NewResponseController(w)
		c.SetReadDeadline(time.Now().Add(r.bodyTime))
		defer c.SetReadDeadline(time.Time{})
	}
	r.responder.ServeHTTP(w, q)
}

// sending gives lists more time than answers: they have megabytes.
func (r *revocation) sending(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(r.sendTime))
		next.ServeHTTP(w, q)
	})
}

// run lists what publishes until its context ends.
func (r *revocation) run() []func(context.Context) {
	tasks := []func(context.Context){
		func(ctx context.Context) { r.responder.Run(ctx) },
		func(ctx context.Context) { r.system.whenOpen(ctx, func(ctx context.Context) { r.crls.Run(ctx) }) },
		func(ctx context.Context) { r.system.whenOpen(ctx, func(ctx context.Context) { r.packs.Run(ctx) }) },
		r.follow,
	}
	for _, d := range r.delegates {
		tasks = append(tasks, func(ctx context.Context) { d.Run(ctx) })
	}
	return tasks
}

// publish makes complete CRLs and full packs beside the schedule, of the CA
// named, of all if name is "".
func (r *revocation) publish(ctx context.Context, name string) ([]string, error) {
	if name = r.resolve(name); isRootName(name) {
		return nil, ca.Errorf(ca.Conflict, "the root's key is not here; sign its CRL with: deviceca ca crl root")
	}
	if err := r.system.closed(ctx); err != nil {
		return nil, ca.Errorf(ca.Conflict, "this CA was restored from a backup and is closed: its lists would call certificates good that were revoked since; open it with: deviceca recover --acknowledge TEXT")
	}
	if err := r.crls.Publish(ctx, name); err != nil {
		return nil, err
	}
	if err := r.packs.Publish(ctx, name); err != nil {
		return nil, err
	}
	if name != "" {
		return []string{name}, nil
	}
	return r.issuers, nil
}

// invalidateTime is how long a revocation waits for its new OCSP answers to be
// signed. The old ones are dropped at once.
const invalidateTime = 2 * time.Second

// changed is ca.Options.Changed.
func (r *revocation) changed(ctx context.Context, issuer string, serials []ca.Serial) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), invalidateTime)
	defer cancel()
	var failed int
	var fault error
	for _, serial := range serials { // all of them, whatever fails: the old answers must go
		if err := r.responder.Invalidate(ctx, issuer, serial); err != nil {
			failed, fault = failed+1, err
		}
	}
	if failed > 0 {
		r.log.Warn("OCSP answers not signed again; they are when they are asked for", "issuer", issuer, "answers", failed, "first", serials[0], "err", fault)
	}
}

// followEvery is how often the journal is looked at for changes by other processes.
const followEvery = 300 * time.Millisecond

// follow drops OCSP answers whose certificate was revoked or released by
// another process on the same ledger. Own changes came through changed before; doing them twice does no harm.
func (r *revocation) follow(ctx context.Context) {
	heads := map[string]int64{}
	for away := false; ; {
		for _, issuer := range r.issuers {
			if err := r.catchUp(ctx, issuer, heads); err != nil && ctx.Err() == nil {
				if !away {
					r.log.Error("the revocation journal cannot be read; OCSP answers may be old", "issuer", issuer, "err", err)
				}
				away = true
			} else {
				away = false
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(followEvery):
		}
	}
}

func (r *revocation) catchUp(ctx context.Context, issuer string, heads map[string]int64) error {
	head, err := r.journal.Head(ctx, issuer)
	if err != nil {
		return err
	}
	last, known := heads[issuer]
	if known && head != last {
		for c, err := range r.journal.Changes(ctx, issuer, last, head) {
			if err != nil {
				return err
			}
			r.changed(ctx, issuer, []ca.Serial{c.Serial})
		}
	}
	heads[issuer] = head
	return nil
}

// certifier issues the delegates' certificates.
type certifier struct{ service *ca.Service }

// IssueResponder is part of ocsp.Certifier.
func (c certifier) IssueResponder(ctx context.Context, issuer string, pub crypto.PublicKey) ([]byte, error) {
	return c.issue(ctx, ca.BuiltinOCSP, issuer, pub)
}

// IssueSigner is part of publisher.Certifier.
func (c certifier) IssueSigner(ctx context.Context, issuer string, pub crypto.PublicKey) ([]byte, error) {
	return c.issue(ctx, ca.BuiltinPack, issuer, pub)
}

func (c certifier) issue(ctx context.Context, which ca.Builtin, issuer string, pub crypto.PublicKey) ([]byte, error) {
	issued, err := c.service.IssueBuiltin(ctx, which, issuer, pub, nil, delegateLife)
	if err != nil {
		return nil, err
	}
	return issued.Certificate.DER, nil
}
