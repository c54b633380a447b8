package main

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What the configuration means for one home: relative paths lie in it.

// loadConfig reads the configuration of a home, with this process's environment over it.
func loadConfig(home Home) (Config, error) { return loadConfigFrom(string(home), os.Getenv) }

// publicURL is the base of the pointers in certificates, without a slash at its end.
func (c *Config) publicURL() string {
	return strings.TrimSuffix(cmp.Or(c.URL, "http://"+c.Listen.HTTP), "/")
}

// within makes a path of the configuration absolute.
func within(home Home, path string) (string, error) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(string(home), path)
	}
	return filepath.Abs(path)
}

// policyFile is the policy file of a home.
func (c *Config) policyFile(home Home) string {
	if filepath.IsAbs(c.Policy) {
		return c.Policy
	}
	return filepath.Join(string(home), c.Policy)
}

// ledgerURL is where the ledger of a home is: a file or a database's URL.
func ledgerURL(home Home, c Config) string {
	if c.DB == "" {
		return filepath.Join(string(home), "ledger.db")
	}
	if strings.Contains(c.DB, "://") || filepath.IsAbs(c.DB) {
		return c.DB
	}
	return filepath.Join(string(home), c.DB)
}

// keyURI is where the keys of "root" or "issuing" live, and where the PIN for
// them is (see package keys for both forms).
func (c *Config) keyURI(home Home, which string) (uri, pin string, err error) {
	uri, pin = c.Keys.Issuing, c.Keys.PINIssuing
	if which == "root" {
		uri, pin = c.Keys.Root, c.Keys.PINRoot
	}
	switch {
	case uri == "" && c.Keys.Provider == "softhsm":
		uri = "pkcs11:token=deviceca-" + which + "?module-name=softhsm2"
	case uri == "" && c.Keys.Provider == "file":
		uri = "file:" + filepath.Join("keys", which)
	case uri == "":
		return "", "", hinted(fmt.Errorf("the configuration does not say where the %s keys are", which), "set keys.%s to the URI of a token", which)
	}
	for _, place := range []*string{&uri, &pin} {
		if path, ok := strings.CutPrefix(*place, "file:"); ok {
			if path, err = within(home, path); err != nil {
				return "", "", err
			}
			*place = "file:" + path
		}
	}
	return uri, pin, nil
}

// logger is the server's log.
func (c *Config) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.Log.Level)) // checked with the rest
	opts := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// durationText writes a duration as people do: 5m, not 5m0s.
func durationText(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}
