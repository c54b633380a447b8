package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) manufacturerCommand() *cobra.Command {
	return a.target(group("manufacturer", "Manufacturers whose certificates vouch for devices",
		a.manufacturerAdd(), a.manufacturerList(), a.manufacturerShow(), a.manufacturerCRL(), a.manufacturerWithdraw()))
}

func (a *app) manufacturerAdd() *cobra.Command {
	var n admin.NewManufacturer
	var anchors, lists []string
	var until string
	cmd := withJSON(&cobra.Command{
		Use:   "add NAME --anchor PEM --level LEVEL",
		Short: "Register a manufacturer by its CA certificates",
		Long: `Register a manufacturer. With format idevid (IEEE 802.1AR) a device that shows a
certificate issued below one of the anchors may enrol: its ID is the serialNumber
of the certificate's subject, and it enters the inventory at LEVEL.

--models narrows that to the hardware types (object identifiers, with *) or subject
attributes (ou=RT-*) given, --serials to serial numbers (A10*) or ranges of them
(A1000..A1999, of one length). The other formats are for evidence.`,
		Example: `  deviceca manufacturer add acme --anchor acme-root.pem --level brownfield
  deviceca manufacturer add acme --anchor acme-root.pem --level software --models 'ou=RT-*' --serials A1000..A1999 --until 2031-12-31`,
		Args: takes("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "level"); err != nil {
				return err
			}
			if len(anchors) == 0 {
				return usagef("--anchor is missing")
			}
			if device.CheckNewID(args[0]) != nil {
				return usagef("%q cannot be the name of a manufacturer: use A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", args[0])
			}
			n.Name = args[0]
			var err error
			if n.Until, err = parseUntil(until); err != nil {
				return usagef("--until: %w", err)
			}
			if n.Anchors, err = readPEM("CERTIFICATE", anchors, os.ReadFile); err != nil {
				return err
			}
			if n.Lists, err = readLists(cmd.InOrStdin(), lists); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				m, err := c.AddManufacturer(ctx, n)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				o.warn(m.Warnings)
				return o.manufacturer(*m)
			})
		},
	})
	f := cmd.Flags()
	f.StringArrayVar(&anchors, "anchor", nil, "file with its CA certificates, PEM; may be given more than once")
	f.StringArrayVar(&lists, "crl", nil, "file with revocation lists of its CAs, as for manufacturer crl; may be given more than once")
	f.StringVar(&n.Level, "level", "", "trust level of its devices")
	f.StringVar(&n.Format, "format", ca.FormatIDevID, "what the anchors are for: "+strings.Join(ca.Formats(), ", "))
	f.StringSliceVar(&n.Models, "models", nil, "only these: hardware types or ATTRIBUTE=VALUE, with * and ?")
	f.StringSliceVar(&n.Serials, "serials", nil, "only these: serial numbers with * and ?, or FROM..TO")
	f.StringVar(&until, "until", "", "end of the registration: a day (its end, UTC) or a time")
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(ca.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// parseUntil reads a time, or a day, whose end is meant.
func parseUntil(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	t, err := ca.ParseTime(s)
	if err != nil {
		return t, fmt.Errorf("%q is neither a day such as 2031-12-31 nor a time such as 2031-12-31T12:00:00Z", s)
	}
	return t, nil
}

// manufacturer prints one entry.
func (o output) manufacturer(m admin.Manufacturer) error {
	return o.print(m, func(fact func(name, value string)) {
		fact("manufacturer", m.Name)
		fact("format", m.Format)
		fact("level", m.Level)
		fact("state", o.manufacturerState(m))
		for _, c := range m.Anchors {
			fact("anchor", c.Subject)
			fact("  until", o.when(c.NotAfter))
			fact("  sha256", c.SHA256)
		}
		for _, l := range m.Lists {
			fact("crl", l.Issuer)
			fact("  number", l.Number)
			fact("  from", o.when(l.ThisUpdate))
			fact("  until", o.when(l.NextUpdate))
			fact("  entries", fmt.Sprint(l.Entries))
			fact("  sha256", l.SHA256)
		}
		fact("models", strings.Join(m.Constraints.Models, " "))
		fact("serials", strings.Join(m.Constraints.Serials, " "))
		fact("until", o.when(m.Constraints.NotAfter))
		fact("created", o.when(m.Created))
	})
}

func (o output) manufacturerState(m admin.Manufacturer) string {
	switch end := m.Constraints.NotAfter; {
	case m.Withdrawn != nil:
		return "withdrawn " + instant(*m.Withdrawn)
	case !end.IsZero() && !o.now.Before(end):
		return "ended"
	}
	for _, l := range m.Lists {
		if o.now.After(l.NextUpdate) {
			return "in force, crl ended"
		}
	}
	return "in force"
}

func (a *app) manufacturerList() *cobra.Command {
	return withJSON(&cobra.Command{
		Use: "list", Short: "List manufacturers, withdrawn ones included",
		Example: "  deviceca manufacturer list\n  deviceca manufacturer list --json", Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				found, err := c.Manufacturers(ctx)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return list(o, all(found), []string{"NAME", "FORMAT", "LEVEL", "STATE", "ANCHORS"}, func(m admin.Manufacturer) []string {
					var subjects []string
					for _, c := range m.Anchors {
						subjects = append(subjects, c.Subject)
					}
					return []string{m.Name, m.Format, m.Level, o.manufacturerState(m), strings.Join(subjects, "; ")}
				})
			})
		},
	})
}

func (a *app) manufacturerShow() *cobra.Command {
	var asPEM bool
	cmd := withJSON(&cobra.Command{
		Use: "show NAME", Short: "Show what is registered of a manufacturer",
		Example:           "  deviceca manufacturer show acme\n  deviceca manufacturer show acme --pem > anchors.pem",
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeManufacturers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				entries, err := c.Manufacturer(ctx, args[0])
				if err != nil {
					return err
				}
				o := a.output(cmd)
				if o.json {
					return o.writeJSON(entries)
				}
				for i, m := range entries {
					if asPEM {
						for _, c := range m.Anchors {
							fmt.Fprint(o.w, c.PEM)
						}
						continue
					}
					if i > 0 {
						fmt.Fprintln(o.w)
					}
					if err := o.manufacturer(m); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
	cmd.Flags().BoolVar(&asPEM, "pem", false, "print the anchors in PEM")
	return cmd
}

func (a *app) manufacturerWithdraw() *cobra.Command {
	var format string
	cmd := withJSON(&cobra.Command{
		Use:   "withdraw NAME",
		Short: "Stop taking a manufacturer's word, at once",
		Long: `Stop taking a manufacturer's word, at once. Certificates that its devices have from
this CA stay; retire the devices, or revoke the certificates, to end those too.`,
		Example:           "  deviceca manufacturer withdraw acme\n  deviceca manufacturer withdraw acme --format idevid",
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeManufacturers,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.WithdrawManufacturer(ctx, args[0], format); err != nil {
					return err
				}
				return a.output(cmd).done("withdrawn", args[0])
			})
		},
	})
	cmd.Flags().StringVar(&format, "format", "", "of this format only; all of its formats if not given")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(ca.Formats(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) completeManufacturers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) (names []string) {
		found, err := c.Manufacturers(ctx)
		if err != nil {
			return nil
		}
		for _, m := range found {
			if m.Withdrawn == nil {
				names = append(names, m.Name)
			}
		}
		return names
	})
}
