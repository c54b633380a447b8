// Command deviceca is a certificate authority for devices: the server, and the
// tools of its administrators and of devices.
//
// main.go builds the command tree, and one file holds each subcommand; wire.go
// puts the server together. Administrative commands have one path, client →
// admin API → core, whether a server runs or not (connect.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Exit statuses, which scripts rely on.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// house is what the composition root gives to the commands. A command whose
// part is nil is not there.
type house struct {
	// open opens a home that no server runs on: takes its lock, opens ledger
	// and token, and gives the admin API's socket handler. close gives all back.
	open func(ctx context.Context, home string) (api http.Handler, close func() error, err error)
	// restore makes a new home out of a backup directory, and returns what its
	// configuration reaches outside of it.
	restore func(ctx context.Context, o restoreOptions) ([]string, error)
	// rootCRL signs a fresh CRL with the root key, which only this command
	// opens, and puts it where the server publishes it.
	rootCRL func(ctx context.Context, home string) ([]RootCRL, error)
	// importCAs completes a home whose root lives elsewhere with the
	// certificates that the root made (files, PEM or DER).
	importCAs func(ctx context.Context, home string, files map[string]string) error
	// initFault lets tests end an init after each of its steps.
	initFault func(step string) error
	// commands makes further subcommands: init, serve.
	commands []func(*app) *cobra.Command
}

// RootCRL describes a CRL that was signed.
type RootCRL struct {
	Root    string    `json:"root"`
	File    string    `json:"file"`
	Number  int64     `json:"number"`
	Revoked int       `json:"revoked"` // entries
	This    time.Time `json:"this_update"`
	Next    time.Time `json:"next_update"`
}

// app is what commands share.
type app struct {
	house
	now    func() time.Time
	getenv func(string) string
}

func main() { os.Exit(process(parts())) }

// process runs the command line of this process until it ends or is interrupted, and returns the exit status.
func process(h house) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, h, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// run is process without the process: it returns the exit status.
func run(ctx context.Context, h house, args []string, in io.Reader, out, errs io.Writer) int {
	a := &app{house: h, now: time.Now, getenv: os.Getenv}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	return report(errs, cmd, err)
}

// root is the command tree.
func (a *app) root() *cobra.Command {
	root := group("deviceca", "A certificate authority for devices",
		a.deviceCommand(), a.credentialCommand(), a.accountCommand(), a.requestCommand(), a.manufacturerCommand(), a.raCommand(), a.certCommand(), a.caCommand(), a.policyCommand(),
		a.adminCommand(), a.backupCommand(), a.recoverCommand(), a.auditCommand(), a.statusCommand(),
		a.crlCommand(), a.ocspCommand(), a.verifyCommand(), a.configCommand(), a.enrollCommand(), a.cmpCommand(), a.versionCommand(), completionCommand())
	root.Long = "deviceca runs a private certificate authority for devices, and administers it."
	root.Example = `  deviceca init --home ./deviceca-data
  deviceca serve --home ./deviceca-data
  deviceca device add --home ./deviceca-data --id lamp-1 --level software`
	root.Version = programVersion()
	root.SetVersionTemplate("deviceca {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err: err}
	})
	if a.restore != nil {
		root.AddCommand(a.restoreCommand())
	}
	for _, make := range a.commands {
		root.AddCommand(make(a))
	}
	return root
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, SuggestionsMinimumDistance: 2}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s needs a subcommand", cmd.CommandPath())
		}
		err := usagef("%s has no subcommand %q", cmd.CommandPath(), args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err.hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return err
	}
	cmd.AddCommand(subs...)
	return cmd
}

// usageError is a command used wrongly: exit status 2.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) *usageError {
	return &usageError{err: fmt.Errorf(format, args...)}
}

// hintError is a failure with what to do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

func hinted(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// errReported fails a command that has said everything already.
var errReported = errors.New("failed")

// report prints an error with its hint and returns the exit status.
func report(w io.Writer, cmd *cobra.Command, err error) int {
	if errors.Is(err, errReported) {
		return exitFailed
	}
	hint, status := hintFor(err), exitFailed
	if e, ok := errors.AsType[*hintError](err); ok {
		hint = e.hint
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		status, hint = exitUsage, e.hint
		if hint == "" {
			hint = "see " + cmd.CommandPath() + " --help"
		}
	}
	fmt.Fprintf(w, "deviceca: %s\n", err)
	if hint != "" {
		fmt.Fprintf(w, "hint: %s\n", hint)
	}
	return status
}

// need is the usage error for flags that a command cannot do without.
func need(cmd *cobra.Command, flags ...string) error {
	for _, name := range flags {
		if f := cmd.Flags().Lookup(name); f.Value.String() == "" {
			return usagef("--%s is missing", name)
		}
	}
	return nil
}

// takes checks that the arguments are as many as their names.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}
