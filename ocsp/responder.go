package ocsp

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/deviceca/deviceca/ca"
)

// Status is what the ledger knows of one certificate.
type Status struct {
	Issued     bool // false: no certificate of that issuer has exactly this serial
	NotAfter   time.Time
	Revocation *ca.Revocation // nil: not revoked (or released from hold)
}

// Source is the ledger, as far as the responder needs it.
type Source interface {
	// Status reads one certificate's status as of its latest durable change: a
	// read that begins after a revocation was acknowledged shows it. The whole
	// serial is compared; one that is not there is Issued == false and no error. Serials
	// come from strangers: those with an index beyond the highest issued
	// should be told apart without a query. Errors: *ca.Error of kind
	// Unavailable if the database is away.
	Status(ctx context.Context, issuer string, serial ca.Serial) (Status, error)
}

// SharedKey addresses an answer in a Cache. State is the sequence of the
// revocation that the answer speaks of, 0 for good: an answer is
// only ever found under the state that the ledger has now.
type SharedKey struct {
	Issuer string
	Serial ca.Serial
	Form   uint8 // of the CertID: hash and parameters
	State  int64
}

// Cache shares signed answers with other servers, which may be worth its
// look-up where signing is slow (keys in tokens). The responder works without.
type Cache interface {
	// Get returns the response kept under k, nil if there is none.
	Get(ctx context.Context, k SharedKey) ([]byte, error)
	// Put keeps a response until expires at the most, in place of an older one. It may forget any.
	Put(ctx context.Context, k SharedKey, response []byte, expires time.Time) error
}

// Options configures a Responder. Source is needed; zero fields get the default.
type Options struct {
	Source Source
	Shared Cache // default none

	// Validity is from an answer's signature to its nextUpdate. Default 24 h; at least a minute.
	Validity time.Duration
	// Backdate is how far before their signature answers begin, for relying parties whose clock is slow:
	// RFC 6960 §4.2.2.1 has them distrust a thisUpdate to come. nil: not at all.
	Backdate func() time.Duration
	// Retention is how long after its end a certificate's status is still
	// told; answers then carry an archive cutoff (RFC 6960 §4.4.4). After it, and with 0, the
	// default, from the end on, the answer is unauthorized.
	Retention time.Duration
	// MaxAge bounds how long HTTP caches keep an answer: by it a cached "good" may outlive a
	// revocation. Half of Validity bounds it as well. Default 1 h.
	MaxAge time.Duration
	// Entries bounds the pre-signed answers in memory, about 0.55 kB each
	// with P-256. Default 262,144 (≈ 145 MB).
	Entries int
	// Presign lists the CertID hashes that Presign signs for. Default SHA1 alone, which
	// is what openssl, gnutls, nginx and Go ask with; others are signed on first ask.
	Presign []Hash

	// LiveAtOnce, LiveQueue and LiveRate (per second) bound the answers that
	// are signed for one asker. Default half of the processors, 64, and 2000.
	LiveAtOnce int
	LiveQueue  int
	LiveRate   float64
	// FillAtOnce bounds the look-ups and signatures for answers not in memory. Default 16.
	FillAtOnce int

	Prefix string           // of the URL path before the request, "/ocsp"; default none
	Now    func() time.Time // default time.Now
	Log    *slog.Logger     // default slog.Default
}

const (
	// unknownLife is the validity of "unknown": short, it costs a signature each time.
	unknownLife  = 5 * time.Minute
	fillTimeout  = 5 * time.Second
	livePatience = 250 * time.Millisecond
	refreshPause = 10 * time.Second
)

// Responder answers for any number of issuers. See the package's comment.
type Responder struct {
	opts    Options
	cache   *cache
	live    *gate
	fills   *gate
	issuers atomic.Pointer[issuers]
	adding  sync.Mutex
	pool    sync.Pool // of *scratch
	stats   counters
}

// issuers is a snapshot that readers need no lock for.
type issuers struct {
	byPrefix map[string]*variant // by CertID.issuer
	list     []*issuer           // by number
}

type issuer struct {
	number uint32
	name   string
	signer Signer
	forms  []*variant

	mu   sync.Mutex
	last *window // shared by the answers of one second
}

// variant is one way in which CertIDs name an issuer.
type variant struct {
	issuer *issuer
	form   uint8
	hash   Hash
	prefix []byte
}

type counters struct{ presigned, filled, live, refused, failed atomic.Uint64 }

// Stats counts since the start.
type Stats struct {
	Entries   int    // pre-signed answers in memory
	Presigned uint64 // answers given out from memory
	Filled    uint64 // answers made to be kept: first asks, refreshes, status changes
	Live      uint64 // answers signed for one asker
	Refused   uint64 // over a budget
	Failed    uint64 // internal errors
}

// Stats reads the counters.
func (r *Responder) Stats() Stats {
	return Stats{r.cache.len(), r.stats.presigned.Load(), r.stats.filled.Load(), r.stats.live.Load(), r.stats.refused.Load(), r.stats.failed.Load()}
}

