package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"syscall"
	"time"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

// defaultHome is where the CA lives unless told otherwise.
const defaultHome = "./deviceca-data"

// target adds the flags that say which CA a command means.
func (a *app) target(cmd *cobra.Command) *cobra.Command {
	f := cmd.PersistentFlags()
	f.String("home", "", "home directory of the CA (default $DEVICECA_HOME or "+defaultHome+")")
	f.String("server", "", "https URL of a server elsewhere ($DEVICECA_SERVER)")
	f.String("cert", "", "with --server: your admin certificate, PEM ($DEVICECA_CERT)")
	f.String("key", "", "with --server: its key, PEM ($DEVICECA_KEY)")
	f.String("key-password-file", "", "file with the password of an encrypted key ($DEVICECA_KEY_PASSWORD_FILE)")
	f.String("roots", "", "with --server: certificates to trust, PEM ($DEVICECA_ROOTS, or root.crt of the home)")
	return cmd
}

// setting is a flag of target, or else its environment variable. Where a
// command has another flag of that name (--cert of admin add, --key of policy
// explain), there is the variable alone.
func (a *app) setting(cmd *cobra.Command, flag, env string) string {
	other := cmd.LocalNonPersistentFlags().Lookup(flag) != nil
	if f := cmd.Flags().Lookup(flag); f != nil && !other && f.Value.String() != "" {
		return f.Value.String()
	}
	return a.getenv(env)
}

// home is the home directory that cmd means.
func (a *app) home(cmd *cobra.Command) string {
	if dir := a.setting(cmd, "home", "DEVICECA_HOME"); dir != "" {
		return dir
	}
	return defaultHome
}

// server is the URL that cmd means, "" for the home. A --home on the command
// line is stronger than a server in the environment.
func (a *app) server(cmd *cobra.Command) string {
	if f := cmd.Flags().Lookup("server"); f != nil && f.Changed {
		return f.Value.String()
	}
	if f := cmd.Flags().Lookup("home"); f != nil && f.Changed {
		return ""
	}
	return a.getenv("DEVICECA_SERVER")
}

// onHost refuses --server for what works on the CA's host alone.
func (a *app) onHost(cmd *cobra.Command, why string) error {
	if a.server(cmd) != "" {
		return usagef("%s: give --home instead of --server", why)
	}
	return nil
}

// openClient finds the admin API: of the server named, else of the server that
// runs on the home, else in-process. Close gives the home's lock back.
func (a *app) openClient(cmd *cobra.Command) (*admin.Client, func(), error) {
	if server := a.server(cmd); server != "" {
		return a.dialServer(cmd, server)
	}
	home := a.home(cmd)
	c, err := dialHome(home)
	if err != nil {
		return nil, nil, err
	}
	if c != nil {
		return c, c.Close, nil
	}
	if a.open == nil {
		return nil, nil, hinted(fmt.Errorf("no server runs on %s", home), "start one with: deviceca serve --home %s", home)
	}
	handler, closeHome, err := a.open(cmd.Context(), home)
	if err != nil {
		return nil, nil, err
	}
	c = admin.NewLocalClient(handler)
	return c, func() {
		c.Close()
		if err := closeHome(); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "deviceca: closing %s: %s\n", home, err)
		}
	}, nil
}

// dialHome tries the socket of a server that runs on the home; nil if none does.
func dialHome(home string) (*admin.Client, error) {
	if err := Home(home).mustExist(); err != nil {
		return nil, err
	}
	path := filepath.Join(home, admin.SocketName)
	conn, err := net.DialTimeout("unix", path, 5*time.Second)
	switch {
	case err == nil:
		conn.Close()
		return admin.NewSocketClient(path), nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, hinted(err, "the socket is its owner's alone; run this as the user that the server runs as")
	}
	return nil, err
}

func (a *app) dialServer(cmd *cobra.Command, server string) (*admin.Client, func(), error) {
	certFile, keyFile := a.setting(cmd, "cert", "DEVICECA_CERT"), a.setting(cmd, "key", "DEVICECA_KEY")
	if certFile == "" || keyFile == "" {
		return nil, nil, &usageError{fmt.Errorf("--server takes --cert and --key of an administrator"),
			"make them on the CA's host with: deviceca admin add NAME --role admin --out DIR"}
	}
	pair, err := loadAdminPair(certFile, keyFile, a.setting(cmd, "key-password-file", "DEVICECA_KEY_PASSWORD_FILE"))
	if err != nil {
		return nil, nil, err
	}
	roots, err := a.roots(cmd)
	if err != nil {
		return nil, nil, err
	}
	c, err := admin.NewServerClient(server, &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, nil, &usageError{err: err}
	}
	return c, c.Close, nil
}

// roots are the certificates that a server's must chain to; nil is the system's.
func (a *app) roots(cmd *cobra.Command) (*x509.CertPool, error) {
	file := a.setting(cmd, "roots", "DEVICECA_ROOTS")
	named := file != ""
	if !named {
		file = filepath.Join(a.home(cmd), "root.crt")
	}
	certs, err := readCerts(file)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return certPool(certs), nil
}

// with opens the client, runs do, and closes.
func (a *app) with(cmd *cobra.Command, do func(ctx context.Context, c *admin.Client) error) error {
	c, done, err := a.openClient(cmd)
	if err != nil {
		return err
	}
	defer done()
	return do(cmd.Context(), c)
}

// hintFor knows what to do about errors of the API and of TLS.
func hintFor(err error) string {
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		switch {
		case p.Kind == "unavailable" && p.RetryAfter > 0:
			return fmt.Sprintf("try again in %d s; deviceca status says what is away", p.RetryAfter)
		case p.Kind == "internal":
			return "the log of the server, or of this command, says more"
		case p.Kind == "":
			return "is this the address of a deviceca server, without a proxy that ends TLS before it?"
		}
		return ""
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "give the CA's root certificate with --roots"
	}
	return ""
}
