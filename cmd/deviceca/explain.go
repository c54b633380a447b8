package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/policy"
	"github.com/spf13/cobra"
)

func (a *app) policyExplain() *cobra.Command {
	var in policy.Input
	var names, evidence []string
	var version string
	cmd := withJSON(&cobra.Command{
		Use:   "explain {SERIAL | --level LEVEL --protocol P --requester KIND …}",
		Short: "Say why a request is answered as it is",
		Long: `Decide again what a certificate was issued on, by the policy that decided then, or what a
hypothetical request would earn by the policy in force, and show every rule tried with
the values that decided. Nothing is issued. --policy decides by another version (see
policy list), in-force for the one in force.

Without --id a request is decided for a device called any-device. --name takes FORM=VALUE
(dns, uri, ip, email, subject.cn, …), and needs the ID, which names are held against.
--evidence takes KIND:FACT=VALUE,…; both may be given more than once. A value may be
JSON (true, 7, "text"), a duration with its unit (90s, 30d), a time (RFC 3339) or else text.`,
		Example: `  deviceca policy explain $SERIAL
  deviceca policy explain --level software --protocol est --requester credential
  deviceca policy explain --id lamp-1 --protocol est --requester certificate --profile gateway \
    --key ecdsa-p256 --name dns=lamp-1 --evidence tpm:ek_chain=true,quote_age=30s
  deviceca policy explain $SERIAL --policy in-force`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("unexpected argument %q", args[1])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return a.explainSerial(cmd, args[0], version)
			}
			if in.Device.ID == "" && len(names) > 0 {
				return usagef("--id is missing beside --name: names are held against the device's ID")
			}
			if in.Device.ID == "" {
				if err := need(cmd, "level"); err != nil {
					return err
				}
			}
			if err := need(cmd, "protocol", "requester"); err != nil {
				return err
			}
			for _, n := range names {
				form, value, ok := strings.Cut(n, "=")
				if !ok || form == "" {
					return usagef("--name: %q is not FORM=VALUE", n)
				}
				in.Names = append(in.Names, policy.Name{Form: form, Value: value})
			}
			for _, text := range evidence {
				e, err := parseEvidence(text)
				if err != nil {
					return err
				}
				in.Evidence = append(in.Evidence, e)
				in.Verifiable = append(in.Verifiable, e.Kind) // what if it were verified
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				x, err := c.Explain(ctx, in, version)
				if err != nil {
					return err
				}
				return a.output(cmd).explanation(x)
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&in.Device.Level, "level", "", "trust level (default: that of --id)")
	f.StringVar(&in.Device.ID, "id", "", "device ID; one of the inventory brings its level, group and state")
	f.StringVar(&in.Device.Group, "group", "", "group of the device")
	f.StringVar(&in.Protocol, "protocol", "", "est, acme or cmp")
	f.StringVar((*string)(&in.Requester), "requester", "", "credential, certificate, quarantine, idevid or ra")
	f.StringVar(&in.Operation, "operation", "", "enroll or renew (default: renew if the requester is certificate or quarantine)")
	f.StringVar(&version, "policy", "", "version to decide by, or in-force (default: the one that decided on SERIAL, else the one in force)")
	f.StringVar(&in.Profile, "profile", "", "profile asked for (default: the level's first)")
	f.StringVar(&in.Key, "key", "ecdsa-p256", "kind of key asked for: ecdsa-p256, rsa-3072, …")
	f.StringArrayVar(&names, "name", nil, "name asked for, FORM=VALUE")
	f.StringArrayVar(&evidence, "evidence", nil, "verified evidence, KIND:FACT=VALUE,…")
	cmd.RegisterFlagCompletionFunc("level", a.completeLevels)
	cmd.RegisterFlagCompletionFunc("profile", a.completeProfiles)
	cmd.RegisterFlagCompletionFunc("id", a.completeDevices)
	return cmd
}

func (a *app) explainSerial(cmd *cobra.Command, text, version string) error {
	serial, err := parseSerial(text)
	if err != nil {
		return err
	}
	return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
		x, err := c.Replay(ctx, serial, version)
		if err != nil {
			return err
		}
		return a.output(cmd).explanation(x)
	})
}

// parseEvidence reads "tpm:ek_chain=true,quote_age=30s".
func parseEvidence(text string) (policy.Evidence, error) {
	kind, rest, _ := strings.Cut(text, ":")
	e := policy.Evidence{Kind: kind, Facts: map[string]any{}}
	if kind == "" || strings.Contains(kind, "=") {
		return e, usagef("--evidence: %q is not KIND:FACT=VALUE,…", text)
	}
	if rest == "" {
		return e, nil
	}
	for pair := range strings.SplitSeq(rest, ",") {
		fact, value, ok := strings.Cut(pair, "=")
		if !ok || fact == "" {
			return e, usagef("--evidence: %q is not FACT=VALUE", pair)
		}
		e.Facts[fact] = parseFact(value)
	}
	return e, nil
}

// parseFact reads a value of evidence. Durations and times are facts of their own types, which conditions compare with
// duration("5m") and timestamp(…).
func parseFact(text string) any {
	var v any
	if json.Unmarshal([]byte(text), &v) == nil {
		return v
	}
	if d, err := policy.ParseDuration(text); err == nil {
		return d
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t
	}
	return text
}

// explanation prints the rules in the order they were tried, then the outcome.
func (o output) explanation(x *admin.Explanation) error {
	if o.json {
		return o.writeJSON(x)
	}
	for _, note := range x.Notes {
		o.note("%s", note)
	}
	if len(x.Notes) == 0 && x.Stored != nil && x.Stored.Version != x.Decision.Version {
		o.note("issued by policy %s; decided again by %s", x.Stored.Version, x.Decision.Version)
	}
	for _, step := range x.Trace {
		mark := "no   "
		if step.Matched {
			mark = "match"
		}
		fmt.Fprintf(o.w, "%s  %s\n", mark, step.Rule)
		if step.Expr != "" {
			fmt.Fprintf(o.w, "         when  %s\n", step.Expr)
		}
		for _, name := range slices.Sorted(maps.Keys(step.Values)) {
			fmt.Fprintf(o.w, "         %s = %s\n", name, step.Values[name])
		}
		if step.Note != "" {
			fmt.Fprintf(o.w, "         %s\n", step.Note)
		}
	}
	if len(x.Trace) > 0 {
		fmt.Fprintln(o.w)
	}
	return o.print(x, func(fact func(name, value string)) {
		decisionFacts(x.Decision, fact)
		if s := x.Stored; s != nil && (s.Outcome != x.Decision.Outcome || s.Rule != x.Decision.Rule || s.Profile != x.Decision.Profile) {
			fact("was", fmt.Sprintf("%s by rule %q, profile %s", s.Outcome, s.Rule, s.Profile))
		}
	})
}

func decisionFacts(d policy.Decision, fact func(name, value string)) {
	fact("outcome", string(d.Outcome))
	fact("rule", d.Rule)
	fact("level", d.Level)
	fact("profile", d.Profile)
	if d.Validity > 0 {
		fact("validity", policy.FormatDuration(d.Validity))
	}
	if d.Revoke {
		fact("revokes", "the device's certificates")
	}
	fact("policy", d.Version)
	for _, reason := range d.Reasons {
		fact("because", reason)
	}
}
