package main

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// system is the CA put together: what `serve` listens for, and what the other
// commands use directly when no server runs.
type system struct {
	home       Home
	cfg        Config
	log        *slog.Logger
	keys       keys.Provider // the issuing token; the root's is never opened here
	audit      keys.Key      // signs the audit log's checkpoints
	auditFault error         // why it may not: it is not the key that signed before
	heads      heads         // what it signed
	tickets    []byte        // secret of TLS session tickets
	store      *store.Store
	service    *ca.Service
	api        *admin.API
	revocation *publications
	casChanged func() // tells a running server that the CAs are others now
	close      []func() error
}

// open takes the home, and puts the system together.
func open(ctx context.Context, home Home, cfg Config, log *slog.Logger, started time.Time) (*system, error) {
	unlock, err := home.take()
	if err != nil {
		return nil, err
	}
	s, err := openTaken(ctx, home, cfg, log, started)
	if err != nil {
		unlock()
		return nil, err
	}
	s.close = slices.Insert(s.close, 0, func() error { unlock(); return nil }) // last of all
	return s, nil
}

// openTaken puts the system together, in the order in which its parts need each
// other: configuration, token, data key, ledger, policy, core, publications, API.
// The caller has the home's lock.
func openTaken(ctx context.Context, home Home, cfg Config, log *slog.Logger, started time.Time) (_ *system, err error) {
	s := &system{home: home, cfg: cfg, log: log, casChanged: func() {}}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.keys, err = openKeys(ctx, home, cfg, "issuing", log); err != nil {
		return nil, hinted(fmt.Errorf("the issuing keys: %w", err), "see that the token is there (%s), and its PIN at %s",
			cmp.Or(cfg.Keys.Issuing, "deviceca-issuing below "+home.tokens()), cfg.Keys.PINIssuing)
	}
	s.onClose(s.keys.Close)
	if s.audit, err = s.keys.Key(ctx, "audit"); err != nil {
		return nil, fmt.Errorf("the audit key: %w", err)
	}
	sealer, err := s.openSealer(ctx)
	if err != nil {
		return nil, err
	}

	if s.store, err = openLedger(ctx, home, cfg, log); err != nil {
		return nil, err
	}
	s.onClose(s.store.Close)
	if copied, err := s.store.IsCopy(ctx); err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	} else if copied {
		return nil, hinted(fmt.Errorf("%s is a backup's copy of a ledger: its numbers would be given a second time", cfg.DB),
			"make a home of the backup with: deviceca restore --from BACKUP --home NEW")
	}
	if err := haveCAs(ctx, home, cfg, s.store); err != nil {
		return nil, err
	}
	if err := s.knowAuditKey(ctx); err != nil {
		return nil, err
	}

	rules, err := readPolicy(cfg.Policy)
	if err != nil {
		return nil, err
	}
	s.service, err = ca.NewService(ctx, ca.Options{
		Ledger: s.store, Sealer: sealer, Policy: rules, Key: s.caKey, URL: cfg.PublicURL(),
		LintShare: cfg.LintShare, WrongPerReference: cfg.Limits.WrongSecretsPerCredential, WrongPerAddress: cfg.Limits.WrongSecretsPerAddress,
		Budgets: cfg.Limits.budgets(),
		// Neither is called before the publications are there: nothing changes while the system is put together.
		Changed: func(ctx context.Context, issuer string, serials []ca.Serial) {
			s.revocation.changed(ctx, issuer, serials)
		},
		Reloaded: func(cas []ca.IssuerRecord) {
			if err := s.writeCAFiles(); err != nil {
				s.log.Error("the files with the CA certificates in the home are not up to date", "err", err)
			}
			s.revocation.casChanged(cas)
			s.casChanged()
		},
		Closed:     s.closed,
		Approval:   ca.ApprovalOptions(cfg.Approval),
		Verifiable: verifiable(),
		Logger:     log,
	})
	if err != nil {
		return nil, fmt.Errorf("the policy does not fit this CA: %w", err)
	}
	if s.revocation, err = newPublications(ctx, s); err != nil {
		return nil, fmt.Errorf("the publication of revocations: %w", err)
	}

	s.api = admin.New(admin.Options{
		Core: s.service, Reader: s.store, Audit: auditLog{s}, Counts: s.counts,
		Backup: s.backup, Rotation: rotation{s}, SavePolicy: s.savePolicy, Health: s.health, Warnings: s.warnings, Publish: s.revocation.publish,
		Recover: s.recover, Closed: s.closed, Verifiable: verifiable(),
		Version: programVersion(), Started: started, Logger: log,
	})
	return s, nil
}

func (s *system) onClose(f func() error) { s.close = append(s.close, f) }

// Close lets go of everything, last opened first.
func (s *system) Close() error {
	var errs []error
	for len(s.close) > 0 {
		last := len(s.close) - 1
		errs = append(errs, s.close[last]())
		s.close = s.close[:last]
	}
	return errors.Join(errs...)
}

// openLocal is how commands reach the API when no server runs.
func openLocal(ctx context.Context, dir string) (http.Handler, func() error, error) {
	home := Home(dir)
	cfg, err := loadHome(home, os.Getenv)
	if err != nil {
		return nil, nil, err
	}
	s, err := open(ctx, home, cfg, quietLogger(), time.Time{})
	if err != nil {
		return nil, nil, err
	}
	return s.api.Socket(), s.Close, nil
}

