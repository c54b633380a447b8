package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/admin"
	"github.com/spf13/cobra"
)

// bulkWorkers is how many devices are worked on at once: the ledger commits what comes together
// in one transaction.
const bulkWorkers = 16

// shownDry is how many devices a dry run names.
const shownDry = 20

// act is what a command does to a device.
type act struct {
	verb string
	// able and already say whether a device as it is can be, or is already, what the act makes of it.
	able, already func(device.Device) bool
	do            func(ctx context.Context, c *admin.Client, id string) (revoked int, err error)
	gone          bool // a device that is not there counts as done
}

// chosen says which devices a command means.
type chosen struct {
	ids    []string
	file   string
	filter device.Filter
	match  string
	dry    bool
}

// filtered reports whether the inventory is searched for the devices.
func (ch *chosen) filtered() bool { return ch.filter != (device.Filter{}) || ch.match != "" }

// one reports whether the command is about the one device named.
func (ch *chosen) one() bool { return len(ch.ids) == 1 && !ch.dry }

// flags adds those that choose; set and remove have no filter.
func (ch *chosen) flags(cmd *cobra.Command, filter bool) {
	cmd.Flags().StringVar(&ch.file, "file", "", `file of device IDs, one to a line, or CSV or JSON with an "id" ("-": standard input)`)
	cmd.Flags().BoolVar(&ch.dry, "dry-run", false, "change nothing, and say what would be changed")
	if filter {
		deviceFilter(cmd, &ch.filter)
		cmd.Flags().StringVar(&ch.match, "match", "", "whose ID matches this pattern with * and ?, without case")
	}
}

// check refuses what does not say which devices are meant.
func (ch *chosen) check(args []string, filter bool) error {
	ways := 0
	for _, given := range []bool{len(args) > 0, ch.file != "", ch.filtered()} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0 && filter:
		return &usageError{errors.New("ID is missing"), "name devices, or choose them with --file, --level, --group, --state, --prefix or --match"}
	case ways == 0:
		return &usageError{errors.New("ID is missing"), "name devices, or give a file of IDs with --file"}
	case ways > 1:
		return usagef("name devices, or give --file, or choose them by their properties: one of these")
	}
	if ch.match != "" {
		if err := device.CheckGlob(ch.match); err != nil {
			return usagef("--match: %w", err)
		}
	}
	ch.ids = args
	return nil
}

// target is a device that was chosen. device is nil where only its ID is known.
type target struct {
	admin.ImportLine
	device *device.Device
}