// New makes a Responder without issuers.
func New(opts Options) (*Responder, error) {
	if opts.Source == nil {
		return nil, errors.New("an OCSP responder needs a source of status")
	}
	opts.Validity = cmp.Or(opts.Validity, 24*time.Hour)
	opts.MaxAge = cmp.Or(opts.MaxAge, time.Hour)
	opts.Entries = cmp.Or(opts.Entries, 1<<18)
	opts.LiveAtOnce = cmp.Or(opts.LiveAtOnce, max(runtime.NumCPU()/2, 1))
	opts.LiveQueue = cmp.Or(opts.LiveQueue, 64)
	opts.LiveRate = cmp.Or(opts.LiveRate, 2000)
	opts.FillAtOnce = cmp.Or(opts.FillAtOnce, 16)
	if opts.Validity < time.Minute || opts.Retention < 0 || opts.Entries < 0 || opts.LiveAtOnce < 0 || opts.FillAtOnce < 0 {
		return nil, fmt.Errorf("OCSP: validity %s (at least a minute), retention %s, or a bound below zero", opts.Validity, opts.Retention)
	}
	if opts.Presign == nil {
		opts.Presign = []Hash{SHA1}
	}
	if opts.Backdate == nil {
		opts.Backdate = func() time.Duration { return 0 }
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	r := &Responder{
		opts:  opts,
		cache: newCache(opts.Entries),
		live:  newGate(opts.LiveAtOnce, opts.LiveQueue, opts.LiveRate, livePatience),
		fills: newGate(opts.FillAtOnce, 1<<20, 0, fillTimeout),
	}
	r.pool.New = func() any { return new(scratch) }
	r.issuers.Store(&issuers{byPrefix: map[string]*variant{}})
	return r, nil
}

// AddIssuer makes the responder answer for certificates of cert, under the name
// that Source knows it by. It may be called while serving.
func (r *Responder) AddIssuer(name string, cert *x509.Certificate, s Signer) error {
	if publicKeyBits(cert) == nil {
		return fmt.Errorf("the public key of %s cannot be read", name)
	}
	r.adding.Lock()
	defer r.adding.Unlock()
	old := r.issuers.Load()
	next := &issuers{byPrefix: map[string]*variant{}, list: append(old.list[:len(old.list):len(old.list)], nil)}
	for p, v := range old.byPrefix {
		next.byPrefix[p] = v
	}
	is := &issuer{number: uint32(len(old.list)), name: name, signer: s}
	next.list[is.number] = is
	for _, hash := range []Hash{SHA1, SHA256} {
		for _, null := range []bool{true, false} {
			v := &variant{issuer: is, form: uint8(len(is.forms)), hash: hash, prefix: issuerPrefix(cert, hash, null)}
			if _, taken := next.byPrefix[string(v.prefix)]; taken {
				return fmt.Errorf("OCSP: %s has the name and key of another issuer", name)
			}
			is.forms = append(is.forms, v)
			next.byPrefix[string(v.prefix)] = v
		}
	}
	r.issuers.Store(next)
	return nil
}

// named finds an issuer by the name it was added under.
func (r *Responder) named(name string) (*issuer, error) {
	for _, is := range r.issuers.Load().list {
		if is.name == name {
			return is, nil
		}
	}
	return nil, fmt.Errorf("OCSP: no issuer is called %q", name)
}

// Presign signs the answers for a certificate that was just issued, so that
// nobody waits for them. Call it once the record is durable; it reads the
// Source. Its failure is no reason to withhold the certificate: what is missing is made on first ask.
func (r *Responder) Presign(ctx context.Context, issuer string, serial ca.Serial) error {
	is, err := r.named(issuer)
	if err != nil {
		return err
	}
	for _, hash := range r.opts.Presign {
		for _, v := range is.forms {
			if v.hash != hash || v.form&1 != 0 { // odd forms lack the NULL
				continue
			}
			if _, err := r.fetch(ctx, v, makeKey(v, serial[:])); err != nil {
				return err
			}
		}
	}
	return nil
}

// Invalidate drops what is kept for a certificate whose status changed, and
// signs again what had been asked for. Call it once the change is durable, on
// each server. When it returns, even with an error, no older answer is given out.
func (r *Responder) Invalidate(ctx context.Context, issuer string, serial ca.Serial) error {
	is, err := r.named(issuer)
	if err != nil {
		return err
	}
	var again []*variant
	for _, v := range is.forms {
		k := makeKey(v, serial[:])
		if r.cache.shard(&k).drop(k) {
			again = append(again, v)
		}
	}
	for _, v := range again {
		if _, e := r.fetch(ctx, v, makeKey(v, serial[:])); e != nil && !errors.Is(e, errPast) {
			err = e
		}
	}
	return err
}

// Run signs answers again before half of their life is over, until ctx ends,
// and returns its error. It looks every 64th of Validity, so that the work is
// spread over time, and soon again after a failure.
func (r *Responder) Run(ctx context.Context) error {
	for {
		wait := max(r.opts.Validity/64, time.Second)
		if !r.refresh(ctx) {
			wait = min(wait, refreshPause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (r *Responder) refresh(ctx context.Context) (done bool) {
	var failed atomic.Int64
	var last atomic.Value
	for i := range r.cache.shards {
		var work errgroup.Group
		work.SetLimit(4)
		for _, k := range r.cache.shards[i].due(r.opts.Now()) {
			v := r.issuers.Load().list[uint32(k[0])<<24|uint32(k[1])<<16|uint32(k[2])<<8|uint32(k[3])].forms[k[4]]
			work.Go(func() error {
				_, err := r.fetch(ctx, v, k)
				switch {
				case errors.Is(err, errPast):
					r.cache.shard(&k).drop(k)
				case err != nil:
					failed.Add(1)
					last.Store(err.Error())
				}
				return nil
			})
		}
		work.Wait()
		if ctx.Err() != nil {
			return false
		}
	}
	if n := failed.Load(); n > 0 {
		r.opts.Log.Warn("OCSP answers not renewed; they are tried again", "answers", n, "error", last.Load())
	}
	return failed.Load() == 0
}
