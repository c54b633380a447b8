package main

import (
	"context"
	"os"
	"strings"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) raCommand() *cobra.Command {
	return a.target(group("ra", "Registration authorities, which enrol on behalf of devices", a.raAdd(), a.raList(), a.raRemove()))
}

func (a *app) raAdd() *cobra.Command {
	var n admin.NewRA
	var certFile string
	cmd := withJSON(&cobra.Command{
		Use:   "add NAME --cert PEM --names GLOB --level LEVEL",
		Short: "Register a registration authority's certificate",
		Long: `Register a registration authority: the holder of this one certificate, of any
issuer, with the extended key usage id-kp-cmcRA (1.3.6.1.5.5.7.3.28). It may ask
for certificates of devices whose IDs match --names and whose level is one of
--level; devices that are not in the inventory enter it at the first.

Here --cert is the registration authority's. With --server, yours comes from $DEVICECA_CERT.`,
		Example: `  deviceca ra add line-1 --cert line-1.pem --names 'lamp-*' --level software
  deviceca ra add plant-2 --cert plant-2.pem --names 'lamp-*,gw-2-??' --level hsm,software`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case certFile == "":
				return usagef("--cert is missing")
			case len(n.Names) == 0:
				return usagef("--names is missing")
			case len(n.Levels) == 0:
				return usagef("--level is missing")
			case device.CheckNewID(args[0]) != nil:
				return usagef("%q cannot be the name of a registration authority: use A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", args[0])
			}
			for _, glob := range n.Names {
				if err := device.CheckGlob(glob); err != nil {
					return usagef("--names: %w", err)
				}
			}
			n.Name = args[0]
			var err error
			if n.Cert, err = readPEM("CERTIFICATE", []string{certFile}, os.ReadFile); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				ra, err := c.AddRA(ctx, n)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				o.warn(ra.Warnings)
				return o.print(ra, func(fact func(name, value string)) {
					fact("ra", ra.Name)
					fact("names", strings.Join(ra.Names, " "))
					fact("levels", strings.Join(ra.Levels, " "))
					fact("subject", ra.Cert.Subject)
					fact("until", o.when(ra.Cert.NotAfter))
					fact("sha256", ra.Cert.SHA256)
				})
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&certFile, "cert", "", "its certificate, PEM")
	f.StringSliceVar(&n.Names, "names", nil, "device IDs that it may act for, with * and ?")
	f.StringSliceVar(&n.Levels, "level", nil, "trust levels that it may act for; newcomers get the first")
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	return cmd
}

func (a *app) raList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "list", Short: "List registration authorities, removed ones included",
		Example: "  deviceca ra list\n  deviceca ra list --json", Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				found, err := c.RAs(ctx)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return list(o, all(found), []string{"NAME", "NAMES", "LEVELS", "STATE", "CERTIFICATE UNTIL", "SUBJECT"}, func(ra admin.RA) []string {
					state := "in force"
					switch {
					case ra.Removed != nil:
						state = "removed " + instant(*ra.Removed)
					case o.now.After(ra.Cert.NotAfter):
						state = "expired"
					}
					return []string{ra.Name, strings.Join(ra.Names, " "), strings.Join(ra.Levels, " "), state, o.when(ra.Cert.NotAfter), ra.Cert.Subject}
				})
			})
		},
	})
}

func (a *app) raRemove() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "remove NAME", Short: "End what a registration authority may do, at once",
		Example: `  deviceca ra remove line-1`, Args: takes("NAME"),
		ValidArgsFunction: a.completeRAs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.RemoveRA(ctx, args[0]); err != nil {
					return err
				}
				return a.output(cmd).done("removed", args[0])
			})
		},
	})
}

func (a *app) completeRAs(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) (names []string) {
		found, err := c.RAs(ctx)
		if err != nil {
			return nil
		}
		for _, ra := range found {
			if ra.Removed == nil {
				names = append(names, ra.Name)
			}
		}
		return names
	})
}
