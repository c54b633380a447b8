package main

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/policy"
)

// parts is what the commands are given: see house.
func parts() house {
	return house{
		open: openLocal, restore: restoreHome, rootCRL: renewRootCRLs, importCAs: importSigned,
		commands: []func(*app) *cobra.Command{(*app).initCommand, (*app).serveCommand},
	}
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	cmd := withJSON(&cobra.Command{
		Use:   "init",
		Short: "Make a new CA: two roots, issuing and quarantine",
		Long: `Make a new CA in a home directory: keys, certificates, ledger, configuration and a default policy.

The keys of the root and those of the issuing CAs go to different tokens. Nothing is ever overwritten.

Flags, PINs, labels and mechanisms are checked before anything is made. An init that fails removes what it made, on tokens
too. One that was killed goes on with --resume and the flags that it had; it uses the keys that it made on tokens before.
Where none was interrupted, --resume makes a new CA.`,
		Example: `  deviceca init --home ./deviceca-data
  deviceca init --home ./ca --name "Example Devices" --url http://ca.example:8080 --key-type ecdsa-p384
  deviceca init --home ./ca --keys 'pkcs11:token=issuing?module-path=/usr/lib/hsm.so' --pin file:/etc/ca/pin \
      --root-keys 'pkcs11:token=root?module-path=/usr/lib/hsm.so' --root-pin file:/etc/ca/root.pin
  deviceca init --home ./ca --root external
  deviceca init --home ./ca --resume`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.fault = a.initFault
			if o.Resume {
				if err := o.recall(Home(a.home(cmd)), func(flag string) bool { return cmd.Flags().Changed(flag) }); err != nil {
					return err
				}
			}
			report, err := runInit(cmd.Context(), Home(a.home(cmd)), o, commandLogger(cmd.ErrOrStderr()))
			if err != nil {
				return err
			}
			out := a.output(cmd)
			if err := out.print(report, func(fact func(name, value string)) {
				fact("home", report.Home)
				fact("keys", report.Keys)
				fact("audit key", report.AuditKey)
				fact("data key sealed by", report.SealedBy)
				fact("CAs", strings.Join(report.CAs, ", "))
				fact("requests", strings.Join(report.Requests, ", "))
				fact("root", report.Root)
				fact("root SHA-256", report.SHA256)
			}); err != nil {
				return err
			}
			if o.Root == "external" {
				fmt.Fprintf(cmd.ErrOrStderr(), "next: have the root sign issuing.csr, and a root of its own quarantine.csr, then: deviceca ca import --home %s --root root.crt --issuing issuing.crt --quarantine-root qroot.crt --quarantine quarantine.crt\n", a.home(cmd))
			} else {
				fmt.Fprintf(cmd.ErrOrStderr(), "next: deviceca serve --home %s\n", a.home(cmd))
			}
			return nil
		},
	})
	f := cmd.Flags()
	cmd.PersistentFlags().String("home", "", "home directory to make (default $DEVICECA_HOME or "+defaultHome+")")
	f.StringVar(&o.Keys, "keys", "softhsm", "where the issuing keys live: softhsm, file (for development), or a pkcs11: URI")
	f.StringVar(&o.PIN, "pin", "", "with a URI: where its PIN is: file:PATH, env:NAME or credential:NAME")
	f.StringVar(&o.RootKeys, "root-keys", "", "with a URI: the pkcs11: URI of another token, for the root")
	f.StringVar(&o.RootPIN, "root-pin", "", "with --root-keys: where its PIN is")
	f.StringVar(&o.Root, "root", "internal", "internal, or external for a root that lives elsewhere: makes requests for it to sign")
	f.StringVar((*string)(&o.Spec), "key-type", string(keys.DefaultSpec), "kind of the CA keys: ecdsa-p256, ecdsa-p384, rsa-3072, rsa-4096, ed25519")
	f.StringVar(&o.Name, "name", "deviceca", "organization, in the names of the CAs; up to 40 characters")
	f.StringVar(&o.URL, "url", "", "public base of OCSP, CRL and AIA pointers (default: the http address of the configuration)")
	f.BoolVar(&o.Resume, "resume", false, "go on with an init that was interrupted in this home")
	return cmd
}

