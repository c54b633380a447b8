package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) requestCommand() *cobra.Command {
	return a.target(group("request", "Requests that wait for an administrator's approval",
		a.requestList(), a.requestShow(), a.requestApprove(), a.requestDeny()))
}

func (a *app) requestList() *cobra.Command {
	var f ca.PendingFilter
	var after, state string
	var limit int
	var win windowFlags
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List requests, oldest first, or newest first with --newest",
		Long: `List requests of profiles that say "approval: true". A request waits until it is
approved or denied, is issued when the device fetches its certificate, and
expires after approval.lifetime, or with the credential that it was made with.`,
		Example: `  deviceca request list --newest --since 7d
  deviceca request list --state waiting
  deviceca request list --device lamp-1 --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.State = ca.PendingState(state)
			switch {
			case limit < 0:
				return usagef("--limit cannot be negative")
			case state != "" && !slices.Contains(ca.PendingStates(), f.State):
				return usagef("--state: %q is not one of %s", state, strings.Join(requestStates(), ", "))
			}
			var err error
			if f.Window, err = a.window(cmd, &win); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				o := a.output(cmd)
				columns := []string{"ID", "DEVICE", "PROFILE", "STATE", "REQUESTER", "ASKED", "EXPIRES"}
				return list(o, c.Requests(ctx, f, after, limit), columns, func(p ca.PendingRequest) []string {
					return []string{strconv.FormatInt(p.ID, 10), p.Device, p.Profile, string(p.State), p.Requester, o.when(p.Created), o.when(p.Expires)}
				})
			})
		},
	})
	cmd.Flags().StringVar(&state, "state", "", "in this state: "+strings.Join(requestStates(), ", "))
	cmd.Flags().StringVar(&f.Device, "device", "", "of this device")
	win.add(cmd)
	pageFlags(cmd, &after, &limit)
	cmd.RegisterFlagCompletionFunc("state", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return requestStates(), cobra.ShellCompDirectiveNoFileComp
	})
	cmd.RegisterFlagCompletionFunc("device", a.completeDevices)
	return cmd
}

func requestStates() (names []string) {
	for _, s := range ca.PendingStates() {
		names = append(names, string(s))
	}
	return names
}

func (a *app) requestShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "show ID",
		Short: "Show what a device asks for, and what policy says to it",
		Example: `  deviceca request show 7
  deviceca request show 7 --json`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := parseRequests(args)
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				p, err := c.Request(ctx, ids[0])
				if err != nil {
					return err
				}
				o := a.output(cmd)
				return o.print(p, func(fact func(name, value string)) { o.requestFacts(p, fact) })
			})
		},
	})
}

func (o output) requestFacts(p *ca.PendingRequest, fact func(name, value string)) {
	fact("request", strconv.FormatInt(p.ID, 10))
	fact("state", string(p.State))
	fact("device", p.Device)
	fact("level", p.Level)
	fact("profile", p.Profile)
	for _, n := range p.Names {
		fact("name", n.Form+" "+strconv.Quote(n.Value)) // a device chose it
	}
	fact("key", p.Algorithm)
	fact("key SHA-256", p.KeySHA256)
	fact("operation", p.Operation+" over "+p.Protocol)
	fact("requester", p.Requester+" ("+p.Actor+")")
	fact("address", p.Address)
	fact("asked", o.when(p.Created))
	fact("expires", o.when(p.Expires))
	fact("outcome", string(p.Decision.Outcome))
	fact("rule", p.Decision.Rule)
	fact("policy", p.Decision.Version)
	for _, reason := range p.Decision.Reasons {
		fact("because", reason)
	}
	if p.Decided != nil {
		fact("decided", o.when(*p.Decided))
		fact("by", p.By)
		fact("reason", p.Reason)
	}
	if !p.Serial.IsZero() {
		fact("serial", p.Serial.String())
	}
}

func (a *app) requestApprove() *cobra.Command {
	cmd := a.requestDecide(true)
	cmd.Use, cmd.Short = "approve ID…", "Let devices have what they asked for"
	cmd.Long = `Approve requests: each device gets its certificate when it asks next, if policy
still grants it. An approval is good for one certificate, and for that key, those
names and that requester only.`
	cmd.Example = `  deviceca request approve 7
  deviceca request approve 7 8 9 --reason "batch 2030-01 on the dock"`
	return cmd
}

func (a *app) requestDeny() *cobra.Command {
	cmd := a.requestDecide(false)
	cmd.Use, cmd.Short = "deny ID… --reason TEXT", "Refuse devices what they asked for"
	cmd.Long = `Deny requests. The devices are told the reason each time they ask, until the
request expires.`
	cmd.Example = `  deviceca request deny 7 --reason "this unit was scrapped"`
	return cmd
}

// requestDecide decides on all requests named, and fails if one could not be.
func (a *app) requestDecide(approve bool) *cobra.Command {
	var reason string
	cmd := withJSON(&cobra.Command{
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("ID is missing")
			}
			return nil
		},
		ValidArgsFunction: a.completeRequests,
		RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := parseRequests(args)
			if err != nil {
				return err
			}
			if !approve {
				if err := need(cmd, "reason"); err != nil {
					return err
				}
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				var decided []ca.PendingRequest
				var failed []error
				for _, id := range ids {
					if p, err := c.DecideRequest(ctx, id, approve, reason); err != nil {
						failed = append(failed, err)
					} else {
						decided = append(decided, *p)
					}
				}
				if len(decided) == 0 {
					return errors.Join(failed...)
				}
				columns := []string{"ID", "DEVICE", "PROFILE", "STATE"}
				err := list(a.output(cmd), all(decided), columns, func(p ca.PendingRequest) []string {
					return []string{strconv.FormatInt(p.ID, 10), p.Device, p.Profile, string(p.State)}
				})
				return errors.Join(append(failed, err)...)
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why: kept with the request, and told to a device that is denied")
	return cmd
}

func parseRequests(args []string) ([]int64, error) {
	ids := make([]int64, len(args))
	for i, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || id < 1 {
			return nil, &usageError{fmt.Errorf("%q is not the number of a request", arg), "list them with: deviceca request list"}
		}
		ids[i] = id
	}
	return ids, nil
}

// completeRequests offers what waits.
func (a *app) completeRequests(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) (ids []string) {
		for p, err := range c.Requests(ctx, ca.PendingFilter{State: ca.PendingWaiting}, "", completionLimit) {
			if err != nil {
				break
			}
			if id := strconv.FormatInt(p.ID, 10); strings.HasPrefix(id, begun) && !slices.Contains(args, id) {
				ids = append(ids, id+"\t"+p.Device)
			}
		}
		return ids
	})
}

// ApprovalConfig is about requests that an administrator must approve.
type ApprovalConfig struct {
	RetryAfter time.Duration `yaml:"retry_after" doc:"How long a device is told to wait before it asks again whether its request is approved."`
	Lifetime   time.Duration `yaml:"lifetime" doc:"How long a request is kept for approval and for the device to fetch its certificate, at most; a credential's own end comes first."`
	MaxWaiting int           `yaml:"max_waiting" doc:"Requests that wait for approval at once, of all devices; of one device it is 4."`
	// MaxPerRequester comes last: the struct is ca.ApprovalOptions.
	MaxPerRequester int `yaml:"max_per_requester" doc:"Requests that wait for approval at once, of one credential with the accounts bound to it, registration authority or manufacturer. 0: a tenth of max_waiting, and no less than 4."`
}

func (c ApprovalConfig) check(fault func(key, format string, args ...any)) {
	if c.RetryAfter < time.Second || c.RetryAfter > 24*time.Hour {
		fault("approval.retry_after", "%s is not between 1s and 24h", c.RetryAfter)
	}
	if c.Lifetime < time.Minute || c.Lifetime > 365*24*time.Hour {
		fault("approval.lifetime", "%s is not between 1m and 8760h", c.Lifetime)
	}
	if c.MaxWaiting < 1 || c.MaxWaiting > 100_000 {
		fault("approval.max_waiting", "%d is not between 1 and 100000", c.MaxWaiting)
	}
	if c.MaxPerRequester < 0 || c.MaxPerRequester > c.MaxWaiting {
		fault("approval.max_per_requester", "%d is not between 0 and approval.max_waiting, %d", c.MaxPerRequester, c.MaxWaiting)
	}
}
