package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) auditCommand() *cobra.Command {
	return a.target(group("audit", "The audit log", a.auditList(), a.auditVerify(), a.auditExport()))
}

func (a *app) auditList() *cobra.Command {
	var f admin.EventFilter
	var after int64
	var limit int
	var win windowFlags
	cmd := withJSON(&cobra.Command{
		Use: "list", Short: "List events, oldest first, or newest first with --newest", Args: takes(),
		Example: `  deviceca audit list --newest --limit 100
  deviceca audit list --kind certificate.revoked --device lamp-1 --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 || after < 0 {
				return usagef("--limit and --after cannot be negative")
			}
			var err error
			if f.Window, err = a.window(cmd, &win); err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				columns := []string{"ID", "TIME", "EVENT", "ACTOR", "SUBJECT", "REASON"}
				return list(a.output(cmd), c.AuditEvents(ctx, f, after, limit), columns, auditRow)
			})
		},
	})
	win.add(cmd)
	cmd.Flags().Int64Var(&after, "after", 0, "begin after this event")
	cmd.Flags().StringVar((*string)(&f.Kind), "kind", "", "of this kind, such as certificate.issued")
	cmd.Flags().StringVar(&f.Device, "device", "", "about this device")
	cmd.Flags().IntVar(&limit, "limit", 0, "list at most so many (0: all)")
	return cmd
}

func auditRow(e admin.AuditEvent) []string {
	subject := e.Device
	if !e.Serial.IsZero() {
		subject = strings.TrimSpace(subject + " " + e.Serial.String())
	}
	if subject == "" {
		subject = e.Issuer
	}
	return []string{fmt.Sprint(e.ID), instant(e.Time), string(e.Kind), e.Actor, subject, e.Reason}
}

func (a *app) auditExport() *cobra.Command {
	var after int64
	cmd := withJSON(&cobra.Command{
		Use: "export", Short: "Print every event, one JSON object per line", Args: takes(),
		Example: `  deviceca audit export > audit.ndjson`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				enc := json.NewEncoder(cmd.OutOrStdout())
				for e, err := range c.AuditEvents(ctx, admin.EventFilter{}, after, 0) {
					if err != nil {
						return err
					}
					if err := enc.Encode(e); err != nil {
						return err
					}
				}
				return nil
			})
		},
	})
	cmd.Flags().Int64Var(&after, "after", 0, "begin after this event")
	return cmd
}