func (a *app) serveCommand() *cobra.Command {
	var https, httpAddr, metrics, db string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the CA",
		Long: `Run the CA in the foreground until it is interrupted: EST, ACME and CMP on https; CMP, OCSP, CRLs,
revocation packs and CA certificates on http; the admin API on https and on a socket in the home directory.

SIGHUP reads the policy file anew. /healthz says that the process lives, /readyz that token and database answer.`,
		Example: `  deviceca serve --home ./deviceca-data
  deviceca serve --home ./ca --https :8443 --http :8080 --metrics off`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			home := Home(a.home(cmd))
			if err := home.mustExist(); err != nil {
				return err
			}
			// A flag is an environment variable that is stronger than the environment.
			flags := map[string]string{envName("listen.https"): https, envName("listen.http"): httpAddr, envName("listen.metrics"): metrics, envName("db"): db}
			cfg, err := loadHome(home, func(name string) string { return cmp.Or(flags[name], a.getenv(name)) })
			if err != nil {
				return err
			}
			return serve(cmd.Context(), home, cfg, serverLogger(cfg.Log, cmd.ErrOrStderr()), func(s *server) { greet(cmd.ErrOrStderr(), s) })
		},
	}
	f := cmd.Flags()
	cmd.PersistentFlags().String("home", "", "home directory of the CA (default $DEVICECA_HOME or "+defaultHome+")")
	f.StringVar(&https, "https", "", "address for EST, ACME, CMP and the remote admin API (default from configuration, 127.0.0.1:8443)")
	f.StringVar(&httpAddr, "http", "", "address for CMP, OCSP, CRLs, CA certificates, health (default from configuration, 127.0.0.1:8080)")
	f.StringVar(&metrics, "metrics", "", "address for Prometheus, or off (default from configuration, 127.0.0.1:9464)")
	f.StringVar(&db, "db", "", "the ledger: a file, or a database URL (default: ledger.db in the home)")
	return cmd
}

// greet says what to type next. It goes to stderr: the log is there too.
func greet(w io.Writer, s *server) {
	https, home := s.cfg.Listen.HTTPS, s.home
	host, port, _ := net.SplitHostPort(https)
	if host == "" || host == "0.0.0.0" || host == "::" {
		host = "localhost"
	}
	url := "https://" + net.JoinHostPort(host, port)
	if s.closed(context.Background()) != nil {
		fmt.Fprintf(w, "\nThis CA is closed: it was restored from a backup. Open it with: %s recover --home %s; see %[1]s recover --help\n\n", program(), home)
		return
	}
	fmt.Fprintf(w, `
deviceca serves EST, ACME and CMP at %[1]s. In another terminal, a first certificate:

  %[3]s device add --home %[2]s --id lamp-1 --level software
  DEVICECA_SECRET=<secret> %[3]s enroll --protocol est --server %[1]s --roots %[2]s/root.crt --id lamp-1 --reference <reference> --dir ./lamp-1
  %[3]s cert list --home %[2]s --device lamp-1

`, url, home, program())
}

// renewRootCRLs is `ca crl root`.
func renewRootCRLs(ctx context.Context, dir string) ([]RootCRL, error) {
	return signRootCRLs(ctx, Home(dir))
}

// importSigned is `ca import`.
func importSigned(ctx context.Context, dir string, files map[string]string) error {
	home := Home(dir)
	cfg, err := loadHome(home, os.Getenv)
	if err != nil {
		return err
	}
	certs := map[string][]byte{}
	for role, file := range files {
		if certs[role], err = readCert(file); err != nil {
			return err
		}
	}
	return importCAs(ctx, home, cfg, certs, quietLogger())
}

// readCert reads the first certificate of a file.
func readCert(file string) ([]byte, error) {
	certs, err := readCerts(file)
	if err != nil {
		return nil, err
	}
	return certs[0].Raw, nil
}

func parseCert(der []byte) (*x509.Certificate, error) { return x509.ParseCertificate(der) }

func pemCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func pemCRL(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// specFor is the kind of a CA key.
func specFor(pub crypto.PublicKey) (keys.Spec, error) {
	name, err := policy.KeyAlgorithm(pub)
	return keys.Spec(name), err
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// serverLogger is the log of a running server.
func serverLogger(c LogConfig, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo // checked with the configuration
	}
	options := &slog.HandlerOptions{Level: level}
	var lines slog.Handler = slog.NewTextHandler(w, options)
	if c.Format == "json" {
		lines = slog.NewJSONHandler(w, options)
	}
	return slog.New(newCalmLog(lines, c.Refusals))
}

// quietLogger is for commands: only what went wrong, on stderr.
func quietLogger() *slog.Logger { return commandLogger(os.Stderr) }

func commandLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelError}))
}
