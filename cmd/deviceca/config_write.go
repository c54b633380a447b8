package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// lostConfig says what the configuration of a home was, as far as something in the home still tells.
type lostConfig struct {
	home                         Home
	name, url                    string
	keys, pin, rootKeys, rootPIN string
	told                         []string // what the home told by itself
}

func (a *app) configWrite() *cobra.Command {
	var l lostConfig
	cmd := withJSON(&cobra.Command{
		Use: "write", Short: "Write a lost deviceca.yaml anew", Args: takes(),
		Long: `Write deviceca.yaml anew for a home that holds a CA and lost it, if no backup has it. The
name and the public URL are read from the certificate of the issuing CA, the provider of the keys from
what is in the home. Everything else has its default: compare with what you know of the old one.`,
		Example: `  deviceca config write --home ./deviceca-data
  deviceca config write --home ./ca --keys 'pkcs11:token=issuing?module-path=/usr/lib/hsm.so' --pin file:/etc/ca/pin`,
		RunE: func(cmd *cobra.Command, args []string) error {
			l.home = Home(a.home(cmd))
			if err := l.write(); err != nil {
				return err
			}
			for _, line := range l.told {
				fmt.Fprintln(cmd.ErrOrStderr(), line)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "written: %s, with defaults for all else: read it before you serve\n", l.home.config())
			return a.output(cmd).done("written", l.home.config())
		},
	})
	f := cmd.Flags()
	f.StringVar(&l.name, "name", "", "organization (default: that of the issuing CA's certificate)")
	f.StringVar(&l.url, "url", "", "public base of OCSP, CRL and AIA pointers (default: that of the issuing CA's certificate)")
	f.StringVar(&l.keys, "keys", "", "pkcs11: URI of the issuing CAs' token, if the keys are not in the home")
	f.StringVar(&l.pin, "pin", "", "with --keys: where its PIN is: file:PATH, env:NAME or credential:NAME")
	f.StringVar(&l.rootKeys, "root-keys", "", "with --keys: the pkcs11: URI of the root's token")
	f.StringVar(&l.rootPIN, "root-pin", "", "with --root-keys: where its PIN is")
	return cmd
}

// write never touches a configuration that is there.
func (l *lostConfig) write() error {
	switch what, _, err := l.home.look(); {
	case err != nil:
		return err
	case what == wholeHome:
		return hinted(fmt.Errorf("%s is there", l.home.config()), "check it with: deviceca config check --home %s", l.home)
	case what != headless:
		return l.home.mustExist()
	}
	unlock, err := l.home.lock()
	if err != nil {
		return err
	}
	defer unlock()
	cfg := DefaultConfig()
	if err := l.findKeys(&cfg); err != nil {
		return err
	}
	if err := l.findNames(&cfg); err != nil {
		return err
	}
	written := cfg.YAML()
	if _, err := ParseConfig(configFile, written, func(string) string { return "" }); err != nil {
		return &usageError{err: err}
	}
	return writeFile(l.home.config(), written, 0o644)
}

func (l *lostConfig) tell(format string, args ...any) {
	l.told = append(l.told, fmt.Sprintf(format, args...))
}

// findKeys finds the provider: by the flags, else by what is in the home.
func (l *lostConfig) findKeys(cfg *Config) error {
	_, err := os.Stat(l.home.path("keys", "issuing"))
	switch {
	case l.keys != "":
		cfg.Keys.Provider, cfg.Keys.Issuing, cfg.Keys.PINIssuing, cfg.Keys.Root, cfg.Keys.PINRoot = "pkcs11", l.keys, l.pin, l.rootKeys, l.rootPIN
	case l.home.hasTokens():
		l.tell("keys.provider: softhsm, for there are tokens in %s", l.home.tokens())
	case err == nil:
		cfg.Keys.Provider, cfg.Keys.AllowFile = "file", true
		l.tell("keys.provider: file, for there are keys in %s", l.home.path("keys"))
	default:
		return &usageError{errors.New("--keys is missing: there are no keys in the home"), "give the pkcs11: URI of the issuing CAs' token"}
	}
	return nil
}

// findNames finds what certificates carry: by the flags, else in that of the issuing CA. A wrong URL would get into all that is
// issued from now on, so none is guessed.
func (l *lostConfig) findNames(cfg *Config) error {
	file := l.home.path("issuing.crt")
	certs, err := readCerts(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if l.url == "" && len(certs) > 0 {
		if l.url = pointersBase(certs[0]); l.url != "" {
			l.tell("url: %s, of %s", l.url, file)
		}
	}
	if l.name == "" && len(certs) > 0 && len(certs[0].Subject.Organization) == 1 {
		l.name = certs[0].Subject.Organization[0]
		l.tell("name: %s, of %s", l.name, file)
	}
	if l.url == "" {
		return &usageError{errors.New("--url is missing: no certificate of this CA's root names it"), "give the base of the pointers in the certificates that this CA issued (OCSP, CRL)"}
	}
	cfg.URL = l.url
	if l.name != "" {
		cfg.Name = l.name
	}
	return nil
}

// pointersBase is the URL below which a root of ours publishes its CRL; "" if another's made the certificate.
func pointersBase(cert *x509.Certificate) string {
	for _, point := range cert.CRLDistributionPoints {
		u, err := url.Parse(point)
		if err != nil {
			continue
		}
		if at := strings.LastIndex(u.Path, "/crl/root-"); at >= 0 && strings.HasSuffix(u.Path, ".crl") {
			u.Path = u.Path[:at]
			return u.String()
		}
	}
	return ""
}
