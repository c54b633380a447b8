package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/deviceca/deviceca/ca"
)

// kind is what a directory is. What is in it tells, not one file alone: a home that lost a file is no place for a new CA.
type kind int

const (
	noHome    kind = iota // nothing of a CA
	wholeHome             // a home, with its configuration
	backupDir             // what `backup` made
	openInit              // an init began here, and has not ended
	headless              // parts of a CA, without its configuration
)

// tellTales are files that nothing but a CA's home has. Its certificates lie in other places too.
var tellTales = []string{"ledger.db", "issuing.csr", "secrets/sealing.key", "secrets/issuing.pin", "softhsm2.conf",
	"tokens/*/token.object", "keys/issuing"}

// look says what is there; parts are the tell-tales of a headless home.
func (h Home) look() (_ kind, parts []string, err error) {
	for _, mark := range []struct {
		file string
		kind kind
	}{{manifestFile, backupDir}, {configFile, wholeHome}, {initMark, openInit}} {
		_, err := os.Stat(h.path(mark.file))
		if err == nil {
			return mark.kind, nil, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return noHome, nil, err // what cannot be read is not nothing
		}
	}
	for _, part := range tellTales {
		if found, err := filepath.Glob(filepath.Join(escapeGlob(string(h)), part)); err == nil && len(found) > 0 {
			parts = append(parts, strings.TrimSuffix(part, "/*/token.object"))
		}
	}
	if len(parts) > 0 {
		return headless, parts, nil
	}
	return noHome, nil, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// exists reports whether an init was completed here: the configuration is the
// last file it writes.
func (h Home) exists() bool {
	_, err := os.Stat(h.config())
	return err == nil
}

// mustExist is the error of commands that need a CA.
func (h Home) mustExist() error {
	what, parts, err := h.look()
	if err != nil {
		return err
	}
	switch what {
	case wholeHome:
		return nil
	case backupDir:
		// Nothing in it is touched: it must stay what its manifest says.
		return hinted(fmt.Errorf("%s is a backup: its numbers would be given a second time", h), "make a home of it with: deviceca restore --from %s --home NEW", h)
	case openInit:
		return hinted(fmt.Errorf("an init in %s was interrupted", h), "let it go on with: deviceca init --resume --home %s", h)
	case headless:
		return h.headless(parts)
	}
	return hinted(fmt.Errorf("there is no CA in %s", h), "make one with: deviceca init --home %s; or name the home of another with --home", h)
}

func (h Home) headless(parts []string) error {
	return hinted(fmt.Errorf("%s holds a CA (%s) whose %s is missing", h, strings.Join(parts, ", "), configFile),
		"copy %s from the last backup into %s; without a backup, write it anew with: deviceca config write --home %s", configFile, h, h)
}

// awaitsImport reports that an external root has not signed this home's requests yet. Nothing is in its ledger then.
func (h Home) awaitsImport() bool {
	_, request := os.Stat(h.path("issuing.csr"))
	_, root := os.Stat(h.path("root.crt"))
	_, cert := os.Stat(h.path("issuing.crt"))
	return request == nil && errors.Is(root, fs.ErrNotExist) && errors.Is(cert, fs.ErrNotExist)
}

// imported reports that the first generation is complete, in the ledger and as files.
func (h Home) imported(have []ca.IssuerRecord) bool {
	for _, role := range []string{"root", "issuing", "quarantine"} {
		if _, err := os.Stat(h.path(role + ".crt")); err != nil || !hasRole(have, role) {
			return false
		}
	}
	return true
}

func hasRole(have []ca.IssuerRecord, role string) bool {
	return slices.ContainsFunc(have, func(r ca.IssuerRecord) bool { return r.Role == role })
}
