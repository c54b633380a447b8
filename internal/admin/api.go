package admin

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/internal/limit"
	"github.com/deviceca/deviceca/policy"
	"github.com/go-chi/chi/v5"
)

// Prefix is where the API begins, on the socket and on https.
const Prefix = "/admin/v1"

// Core is what the API changes the CA through; *ca.Service is one.
type Core interface {
	RegisterCore
	Policy() *policy.Policy
	Check(ctx context.Context, p *policy.Policy) error
	Apply(ctx context.Context, p *policy.Policy, actor string) error
	Explain(ctx context.Context, version string, in policy.Input) (policy.Decision, error)
	CACert(name string) ([]byte, bool)
	Chain(name string) [][]byte
	Generations() []ca.Generation
	Warning(ca string) string
	MayRotate(role string) error
	Activate(ctx context.Context, name, actor string) error
	Revoke(ctx context.Context, serial ca.Serial, reason int, invalid *time.Time, actor string) (*ca.Certificate, error)
	RevokeLost(ctx context.Context, serial ca.Serial, l ca.Lost, reason int, invalid *time.Time, actor string) (*ca.Certificate, error)
	Release(ctx context.Context, serial ca.Serial, actor string) (*ca.Certificate, error)
	AddDevice(ctx context.Context, d device.Device, uses int, ttl time.Duration, actor string) (*ca.Grant, error)
	ImportDevices(ctx context.Context, devices []device.Device, actor string) ([]error, error)
	AddCredential(ctx context.Context, c device.Credential, ttl time.Duration, actor string) (*ca.Grant, error)
	RevokeCredential(ctx context.Context, reference, actor string) error
	SetDevice(ctx context.Context, id string, c device.Change, actor string) (*device.Device, error)
	RemoveDevice(ctx context.Context, id, actor string) error
	MoveDevice(ctx context.Context, id string, to device.State, reason int, actor string) (ca.Revoked, error)
	RevokeCA(ctx context.Context, name string, reason int, actor string) error
	DecideRequest(ctx context.Context, id int64, approve bool, reason, actor string) (*ca.PendingRequest, error)
	DeactivateAccount(ctx context.Context, id int64, actor string) error
}

// Reader is what the API reads the ledger through, and keeps administrators in.
// Lists come in the order of their paging key and begin after the key given
// ("" and 0 are before all); they hold at most limit lines, fewer only at the
// end. Reads that find nothing return ca.ErrNoRecord.
type Reader interface {
	RegisterReader
	// Devices pages by ID, folded.
	Devices(ctx context.Context, f device.Filter, after string, limit int) ([]device.Device, error)
	Device(ctx context.Context, id string) (*device.Device, error)
	// Credentials pages by reference.
	Credentials(ctx context.Context, f ca.CredentialFilter, after string, limit int) ([]device.Credential, error)
	// Certificates pages by Certificate.ID, oldest first.
	Certificates(ctx context.Context, f ca.CertificateFilter, after int64, limit int) ([]ca.Certificate, error)
	CertificateBySerial(ctx context.Context, serial ca.Serial) (*ca.Certificate, error)
	// Pendings pages by PendingRequest.ID, oldest first.
	Pendings(ctx context.Context, f ca.PendingFilter, after int64, limit int) ([]ca.PendingRequest, error)
	PendingByID(ctx context.Context, id int64) (*ca.PendingRequest, error)
	// Accounts pages by Account.ID, oldest first.
	Accounts(ctx context.Context, f ca.AccountFilter, after int64, limit int) ([]ca.Account, error)
	Account(ctx context.Context, id int64) (*ca.Account, error)
	Issuers(ctx context.Context) ([]ca.IssuerRecord, error)
	// Policies pages by PolicyVersion.ID, without sources; PolicyVersion finds one with its source.
	Policies(ctx context.Context, after int64, limit int) ([]ca.PolicyVersion, error)
	PolicyVersion(ctx context.Context, version string) (*ca.PolicyVersion, error)
	Admins(ctx context.Context) ([]ca.Admin, error)
	// AddAdmin returns ca.ErrRecorded if the name or the key is there already.
	AddAdmin(ctx context.Context, a ca.Admin, e ca.Event) error
	RemoveAdmin(ctx context.Context, name string, e ca.Event) error
	AdminByKey(ctx context.Context, keyID [32]byte) (*ca.Admin, error)
}

// AuditLog reads the audit log.
type AuditLog interface {
	// Events returns up to limit events whose ID is above after, oldest first.
	Events(ctx context.Context, f EventFilter, after int64, limit int) ([]AuditEvent, error)
	// Verify checks the whole chain, and the tables against it. What is wrong is the report's
	// Fault; the error is for a log that cannot be read.
	Verify(ctx context.Context, progress func(AuditProgress)) (AuditReport, error)
	// CheckHeads checks that the log has every head, and says which it has not.
	CheckHeads(ctx context.Context, heads []audit.Checkpoint) (fault string, err error)
}

