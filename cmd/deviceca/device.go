package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/policy"
	"github.com/spf13/cobra"
)

func (a *app) deviceCommand() *cobra.Command {
	return a.target(group("device", "The inventory of devices",
		a.deviceAdd(), a.deviceList(), a.deviceShow(), a.deviceSet(), a.deviceRemove(), a.deviceClaim(), a.deviceSuspend(), a.deviceResume(), a.deviceRetire(), a.deviceImport()))
}

func (a *app) deviceAdd() *cobra.Command {
	var d admin.NewDevice
	var ttl time.Duration
	cmd := withJSON(&cobra.Command{
		Use:   "add --id ID --level LEVEL",
		Short: "Enter a device, and make the credential it enrols with",
		Long: `Enter a device into the inventory and make the credential for its first
enrolment. The secret is shown once: the CA keeps it sealed.`,
		Example: `  deviceca device add --id lamp-1 --level software
  deviceca device add --id lamp-1 --level software --uses 3 --ttl 48h --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := need(cmd, "id", "level"); err != nil {
				return err
			}
			if err := device.CheckNewID(d.ID); err != nil {
				return usagef("%w", err)
			}
			if err := checkGrantFlags(d.Uses, ttl); err != nil {
				return err
			}
			d.TTL = admin.Duration(ttl)
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				grant, err := c.AddDevice(ctx, d)
				if err != nil {
					return err
				}
				return a.printGrant(cmd, grant)
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&d.ID, "id", "", "device ID: 1 to 64 of A-Z a-z 0-9 . _ : -")
	f.StringVar(&d.Level, "level", "", "trust level of the policy")
	f.StringVar(&d.Group, "group", "", "group of the device, for policy and lists")
	grantFlags(cmd, &d.Uses, &ttl)
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	return cmd
}

// grantFlags are those of every command that makes a credential.
func grantFlags(cmd *cobra.Command, uses *int, ttl *time.Duration) {
	cmd.Flags().IntVar(uses, "uses", 1, "certificates that the credential may bring")
	durationFlag(cmd, ttl, "ttl", 24*time.Hour, "how long the credential may be used")
}

func checkGrantFlags(uses int, ttl time.Duration) error {
	if uses < 1 {
		return usagef("--uses must be at least 1")
	}
	if ttl <= 0 {
		return usagef("--ttl must be positive, for example 24h")
	}
	return nil
}

// deviceFilter adds the flags that select devices.
func deviceFilter(cmd *cobra.Command, f *device.Filter) {
	cmd.Flags().StringVar(&f.Level, "level", "", "of this trust level")
	cmd.Flags().StringVar(&f.Group, "group", "", "of this group")
	cmd.Flags().StringVar((*string)(&f.State), "state", "", "in this state: manufactured, claimed, active, suspended, retired")
	cmd.Flags().StringVar(&f.Prefix, "prefix", "", "whose ID begins so, without case")
}

// windowFlags are --since and --newest. check reads them.
type windowFlags struct {
	since  string
	newest bool
}

func (f *windowFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "nothing older: a time (RFC 3339), a day (UTC), or an age such as 24h or 7d")
	cmd.Flags().BoolVar(&f.newest, "newest", false, "newest first")
}

func (a *app) window(cmd *cobra.Command, f *windowFlags) (w device.Window, err error) {
	w.Newest = f.newest
	if f.since != "" {
		if w.Since, err = parseSince(f.since, a.now()); err != nil {
			return w, err
		}
	}
	if w.Ordered() && cmd.Flags().Changed("after") {
		return w, usagef("--after is for the list in its own order, without --since and --newest")
	}
	return w, nil
}

func parseSince(text string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if age, err := policy.ParseDuration(text); err == nil && age > 0 {
		return now.Add(-age), nil
	}
	return time.Time{}, usagef("--since: %q is neither a time such as 2030-01-31T12:00:00Z, nor a day, nor an age such as 24h or 7d", text)
}

// pageFlags bound a list.
func pageFlags(cmd *cobra.Command, after *string, limit *int) {
	cmd.Flags().StringVar(after, "after", "", "begin after this one")
	cmd.Flags().IntVar(limit, "limit", 0, "list at most so many (0: all)")
}

func (a *app) deviceList() *cobra.Command {
	var f device.Filter
	var after string
	var limit int
	var win windowFlags
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List devices by ID",
		Long:  `List devices in the order of their IDs, or, with --since or --newest, of when they were entered.`,
		Example: `  deviceca device list --newest --limit 20
  deviceca device list --level software
  deviceca device list --state suspended --json`,
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
				return list(a.output(cmd), c.Devices(ctx, f, after, limit), []string{"ID", "LEVEL", "GROUP", "STATE", "CREATED"}, func(d device.Device) []string {
					return []string{d.ID, d.Level, d.Group, string(d.State), instant(d.Created)}
				})
			})
		},
	})
	deviceFilter(cmd, &f)
	win.add(cmd)
	pageFlags(cmd, &after, &limit)
	cmd.RegisterFlagCompletionFunc("state", completeStates)
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	return cmd
}

func (a *app) deviceShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:               "show ID",
		Short:             "Show a device with its certificates and credentials",
		Example:           `  deviceca device show lamp-1`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				d, err := c.Device(ctx, args[0])
				if err != nil {
					return err
				}
				return a.output(cmd).device(d)
			})
		},
	})
}

func (o output) device(d *admin.DeviceDetail) error {
	err := o.print(d, func(fact func(name, value string)) {
		fact("device", d.ID)
		fact("level", d.Level)
		fact("group", d.Group)
		fact("state", string(d.State))
		fact("brought in by", d.Credential)
		fact("created", o.when(d.Created))
		fact("updated", o.when(d.Updated))
	})
	if err != nil || o.json {
		return err
	}
	if len(d.Certificates) > 0 {
		fmt.Fprintln(o.w)
		if err := o.certificates(all(d.Certificates)); err != nil {
			return err
		}
	}
	if len(d.Credentials) > 0 {
		fmt.Fprintln(o.w)
		if err := o.credentials(all(d.Credentials)); err != nil {
			return err
		}
	}
	if d.More {
		o.note("there are more; list them with: deviceca cert list --device %s", d.ID)
	}
	return nil
}

// printGrant shows a new credential, and on stderr what to type next.
func (a *app) printGrant(cmd *cobra.Command, g *ca.Grant) error {
	o := a.output(cmd)
	o.warn(g.Warnings)
	if o.json {
		return o.writeJSON(g)
	}
	err := o.print(g, func(fact func(name, value string)) {
		fact("device", g.ID)
		fact("group", g.Group)
		fact("level", g.Level)
		fact("reference", g.Reference)
		fact("secret", g.Secret)
		fact("acme kid", g.ACME.KID)
		fact("acme key", g.ACME.HMACKey)
		fact("uses", strconv.Itoa(g.Uses))
		fact("expires", o.when(g.Expires))
	})
	if err != nil {
		return err
	}
	a.nextSteps(cmd, o, g)
	return nil
}
