package main

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) credentialCommand() *cobra.Command {
	return a.target(group("credential", "Enrolment credentials of devices and groups",
		a.credentialAdd(), a.credentialList(), a.credentialRevoke()))
}

func (a *app) credentialAdd() *cobra.Command {
	var n admin.NewCredential
	var ttl time.Duration
	cmd := withJSON(&cobra.Command{
		Use:   "add {--device ID | --group NAME --names GLOB --level LEVEL}",
		Short: "Make a credential for a device, or for a group of devices",
		Long: `Make an enrolment credential, for a device of the inventory or for a group: each
device that enrols with a group's credential enters the inventory then. --names
takes device IDs with * and ?, more than once or separated by commas.`,
		Example: `  deviceca credential add --device lamp-1
  deviceca credential add --group lamps --names 'lamp-*' --level software --uses 1000 --ttl 720h --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case (n.Device == "") == (n.Group == ""):
				return usagef("give either --device or --group")
			case n.Device != "" && (len(n.Names) > 0 || n.Level != ""):
				return usagef("--names and --level are for --group: a device's credential has the device's own")
			}
			if n.Group != "" {
				if err := need(cmd, "level"); err != nil {
					return err
				}
				if len(n.Names) == 0 {
					return usagef("--names is missing")
				}
			}
			for _, glob := range n.Names {
				if err := device.CheckGlob(glob); err != nil {
					return usagef("--names: %w", err)
				}
			}
			if err := checkGrantFlags(n.Uses, ttl); err != nil {
				return err
			}
			n.TTL = admin.Duration(ttl)
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				grant, err := c.AddCredential(ctx, n)
				if err != nil {
					return err
				}
				return a.printGrant(cmd, grant)
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&n.Device, "device", "", "device ID")
	f.StringVar(&n.Group, "group", "", "name of the group")
	f.StringSliceVar(&n.Names, "names", nil, "device IDs that the group may have, with * and ?")
	f.StringVar(&n.Level, "level", "", "trust level of the group's devices")
	grantFlags(cmd, &n.Uses, &ttl)
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	return cmd
}

func (a *app) credentialList() *cobra.Command {
	var f ca.CredentialFilter
	var after string
	var limit int
	var win windowFlags
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List credentials, without their secrets",
		Example: `  deviceca credential list --newest --limit 20
  deviceca credential list --group lamps
  deviceca credential list --device lamp-1 --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit cannot be negative")
			}
			var err error
			if f.Window, err = a.window(cmd, &win); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				return a.output(cmd).credentials(c.Credentials(ctx, f, after, limit))
			})
		},
	})
	cmd.Flags().StringVar(&f.Device, "device", "", "of this device")
	cmd.Flags().StringVar(&f.Group, "group", "", "of this group")
	win.add(cmd)
	pageFlags(cmd, &after, &limit)
	return cmd
}

func (o output) credentials(items iter.Seq2[device.Credential, error]) error {
	columns := []string{"REFERENCE", "FOR", "LEVEL", "USED", "STATE", "EXPIRES"}
	return list(o, items, columns, func(c device.Credential) []string {
		of := c.Device
		if of == "" {
			of = c.Group + " (" + strings.Join(c.Names, " ") + ")"
		}
		state := "usable"
		switch {
		case c.Revoked != nil:
			state = "revoked"
		case c.Spent():
			state = "spent"
		case c.Usable(o.now) != nil:
			state = "expired"
		}
		return []string{c.Reference, of, c.Level, fmt.Sprintf("%d/%d", c.Used, c.Uses), state, o.when(c.Expires)}
	})
}

func (a *app) credentialRevoke() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "revoke REFERENCE",
		Short:   "End a credential; certificates it brought stay",
		Example: `  deviceca credential revoke k3f5o2lq7xwzmb4a`,
		Args:    takes("REFERENCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if err := c.RevokeCredential(ctx, args[0]); err != nil {
					return err
				}
				return a.output(cmd).done("revoked", args[0])
			})
		},
	})
}
