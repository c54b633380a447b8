package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// The SoftHSM2 library wants an absolute path of its tokens. So softhsm2.conf is true only where the home was made: in one
// that was moved it leads nowhere, and in a copy it leads to the tokens of the original.

// useSoftHSM points the SoftHSM2 library at this home's tokens. The library
// reads the variable when it is loaded, so this comes before any token is opened.
func (h Home) useSoftHSM() error {
	abs, err := filepath.Abs(h.softhsm())
	if err != nil {
		return err
	}
	if err := h.settleTokens(); err != nil {
		return err
	}
	return os.Setenv("SOFTHSM2_CONF", abs)
}

// settleTokens makes softhsm2.conf name the tokens of this home, unless an administrator keeps them elsewhere.
func (h Home) settleTokens() error {
	named, err := h.namedTokens()
	if err != nil {
		return err
	}
	here, errHere := os.Stat(h.tokens())
	there, errThere := os.Stat(named)
	switch {
	case errHere == nil && errThere == nil && os.SameFile(here, there):
		return nil
	case errThere == nil && !isHome(filepath.Dir(filepath.Clean(named))):
		return nil // of nobody else: somebody put them there
	case errHere == nil && h.hasTokens():
		return h.writeSoftHSMConf()
	case named == "":
		return fmt.Errorf("the tokens of this CA are missing: there is nothing in %s", h.tokens())
	case errThere == nil:
		return fmt.Errorf("the tokens of this CA are missing: there is nothing in %s, and %s names those of another home: %s", h.tokens(), h.softhsm(), named)
	}
	return fmt.Errorf("the tokens of this CA are missing: there is nothing in %s, which %s names", named, h.softhsm())
}

// namedTokens is the directory that softhsm2.conf names; "" if the file is not there, or names none.
func (h Home) namedTokens() (string, error) {
	raw, err := os.ReadFile(h.softhsm())
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if key, dir, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "directories.tokendir" {
			return strings.TrimSpace(dir), nil
		}
	}
	return "", nil
}

// isHome reports whether a directory that holds tokens is the home of some CA, or was.
func isHome(dir string) bool {
	_, noConf := os.Stat(Home(dir).softhsm())
	return noConf == nil || Home(dir).exists()
}

func (h Home) hasTokens() bool {
	found, err := filepath.Glob(filepath.Join(escapeGlob(h.tokens()), "*", "token.object"))
	return err == nil && len(found) > 0
}

// writeSoftHSMConf writes softhsm2.conf for the place where the home is now.
func (h Home) writeSoftHSMConf() error {
	tokens, err := filepath.Abs(h.tokens())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	conf := "# SoftHSM2, for the tokens of this CA.\ndirectories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	return writeFile(h.softhsm(), []byte(conf), 0o600)
}
