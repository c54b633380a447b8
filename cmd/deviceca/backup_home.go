package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/store"
)

// A backup is a directory like a home, with a manifest instead of a lock and a
// socket. The ledger in it is a snapshot; the rest is copied after the ledger,
// so that every key that the ledger names is there.
//
// It holds the tokens and their PINs, as far as they lie in the home: keep it as
// safe as the home itself.

// manifestFile lists every file of a backup with its SHA-256.
const manifestFile = "backup.json"

type manifest struct {
	Version string            `json:"version"` // of the program that made it
	Made    time.Time         `json:"made"`
	Policy  string            `json:"policy"`
	Files   map[string]string `json:"files"` // path below the backup: SHA-256, hex
}

// restoreMargin is how far a restored ledger's issuance indexes move beyond
// the highest that any record shows: certificates issued after the backup was
// made are out there, and their indexes must not come again.
const restoreMargin = 1 << 24

// homeParts are the files and directories of a home that a backup takes, beside
// the ledger. What is not there is left out: the root's token may be elsewhere.
var homeParts = []string{"deviceca.yaml", "policy.yaml", "root.crt", "issuing.crt", "quarantine.crt", "root.crl",
	"issuing.csr", "quarantine.csr", "softhsm2.conf", "secrets", "tokens", "keys"}

// backup copies the home to dir, which it makes, while the server goes on.
func (s *system) backup(ctx context.Context, dir, actor string) (report admin.BackupReport, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return report, ca.Errorf(ca.Conflict, "%s is there already", dir)
		}
		return report, ca.Errorf(ca.Malformed, "the backup directory cannot be made: %w", err)
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir) // half a backup is worse than none
		}
	}()
	if err := s.store.RecordEvent(ctx, ca.Event{Time: time.Now(), Kind: ca.EventBackup, Actor: actor, Reason: dir}); err != nil {
		return report, err
	}
	if err := s.store.Backup(ctx, filepath.Join(dir, "ledger.db")); err != nil {
		return report, err
	}
	for _, part := range homeParts {
		if err := copyTree(s.home.path(part), filepath.Join(dir, part)); err != nil {
			return report, fmt.Errorf("%s: %w", part, err)
		}
	}
	m := manifest{Version: programVersion(), Made: time.Now().UTC(), Policy: s.service.Policy().Version()}
	if m.Files, report.Bytes, err = hashTree(dir); err != nil {
		return report, err
	}
	report.Dir = dir
	for name := range m.Files {
		report.Files = append(report.Files, name)
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return report, err
	}
	return report, writeFile(filepath.Join(dir, manifestFile), append(raw, '\n'), 0o600)
}

// restoreHome makes a new home from a backup: checks every file against the
// manifest, copies, and moves the issuance indexes on. It does not start anything.
func restoreHome(ctx context.Context, from, dir string) (err error) {
	home := Home(dir)
	if home.exists() {
		return hinted(fmt.Errorf("there is a CA in %s already", home), "restore to a directory that does not exist")
	}
	m, err := readManifest(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return hinted(err, "restore to a directory that does not exist")
	}
	defer func() {
		if err != nil {
			os.RemoveAll(dir)
		}
	}()
	for name := range m.Files {
		if err := copyTree(filepath.Join(from, name), home.path(name)); err != nil {
			return err
		}
	}
	if _, err := os.Stat(home.softhsm()); err == nil {
		if err := home.writeSoftHSMConf(); err != nil { // tokens are where the home is now
			return err
		}
	}
	cfg, err := loadHome(home, os.Getenv)
	if err != nil {
		return err
	}
	// The snapshot becomes the home's ledger, even if the configuration names another place.
	ledger, err := store.Open(ctx, home.path("ledger.db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = ledger.AdvanceIndexes(ctx, restoreMargin, ca.Event{Time: time.Now(), Kind: ca.EventRestored, Actor: "admin:local",
		Reason: fmt.Sprintf("backup of %s; issuance indexes moved %d beyond the highest known", m.Made.Format(time.RFC3339), restoreMargin)})
	if err := errors.Join(err, ledger.Close()); err != nil {
		return err
	}
	if filepath.Base(cfg.DB) != "ledger.db" || filepath.Dir(cfg.DB) != filepath.Dir(cfg.Policy) {
		return hinted(fmt.Errorf("the configuration keeps its ledger at db: %s", cfg.DB),
			"the restored ledger is %s: put it there, or take db out of %s", home.path("ledger.db"), home.config())
	}
	// The proof that it works: open all of it, as the server would.
	s, err := open(ctx, home, cfg, slog.New(slog.DiscardHandler), time.Time{})
	if err != nil {
		return fmt.Errorf("the restored home does not open: %w", err)
	}
	return s.Close()
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
		if have[name] != sum {
			return m, fmt.Errorf("%s is missing, or not what was backed up", filepath.Join(from, name))
		}
	}
	return m, nil
}

// hashTree is the SHA-256 of every file below dir but the manifest.
func hashTree(dir string) (sums map[string]string, total int64, err error) {
	sums = map[string]string{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == filepath.Join(dir, manifestFile) {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		n, err := io.Copy(h, f)
		name, relErr := filepath.Rel(dir, path)
		sums[name], total = hex.EncodeToString(h.Sum(nil)), total+n
		return errors.Join(err, relErr)
	})
	return sums, total, err
}

// copyTree copies a file, or a directory and what is in it, with its modes.
// Nothing is followed or copied but regular files. A source that is not there is no error.
func copyTree(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		entries, err := os.ReadDir(from)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := copyTree(filepath.Join(from, e.Name()), filepath.Join(to, e.Name())); err != nil {
				return err
			}
		}
	case info.Mode().IsRegular():
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return err
		}
		return copyFile(from, to, info.Mode().Perm())
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) // a ledger may be large
	return errors.Join(err, out.Sync(), out.Close())
}
