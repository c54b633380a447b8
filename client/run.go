package client

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Config is what Run and Agent need to know.
type Config struct {
	// Dir is the directory of key and certificate, see Store. It is made if missing.
	Dir string
	// Signer is a key in hardware, used as it is for every certificate; nil for
	// keys made by this package and kept in Dir.
	Signer crypto.Signer

	Protocol string // "est", which "" stands for, "acme" or "cmp"
	Server   string // base URL
	Label    string // certificate profile, "" for the server's choice
	// Trust is needed for the first contact; later the anchors in Dir do as well.
	Trust  Trust
	MinTLS uint16 // see ESTConfig, as are Timeout and Wait
	// Timeout and Wait bound one exchange and one operation.
	Timeout, Wait time.Duration

	// Device is the device ID; needed to enrol, checked against the certificate later.
	Device   string
	AltNames AltNames // asked for when enrolling; renewal repeats the certificate's own

	// How to prove who asks when enrolling: an IDevID is tried first, then a
	// credential. Without either the request goes out without proof.
	IDevID     *tls.Certificate
	Credential *Credential

	// Key is the kind of key to make; "" is what the CA asks for, else ecdsa-p256;
	// at renewal the kind that the device has.
	Key KeyType
	// KeepKey renews with the same key. A lapsed certificate is renewed so in any case.
	KeepKey bool

	// RenewFraction is the part of the validity after which to renew, 0.1 to 0.9; 0 is 0.5. Where
	// the CA says when to renew (ACME), that counts.
	RenewFraction float64
	Renew         bool // renew now, due or not
	Force         bool // enrol anew, whatever there is

	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil logs nothing

	HTTP01   string   // with ACME: see ACMEConfig
	Attester Attester // with ACME: see ACMEConfig; its key is Signer

	// Enroller replaces the one that Protocol, Server, Label, Trust and the bounds would make.
	Enroller Enroller
}

// Action is what Run did.
type Action string

// The actions.
const (
	Enrolled Action = "enrolled" // there is a first certificate
	Renewed  Action = "renewed"  // there is a new one
	Current  Action = "current"  // nothing was due; nobody was contacted, but to ask when it will be (see Adviser)
)

// Result is what Run did and what the device has now.
type Result struct {
	Action    Action    `json:"action"`
	Protocol  string    `json:"protocol"`
	Device    string    `json:"device"`
	Serial    string    `json:"serial"` // hex
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	RenewAt   time.Time `json:"renew_at"`
	// Outcome and Reasons are the policy's, "" and none with Current: "issue",
	// "restricted", "quarantine" or "update-required".
	Outcome  string   `json:"outcome,omitempty"`
	Reasons  []string `json:"reasons,omitempty"`
	Warnings []string `json:"warnings,omitempty"` // what differs from what was asked, without harm; a key that everybody can read
	Files    Files    `json:"files"`
}

// Run does what is due: it enrols a device that has no identity, renews one
// whose time has come (or that lapsed), and otherwise does nothing. It writes
// nothing before the answer has passed every check, and is safe to repeat
// after any failure: a request without an answer is repeated with its key.
func Run(ctx context.Context, c Config) (Result, error) {
	r, err := newRun(c)
	if err != nil {
		return Result{}, err
	}
	return r.run(ctx)
}

