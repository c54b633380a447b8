package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/policy"
	"github.com/spf13/cobra"
)

func (a *app) policyCommand() *cobra.Command {
	return a.target(group("policy", "The rules that decide what a device earns",
		a.policyCheck(), a.policyApply(), a.policyShow(), a.policyExplain()))
}

func (a *app) policyCheck() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:   "check FILE",
		Short: "Say everything that is wrong with a policy file",
		Long: `Read a policy file and report every fault with its line. No server is asked.
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

func (a *app) policyShow() *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "show",
		Short:   "Print the policy in force",
		Example: `  deviceca policy show > policy.yaml`,
		Args:    takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				p, err := c.Policy(ctx)
				if err != nil {
					return err
				}
				o := a.output(cmd)
				if o.json {
					return o.writeJSON(p)
				}
				if _, err := io.WriteString(o.w, p.Source); err != nil {
					return err
				}
				fmt.Fprintf(o.errs, "version %s\n", p.Version)
				return nil
			})
		},
	})
}
