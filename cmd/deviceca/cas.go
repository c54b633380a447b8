package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) caCommand() *cobra.Command {
	cmd := a.target(group("ca", "The CA certificates", a.caList(), a.caExport(), a.caRotate(), a.caActivate(), a.caRevoke()))
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
		Use:   "list",
		Short: "List the CA certificates, all generations",
		Long: `List the CA certificates, all generations, with their stage: published (its lists are out; it issues later), active (it
issues), retiring (another one issues, and certificates of this one live), ended (it expired, or they did), revoked.`,
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
	return list(o, all(cas), []string{"NAME", "ROLE", "STAGE", "SUBJECT", "KEY", "EXPIRES"}, func(c admin.CA) []string {
		stage := string(c.Stage)
		if c.Stage == ca.StagePublished {
			stage += ", active from " + o.when(c.Activates)
		}
		return []string{c.Name, c.Role, stage, c.Subject, c.Key, o.when(c.NotAfter)}
	})
}

func (a *app) caExport() *cobra.Command {
	var der bool
	cmd := withJSON(&cobra.Command{
		Use:   "export NAME",
		Short: "Print a CA's certificate and those above it",
		Long: `Print the chain of a CA in PEM: its certificate first, the root last. NAME is
root, issuing, quarantine or quarantine-root for the newest of its kind, or a generation such as issuing-1.`,
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
		Short: "Sign fresh root CRLs; takes the root token",
		Long: `Sign a fresh revocation list with the key of each root and put it where the server
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
	files := map[string]*string{}
	cmd := withJSON(&cobra.Command{
		Use:   "import --root FILE --issuing FILE --quarantine FILE --quarantine-root FILE",
		Short: "Take the certificates that an external root made",
		Long: `Complete a home that was made with init --root external: check the certificates
that the roots made of issuing.csr and quarantine.csr, and take them.

The quarantine CA should stand below a root of its own, which ordinary relying
parties do not trust: some software ignores the extended key usages of a CA, and
accepts devices in quarantine if it trusts the root that they stand below. With
--quarantine-root alone, a CA that is in service takes that root; then have it sign
the next generation (ca rotate quarantine --csr, --cert).`,
		Example: `  deviceca ca import --home ./deviceca-data --root root.crt --issuing issuing.crt --quarantine-root qroot.crt --quarantine quarantine.crt
  deviceca ca import --quarantine-root qroot.crt`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "CA certificates are taken on the CA's host"); err != nil {
				return err
			}
			given := map[string]string{}
			for role, file := range files {
				if *file != "" {
					given[role] = *file
				}
			}
			if len(given) != 1 || given["quarantine-root"] == "" {
				if err := need(cmd, "root", "issuing", "quarantine"); err != nil {
					return err
				}
			}
			if err := a.importCAs(cmd.Context(), a.home(cmd), given); err != nil {
				return err
			}
			if given["quarantine-root"] == "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "note: quarantine stands below the same root as the issuing CA; software that ignores a CA's extended key usages accepts devices in quarantine (ca import --help)")
			}
			return a.output(cmd).done("completed", a.home(cmd))
		},
	})
	for role, help := range map[string]string{
		"root": "certificate of the root, PEM or DER", "issuing": "certificate made of issuing.csr",
		"quarantine": "certificate made of quarantine.csr", "quarantine-root": "certificate of the root that quarantine stands below",
	} {
		files[role] = cmd.Flags().String(role, "", help)
	}
	return cmd
}