// targets gives the devices one by one; bad gets lines of the file that cannot be read.
func (ch *chosen) targets(ctx context.Context, c *admin.Client, in io.Reader, bad func(admin.ImportFailure)) iter.Seq2[target, error] {
	return func(yield func(target, error) bool) {
		switch {
		case ch.file != "":
			for line, err := range readIDs(in, bad) {
				if !yield(target{ImportLine: line}, err) {
					return
				}
			}
		case len(ch.ids) > 0:
			for _, id := range ch.ids {
				if !yield(target{ImportLine: admin.ImportLine{ID: id}}, nil) {
					return
				}
			}
		default:
			f := ch.filter
			if f.Prefix == "" { // narrows what is read
				f.Prefix, _, _ = strings.Cut(ch.match, "*")
				f.Prefix = f.Prefix[:min(len(f.Prefix), indexOrEnd(f.Prefix, `?[\`))]
			}
			for d, err := range c.Devices(ctx, f, "", 0) {
				if ok, _ := path.Match(device.Fold(ch.match), device.Fold(d.ID)); err == nil && ch.match != "" && !ok {
					continue
				}
				if !yield(target{admin.ImportLine{ID: d.ID}, &d}, err) {
					return
				}
			}
		}
	}
}

func indexOrEnd(s, chars string) int {
	if i := strings.IndexAny(s, chars); i >= 0 {
		return i
	}
	return len(s)
}

// bulkCounts is the answer of a bulk command.
type bulkCounts struct {
	DryRun  bool  `json:"dry_run,omitempty"`
	Chosen  int64 `json:"chosen"`
	Done    int64 `json:"done"`    // with dry_run: would be
	Already int64 `json:"already"` // were so before
	Passed  int64 `json:"passed"`  // chosen by a property, and in a state that does not allow it
	Failed  int64 `json:"failed"`
	Revoked int64 `json:"revoked"` // certificates
}

func (n bulkCounts) String() string {
	return fmt.Sprintf("%d chosen, %d done, %d already, %d passed over, %d failed", n.Chosen, n.Done, n.Already, n.Passed, n.Failed)
}

// bulk runs an act on many devices.
type bulk struct {
	act
	o      output
	c      *admin.Client
	dry    bool
	file   string // for messages
	now    func() time.Time
	mu     sync.Mutex
	counts bulkCounts
	said   time.Time // when progress was
	shown  int       // lines of a dry run
}

// runBulk does it to all that are chosen, reports on stderr as it goes, and prints the counts.
func (a *app) runBulk(ctx context.Context, cmd *cobra.Command, c *admin.Client, ch *chosen, do act) error {
	in, name, err := openInput(cmd, cmp.Or(ch.file, "-"))
	if err != nil {
		return err
	}
	defer in.Close()
	b := &bulk{act: do, o: a.output(cmd), c: c, dry: ch.dry, file: name, now: a.now, said: a.now()}
	b.counts.DryRun = ch.dry
	bad := func(f admin.ImportFailure) { b.failed(admin.ImportLine{Line: f.Line, ID: f.ID}, errors.New(f.Error)) }
	err = inParallel(ctx, bulkWorkers, ch.targets(ctx, c, in, bad), b.work)
	if err != nil {
		b.o.note("%s", b.counts)
		return hinted(err, "what is done stays done: run it again for the rest")
	}
	err = b.o.print(b.counts, func(fact func(name, value string)) {
		done := "done"
		if ch.dry {
			done = "would " + do.verb
		}
		fact("chosen", fmt.Sprint(b.counts.Chosen))
		fact(done, fmt.Sprint(b.counts.Done))
		fact("already", fmt.Sprint(b.counts.Already))
		fact("passed over", fmt.Sprint(b.counts.Passed))
		fact("failed", fmt.Sprint(b.counts.Failed))
		if b.counts.Revoked > 0 {
			fact("revoked", fmt.Sprintf("%d certificates", b.counts.Revoked))
		}
	})
	if err == nil && b.counts.Failed > 0 {
		return fmt.Errorf("%s failed for %d of %d devices", do.verb, b.counts.Failed, b.counts.Chosen)
	}
	return err
}

// work does it to one device. Its error ends the whole.
func (b *bulk) work(ctx context.Context, t target) error {
	if t.device == nil && b.dry {
		d, err := b.c.Device(ctx, t.ID)
		if err != nil {
			return b.refused(ctx, t, err)
		}
		t.device = &d.Device
	}
	if d := t.device; d != nil {
		switch {
		case b.already(*d):
			b.count(&b.counts.Already)
			return nil
		case !b.able(*d) && t.Line == 0 && !b.dry:
			b.count(&b.counts.Passed)
			return nil
		case !b.able(*d):
			b.count(&b.counts.Passed)
			b.note("%s is %s: passed over", d.ID, d.State)
			return nil
		case b.dry:
			b.would(*d)
			return nil
		}
	}
	revoked, err := b.do(ctx, b.c, t.ID)
	if err != nil {
		return b.refused(ctx, t, err)
	}
	b.mu.Lock()
	b.counts.Revoked += int64(revoked)
	b.mu.Unlock()
	b.count(&b.counts.Done)
	return nil
}

// refused counts a device that it could not be done to; other errors end the whole.
func (b *bulk) refused(ctx context.Context, t target, err error) error {
	switch kindOf(err) {
	case ca.NotFound.String():
		if b.gone {
			b.count(&b.counts.Already)
			return nil
		}
	case ca.Conflict.String():
		if d, readErr := b.c.Device(ctx, t.ID); readErr == nil && b.already(d.Device) {
			b.count(&b.counts.Already)
			return nil
		}
	case ca.Malformed.String():
	default:
		return err
	}
	b.failed(t.ImportLine, err)
	return nil
}

func kindOf(err error) string {
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		return p.Kind
	}
	return ""
}

func (b *bulk) failed(l admin.ImportLine, err error) {
	b.count(&b.counts.Failed)
	at := l.ID
	if l.Line > 0 {
		at = strings.TrimSuffix(fmt.Sprintf("%s:%d: %s", b.file, l.Line, l.ID), ": ")
	}
	b.note("%s: %s", at, err)
}

// count counts a device, and says how far it is once a second.
func (b *bulk) count(which *int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.Chosen++
	*which++
	if now := b.now(); now.Sub(b.said) >= time.Second {
		b.said = now
		b.o.note("%s", b.counts)
	}
}

func (b *bulk) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.o.note(format, args...)
}

func (b *bulk) would(d device.Device) {
	b.count(&b.counts.Done)
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.shown++; {
	case b.shown <= shownDry:
		b.o.note("would %s %s (%s)", b.verb, d.ID, d.State)
	case b.shown == shownDry+1:
		b.o.note("… and more")
	}
}

// inParallel does something to items as they come, to some at once. The first error ends it, and is returned
// when all that had begun is over.
func inParallel[T any](ctx context.Context, at int, items iter.Seq2[T, error], do func(context.Context, T) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	work := make(chan T)
	var all sync.WaitGroup
	for range at {
		all.Go(func() {
			for item := range work {
				if err := do(ctx, item); err != nil {
					stop(err)
				}
			}
		})
	}
	for item, err := range items {
		if err != nil {
			stop(err)
			break
		}
		select {
		case work <- item:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(work)
	all.Wait()
	return context.Cause(ctx)
}
