package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/spf13/cobra"
)

func (a *app) auditVerify() *cobra.Command {
	var files []string
	cmd := withJSON(&cobra.Command{
		Use: "verify", Short: "Check that nothing in the audit log was changed or cut off", Args: takes(),
		Long: `Check the whole audit log: that it is one chain, that the token's signatures are over
it, and that every certificate, revocation and release in the ledger has its event, and
every event its record. Somebody who can write to the ledger could also cut the log off
before its newest signatures; only heads that were kept elsewhere show that. --head reads them:
lines of audit-heads.log (audit.heads_file), or bodies that the webhook posted.`,
		Example: `  deviceca audit verify
  deviceca audit verify --head /mnt/other-host/audit-heads.log --head webhook-bodies.ndjson`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				o := a.output(cmd)
				report, err := verifyAudit(ctx, c, files, o)
				if err != nil {
					return err
				}
				if report.Fault == "" {
					report.NotChecked = notChecked(report)
				}
				if err := o.print(report, func(fact func(name, value string)) { auditFacts(o, report, fact) }); err != nil || report.Fault == "" {
					return err
				}
				return hinted(errors.New(report.Fault), "keep the ledger as it is, and compare it with a backup; see \"The audit log\" in docs/operations.md")
			})
		},
	})
	cmd.Flags().StringArrayVar(&files, "head", nil, "file with signed heads that the log must have (repeatable)")
	return cmd
}

// verifyAudit holds the log against the heads of files, and has it checked whole.
func verifyAudit(ctx context.Context, c *admin.Client, files []string, o output) (*admin.AuditReport, error) {
	var given []admin.AuditHeads
	fault := ""
	for _, file := range files {
		heads, wrong, err := checkHeads(ctx, c, file)
		if err != nil {
			return nil, err
		}
		if given = append(given, heads); fault == "" && wrong != "" {
			fault = file + ": " + wrong
		}
	}
	report, err := c.VerifyAudit(ctx, func(p admin.AuditProgress) {
		if p.Done > 0 {
			o.note("%d of %d entries", p.Done, p.Of)
		}
	})
	if err != nil {
		return nil, err
	}
	report.Heads = append(report.Heads, given...)
	if fault != "" {
		report.Fault = fault // what else is wrong follows from it
	}
	return report, nil
}

// checkHeads holds the log against one file, until a head is not in the log.
func checkHeads(ctx context.Context, c *admin.Client, file string) (read admin.AuditHeads, fault string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return read, "", hinted(err, "name a file with heads of the audit log: lines of audit-heads.log, or bodies that the webhook posted")
	}
	defer f.Close()
	read.File = file
	var some []audit.Checkpoint
	flush := func() error {
		if len(some) == 0 || fault != "" {
			return nil
		}
		checked, err := c.CheckHeads(ctx, some)
		if err == nil {
			fault, some = checked.Fault, some[:0]
		}
		return err
	}
	read.Without, err = audit.ReadHeads(f, func(h audit.Checkpoint) error {
		read.Add(h)
		if some = append(some, h); len(some) < admin.MaxHeads {
			return nil
		}
		err := flush()
		some = some[:0]
		return err
	})
	if err == nil {
		err = flush()
	}
	if err == nil && read.Heads == 0 {
		err = hinted(fmt.Errorf("there is no head of an audit log in %s", file), "give lines of audit-heads.log, or bodies that the webhook posted")
	}
	return read, fault, err
}

func auditFacts(o output, report *admin.AuditReport, fact func(name, value string)) {
	fact("events", fmt.Sprint(report.Events))
	if report.Dropped > 0 {
		fact("dropped", fmt.Sprintf("%d, by age", report.Dropped))
	}
	fact("entries", fmt.Sprintf("%d to %d", report.First, report.Last))
	fact("head", report.Head)
	fact("checkpoints", fmt.Sprint(report.Checkpoints))
	if report.SignedAt != nil {
		fact("signed", fmt.Sprintf("up to entry %d, %s", report.Signed, o.when(*report.SignedAt)))
	}
	fact("certificates", fmt.Sprint(report.Certificates))
	fact("revocations", fmt.Sprint(report.Revocations))
	for _, h := range report.Heads {
		value := fmt.Sprintf("%d in %s, the newest of entry %d, %s", h.Heads, h.File, h.Newest, o.when(h.NewestAt))
		if h.Without > 0 {
			value += fmt.Sprintf("; %d lines have none", h.Without)
		}
		fact("heads", value)
	}
	for _, what := range report.NotChecked {
		fact("not checked", what)
	}
}

// notChecked says what a report does not prove.
func notChecked(r *admin.AuditReport) (what []string) {
	say := func(format string, args ...any) { what = append(what, fmt.Sprintf(format, args...)) }
	var own, elsewhere *admin.AuditHeads
	for i := range r.Heads {
		if h := &r.Heads[i]; h.Own {
			own = h
		} else if elsewhere == nil || h.Newest > elsewhere.Newest {
			elsewhere = h
		}
	}
	switch {
	case elsewhere != nil:
		if r.Last > elsewhere.Newest {
			say("whether entries after %d were cut off: no newer head was given", elsewhere.Newest)
		}
	case own != nil:
		say("whether the log was cut off by somebody who can write to %s too: give heads that were kept elsewhere (--head)", own.File)
	default:
		say("whether the log was cut off: there are no heads to hold it against (--head)")
	}
	if r.Last > r.Signed {
		say("entries %d to %d against forgery: they are newer than the newest signature", r.Signed+1, r.Last)
	}
	if r.Unnamed > 0 {
		say("of %d revocations which certificates they are of: their events name the device alone", r.Unnamed)
	}
	if r.Unchecked > 0 {
		say("%d certificates and revocations: their events were dropped by age", r.Unchecked)
	}
	return what
}
