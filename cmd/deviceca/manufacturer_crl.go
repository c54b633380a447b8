package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
)

func (a *app) manufacturerCRL() *cobra.Command {
	var n admin.NewLists
	cmd := withJSON(&cobra.Command{
		Use:   "crl NAME FILE…",
		Short: "Give a manufacturer newer revocation lists",
		Long: fmt.Sprintf(`Give a manufacturer newer revocation lists: what they list is refused at once. FILEs are
complete CRLs (DER or PEM); - is standard input. Each takes the place of the one by the
same CA, and cannot be older. A CA that is not an anchor is known by its certificate, which
is given along (PEM) the first time.

Where a CA has a list, it needs a current one: when that has ended, what the CA issued is
refused. The server fetches none; let cron do it. All lists of a manufacturer together
have %d MiB at most.`, ca.MaxRevocationLists>>20),
		Example: `  deviceca manufacturer crl acme factory.pem factory.crl
  curl -fsS http://pki.acme.example/factory.crl | deviceca manufacturer crl acme -`,
		Args: func(cmd *cobra.Command, args []string) error {
			return takes("NAME", "FILE")(cmd, args[:min(len(args), 2)])
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return a.completeManufacturers(cmd, args, typed)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if n.Lists, err = readLists(cmd.InOrStdin(), args[1:]); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				m, err := c.ReplaceRevocationLists(ctx, args[0], n)
				if err != nil {
					return err
				}
				return a.output(cmd).manufacturer(*m)
			})
		},
	})
	cmd.Flags().StringVar(&n.Format, "format", "", "of this format; needed where the manufacturer has more than one")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(ca.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readLists reads revocation lists, DER or PEM, and what PEM stands beside them,
// from files one after the other; - is stdin. The result is PEM.
func readLists(stdin io.Reader, files []string) (string, error) {
	return readPEM("X509 CRL", files, func(file string) ([]byte, error) { return readList(stdin, file) })
}

func readList(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return readAtMost(stdin, "standard input")
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAtMost(f, file)
}