// Options are what an API is made of. Core, Reader, Audit, Counts, Health and
// Logger are required.
type Options struct {
	Core   Core
	Reader Reader
	Audit  AuditLog
	// Backup writes a consistent copy of the home to the new directory dir,
	// and records that actor did it. Nil: this server cannot.
	Backup func(ctx context.Context, dir, actor string) (BackupReport, error)
	// Rotation makes new CA generations. Nil: this server cannot.
	Rotation Rotation
	// Publish makes CRLs and revocation packs now, of the CA named (a generation or
	// a role), or of all that publish here if name is "", and returns their
	// names. Nil: this server cannot.
	Publish func(ctx context.Context, name string) ([]string, error)
	// Recover enters what other publications and logs say into a restored ledger, and opens
	// it. Nil: this server cannot.
	Recover func(ctx context.Context, in Recovery, actor string) (RecoveryReport, error)
	// Closed, if set, reports that administrators elsewhere are not served at the moment: one
	// who was removed since the backup may have come back with it.
	Closed func(ctx context.Context) error
	// SavePolicy replaces the policy file of the home, so that a policy that was
	// applied is in force after a restart too.
	SavePolicy func(source []byte) error
	// Counts says how many there are of what, for the status page: "devices",
	// "issued", "revoked", …
	Counts func(ctx context.Context) (map[string]int64, error)
	// Health asks each part the CA depends on ("token", "database") whether it answers.
	Health func(ctx context.Context) map[string]error
	// Warnings lists what an administrator should know though everything answers. nil: nothing.
	Warnings func(ctx context.Context) []string
	// Verifiable lists, for each protocol, the kinds of evidence that its server verifies.
	Verifiable map[string][]string
	Version    string    // of the program
	Started    time.Time // of the server; zero when none runs
	Now        func() time.Time
	Logger     *slog.Logger
}

// API is the admin API. Serve it with Socket and TLS.
type API struct {
	Options
	heavy *limit.Gate
}

// New makes the API.
func New(o Options) *API {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &API{Options: o, heavy: limit.NewGate(limit.GateOptions{Inside: 1, InsidePerKey: 1, Queue: 32, QueuePerKey: 1})}
}

// Socket serves the API to whoever can connect: mount it on the listener of
// [Listen] only.
func (a *API) Socket() http.Handler { return a.router(a.localIdentity) }

// TLS serves the API under [Prefix] to holders of admin certificates. The
// listener must ask for client certificates (tls.RequestClientCert); the API
// looks each request's key up by itself, so that removing an admin works at once.
func (a *API) TLS() http.Handler { return a.router(a.certIdentity) }

func (a *API) router(who func(*http.Request) (identity, error)) http.Handler {
	mux := chi.NewRouter()
	mux.NotFound(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, failure(http.StatusNotFound, ca.NotFound, "no such path; the admin API is at "+Prefix))
	})
	mux.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, failure(http.StatusMethodNotAllowed, ca.Malformed, r.Method+" is not allowed here"))
	})
	for _, rt := range routes() {
		mux.Method(rt.method, Prefix+rt.path, a.handle(rt, who))
	}
	return mux
}

// heavyWait is how long a heavy request waits for its turn.
const heavyWait = 20 * time.Second

// enter waits until a heavy request may begin. Heavy requests from other hosts are done one
// at a time, so that devices keep the rest of the machine, and administrators take turns. Each may have
// one under way and one waiting. Between two the CPU rests as long as the first took.
func (a *API) enter(ctx context.Context, actor string) (leave func(), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, heavyWait, limit.ErrBusy)
	defer cancel()
	done, err := a.heavy.Enter(ctx, actor)
	if errors.Is(err, limit.ErrBusy) {
		return nil, &ca.Error{Kind: ca.RateLimited, RetryAfter: heavyWait, Err: err,
			Reason: "the server is at work on requests of this kind, which take much of it: try again later, one at a time"}
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	return func() { time.AfterFunc(min(time.Since(began), heavyWait), done) }, nil
}

// handle turns one line of the table into a handler: know who asks, check the
// role, run, answer.
func (a *API) handle(rt route, who func(*http.Request) (identity, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := who(r)
		if err == nil {
			err = rt.allow(id)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if rt.heavy && !id.Local {
			leave, err := a.enter(r.Context(), id.Actor)
			if err != nil {
				a.fail(w, r, err)
				return
			}
			defer leave()
		}
		c := &call{API: a, w: w, r: r, who: id}
		body, err := rt.run(c)
		switch {
		case err != nil && c.streaming:
			// The status line is gone: an unfinished body tells the client.
			a.Logger.Error("admin request broke off", "path", r.URL.Path, "actor", id.Actor, "err", err)
			panic(http.ErrAbortHandler)
		case err != nil:
			a.fail(w, r, err)
		case c.streaming:
		case body == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			writeJSON(w, http.StatusOK, "application/json", body)
		}
	})
}
