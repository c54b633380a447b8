package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
	"github.com/deviceca/deviceca/policy"
)

// initOptions are what `init` takes.
type initOptions struct {
	Keys     string // "softhsm", "file", or the PKCS#11 URI of the issuing token
	RootKeys string // with a URI: that of the root's token
	PIN      string // with a URI: PIN source of the issuing token
	RootPIN  string
	Root     string // "internal" or "external"
	Spec     keys.Spec
	Name     string
	URL      string
	Resume   bool                    // go on with an init that was interrupted here, if one was
	fault    func(step string) error // for tests: called after each step
}

// initReport is what `init` prints.
type initReport struct {
	Home     string   `json:"home"`
	Keys     string   `json:"keys"`
	CAs      []string `json:"cas,omitempty"`
	Requests []string `json:"requests,omitempty"` // CSRs to be signed, with an external root
	Root     string   `json:"root,omitempty"`
	SHA256   string   `json:"root_sha256,omitempty"`
	AuditKey string   `json:"audit_key,omitempty"`          // its kind
	SealedBy string   `json:"data_key_sealed_by,omitempty"` // as keys.SealedBy says
}

// rootCRLLife is how long a root CRL holds: an offline root is taken out once a year.
const rootCRLLife = 365 * 24 * time.Hour

// ceremony is one run of init; init_state.go says how it begins, fails and goes on.
type ceremony struct {
	initOptions
	home      Home
	cfg       Config
	now       time.Time
	log       *slog.Logger
	report    initReport
	open      map[string]keys.Provider // by "root" and "issuing"
	unlock    func()
	auditSpec keys.Spec
	resumed   bool // an earlier run was interrupted here
	madeDir   bool
}

// runInit makes a CA, or nothing.
func runInit(ctx context.Context, home Home, o initOptions, log *slog.Logger) (initReport, error) {
	if err := o.check(); err != nil {
		return initReport{}, err
	}
	c := &ceremony{initOptions: o, home: home, cfg: DefaultConfig(), now: time.Now(), log: log, open: map[string]keys.Provider{}}
	c.report.Home, _ = filepath.Abs(string(home))
	c.report.Keys = o.Keys
	written, err := c.configure()
	if err != nil {
		return c.report, err
	}
	if err := c.begin(); err != nil {
		return c.report, err
	}
	defer c.unlock()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"began", func(context.Context) error { return nil }},
		{"prepared", c.prepareKeys},
		{"opened", c.openTokens},
		{"CAs", c.makeCAs},
		{"policy", func(context.Context) error { return writeFile(c.cfg.Policy, policy.Default(), 0o644) }},
		{"configuration", func(context.Context) error { return writeFile(home.config(), written, 0o644) }}, // from here on there is a CA
	} {
		if err := errors.Join(ctx.Err(), step.do(ctx)); err != nil {
			return c.report, c.undo(err)
		}
		if err := c.at(step.name); err != nil && !home.exists() {
			return c.report, c.undo(err)
		}
	}
	c.closeTokens()
	os.Remove(home.path(initMark)) // or else the next that takes the home does
	return c.report, nil
}

