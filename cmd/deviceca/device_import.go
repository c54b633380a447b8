package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

func (a *app) deviceImport() *cobra.Command {
	var credentials string
	var uses int
	var ttl time.Duration
	cmd := withJSON(&cobra.Command{
		Use:   "import FILE",
		Short: "Enter many devices from CSV or JSON",
		Long: `Enter devices from a file or from standard input ("-"):

  CSV    a first line "id,level" with "group" and "state" (claimed or manufactured) if wanted, in any order
  JSON   an array of {"id","level","group","state"}, or one such object per line

The state is "claimed" unless given. Devices that are in the inventory already are
counted and left as they are, so that an import that was cut off is simply run
again. Where one of them has another level or group than the file says, that is told with its line; correct it
with: deviceca device set. Failures name their line; the exit status is 1 if there were any, or differences.

With --credentials, each device of the file that waits for its first certificate gets a credential, which is appended
to that file (readable by its owner only) as a line of the JSON that device add --json prints. Devices that are in it
already get no second one. If the command is killed between making a credential and writing it, the next run makes
another; the lost one is listed by credential list, and ends after --ttl.`,
		Example: `  deviceca device import devices.csv
  deviceca device import devices.csv --credentials secrets.ndjson --ttl 30d
  zcat devices.ndjson.gz | deviceca device import - --json`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if credentials == "" && (cmd.Flags().Changed("uses") || cmd.Flags().Changed("ttl")) {
				return usagef("--uses and --ttl are for --credentials")
			}
			if credentials != "" && args[0] == "-" {
				return usagef("with --credentials the devices are read twice: give a file in place of standard input")
			}
			if err := checkGrantFlags(uses, ttl); err != nil {
				return err
			}
			in, name, err := openInput(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				if credentials == "" {
					return a.runImport(ctx, cmd, c, in, name, nil)
				}
				grants, err := openGrants(credentials)
				if err != nil {
					return err
				}
				err = a.runImport(ctx, cmd, c, in, name, func() (n grantCounts, err error) {
					again, err := os.Open(args[0])
					if err != nil {
						return n, err
					}
					defer again.Close()
					return a.makeGrants(ctx, c, a.output(cmd), again, grants, uses, ttl)
				})
				return errors.Join(err, grants.Close())
			})
		},
	})
	cmd.Flags().StringVar(&credentials, "credentials", "", "make a credential for each device, and append them to this file")
	grantFlags(cmd, &uses, &ttl)
	return cmd
}

// runImport sends the file, reports on stderr as it goes, has credentials made if there is a way to, and prints the counts.
func (a *app) runImport(ctx context.Context, cmd *cobra.Command, c *admin.Client, in io.Reader, name string, grants func() (grantCounts, error)) error {
	o := a.output(cmd)
	var local atomic.Int64 // lines that cannot be read here
	var saying sync.Mutex  // the file is read beside the answers
	say := func(format string, args ...any) {
		saying.Lock()
		defer saying.Unlock()
		o.note(format, args...)
	}
	bad := func(f admin.ImportFailure) {
		local.Add(1)
		say("%s:%d: %s", name, f.Line, f.Error)
	}
	last := a.now()
	progress := func(n admin.ImportCounts) {
		say("%d read, %d added, %d there already, %d of them different, %d failed", n.Read, n.Added, n.There, n.Differ, n.Failed)
	}
	var answer struct {
		admin.ImportCounts
		Credentials *grantCounts `json:"credentials,omitempty"`
		Warnings    []string     `json:"warnings,omitempty"`
	}
	counts, err := c.Import(ctx, readDevices(in, bad), func(r admin.ImportReport) {
		switch {
		case r.Failure != nil:
			say("%s:%d: %s: %s", name, r.Failure.Line, r.Failure.ID, r.Failure.Error)
		case r.Difference != nil:
			say("%s:%d: %s is there, and the file would change its %s", name, r.Difference.Line, r.Difference.ID, r.Difference.Error)
		case r.Done != nil:
			answer.Warnings = r.Warnings
		case r.Progress != nil && a.now().Sub(last) >= time.Second:
			last = a.now()
			progress(*r.Progress)
		}
	})
	if err != nil {
		progress(counts)
		return fmt.Errorf("%s: %w", name, err)
	}
	o.warn(answer.Warnings)
	counts.Read += local.Load()
	counts.Failed += local.Load()
	answer.ImportCounts = counts
	if grants != nil {
		made, err := grants()
		if err != nil {
			progress(counts)
			o.note("%s", made)
			return hinted(err, "what is done stays done: run it again for the rest")
		}
		answer.Credentials = &made
	}
	err = o.print(answer, func(fact func(name, value string)) {
		fact("read", fmt.Sprint(counts.Read))
		fact("added", fmt.Sprint(counts.Added))
		fact("there", fmt.Sprint(counts.There))
		if counts.Differ > 0 {
			fact("different", fmt.Sprint(counts.Differ))
		}
		fact("failed", fmt.Sprint(counts.Failed))
		if n := answer.Credentials; n != nil {
			fact("credentials", n.String())
		}
	})
	switch {
	case err != nil:
	case counts.Failed > 0:
		return hinted(fmt.Errorf("%d of %d devices were not entered", counts.Failed, counts.Read), "mend their lines and run the import again")
	case counts.Differ > 0:
		return hinted(fmt.Errorf("%d of %d devices: the inventory has another level or group", counts.Differ, counts.Read), "correct them with: deviceca device set ID --level LEVEL; or mend the file")
	}
	return err
}
