package main

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/policy"
	"github.com/spf13/cobra"
)

func (a *app) policyCommand() *cobra.Command {
	return a.target(group("policy", "The rules that decide what a device earns",
		a.policyCheck(), a.policyApply(), a.policyList(), a.policyShow(), a.policyExplain()))
}

func (a *app) policyCheck() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a policy file",
		Long: `Read a policy file and report every fault with its line. No server is asked: each profile is compiled
and linted with a sample certificate under a CA that is made for that alone, as a server does when it starts.
Levels that demand evidence which no protocol of this version verifies are no fault, and get a warning.`,
		Example: `  deviceca policy check policy.yaml
  deviceca policy check policy.yaml --json`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			o := a.output(cmd)
			p, err := policy.Parse(args[0], raw)
			if err == nil {
				err = ca.CheckPolicy(cmd.Context(), p)
			}
			if err != nil {
				return o.policyFaults(err)
			}
			sum := admin.PolicySummary{Version: p.Version(), Levels: p.Levels(), Profiles: p.Profiles(), Warnings: p.Unverifiable(verifiable())}
			o.warn(sum.Warnings)
			return o.print(sum, func(fact func(name, value string)) { summaryFacts(sum, fact) })
		},
	})
}

// policyFaults prints each fault: as JSON it is the answer, in words an error.
func (o output) policyFaults(err error) error {
	faults, ok := errors.AsType[policy.Faults](err)
	if p, isProblem := errors.AsType[*admin.Problem](err); isProblem {
		faults, ok = p.Faults, len(p.Faults) > 0
	}
	if !ok {
		return err
	}
	if o.json {
		if err := o.writeJSON(struct {
			Faults policy.Faults `json:"faults"`
		}{faults}); err != nil {
			return err
		}
		return errReported
	}
	o.note("%s", faults.Error())
	if len(faults) == 1 {
		o.note("deviceca: 1 fault")
	} else {
		o.note("deviceca: %d faults", len(faults))
	}
	return errReported
}

func summaryFacts(sum admin.PolicySummary, fact func(name, value string)) {
	fact("version", sum.Version)
	fact("levels", strings.Join(sum.Levels, " "))
	fact("profiles", strings.Join(sum.Profiles, " "))
}

func (a *app) policyApply() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "apply FILE",
		Short:   "Put a policy in force; a bad one changes nothing",
		Example: `  deviceca policy apply policy.yaml`,
		Args:    takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				o := a.output(cmd)
				sum, err := c.ApplyPolicy(ctx, args[0], string(raw))
				if err != nil {
					return o.policyFaults(err)
				}
				o.warn(sum.Warnings)
				return o.print(sum, func(fact func(name, value string)) { summaryFacts(*sum, fact) })
			})
		},
	})
}

func (a *app) policyList() *cobra.Command {
	var after string
	var limit int
	cmd := withJSON(&cobra.Command{
		Use:   "list",
		Short: "List the policies that are or were in force",
		Long: `List the policies that are or were in force, in the order in which they first were. Each is kept in the ledger: with
policy apply, on SIGHUP, and at start if the file was edited.`,
		Example: `  deviceca policy list
  deviceca policy list --json`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit cannot be negative")
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				return list(a.output(cmd), c.Policies(ctx, after, limit), []string{"VERSION", "FIRST IN FORCE", "LAST PUT IN FORCE", "SHA-256"}, func(v ca.PolicyVersion) []string {
					return []string{v.Version, instant(v.First), instant(v.Last), v.SHA256}
				})
			})
		},
	})
	pageFlags(cmd, &after, &limit)
	return cmd
}

func (a *app) policyShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "show [VERSION]",
		Short: "Print the policy in force, or one that was",
		Example: `  deviceca policy show > policy.yaml
  deviceca policy show v1-0123456789ab`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completePolicies,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				o := a.output(cmd)
				if len(args) == 1 {
					v, err := c.PolicyVersion(ctx, args[0])
					if err != nil {
						return err
					}
					return o.policySource(v, v.Source, v.Version)
				}
				p, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				return o.policySource(p, p.Source, p.Version)
			})
		},
	})
}

// policySource prints a policy: its file on stdout, and its version beside it.
func (o output) policySource(v any, source, version string) error {
	if o.json {
		return o.writeJSON(v)
	}
	if _, err := io.WriteString(o.w, source); err != nil {
		return err
	}
	o.note("version %s", version)
	return nil
}

func (a *app) completePolicies(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.ask(cmd, func(ctx context.Context, c *admin.Client) (versions []string) {
		for v, err := range c.Policies(ctx, "", completionLimit) {
			if err != nil {
				break
			}
			versions = append(versions, v.Version)
		}
		return versions
	})
}