// loadHome reads a home's configuration, its paths made absolute.
func loadHome(home Home, getenv func(string) string) (Config, error) {
	cfg, err := LoadConfig(string(home), getenv)
	if err != nil {
		return cfg, err
	}
	return cfg.Resolve(string(home))
}

// openKeys opens the provider that holds the keys of "root" or "issuing".
func openKeys(ctx context.Context, home Home, cfg Config, which string, log *slog.Logger) (keys.Provider, error) {
	uri, pin := cfg.Keys.Issuing, cfg.Keys.PINIssuing
	if which == "root" {
		uri, pin = cfg.Keys.Root, cfg.Keys.PINRoot
	}
	switch cfg.Keys.Provider {
	case "softhsm":
		if err := home.useSoftHSM(); err != nil {
			return nil, err
		}
		module, err := keys.FindModule()
		if err != nil {
			return nil, err
		}
		uri = cmp.Or(uri, "pkcs11:token=deviceca-"+which+"?module-path="+module)
	case "file":
		dir, err := filepath.Abs(home.path("keys", which))
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(dir); err != nil && uri == "" {
			return nil, fmt.Errorf("the keys of this CA are missing: %w", err) // the provider would make the directory
		}
		uri = cmp.Or(uri, "file:"+dir)
	}
	if uri == "" {
		return nil, hinted(fmt.Errorf("nothing says where the %s keys are", which), "set keys.%s in %s", which, home.config())
	}
	options := keys.Options{Sessions: cfg.Keys.Sessions, AllowFile: cfg.Keys.AllowFile, Logger: log}
	if pin != "" {
		var err error
		if options.PIN, err = keys.ParsePINSource(pin); err != nil {
			return nil, err
		}
	}
	return keys.Open(ctx, uri, options)
}

// dataKeyContext binds the sealed data key to its use.
var dataKeyContext = []byte("deviceca data key")

// openSealer opens the data key, and derives what else hangs on it.
func (s *system) openSealer(ctx context.Context) (*device.Sealer, error) {
	sealed, err := os.ReadFile(s.home.dataKey())
	if err != nil {
		return nil, hinted(fmt.Errorf("the data key: %w", err), "copy it from the last backup: enrolment secrets are sealed under it")
	}
	dataKey, err := s.keys.Unseal(ctx, sealed, dataKeyContext)
	if err != nil {
		return nil, fmt.Errorf("the data key %s: %w", s.home.dataKey(), err)
	}
	if s.tickets, err = ticketSecret(dataKey); err != nil {
		return nil, err
	}
	return device.NewSealer(dataKey)
}

// openLedger opens the ledger of a home. None is made, for what it remembers cannot be made anew: what was revoked,
// which numbers were given. Only a home that waits for its certificates may be without one.
func openLedger(ctx context.Context, home Home, cfg Config, log *slog.Logger) (*store.Store, error) {
	ledger, err := store.Open(ctx, cfg.DB, store.Options{Logger: log, MustExist: !home.awaitsImport()})
	switch {
	case errors.Is(err, store.ErrMissing):
		return nil, hinted(err, "see that the disk is mounted and that db in %s is right; if the ledger is lost, %s", home.config(), restoreHint)
	case errors.Is(err, store.ErrDamaged):
		return nil, hinted(err, "keep the file, and %s", restoreHint)
	case err != nil:
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	return ledger, nil
}

const restoreHint = "restore the last backup: deviceca restore --from BACKUP --home NEW"

// haveCAs says what is missing of a CA whose root is external.
func haveCAs(ctx context.Context, home Home, cfg Config, ledger ca.Ledger) error {
	records, err := ledger.Issuers(ctx)
	if err == nil && len(records) == 0 && !home.awaitsImport() {
		return hinted(fmt.Errorf("the ledger %s is not that of this CA: it is empty, and %s holds the CA's certificates", cfg.DB, home),
			"see that db in %s is right; if the ledger is lost, %s", home.config(), restoreHint)
	}
	if err == nil && len(records) == 0 {
		return hinted(errors.New("this CA has no certificates yet: its root is external"),
			"have the root sign issuing.csr, and a root of its own quarantine.csr, then: deviceca ca import --home %s --root root.crt --issuing issuing.crt --quarantine-root qroot.crt --quarantine quarantine.crt", home)
	}
	if err == nil && !(hasRole(records, "issuing") && hasRole(records, "quarantine")) {
		return hinted(errors.New("the import of this CA's certificates was interrupted"), "run deviceca ca import again, with the same certificates")
	}
	return err
}

// caKey is ca.Options.Key: the CAs' keys are in the issuing token, under their names.
func (s *system) caKey(ctx context.Context, label string) (crypto.Signer, error) {
	return s.keys.Key(ctx, label)
}

func readPolicy(file string) (*policy.Policy, error) {
	source, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hinted(fmt.Errorf("the policy: %w", err), "copy it from the last backup, or write one anew (docs/policy.md)")
	}
	if err != nil {
		return nil, err
	}
	return policy.Parse(file, source)
}

func (s *system) savePolicy(source []byte) error {
	return writeFile(s.cfg.Policy, source, 0o644)
}

// health asks the two parts that a CA cannot do without, and tells of a restore that waits to be acknowledged.
func (s *system) health(ctx context.Context) map[string]error {
	health := map[string]error{"token": errors.Join(s.keys.Ping(ctx), s.auditFault), "database": s.store.Ping(ctx)}
	if err := s.closedHealth(ctx); err != nil {
		health["restore"] = err
	}
	return health
}
