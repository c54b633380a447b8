package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) backupCommand() *cobra.Command {
	return a.target(withJSON(&cobra.Command{
		Use:   "backup DIR",
		Short: "Copy the CA into a new directory, while it serves",
		Long: `Write a consistent copy of the home into a new directory: ledger, tokens, sealing
key, configuration and policy. It holds what the CA's keys are kept with: store it
as safely. This works on the CA's host alone.`,
		Example: `  deviceca backup /backup/deviceca-$(date +%F)`,
		Args:    takes("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.onHost(cmd, "backups are made on the CA's host"); err != nil {
				return err
			}
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				report, err := c.Backup(ctx, dir)
				if p, ok := errors.AsType[*admin.Problem](err); ok && p.Kind == ca.Conflict.String() {
					return hinted(err, "name a directory that does not exist; backups are never written over")
				}
				if err != nil {
					return err
				}
				return a.output(cmd).print(report, func(fact func(name, value string)) {
					fact("backup", report.Dir)
					fact("files", fmt.Sprint(len(report.Files)))
					fact("size", size(report.Bytes))
					for _, file := range report.Outside {
						fact("not in it", file)
					}
				})
			})
		},
	}))
}

// size writes octets in the largest binary unit that leaves a whole part.
func size(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
