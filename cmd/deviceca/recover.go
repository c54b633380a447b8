package main

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/deviceca/deviceca/internal/admin"
)

func (a *app) recoverCommand() *cobra.Command {
	var in admin.Recovery
	var notAfter string
	cmd := a.target(withJSON(&cobra.Command{
		Use:   "recover [--crl FILE]… [--pack FILE]… [--log FILE]… [--acknowledge TEXT]",
		Short: "Bring a restored CA up to date, and open it",
		Long: `A CA that was restored from a backup is closed: devices get 503, OCSP answers tryLater
except for what is revoked, and no CRL or pack is published. Since the backup, certificates may have
been revoked, devices suspended, credentials used and administrators removed.

Give recover what was published or posted since: CRLs and revocation packs of this CA, and
events in JSON (bodies of webhook posts, or the output of audit export). It enters what takes
trust away: revocations, suspensions, uses. It gives nothing back, and may be repeated.
Then say with --acknowledge what you know of the rest. That opens the CA, and the audit
log keeps it. Without files and --acknowledge it says how things stand. It works on the CA's host alone.`,
		Example: `  deviceca recover --crl issuing-1.crl --crl issuing-1-delta.crl --pack issuing-1.cbor --log hooks.ndjson --dry-run
  deviceca recover --crl issuing-1.crl --log hooks.ndjson
  deviceca recover --acknowledge "backup made at shutdown, nothing was issued since"`,
		Args: takes(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "a restored CA is opened on its host"); err != nil {
				return err
			}
			var err error
			if in.NotAfter, err = parseTime("not-after", notAfter); err != nil {
				return err
			}
			if in.DryRun && in.Acknowledge != "" {
				return usagef("--dry-run and --acknowledge exclude each other")
			}
			if cmd.Flags().Changed("acknowledge") && in.Acknowledge == "" {
				return usagef("--acknowledge takes a text: what you know of the time since the backup")
			}
			for _, files := range [][]string{in.CRLs, in.Packs, in.Logs} {
				for i := range files {
					if files[i], err = filepath.Abs(files[i]); err != nil {
						return err
					}
				}
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				report, err := c.Recover(ctx, in)
				if err != nil {
					return err
				}
				return a.output(cmd).recovery(report, in.DryRun)
			})
		},
	}))
	f := cmd.Flags()
	f.StringArrayVar(&in.CRLs, "crl", nil, "CRL of this CA, complete or delta, PEM or DER; may be repeated")
	f.StringArrayVar(&in.Packs, "pack", nil, "revocation pack, full or delta; may be repeated")
	f.StringArrayVar(&in.Logs, "log", nil, "events in JSON; may be repeated")
	f.StringVar(&notAfter, "not-after", "", "when the last certificate ends that was issued since the backup (RFC 3339; default: with its CA)")
	f.BoolVar(&in.DryRun, "dry-run", false, "say what would be entered, and enter nothing")
	f.StringVar(&in.Acknowledge, "acknowledge", "", "open the CA; the text says what you know of the time since the backup")
	return cmd
}

func (o output) recovery(r *admin.RecoveryReport, dry bool) error {
	err := o.print(r, func(fact func(name, value string)) {
		state := "open"
		if r.Closed {
			state = "closed"
		}
		fact("state", state)
		fact("backup of", o.when(r.Snapshot))
		fact("instance", r.Instance)
		for _, what := range slices.Sorted(maps.Keys(r.Counts)) {
			fact(factName(what), fmt.Sprint(r.Counts[what]))
		}
		name := "entered"
		if dry {
			name = "would enter"
		}
		for _, line := range r.Entered {
			fact(name, line)
		}
		for _, line := range r.Passed {
			fact("passed over", line)
		}
	})
	if err == nil && r.Closed {
		o.note("the CA is closed; give what was published or posted since the backup with --crl, --pack and --log, then open it with --acknowledge TEXT")
	}
	return err
}