// prepareKeys makes tokens and PINs where they are ours to make.
func (c *ceremony) prepareKeys(context.Context) error {
	if c.cfg.Keys.Provider == "pkcs11" {
		return os.MkdirAll(c.home.path("secrets"), 0o700)
	}
	if err := os.MkdirAll(c.home.path("secrets"), 0o700); err != nil {
		return err
	}
	module := ""
	if c.Keys == "softhsm" {
		var err error
		if module, err = keys.FindModule(); err != nil {
			return err
		}
		if err := c.home.writeSoftHSMConf(); err != nil {
			return err
		}
		if err := c.home.useSoftHSM(); err != nil {
			return err
		}
	}
	for _, which := range c.tokens() {
		pin, err := c.newPIN(which)
		if err != nil {
			return err
		}
		if c.Keys == "file" {
			err = os.MkdirAll(c.home.path("keys", which), 0o700)
		} else {
			// The security officer's PIN is not kept: these tokens are never re-initialised.
			err = keys.InitToken(module, "deviceca-"+which, rand.Text(), pin)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *ceremony) tokens() []string {
	if c.Root == "external" {
		return []string{"issuing"}
	}
	return []string{"root", "issuing"}
}

func (c *ceremony) newPIN(which string) (string, error) {
	pin := rand.Text()
	return pin, writeFile(c.home.pin(which), []byte(pin+"\n"), 0o600)
}

// makeCAs generates the keys, makes the certificates (or, with an external root,
// the requests), seals a new data key, and opens the ledger with all of it.
func (c *ceremony) makeCAs(ctx context.Context) error {
	issuing := c.open["issuing"]
	if _, err := issuing.Generate(ctx, "audit", c.auditSpec); err != nil {
		return fmt.Errorf("the audit key: %w", err)
	}
	c.report.AuditKey = string(c.auditSpec)
	dataKey := make([]byte, 32)
	rand.Read(dataKey)
	sealed, err := issuing.Seal(ctx, dataKey, dataKeyContext)
	if err != nil {
		return fmt.Errorf("sealing the data key: %w", err)
	}
	c.report.SealedBy = keys.SealedBy(sealed)
	if err := writeFile(c.home.dataKey(), sealed, 0o600); err != nil {
		return err
	}
	if err := c.at("data key"); err != nil {
		return err
	}
	subordinates := map[string]keys.Key{}
	for _, role := range []string{"issuing", "quarantine"} {
		if subordinates[role], err = issuing.Generate(ctx, role+"-1", c.Spec); err != nil {
			return fmt.Errorf("the %s key: %w", role, err)
		}
	}
	if c.Root == "external" {
		return c.writeRequests(ctx, subordinates)
	}
	return c.signWithOwnRoot(ctx, subordinates)
}

func (c *ceremony) hierarchy() ca.Hierarchy {
	return ca.Hierarchy{Organization: c.cfg.Name, URL: c.cfg.PublicURL(), Now: c.now}
}

func (c *ceremony) writeRequests(ctx context.Context, subordinates map[string]keys.Key) error {
	for _, role := range []string{"issuing", "quarantine"} {
		csr, err := ca.SubordinateCSR(subordinates[role], role, 1, c.hierarchy())
		if err != nil {
			return err
		}
		file := c.home.path(role + ".csr")
		if err := writeFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}), 0o644); err != nil {
			return err
		}
		c.report.Requests = append(c.report.Requests, file)
	}
	ledger, err := store.Open(ctx, c.cfg.DB, store.Options{Logger: c.log})
	if err != nil {
		return err
	}
	return ledger.Close()
}

func (c *ceremony) signWithOwnRoot(ctx context.Context, subordinates map[string]keys.Key) error {
	provider := c.open["root"]
	rootKey, err := provider.Generate(ctx, "root-1", c.Spec)
	if err != nil {
		return fmt.Errorf("the root key: %w", err)
	}
	h := c.hierarchy()
	root, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		return err
	}
	quarantineKey, err := provider.Generate(ctx, "quarantine-root-1", c.Spec)
	if err != nil {
		return fmt.Errorf("the quarantine root's key: %w", err)
	}
	quarantineRoot, err := ca.NewQuarantineRoot(quarantineKey, 1, h)
	if err != nil {
		return err
	}
	made := firstCAs{certs: map[string][]byte{"root": root, "quarantine-root": quarantineRoot}, crls: map[string][]byte{}}
	signers := map[string]keys.Key{"root": rootKey, "quarantine-root": quarantineKey}
	for role, key := range subordinates {
		above := ca.RootOf(role)
		if made.certs[role], err = ca.NewSubordinate(made.certs[above], signers[above], role, 1, key.Public(), h); err != nil {
			return err
		}
	}
	for role, key := range signers {
		if made.crls[role], err = ca.RootCRL(made.certs[role], key, 1, nil, c.now, c.now.Add(rootCRLLife)); err != nil {
			return err
		}
	}
	ledger, err := store.Open(ctx, c.cfg.DB, store.Options{Logger: c.log})
	if err != nil {
		return err
	}
	c.report.CAs = []string{"root-1", "quarantine-root-1", "issuing-1", "quarantine-1"}
	c.report.Root, c.report.SHA256 = c.home.path("root.crt"), fingerprint(root)
	return errors.Join(made.enter(ctx, c.home, ledger, c.now), ledger.Close())
}

// firstCAs are the certificates of the first generation, and the lists of the roots whose keys are here, by role.
type firstCAs struct{ certs, crls map[string][]byte }

