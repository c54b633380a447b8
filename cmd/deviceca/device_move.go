package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

// chooseHelp is told by every command that takes many devices.
const chooseHelp = `

Of many devices: name them, give a file of their IDs (--file), or choose them by level, group, state, beginning (--prefix) or pattern
(--match); what is given must all be true of a device. Those chosen so whose state does not allow it are passed over. Progress and failures
go to stderr, the counts to stdout; the exit status is 1 if one failed. What was cut off is run again.`

func in(states ...device.State) func(device.Device) bool {
	return func(d device.Device) bool {
		for _, s := range states {
			if d.State == s {
				return true
			}
		}
		return false
	}
}

func (a *app) deviceClaim() *cobra.Command {
	return a.deviceMove("claim", "Let a device that was entered as manufactured enrol", "",
		"  deviceca device claim A1000\n  deviceca device claim --file delivery-7.csv\n  deviceca device claim --match 'A1*' --dry-run",
		in(device.Manufactured), in(device.Claimed, device.Active), (*admin.Client).Claim)
}

func (a *app) deviceSuspend() *cobra.Command {
	return a.deviceMove("suspend", "Bar a device from every protocol until it is resumed", "",
		"  deviceca device suspend lamp-1\n  deviceca device suspend --group hall --dry-run",
		in(device.Claimed, device.Active), in(device.Suspended), (*admin.Client).Suspend)
}

func (a *app) deviceResume() *cobra.Command {
	return a.deviceMove("resume", "End the suspension of a device", "The device is then what it was before: active, or claimed if it never had a certificate.",
		"  deviceca device resume lamp-1\n  deviceca device resume --group hall",
		in(device.Suspended), in(device.Claimed, device.Active), (*admin.Client).Resume)
}

func (a *app) deviceRetire() *cobra.Command {
	var reason string
	var yes bool
	cmd := a.deviceMove("retire", "Bar a device for good and revoke its certificates", "There is no way back: to retire devices that are chosen by their properties takes --yes.",
		"  deviceca device retire lamp-1\n  deviceca device retire lamp-1 --reason keyCompromise\n  deviceca device retire --file scrapped.txt\n  deviceca device retire --group hall --yes",
		func(d device.Device) bool { return d.State != device.Retired }, in(device.Retired),
		func(c *admin.Client, ctx context.Context, id string) (*admin.Moved, error) {
			return c.Retire(ctx, id, reason)
		})
	cmd.Flags().StringVar(&reason, "reason", "cessationOfOperation", "why its certificates are revoked (RFC 5280 §5.3.1)")
	cmd.Flags().BoolVar(&yes, "yes", false, "retire devices that are chosen by their properties")
	cmd.RegisterFlagCompletionFunc("reason", completeReasons)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		f := cmd.Flags()
		if len(args) == 0 && !f.Changed("file") && !f.Changed("dry-run") && !yes && f.NFlag() > 0 {
			for _, name := range []string{"level", "group", "state", "prefix", "match"} {
				if f.Changed(name) {
					return &usageError{errors.New("--yes is missing: retired devices do not come back"), "see which they are with --dry-run"}
				}
			}
		}
		return checkReason(reason)
	}
	return cmd
}

func (a *app) deviceMove(verb, short, long, example string, able, already func(device.Device) bool, move func(*admin.Client, context.Context, string) (*admin.Moved, error)) *cobra.Command {
	ch := &chosen{}
	if long == "" {
		long = short + "."
	} else {
		long = short + ". " + long
	}
	cmd := withJSON(&cobra.Command{
		Use: verb + " {ID… | --file FILE | --group GROUP …}", Short: short, Long: long + chooseHelp, Example: example,
		Args:              func(_ *cobra.Command, args []string) error { return ch.check(args, true) },
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if ch.one() {
					m, err := move(c, ctx, args[0])
					if err != nil {
						return err
					}
					return a.output(cmd).moved(m)
				}
				return a.runBulk(ctx, cmd, c, ch, act{verb: verb, able: able, already: already,
					do: func(ctx context.Context, c *admin.Client, id string) (int, error) {
						m, err := move(c, ctx, id)
						if err != nil {
							return 0, err
						}
						return max(m.Total, len(m.Revoked)), nil
					}})
			})
		},
	})
	ch.flags(cmd, true)
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	cmd.RegisterFlagCompletionFunc("state", completeStates)
	return cmd
}

