package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/store"
)

// restoreOptions are what `restore` is asked for.
type restoreOptions struct {
	from, home string
	modules    []string // PKCS#11 modules that the backup's configuration may name
}

func (a *app) restoreCommand() *cobra.Command {
	var o restoreOptions
	cmd := withJSON(&cobra.Command{
		Use:   "restore --home DIR --from BACKUP",
		Short: "Make a new home out of a backup",
		Long: `Bring a backup back into a new home. Serial numbers, CRL numbers and all others that only rise
go on far above those of the backup, differently at each restore. The new home is closed: until deviceca recover
opens it, devices are refused and nothing is called good that may have been revoked since the backup.

A backup is not signed. What its configuration has the server load or reach is printed: read
it. A PKCS#11 module is loaded only if it is the SoftHSM2 module of this system, or named with --module.`,
		Example: `  deviceca restore --home ./deviceca-new --from /backup/deviceca-2030-01-31
  deviceca recover --home ./deviceca-new`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "home", "from"); err != nil {
				return err
			}
			into := o.home
			reaches, err := a.restore(cmd.Context(), o)
			if err != nil {
				return err
			}
			errs := cmd.ErrOrStderr()
			for _, line := range reaches {
				fmt.Fprintf(errs, "from the backup's configuration: %s\n", line)
			}
			fmt.Fprintf(errs, "restored into %s, which is closed; bring it up to date and open it with: deviceca recover --home %s\n", o.home, o.home)
			o := a.output(cmd)
			if !o.json {
				return nil
			}
			return o.writeJSON(struct {
				Home    string   `json:"home"`
				Reaches []string `json:"reaches,omitempty"` // what the backup's configuration has the server load or reach
			}{into, reaches})
		},
	})
	cmd.Flags().StringVar(&o.home, "home", "", "home directory to make")
	cmd.Flags().StringVar(&o.from, "from", "", "directory that deviceca backup made")
	cmd.Flags().StringArrayVar(&o.modules, "module", nil, "path of a PKCS#11 module that the backup's configuration names, and that you trust; may be repeated")
	return cmd
}

// restoreMargin is the least that a restored ledger's issuance indexes move beyond
// the highest that any record shows: certificates issued after the backup was
// made are out there, and their indexes must not come again.
const restoreMargin = 1 << 24

// restoreHome makes a new home from a backup: checks every file against the
// manifest, copies, and moves the issuance indexes on. It does not start anything.
//
// A backup is not signed, and its manifest protects from damage alone. So nothing in it
// is loaded that this system does not have anyway, or that the caller has not named (see checkModules). It
// returns what the backup's configuration reaches outside of the home.
func restoreHome(ctx context.Context, o restoreOptions) (reaches []string, err error) {
	from, dir, home := o.from, o.home, Home(o.home)
	if home.exists() {
		return nil, hinted(fmt.Errorf("there is a CA in %s already", home), "restore to a directory that does not exist")
	}
	m, err := readManifest(from)
	if err != nil {
		return nil, err
	}
	foreign, err := loadHome(Home(from), os.Getenv)
	if err != nil {
		return nil, fmt.Errorf("the backup's configuration: %w", err)
	}
	if err := checkModules(foreign, o.modules); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, hinted(err, "restore to a directory that does not exist")
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	for name := range m.Files {
		if err := copyTree(filepath.Join(from, name), home.path(name)); err != nil {
			return nil, err
		}
		if isSecret(name) { // whatever the backup's medium made of its mode
			if err := os.Chmod(home.path(name), 0o600); err != nil {
				return nil, err
			}
		}
	}
	if _, err := os.Stat(home.softhsm()); err == nil {
		if err := home.writeSoftHSMConf(); err != nil { // tokens are where the home is now
			return nil, err
		}
	}
	cfg, err := loadHome(home, os.Getenv)
	if err != nil {
		return nil, err
	}
	// The snapshot becomes the home's ledger, even if the configuration names another place.
	ledger, err := store.Open(ctx, home.path("ledger.db"), store.Options{Logger: slog.New(slog.DiscardHandler), MustExist: true})
	if err != nil {
		return nil, err
	}
	_, err = ledger.Restore(ctx, restoreMargin, m.Made, ca.Event{Time: time.Now(), Kind: ca.EventRestored, Actor: "admin:local",
		Reason: "backup of " + m.Made.Format(time.RFC3339)})
	if err := errors.Join(err, ledger.Close()); err != nil {
		return nil, err
	}
	if filepath.Base(cfg.DB) != "ledger.db" || filepath.Dir(cfg.DB) != filepath.Dir(cfg.Policy) {
		return nil, hinted(fmt.Errorf("the configuration keeps its ledger at db: %s", cfg.DB),
			"the restored ledger is %s: put it there, or take db out of %s", home.path("ledger.db"), home.config())
	}
	// The proof that it works: open all of it, as the server would.
	s, err := open(ctx, home, cfg, slog.New(slog.DiscardHandler), time.Time{})
	if err != nil {
		return nil, fmt.Errorf("the restored home does not open: %w", err)
	}
	return cfg.reaches(), s.Close()
}

