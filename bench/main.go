// Bench measures what an enrolment costs. It starts the built program on a fresh
// home with SoftHSM tokens, drives it as a fleet of devices does, and prints
// rates, latencies and what each certificate took; in the same run, in turns,
// globalsign's estserver under the same load and the token's own signing rate.
//
//	make bench
//	make bench BENCHFLAGS="-rounds 9 -markdown -out bench/out/today.json"
//	go run ./bench -only renew,estserver -duration 5s
//	go run ./bench -only cmp,sign
//	go run ./bench -only acme,pebble,step-ca,sign
//
// It talks to 127.0.0.1 alone, and ends what it started. Rates depend on the
// machine and the hour; the ratios at the end are what to compare.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	program, peer string
	cache         string
	duration      time.Duration
	connections   int
	rounds        int
	only          []string
	out           string
	markdown      bool
	timeout       time.Duration
}

// parts are what -only selects from. The last ones are other servers, whose modules are fetched and
// built when they are asked for by name.
var (
	parts    = append(ownParts, "pebble", "step-ca")
	ownParts = []string{"renew", "estserver", "reenroll", "first", "keygen", "handshake", "resumed", "cmp", "acme", "sign"}
)

func main() {
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.program, "program", "bin/deviceca", "the built `program`")
	f.StringVar(&o.peer, "peer", "interop/globalsign", "the `module` that pins globalsign's estserver")
	f.StringVar(&o.cache, "cache", "bench/out/peers", "`directory` that keeps pebble and step-ca once they are built")
	f.DurationVar(&o.duration, "duration", 3*time.Second, "time of each load in each round, 200ms to 1m")
	f.IntVar(&o.connections, "connections", 32, "devices that enrol at once, 1 to 512")
	f.IntVar(&o.rounds, "rounds", 5, "rounds, 1 to 50; in each every load has one turn, and medians are reported")
	only := f.String("only", "", "`parts` to run, separated by commas, of "+strings.Join(parts, ", "))
	f.StringVar(&o.out, "out", "", "also write every sample to this `file`, as JSON")
	f.BoolVar(&o.markdown, "markdown", false, "print Markdown")
	f.DurationVar(&o.timeout, "timeout", 15*time.Minute, "give up after this long")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.only = ownParts
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, part := range o.only {
		if !slices.Contains(parts, part) {
			return o, fmt.Errorf("-only: there is no part %q; there are %s", part, strings.Join(parts, ", "))
		}
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("%q is too much: there are only flags", f.Arg(0))
	case o.duration < 200*time.Millisecond || o.duration > time.Minute:
		return o, errors.New("-duration: 200ms to 1m")
	case o.connections < 1 || o.connections > 512:
		return o, errors.New("-connections: 1 to 512")
	case o.rounds < 1 || o.rounds > 50:
		return o, errors.New("-rounds: 1 to 50")
	}
	// exec would look for a bare name in PATH.
	o.program, err = filepath.Abs(o.program)
	return o, err
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func bench(ctx context.Context, o options) (err error) {
	if _, err := os.Stat(o.program); err != nil {
		return fmt.Errorf("%w: build it first, with make build", err)
	}
	dir, err := os.MkdirTemp("", "bench") // short: the home holds a Unix socket
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &run{options: o, report: newReport(o), dir: dir}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	for round := range o.rounds {
		if err := b.round(ctx, round); err != nil {
			return err
		}
	}
	if o.out != "" {
		if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
			return err
		}
		if err := b.report.save(o.out); err != nil {
			return err
		}
	}
	return b.report.write(os.Stdout, o.markdown)
}
