package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) adminCommand() *cobra.Command {
	return a.target(group("admin", "Who may administer the CA from other hosts", a.adminAdd(), a.adminList(), a.adminRemove()))
}

// adminValidity is that of the certificates made here. Renewing one is adding the
// administrator again.
const adminValidity = 2 * 365 * 24 * time.Hour

func (a *app) adminAdd() *cobra.Command {
	var role, certFile, out string
	cmd := withJSON(&cobra.Command{
		Use:   "add NAME --role ROLE",
		Short: "Register an administrator's certificate",
		Long: `Register who may use --server, by a client certificate (--cert, any issuer), or
make a key and a self-signed certificate in --out; with --key-password-file, the key is
encrypted under the password in that file. Only that very certificate counts,
until it expires: to renew it, remove the administrator and add it again. Roles:

` + rolesHelp() + `
Backup, recover, and what takes the root's key (CA rotation and revocation) work on the host alone, for whoever owns the
socket in the home directory.

Here --cert is the newcomer's. With --server, yours comes from $DEVICECA_CERT.`,
		Example: `  deviceca admin add workstation --role operator --out .
  deviceca admin add workstation --role operator --out . --key-password-file password
  deviceca admin add workstation --role auditor --cert workstation.pem`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "role"); err != nil {
				return err
			}
			if !slices.Contains(admin.Roles(), admin.Role(role)) {
				return &usageError{fmt.Errorf("--role: %q is not a role", role), "use admin, operator or auditor"}
			}
			if device.CheckNewID(args[0]) != nil {
				return usagef("%q cannot be the name of an administrator: use A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", args[0])
			}
			if (certFile == "") == (out == "") {
				return usagef("give either --cert with a certificate, or --out with a directory for a new one")
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				return a.runAdminAdd(ctx, cmd, c, args[0], admin.Role(role), certFile, out)
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&role, "role", "", "admin, operator or auditor: see above what each may do")
	f.StringVar(&certFile, "cert", "", "certificate to register, PEM")
	f.StringVar(&out, "out", "", "make NAME.key and NAME.crt in this directory, which is made if it is missing")
	cmd.RegisterFlagCompletionFunc("role", completeRoles)
	return cmd
}

// rolesHelp says what each role may do, one to a line.
func rolesHelp() (text string) {
	for _, r := range admin.Roles() {
		text += fmt.Sprintf("  %-8s  %s\n", r, r.May())
	}
	return text
}

func completeRoles(*cobra.Command, []string, string) (all []string, _ cobra.ShellCompDirective) {
	for _, r := range admin.Roles() {
		all = append(all, string(r)+"\t"+r.May())
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) runAdminAdd(ctx context.Context, cmd *cobra.Command, c *admin.Client, name string, role admin.Role, certFile, out string) error {
	var cert, made string
	var err error
	if certFile != "" {
		cert, err = readPEM("CERTIFICATE", []string{certFile}, os.ReadFile)
	} else {
		if err := os.MkdirAll(out, 0o700); err != nil {
			return err
		}
		made = filepath.Join(out, name)
		var raw []byte
		raw, err = makeAdminCert(name, made, a.setting(cmd, "key-password-file", "DEVICECA_KEY_PASSWORD_FILE"), a.now())
		cert = string(raw)
	}
	if err != nil {
		return err
	}
	added, err := c.AddAdmin(ctx, admin.NewAdmin{Name: name, Role: role, Cert: cert})
	if err != nil {
		if made != "" { // made here just now, and of no use
			os.Remove(made + ".key")
			os.Remove(made + ".crt")
		}
		return err
	}
	o := a.output(cmd)
	type answer struct {
		*admin.Admin
		Cert string `json:"cert,omitempty"` // file
		Key  string `json:"key,omitempty"`
	}
	ans := answer{Admin: added}
	if made != "" {
		ans.Cert, ans.Key = made+".crt", made+".key"
	}
	return o.print(ans, func(fact func(name, value string)) {
		fact("admin", added.Name)
		fact("role", added.Role)
		fact("certificate", added.CertSHA256)
		fact("expires", instant(added.NotAfter))
		fact("cert file", ans.Cert)
		fact("key file", ans.Key)
	})
}

// writeNew writes a file that must not be there yet.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if os.IsExist(err) {
		return hinted(fmt.Errorf("%s is there already", path), "choose another name or directory with --out")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

func (a *app) adminList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "list", Short: "List administrators",
		Long: `List administrators with the SHA-256 of their certificate. Of those added by
earlier versions only the key is known, and any valid certificate with that key does:
remove them and add them again.`,
		Example: `  deviceca admin list`, Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				admins, err := c.Admins(ctx)
				if err != nil {
					return err
				}
				return list(a.output(cmd), all(admins), []string{"NAME", "ROLE", "CREATED", "EXPIRES", "CERTIFICATE"}, func(x admin.Admin) []string {
					if x.ByKey() {
						return []string{x.Name, x.Role, instant(x.Created), "as any with its key", "key " + x.KeySHA256}
					}
					return []string{x.Name, x.Role, instant(x.Created), instant(x.NotAfter), x.CertSHA256}
				})
			})
		},
	})
}

func (a *app) adminRemove() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "remove NAME", Short: "Take an administrator's access away, at once", Example: `  deviceca admin remove workstation`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.RemoveAdmin(ctx, args[0]); err != nil {
					return err
				}
				return a.output(cmd).done("removed", args[0])
			})
		},
	})
}