func readManifest(from string) (m manifest, err error) {
	raw, err := os.ReadFile(filepath.Join(from, manifestFile))
	if err != nil {
		return m, hinted(err, "name a directory that `deviceca backup` made")
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%s: %w", manifestFile, err)
	}
	have, _, err := hashTree(from)
	if err != nil {
		return m, err
	}
	for name, sum := range m.Files {
		if !filepath.IsLocal(name) {
			return m, fmt.Errorf("the manifest names %q, outside of the backup", name)
		}
		if first, _, _ := strings.Cut(filepath.Clean(name), string(filepath.Separator)); slices.Contains(notRestored, first) {
			return m, fmt.Errorf("the manifest names %q, which no backup of deviceca holds", name)
		}
		if have[name] != sum {
			return m, fmt.Errorf("%s is missing, or not what was backed up", filepath.Join(from, name))
		}
	}
	return m, nil
}

// notRestored are parts of a home that a server makes by itself, and would believe.
var notRestored = []string{"crl", "pack", "lock", "admin.sock", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal"}

// isSecret reports whether a file of a home is its owner's alone.
func isSecret(name string) bool {
	first, _, _ := strings.Cut(filepath.Clean(name), string(filepath.Separator))
	return slices.Contains([]string{"secrets", "tokens", "keys", "ledger.db"}, first)
}

// checkModules refuses a configuration that has us load a PKCS#11 module which is neither SoftHSM2's of this
// system nor one of those named: a module is code that runs as us. A module-name is looked up
// in the system's directories, and so may stay.
func checkModules(cfg Config, named []string) error {
	own, _ := keys.FindModule()
	for key, uri := range map[string]string{"keys.root": cfg.Keys.Root, "keys.issuing": cfg.Keys.Issuing} {
		if !strings.HasPrefix(uri, "pkcs11:") {
			continue
		}
		u, err := keys.ParseURI(uri)
		if err != nil {
			return fmt.Errorf("%s of the backup's configuration: %w", key, err)
		}
		if path := u.ModulePath; path != "" && path != own && !slices.Contains(named, path) {
			return hinted(fmt.Errorf("%s of the backup's configuration names the PKCS#11 module %s: loading it would run its code", key, path),
				"if that module is yours, name it with --module %s", path)
		}
	}
	return nil
}

// reaches lists what a configuration has a server load, connect to or read outside of its home.
func (c Config) reaches() (all []string) {
	for _, v := range []struct{ key, value, what string }{
		{"keys.root", c.Keys.Root, "the root's keys are at"}, {"keys.issuing", c.Keys.Issuing, "the issuing CAs' keys are at"},
		{"keys.pin_root", c.Keys.PINRoot, "the root token's PIN is at"}, {"keys.pin_issuing", c.Keys.PINIssuing, "the issuing token's PIN is at"},
		{"webhook.url", c.Webhook.URL, "events are posted to"}, {"acme.resolver", c.ACME.Resolver, "names are resolved by"},
		{"est.proxies", strings.Join(c.EST.Proxies, ", "), "client certificates are believed from"},
		{"acme.allow_networks", strings.Join(c.ACME.AllowNetworks, ", "), "challenges are validated in"},
	} {
		if v.value != "" {
			all = append(all, fmt.Sprintf("%s: %s %s", v.key, v.what, v.value))
		}
	}
	if file := c.Audit.HeadsFile; file != "" && filepath.Dir(file) != filepath.Dir(c.Policy) {
		all = append(all, "audit.heads_file: heads of the audit log are appended to "+file)
	}
	return all
}