func (r *run) run(ctx context.Context) (Result, error) {
	c := r.config
	unlock, err := r.store.lock()
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	if err := r.store.recover(c.Device); err != nil && !c.Force {
		return Result{}, err
	}
	id, err := r.store.Load()
	switch {
	case c.Force || errors.Is(err, ErrNoIdentity):
		return r.obtain(ctx, Enrolled, r.enrolAttempts())
	case err != nil:
		return Result{}, err
	case c.Device != "" && !sameID(c.Device, id.Device()):
		return Result{}, r.store.another(id, c.Device)
	case id.Lapsed(r.now()):
		// The server may let a lapsed certificate renew itself for a while; then the
		// device falls back to what it enrolled with.
		attempts := []attempt{{renews: id, auth: Auth{Certificate: id.TLS()}, keepKey: true}}
		if c.IDevID != nil || c.Credential != nil {
			for _, a := range r.enrolAttempts() {
				a.names = NamesOf(id.Certificate)
				attempts = append(attempts, a)
			}
		}
		return r.obtain(ctx, Renewed, attempts)
	}
	if !c.Renew {
		if err := r.checkClock(id); err != nil {
			return Result{}, err
		}
		r.advise(ctx, id)
	}
	if c.Renew || !r.now().Before(r.renewAt(id)) {
		return r.obtain(ctx, Renewed, []attempt{{renews: id, auth: Auth{Certificate: id.TLS()}, keepKey: c.KeepKey}})
	}
	return r.result(Current, id), nil
}

// checkClock: before the certificate was issued, nothing can be said of when it is due, and no server's certificate is valid.
func (r *run) checkClock(id *Identity) error {
	if from := id.Certificate.NotBefore; from.Sub(r.now()) > maxAhead {
		return &Error{Kind: Local, Op: "clock", Text: fmt.Sprintf("this device's clock says %s, and its certificate is valid from %s", r.now().UTC().Format(time.RFC3339), from.UTC().Format(time.RFC3339)),
			Hint: "set the clock; key and certificate are in place"}
	}
	return nil
}

// Show is what Run would find, without a lock, a request or a write: the
// Result has the action Current. ErrNoIdentity where there is nothing.
func Show(c Config) (Result, error) {
	r, err := newRun(c)
	if err != nil {
		return Result{}, err
	}
	id, err := r.store.Load()
	if err != nil {
		return Result{}, err
	}
	return r.result(Current, id), nil
}

type run struct {
	config Config
	store  *Store
	log    *slog.Logger
	now    func() time.Time
}

func newRun(c Config) (*run, error) {
	r := &run{config: c, store: &Store{Dir: c.Dir, Signer: c.Signer}, log: c.Log, now: c.Now}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	usage := func(text, hint string) (*run, error) {
		return nil, &Error{Kind: Usage, Op: "config", Text: text, Hint: hint}
	}
	if f := c.RenewFraction; f != 0 && (f < 0.1 || f > 0.9) {
		return usage(fmt.Sprintf("the renewal fraction %g is not between 0.1 and 0.9", f), "0.5 renews at half of the validity")
	}
	if c.Key != "" {
		if _, err := ParseKeyType(string(c.Key)); err != nil {
			return nil, err
		}
	}
	if p := c.Protocol; c.Enroller == nil && p != "" && p != "est" && p != "acme" && p != "cmp" {
		return usage("no protocol "+printable(p), "this client speaks est, acme and cmp")
	}
	return r, nil
}

// enroller makes the Enroller, trusting what was given and what was kept.
func (r *run) enroller() (Enroller, []*x509.Certificate, error) {
	kept, err := r.store.Roots()
	if err != nil {
		return nil, nil, err
	}
	trust := r.config.Trust.with(kept)
	if len(r.config.Trust.RootSHA256) > 0 && r.config.Trust.pinned(kept) == nil {
		kept = nil // anchors of another CA than the one meant
	}
	if r.config.Enroller != nil {
		return r.config.Enroller, kept, nil
	}
	e, err := r.newEnroller(trust)
	if err != nil {
		return nil, nil, err
	}
	return e, kept, nil
}