// enter records the first generation and writes the files that others need. It may be repeated: what is recorded already stays.
func (f firstCAs) enter(ctx context.Context, home Home, ledger *store.Store, now time.Time) error {
	have, err := ledger.Issuers(ctx)
	if err != nil {
		return err
	}
	for _, role := range []string{"root", "quarantine-root", "issuing", "quarantine"} {
		if f.certs[role] == nil {
			continue // a quarantine root, where the one root is external
		}
		r := ca.IssuerRecord{Name: role + "-1", Role: role, Generation: 1, Key: role + "-1", Cert: f.certs[role], Created: now}
		e := ca.Event{Time: now, Kind: ca.EventIssuerAdded, Actor: "system", Issuer: r.Name, Digest: fingerprint(r.Cert)}
		if !slices.ContainsFunc(have, func(h ca.IssuerRecord) bool { return h.Name == r.Name && bytes.Equal(h.Cert, r.Cert) }) {
			err = ledger.AddIssuer(ctx, r, e)
		}
		if errors.Is(err, ca.ErrRecorded) {
			return hinted(fmt.Errorf("an import that was interrupted took another certificate as %s", r.Name), "give the same certificates again")
		}
		if err != nil {
			return err
		}
		if err := writeFile(home.path(role+".crt"), pemCert(r.Cert), 0o644); err != nil {
			return err
		}
		if crl := f.crls[role]; crl != nil {
			if err := ledger.PutSetting(ctx, crlSetting(r.Name), crl); err != nil {
				return err
			}
			if err := writeFile(home.path(role+".crl"), pemCRL(crl), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// importCAs completes an `init --root external` with what the roots signed, by role. On a CA that is complete, it takes
// a quarantine root that the CA lacks.
func importCAs(ctx context.Context, home Home, cfg Config, certs map[string][]byte, log *slog.Logger) error {
	if err := home.mustExist(); err != nil {
		return err
	}
	unlock, err := home.lock()
	if err != nil {
		return err
	}
	defer unlock()
	ledger, err := openLedger(ctx, home, cfg, log)
	if err != nil {
		return err
	}
	defer ledger.Close()
	have, err := ledger.Issuers(ctx)
	if err != nil {
		return err
	}
	now := time.Now()
	if certs["root"] == nil {
		return importQuarantineRoot(ctx, home, ledger, have, certs["quarantine-root"], now)
	}
	if home.imported(have) {
		return errors.New("this CA has its certificates already")
	}
	if err := checkImported(ctx, home, cfg, certs, now, log); err != nil {
		return err
	}
	return firstCAs{certs: certs}.enter(ctx, home, ledger, now)
}

// checkImported checks what was signed elsewhere against the keys here.
func checkImported(ctx context.Context, home Home, cfg Config, certs map[string][]byte, now time.Time, log *slog.Logger) error {
	issuing, err := openKeys(ctx, home, cfg, "issuing", log)
	if err != nil {
		return err
	}
	defer issuing.Close()
	if certs["quarantine-root"] != nil {
		if err := ca.CheckQuarantineRoot(certs["quarantine-root"], [][]byte{certs["root"]}, now); err != nil {
			return err
		}
	}
	rules, err := readPolicy(cfg.Policy)
	if err != nil {
		return err
	}
	for _, role := range []string{"issuing", "quarantine"} {
		key, err := issuing.Key(ctx, role+"-1")
		if err != nil {
			return fmt.Errorf("the %s key: %w", role, err)
		}
		root := certs[ca.RootOf(role)]
		if root == nil {
			root = certs["root"]
		}
		if err := ca.CheckSubordinate(certs[role], root, role, key.Public(), now); err != nil {
			return err
		}
		if err := ca.CheckUsable(rules, certs[role], root, role, cfg.PublicURL(), now); err != nil {
			return err
		}
	}
	return nil
}

// importQuarantineRoot enters the root that a new quarantine CA will stand below.
func importQuarantineRoot(ctx context.Context, home Home, ledger *store.Store, have []ca.IssuerRecord, cert []byte, now time.Time) error {
	var roots [][]byte
	for _, r := range have {
		switch r.Role {
		case "root":
			roots = append(roots, r.Cert)
		case "quarantine-root":
			return fmt.Errorf("this CA has a quarantine root already: %s", r.Name)
		}
	}
	if len(roots) == 0 {
		return usagef("this CA has no certificates yet: give --root, --issuing and --quarantine too")
	}
	if err := ca.CheckQuarantineRoot(cert, roots, now); err != nil {
		return err
	}
	return firstCAs{certs: map[string][]byte{"quarantine-root": cert}}.enter(ctx, home, ledger, now)
}
