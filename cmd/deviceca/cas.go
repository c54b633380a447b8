package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) caCommand() *cobra.Command {
	cmd := a.target(group("ca", "The CA certificates", a.caList(), a.caExport(), a.caRotate(), a.caRevoke()))
	if a.rootCRL != nil {
		cmd.AddCommand(group("crl", "The root's revocation list", a.caCRLRoot()))
	}
	if a.importCAs != nil {
		cmd.AddCommand(a.caImport())
	}
	return cmd
}

func (a *app) caList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "list",
		Short:   "List the CA certificates, all generations",
		Example: `  deviceca ca list`,
		Args:    takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				cas, err := c.CAs(ctx)
				if err != nil {
					return err
				}
				return a.output(cmd).cas(cas)
			})
		},
	})
}

func (o output) cas(cas []admin.CA) error {
	return list(o, all(cas), []string{"NAME", "ROLE", "SUBJECT", "KEY", "EXPIRES"}, func(c admin.CA) []string {
		return []string{c.Name, c.Role, c.Subject, c.Key, o.when(c.NotAfter)}
	})
}

func (a *app) caExport() *cobra.Command {
	var der bool
	cmd := withJSON(&cobra.Command{
		Use:   "export NAME",
		Short: "Print a CA's certificate and those above it",
		Long: `Print the chain of a CA in PEM: its certificate first, the root last. NAME is
root, issuing or quarantine for the newest of its kind, or a generation such as issuing-1.`,
		Example: `  deviceca ca export issuing > chain.pem
  deviceca ca export root --der > root.der`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := a.output(cmd)
			if o.json && der {
				return usagef("--json and --der exclude each other")
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				chain, err := c.Chain(ctx, args[0])
				if err != nil {
					return err
				}
				if o.json {
					return o.writeJSON(chain)
				}
				if !der {
					_, err := io.WriteString(o.w, chain.PEM)
					return err
				}
				block, _ := pem.Decode([]byte(chain.PEM))
				if block == nil {
					return fmt.Errorf("the server's chain is not PEM")
				}
				_, err = o.w.Write(block.Bytes)
				return err
			})
		},
	})
	cmd.Flags().BoolVar(&der, "der", false, "print the CA's own certificate alone, in DER")
	return cmd
}

func (a *app) caCRLRoot() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "root",
		Short: "Sign a fresh root CRL; takes the root token",
		Long: `Sign a fresh revocation list with the root key and put it where the server
publishes it. The root token must be there for this, and for nothing else: put it
away again afterwards.`,
		Example: `  deviceca ca crl root --home ./deviceca-data`,
		Args:    takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "the root key is used on its own host alone"); err != nil {
				return err
			}
			crls, err := a.rootCRL(cmd.Context(), a.home(cmd))
			if err != nil {
				return err
			}
			o := a.output(cmd)
			return list(o, all(crls), []string{"ROOT", "FILE", "NUMBER", "REVOKED", "NEXT UPDATE"}, func(c RootCRL) []string {
				return []string{c.Root, c.File, fmt.Sprint(c.Number), fmt.Sprint(c.Revoked), o.when(c.Next)}
			})
		},
	})
}

func (a *app) caImport() *cobra.Command {
	var root, issuing, quarantine string
	cmd := withJSON(&cobra.Command{
		Use:   "import --root FILE --issuing FILE --quarantine FILE",
		Short: "Take the certificates that an external root made",
		Long: `Complete a home that was made with init --root external: check the certificates
that the root made of issuing.csr and quarantine.csr, and take them.`,
		Example: `  deviceca ca import --home ./deviceca-data --root root.crt --issuing issuing.crt --quarantine quarantine.crt`,
		Args:    takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "CA certificates are taken on the CA's host"); err != nil {
				return err
			}
			if err := need(cmd, "root", "issuing", "quarantine"); err != nil {
				return err
			}
			if err := a.importCAs(cmd.Context(), a.home(cmd), root, issuing, quarantine); err != nil {
				return err
			}
			return a.output(cmd).done("completed", a.home(cmd))
		},
	})
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "certificate of the root, PEM or DER")
	f.StringVar(&issuing, "issuing", "", "certificate made of issuing.csr")
	f.StringVar(&quarantine, "quarantine", "", "certificate made of quarantine.csr")
	return cmd
}
