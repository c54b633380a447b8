package main

import (
	"context"
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
	return withJSON(&cobra.Command{
		Use:   "import FILE",
		Short: "Enter many devices from CSV or JSON",
		Long: `Enter devices, without credentials, from a file or from standard input ("-"):

  CSV    a first line "id,level" with "group" and "state" if wanted, in any order
  JSON   an array of {"id","level","group","state"}, or one such object per line

The state is "claimed" unless given. Devices that are in the inventory already are
counted and left as they are, so that an import that was cut off is simply run
again. Failures name their line; the exit status is 1 if there were any.`,
		Example: `  deviceca device import devices.csv
  zcat devices.ndjson.gz | deviceca device import - --json`,
		Args: takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, name := io.NopCloser(cmd.InOrStdin()), "standard input"
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				in, name = file, args[0]
			}
			defer in.Close()
			return a.with(cmd, func(ctx context.Context, c *admin.Client) error {
				return a.runImport(ctx, cmd, c, in, name)
			})
		},
	})
}

// runImport sends the file, reports on stderr as it goes, and prints the counts.
func (a *app) runImport(ctx context.Context, cmd *cobra.Command, c *admin.Client, in io.Reader, name string) error {
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
	counts, err := c.Import(ctx, readDevices(in, bad), func(r admin.ImportReport) {
		switch {
		case r.Failure != nil:
			say("%s:%d: %s: %s", name, r.Failure.Line, r.Failure.ID, r.Failure.Error)
		case r.Progress != nil && a.now().Sub(last) >= time.Second:
			last = a.now()
			say("%d read, %d added, %d there already, %d failed", r.Progress.Read, r.Progress.Added, r.Progress.There, r.Progress.Failed)
		}
	})
	if err != nil {
		say("%d read, %d added, %d there already, %d failed", counts.Read, counts.Added, counts.There, counts.Failed)
		return fmt.Errorf("%s: %w", name, err)
	}
	counts.Read += local.Load()
	counts.Failed += local.Load()
	err = o.print(counts, func(fact func(name, value string)) {
		fact("read", fmt.Sprint(counts.Read))
		fact("added", fmt.Sprint(counts.Added))
		fact("there", fmt.Sprint(counts.There))
		fact("failed", fmt.Sprint(counts.Failed))
	})
	if err == nil && counts.Failed > 0 {
		return hinted(fmt.Errorf("%d of %d devices were not entered", counts.Failed, counts.Read), "mend their lines and run the import again")
	}
	return err
}
