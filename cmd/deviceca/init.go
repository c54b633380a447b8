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
}

// rootCRLLife is how long a root CRL holds: an offline root is taken out once a year.
const rootCRLLife = 365 * 24 * time.Hour

// ceremony is one run of init; init_state.go says how it begins, fails and goes on.
type ceremony struct {
	initOptions
	home    Home
	cfg     Config
	now     time.Time
	log     *slog.Logger
	report  initReport
	open    map[string]keys.Provider // by "root" and "issuing"
	unlock  func()
	resumed bool // an earlier run was interrupted here
	madeDir bool
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
	if _, err := issuing.Generate(ctx, "audit", keys.DefaultSpec); err != nil {
		return fmt.Errorf("the audit key: %w", err)
	}
	dataKey := make([]byte, 32)
	rand.Read(dataKey)
	sealed, err := issuing.Seal(ctx, dataKey, dataKeyContext)
	if err != nil {
		return fmt.Errorf("sealing the data key: %w", err)
	}
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
	certs := map[string][]byte{}
	for role, key := range subordinates {
		if certs[role], err = ca.NewSubordinate(root, rootKey, role, 1, key.Public(), h); err != nil {
			return err
		}
	}
	crl, err := ca.RootCRL(root, rootKey, 1, nil, c.now, c.now.Add(rootCRLLife))
	if err != nil {
		return err
	}
	ledger, err := store.Open(ctx, c.cfg.DB, store.Options{Logger: c.log})
	if err != nil {
		return err
	}
	c.report.CAs = []string{"root-1", "issuing-1", "quarantine-1"}
	c.report.Root, c.report.SHA256 = c.home.path("root.crt"), fingerprint(root)
	return errors.Join(enterCAs(ctx, c.home, ledger, root, certs, crl, c.now), ledger.Close())
}

// enterCAs records the first generation and writes the files that others need. It may be repeated: what is recorded already stays.
func enterCAs(ctx context.Context, home Home, ledger *store.Store, root []byte, certs map[string][]byte, rootCRL []byte, now time.Time) error {
	records := []ca.IssuerRecord{{Name: "root-1", Role: "root", Generation: 1, Key: "root-1", Cert: root, Created: now}}
	for _, role := range []string{"issuing", "quarantine"} {
		records = append(records, ca.IssuerRecord{Name: role + "-1", Role: role, Generation: 1, Key: role + "-1", Cert: certs[role], Created: now})
	}
	have, err := ledger.Issuers(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
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
		if err := writeFile(home.path(r.Role+".crt"), pemCert(r.Cert), 0o644); err != nil {
			return err
		}
	}
	if rootCRL == nil {
		return nil
	}
	return saveRootCRL(ctx, home, ledger, rootCRL)
}

func saveRootCRL(ctx context.Context, home Home, ledger *store.Store, crl []byte) error {
	if err := ledger.PutSetting(ctx, crlSetting("root-1"), crl); err != nil {
		return err
	}
	return writeFile(home.path("root.crl"), pemCRL(crl), 0o644)
}

// importCAs completes an `init --root external` with what the root signed.
func importCAs(ctx context.Context, home Home, cfg Config, root []byte, certs map[string][]byte, log *slog.Logger) error {
	if err := home.mustExist(); err != nil {
		return err
	}
	unlock, err := home.lock()
	if err != nil {
		return err
	}
	defer unlock()
	issuing, err := openKeys(ctx, home, cfg, "issuing", log)
	if err != nil {
		return err
	}
	defer issuing.Close()
	now := time.Now()
	for role, cert := range certs {
		key, err := issuing.Key(ctx, role+"-1")
		if err != nil {
			return fmt.Errorf("the %s key: %w", role, err)
		}
		if err := ca.CheckSubordinate(cert, root, role, key.Public(), now); err != nil {
			return err
		}
	}
	ledger, err := openLedger(ctx, home, cfg, log)
	if err != nil {
		return err
	}
	defer ledger.Close()
	if have, err := ledger.Issuers(ctx); err != nil || home.imported(have) {
		return errors.Join(err, errors.New("this CA has its certificates already"))
	}
	return enterCAs(ctx, home, ledger, root, certs, nil, now)
}
