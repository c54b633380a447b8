package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
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

// ceremony is one run of init. It works in the home itself, which may be a
// mounted volume; the configuration is the last file written, so that an init
// that was interrupted is seen as none.
type ceremony struct {
	initOptions
	home   Home
	cfg    Config
	now    time.Time
	log    *slog.Logger
	report initReport
}

func runInit(ctx context.Context, home Home, o initOptions, log *slog.Logger) (_ initReport, err error) {
	if home.exists() {
		return initReport{}, hinted(fmt.Errorf("there is a CA in %s already", home), "start it with: deviceca serve --home %s", home)
	}
	if entries, err := os.ReadDir(string(home)); err == nil && len(entries) > 0 && !(len(entries) == 1 && entries[0].Name() == "lost+found") {
		return initReport{}, hinted(fmt.Errorf("%s is not empty, and no CA either", home), "if an earlier init was interrupted here, remove the directory and try again")
	}
	if err := os.MkdirAll(home.path("secrets"), 0o700); err != nil {
		return initReport{}, err
	}
	if err := os.Chmod(string(home), 0o700); err != nil {
		return initReport{}, err
	}
	unlock, err := home.lock()
	if err != nil {
		return initReport{}, err
	}
	defer unlock()
	c := &ceremony{initOptions: o, home: home, cfg: DefaultConfig(), now: time.Now(), log: log}
	c.report.Home, _ = filepath.Abs(string(home))
	c.report.Keys = o.Keys
	c.cfg.Name = o.Name
	// Written down even if it is the default: certificates carry it, whatever
	// address the server is later told to listen on.
	c.cfg.URL = cmp.Or(o.URL, c.cfg.PublicURL())
	if err := c.prepareKeys(); err != nil {
		return c.report, err
	}
	written := c.cfg.YAML() // before the paths in it become absolute
	if _, err := ParseConfig(configFile, written, func(string) string { return "" }); err != nil {
		return c.report, &usageError{err: err}
	}
	if c.cfg, err = c.cfg.Resolve(string(home)); err != nil {
		return c.report, err
	}
	if err := c.makeCAs(ctx); err != nil {
		return c.report, err
	}
	if err := writeFile(c.cfg.Policy, policy.Default(), 0o644); err != nil {
		return c.report, err
	}
	return c.report, writeFile(home.config(), written, 0o644)
}

// prepareKeys makes tokens and PINs where they are ours to make.
func (c *ceremony) prepareKeys() error {
	c.cfg.Keys.Provider = c.Keys
	switch c.Keys {
	case "softhsm":
		module, err := keys.FindModule()
		if err != nil {
			return err
		}
		if err := c.home.writeSoftHSMConf(); err != nil {
			return err
		}
		if err := c.home.useSoftHSM(); err != nil {
			return err
		}
		for _, which := range c.tokens() {
			pin, err := c.newPIN(which)
			if err != nil {
				return err
			}
			// The security officer's PIN is not kept: these tokens are never re-initialised.
			if err := keys.InitToken(module, "deviceca-"+which, rand.Text(), pin); err != nil {
				return err
			}
		}
	case "file":
		c.cfg.Keys.AllowFile = true
		for _, which := range c.tokens() {
			if err := os.MkdirAll(c.home.path("keys", which), 0o700); err != nil {
				return err
			}
			if _, err := c.newPIN(which); err != nil {
				return err
			}
		}
	default:
		if !strings.HasPrefix(c.Keys, "pkcs11:") {
			return usagef("--keys %q: use softhsm, file, or a pkcs11: URI", c.Keys)
		}
		if c.RootKeys == "" && c.Root != "external" {
			return usagef("--keys with a URI needs --root-keys with the URI of another token for the root, or --root external")
		}
		c.cfg.Keys.Provider = "pkcs11"
		c.cfg.Keys.Issuing, c.cfg.Keys.PINIssuing = c.Keys, c.PIN
		c.cfg.Keys.Root, c.cfg.Keys.PINRoot = c.RootKeys, c.RootPIN
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
	issuing, err := openKeys(ctx, c.home, c.cfg, "issuing", c.log)
	if err != nil {
		return err
	}
	defer issuing.Close()
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
	subordinates := map[string]keys.Key{}
	for _, role := range []string{"issuing", "quarantine"} {
		if subordinates[role], err = issuing.Generate(ctx, role+"-1", c.Spec); err != nil {
			return fmt.Errorf("the %s key: %w", role, err)
		}
	}
	if c.Root == "external" {
		return c.writeRequests(subordinates)
	}
	return c.signWithOwnRoot(ctx, subordinates)
}

func (c *ceremony) hierarchy() ca.Hierarchy {
	return ca.Hierarchy{Organization: c.cfg.Name, URL: c.cfg.PublicURL(), Now: c.now}
}

func (c *ceremony) writeRequests(subordinates map[string]keys.Key) error {
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
	return nil
}

func (c *ceremony) signWithOwnRoot(ctx context.Context, subordinates map[string]keys.Key) error {
	provider, err := openKeys(ctx, c.home, c.cfg, "root", c.log)
	if err != nil {
		return err
	}
	defer provider.Close()
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

// enterCAs records the first generation and writes the files that others need.
func enterCAs(ctx context.Context, home Home, ledger *store.Store, root []byte, certs map[string][]byte, rootCRL []byte, now time.Time) error {
	records := []ca.IssuerRecord{{Name: "root-1", Role: "root", Generation: 1, Key: "root-1", Cert: root, Created: now}}
	for _, role := range []string{"issuing", "quarantine"} {
		records = append(records, ca.IssuerRecord{Name: role + "-1", Role: role, Generation: 1, Key: role + "-1", Cert: certs[role], Created: now})
	}
	for _, r := range records {
		e := ca.Event{Time: now, Kind: ca.EventIssuerAdded, Actor: "system", Issuer: r.Name, Digest: fingerprint(r.Cert)}
		if err := ledger.AddIssuer(ctx, r, e); err != nil {
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
	ledger, err := store.Open(ctx, cfg.DB, store.Options{Logger: log})
	if err != nil {
		return err
	}
	defer ledger.Close()
	if have, err := ledger.Issuers(ctx); err != nil || len(have) > 0 {
		return errors.Join(err, errors.New("this CA has its certificates already"))
	}
	return enterCAs(ctx, home, ledger, root, certs, nil, now)
}