func (o output) moved(m *admin.Moved) error {
	return o.print(m, func(fact func(name, value string)) {
		fact("device", m.Device.ID)
		fact("state", string(m.Device.State))
		for _, cert := range m.Revoked {
			fact("revoked", cert.Serial.String())
		}
		if more := m.Total - len(m.Revoked); more > 0 {
			fact("revoked", fmt.Sprintf("%d more; list them with: deviceca cert list --device %s --revoked", more, m.Device.ID))
		}
	})
}

func (a *app) deviceSet() *cobra.Command {
	ch := &chosen{}
	var level, group string
	cmd := withJSON(&cobra.Command{
		Use:   "set {ID… | --file FILE} [--level LEVEL] [--group GROUP]",
		Short: "Correct a device's trust level or group",
		Long: `Correct the trust level or the group that a device was entered with; --group '' takes it out of its group.
Policy decides by the new ones from the next request on, and the device's credentials have the new level at once.
What the device has waiting for approval is void: it asks again. Certificates that it has stay as they are: after a
level that was too high, revoke them with: deviceca cert revoke. A manufacturer vouches only for devices of the level
that it is registered with, and a registration authority only for its levels. The audit log has the change as
device.changed. An ID does not change: remove the device, if it never had a certificate, and add it with the right one.`,
		Example: `  deviceca device set lamp-1 --level software
  deviceca device set --file hall.txt --group hall`,
		Args:              func(_ *cobra.Command, args []string) error { return ch.check(args, false) },
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			var change device.Change
			if cmd.Flags().Changed("level") {
				change.Level = &level
			}
			if cmd.Flags().Changed("group") {
				change.Group = &group
			}
			if change == (device.Change{}) {
				return usagef("--level or --group is missing")
			}
			if change.Level != nil && level == "" {
				return usagef("--level cannot be empty")
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error { return a.runSet(ctx, cmd, c, ch, change) })
		},
	})
	ch.flags(cmd, false)
	cmd.Flags().StringVar(&level, "level", "", "trust level that it should have")
	cmd.Flags().StringVar(&group, "group", "", "group that it should be in")
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	return cmd
}

func (a *app) runSet(ctx context.Context, cmd *cobra.Command, c *admin.Client, ch *chosen, change device.Change) error {
	o := a.output(cmd)
	if ch.one() {
		d, err := c.SetDevice(ctx, ch.ids[0], change)
		if err != nil {
			return err
		}
		o.warn(d.Warnings)
		return o.print(d, func(fact func(name, value string)) {
			fact("device", d.ID)
			fact("level", d.Level)
			fact("group", d.Group)
			fact("state", string(d.State))
		})
	}
	var warned warnOnce
	return a.runBulk(ctx, cmd, c, ch, act{verb: "change",
		able:    func(d device.Device) bool { return d.State != device.Retired },
		already: func(d device.Device) bool { return !change.Apply(&d) },
		do: func(ctx context.Context, c *admin.Client, id string) (int, error) {
			d, err := c.SetDevice(ctx, id, change)
			if err == nil {
				warned.say(o, d.Warnings)
			}
			return 0, err
		}})
}

func (a *app) deviceRemove() *cobra.Command {
	ch := &chosen{}
	cmd := withJSON(&cobra.Command{
		Use:   "remove {ID… | --file FILE}",
		Short: "Take a device that never had a certificate out of the inventory",
		Long: `Take a device that was entered by mistake out of the inventory. Its credentials end, and so does what it has
waiting for approval. A device that ever had a certificate stays on record: retire it instead. The audit log has
device.removed.`,
		Example: `  deviceca device remove lmap-1
  deviceca device remove --file wrong.csv --dry-run`,
		Args:              func(_ *cobra.Command, args []string) error { return ch.check(args, false) },
		ValidArgsFunction: a.completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if ch.one() {
					if err := c.RemoveDevice(ctx, args[0]); err != nil {
						return err
					}
					return a.output(cmd).done("removed", args[0])
				}
				return a.runBulk(ctx, cmd, c, ch, act{verb: "remove", gone: true,
					able:    func(d device.Device) bool { return d.State != device.Active },
					already: func(device.Device) bool { return false },
					do: func(ctx context.Context, c *admin.Client, id string) (int, error) {
						return 0, c.RemoveDevice(ctx, id)
					}})
			})
		},
	})
	ch.flags(cmd, false)
	return cmd
}