// newEnroller makes the Enroller of the protocol. A nil pointer must not become one.
func (r *run) newEnroller(trust Trust) (Enroller, error) {
	c := r.config
	switch c.Protocol {
	case "cmp":
		e, err := NewCMP(CMPConfig{Server: c.Server, Label: c.Label, Trust: trust, Timeout: c.Timeout, Wait: c.Wait, Now: r.now})
		if err != nil {
			return nil, err
		}
		return e, nil
	case "acme":
		e, err := NewACME(ACMEConfig{Server: c.Server, Label: c.Label, Trust: trust, MinTLS: c.MinTLS, Timeout: c.Timeout, Wait: c.Wait, Now: r.now,
			Accounts: r.store, Credential: c.Credential, HTTP01: c.HTTP01, Attester: c.Attester})
		if err != nil {
			return nil, err
		}
		return e, nil
	}
	e, err := NewEST(ESTConfig{Server: c.Server, Label: c.Label, Trust: trust, MinTLS: c.MinTLS, Timeout: c.Timeout, Wait: c.Wait, Now: r.now})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// attempt is one way to get the certificate.
type attempt struct {
	renews  *Identity // nil to enrol
	names   Names     // to enrol with; zero for those of the Config
	auth    Auth
	keepKey bool
}

func (a attempt) String() string {
	switch {
	case a.renews != nil:
		return "renewal"
	case a.auth.Certificate != nil:
		return "enrolment with certificate"
	case a.auth.Credential != nil:
		return "enrolment with credential"
	}
	return "enrolment without proof"
}

func (r *run) enrolAttempts() (out []attempt) {
	if c := r.config.IDevID; c != nil {
		out = append(out, attempt{auth: Auth{Certificate: c}})
	}
	if c := r.config.Credential; c != nil || out == nil {
		out = append(out, attempt{auth: Auth{Credential: c}})
	}
	return out
}

// obtain gets a certificate by the first attempt that the server does not turn
// down, in this order:
//
//  1. the CA's certificates, over a verified connection: without them no reply can be judged
//  2. key and request, on disk before they are sent
//  3. the reply, checked against key, names and anchors
//  4. anchors, then key and certificate, on disk
func (r *run) obtain(ctx context.Context, action Action, attempts []attempt) (Result, error) {
	e, kept, err := r.enroller()
	if err != nil {
		return Result{}, err
	}
	ca, err := e.CACerts(ctx)
	if err != nil {
		return Result{}, err
	}
	var refusals []error
	for _, a := range attempts {
		id, reply, warnings, err := r.try(ctx, e, ca, a)
		if err != nil {
			switch KindOf(err) {
			case Unauthenticated, Refused, BadRequest:
				r.log.Warn("turned down", "protocol", e.Protocol(), "attempt", a.String(), "err", err)
				refusals = append(refusals, fmt.Errorf("%v: %w", a, err))
				continue
			}
			return Result{}, err
		}
		if err := r.store.remove(reserveFile); err != nil {
			return Result{}, err
		}
		if err := r.keepAnchors(ca.Roots, kept); err != nil {
			return Result{}, err
		}
		if err := r.store.Save(id); err != nil {
			return Result{}, err
		}
		if err := r.learnAnchors(ctx, e, Auth{Certificate: id.TLS()}); err != nil {
			return Result{}, err
		}
		r.advise(ctx, id)
		out := r.result(action, id)
		out.Protocol, out.Outcome, out.Reasons, out.Warnings = e.Protocol(), reply.Outcome, reply.Reasons, slices.Concat(reply.Warnings, warnings, out.Warnings)
		r.log.Info(string(action), "device", out.Device, "serial", out.Serial, "protocol", out.Protocol, "outcome", out.Outcome)
		return out, nil
	}
	return Result{}, errors.Join(refusals...)
}

// keepAnchors saves the CA's anchors beside those kept: during a change of roots the server itself may still
// stand under the old one.
func (r *run) keepAnchors(listed, kept []*x509.Certificate) error {
	keep := r.config.Trust.keepAnchors(listed, kept, r.now())
	tell := func(text string, certs, in []*x509.Certificate) {
		for _, c := range certs {
			if !slices.ContainsFunc(in, c.Equal) {
				r.log.Info(text, "subject", printable(c.Subject.String()), "sha256", fmt.Sprintf("%x", sha256.Sum256(c.Raw)), "not_after", c.NotAfter.UTC())
			}
		}
	}
	tell("trust anchor is new", keep, kept)
	tell("trust anchor is dropped: it expired, or others took its place", kept, keep)
	return r.store.SaveRoots(keep)
}

// try makes one attempt and checks its answer.
func (r *run) try(ctx context.Context, e Enroller, ca *CACerts, a attempt) (*Identity, *Reply, []string, error) {
	req := &Request{Auth: a.auth, Names: a.names}
	send, act, kind := e.Enroll, []byte("enrol"), r.config.Key
	if a.renews != nil {
		send, act = e.Renew, a.renews.Certificate.Raw
		req.Names = NamesOf(a.renews.Certificate)
		kind = cmp.Or(kind, KeyTypeOf(a.renews.Key.Public()))
	} else if req.Names.Subject == nil {
		var err error
		if req.Names, err = DeviceNames(r.config.Device, r.config.AltNames); err != nil {
			return nil, nil, nil, err
		}
	}
	why := purpose([]byte(e.Protocol()), []byte(r.config.Server), []byte(r.config.Label), act, []byte(r.config.Key),
		fmt.Append(nil, a.keepKey), req.Names.Subject, req.Names.SAN)
	p, err := r.store.loadPending(why)
	if err != nil {
		return nil, nil, nil, err
	}
	switch {
	case p != nil:
		req.Key, req.State = p.key, p.state
		r.log.Info("repeating the request that had no answer", "protocol", e.Protocol())
	case r.config.Signer != nil:
		req.Key = r.config.Signer
	case a.keepKey && a.renews != nil:
		req.Key = a.renews.Key
	default:
		if kind == "" {
			// Advice, and asked for without showing a secret: a server that does not give it decides on the request.
			if kind, err = e.KeyHint(ctx, Auth{}); err != nil {
				kind = ""
			}
		}
		if req.Key, err = GenerateKey(kind); err != nil {
			return nil, nil, nil, &Error{Kind: Local, Op: "key", Text: "no key could be made", Err: err}
		}
	}
	req.Save = func(state []byte) error {
		return r.store.savePending(pending{purpose: why, key: req.Key, state: state})
	}
	req.Check = func(reply *Reply) error {
		_, _, err := r.judge(ctx, e, a.auth, reply, req, ca)
		return err
	}
	if err := r.store.reserve(); err != nil {
		return nil, nil, nil, err
	}
	reply, err := send(ctx, req)
	if err != nil {
		err = errors.Join(err, r.store.remove(reserveFile))
	}
	if KindOf(err) == BadRequest && err != nil {
		// The request is at fault, perhaps its key: the next one starts afresh.
		return nil, nil, nil, errors.Join(err, r.store.remove(requestFile))
	}
	if err != nil {
		return nil, nil, nil, err
	}
	id, warnings, err := r.judge(ctx, e, a.auth, reply, req, ca)
	return id, reply, warnings, err
}

// otherNames warns of names asked for that the certificate lacks: a renewal repeats the names that it has.
func (r *run) otherNames(id *Identity) (warnings []string) {
	if alt := r.config.AltNames; len(alt.DNS)+len(alt.IP)+len(alt.URI) == 0 {
		return nil
	}
	names, err := DeviceNames(id.Device(), r.config.AltNames)
	if err != nil {
		return []string{"the names asked for are not looked at: " + err.Error()}
	}
	for _, name := range missingNames(names.SAN, id.Certificate) {
		warnings = append(warnings, "asked for, and not in the certificate: "+name+"; a renewal keeps the names, so enrol anew for others (-force, with a credential)")
	}
	return warnings
}

func (r *run) result(action Action, id *Identity) Result {
	out := Result{
		Action: action, Protocol: cmp.Or(r.config.Protocol, "est"), Device: id.Device(), Serial: id.Serial(),
		NotBefore: id.Certificate.NotBefore.UTC(), NotAfter: id.Certificate.NotAfter.UTC(),
		RenewAt: r.renewAt(id).UTC(), Files: r.store.Files(),
	}
	if warning := r.store.exposed(); warning != "" {
		out.Warnings = append(out.Warnings, warning)
	}
	if action != Enrolled {
		out.Warnings = append(out.Warnings, r.otherNames(id)...)
	}
	return out
}
