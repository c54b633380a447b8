package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) accountCommand() *cobra.Command {
	return a.target(group("account", "ACME accounts", a.accountList(), a.accountShow(), a.accountDeactivate()))
}

func (a *app) accountList() *cobra.Command {
	var f ca.AccountFilter
	var after string
	var limit int
	var win windowFlags
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List ACME accounts, oldest first, or newest first with --newest",
		Example: `  deviceca account list --newest --limit 20
  deviceca account list --status valid
  deviceca account list --device lamp-1 --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case limit < 0:
				return usagef("--limit cannot be negative")
			case f.Status != "" && !slices.Contains(ca.AccountStatuses(), f.Status):
				return usagef("--status: %q is not one of %s", f.Status, strings.Join(ca.AccountStatuses(), ", "))
			}
			var err error
			if f.Window, err = a.window(cmd, &win); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				o := a.output(cmd)
				return list(o, c.Accounts(ctx, f, after, limit), []string{"ID", "STATUS", "DEVICE", "CREDENTIAL", "CREATED"}, func(acc ca.Account) []string {
					return []string{strconv.FormatInt(acc.ID, 10), acc.Status, acc.Device, acc.Credential, o.when(acc.Created)}
				})
			})
		},
	})
	cmd.Flags().StringVar(&f.Status, "status", "", "with this status: "+strings.Join(ca.AccountStatuses(), ", "))
	cmd.Flags().StringVar(&f.Device, "device", "", "bound to the credential of this device")
	cmd.Flags().StringVar(&f.Credential, "credential", "", "bound to this credential")
	win.add(cmd)
	pageFlags(cmd, &after, &limit)
	cmd.RegisterFlagCompletionFunc("status", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return ca.AccountStatuses(), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	return cmd
}

func (a *app) accountShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "show ID",
		Short:   "Show an ACME account",
		Example: `  deviceca account show 7`,
		Args:    takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				acc, err := c.Account(ctx, id)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return o.print(acc, func(fact func(name, value string)) {
					fact("account", strconv.FormatInt(acc.ID, 10))
					fact("status", acc.Status)
					fact("device", acc.Device)
					fact("credential", acc.Credential)
					for _, contact := range acc.Contact {
						fact("contact", contact)
					}
					fact("created", o.when(acc.Created))
				})
			})
		},
	})
}

func (a *app) accountDeactivate() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "deactivate ID",
		Short: "Refuse an ACME account from now on",
		Long: `Deactivate an ACME account, for good: nothing that its key signs is accepted any
more. Certificates that it got stay; revoke them with: deviceca cert revoke.
To end all accounts of a credential, revoke the credential.`,
		Example: `  deviceca account deactivate 7`,
		Args:    takes("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.DeactivateAccount(ctx, id); err != nil {
					return err
				}
				return a.output(cmd).done("deactivated", args[0])
			})
		},
	})
}

func parseAccount(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id < 1 {
		return 0, &usageError{fmt.Errorf("%q is not the number of an account", arg), "list them with: deviceca account list"}
	}
	return id, nil
}
