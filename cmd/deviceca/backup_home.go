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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
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

// homeParts are the files and directories of a home that a backup takes, beside
// the ledger. What is not there is left out: the root's token may be elsewhere.
var homeParts = []string{"deviceca.yaml", "policy.yaml", "root.crt", "quarantine-root.crt", "issuing.crt", "quarantine.crt", "root.crl", "quarantine-root.crl",
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
	parts, outside := s.backupParts()
	report.Outside = outside
	for _, part := range parts {
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

// backupParts are homeParts with the other files in the home that the configuration names, and the files
// that it names elsewhere, which a backup leaves out.
func (s *system) backupParts() (parts, outside []string) {
	parts = slices.Clone(homeParts)
	for _, file := range s.cfg.files() {
		name, err := filepath.Rel(string(s.home.abs()), file)
		if err != nil || !filepath.IsLocal(name) {
			outside = append(outside, file)
		} else if !slices.ContainsFunc(parts, func(part string) bool {
			return name == part || strings.HasPrefix(name, part+string(filepath.Separator))
		}) {
			parts = append(parts, name)
		}
	}
	return parts, outside
}

// files are those that the configuration, resolved, names beside the ledger.
func (c Config) files() (all []string) {
	for _, file := range []string{c.Policy, c.Webhook.Roots, c.EST.ProxyCert} {
		if file != "" {
			all = append(all, file)
		}
	}
	for _, uri := range []string{c.Keys.PINRoot, c.Keys.PINIssuing, c.Webhook.Secret} {
		if file, ok := strings.CutPrefix(uri, "file:"); ok {
			all = append(all, file)
		}
	}
	return all
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
