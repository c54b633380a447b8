// Flood measures what an honest device notices while somebody floods the server. It starts the built
// program on a fresh home, has a device enrol over EST again and again, each time on a new connection: first by itself,
// then beside each flood. It prints both latencies and their ratio, and fails if a ratio is above -most.
//
//	make build && go run ./bench/flood
//	go run ./bench/flood -floods pbmac,connections -duration 20s
//
// The floods come from 127.0.0.2, the honest device from 127.0.0.1: the server tells clients apart by address. All of it
// is on one machine, so a part of what the device notices is the CPU that the flood itself takes: the column "client
// CPU" says how much, of the CPUs there are. A flood is one entry of the table in floods.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	program := flag.String("program", "bin/deviceca", "the program, built")
	only := flag.String("floods", "", "the floods, separated by commas; empty: all")
	duration := flag.Duration("duration", 10*time.Second, "of each flood, at most 1m")
	keys := flag.String("keys", "file", "where the CA's keys are: file or softhsm")
	most := flag.Float64("most", 5, "the greatest ratio of medians that passes; 0: any")
	flag.Parse()
	if *duration < time.Second || *duration > time.Minute || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	chosen, err := choose(*only)
	if err == nil {
		err = run(ctx, *program, *keys, chosen, *duration, *most)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func choose(names string) (chosen []flood, err error) {
	if names == "" {
		return floods, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(floods, func(f flood) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no flood %q", name)
		}
		chosen = append(chosen, floods[i])
	}
	return chosen, nil
}

func run(ctx context.Context, program, keys string, chosen []flood, duration time.Duration, most float64) (err error) {
	h, err := startHome(ctx, program, keys)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	honest, err := newHonest(h)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 2, 8, 2, ' ', 0)
	fmt.Fprintln(table, "flood\tquiet p50\tp99\tbeside p50\tp99\tratio p50\tp99\thonest failed\tflood sent\trefused\tserver CPU\tclient CPU\t")
	var over []string
	for _, f := range chosen {
		quiet, err := honest.measure(ctx, duration/2)
		if err != nil {
			return fmt.Errorf("while it is quiet: %w", err)
		}
		attack, err := f.prepare(h)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		beside, cost, count, err := h.besides(ctx, honest, attack, duration)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		ratio := func(a, b time.Duration) float64 { return float64(a) / float64(b) }
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%.1f\t%.1f\t%d\t%d\t%d\t%.2f\t%.2f\t\n", f.name, ms(quiet.at(50)), ms(quiet.at(99)), ms(beside.at(50)), ms(beside.at(99)),
			ratio(beside.at(50), quiet.at(50)), ratio(beside.at(99), quiet.at(99)), beside.failed, count.sent.Load(), count.refused.Load(), cost.server, cost.client)
		if r := ratio(beside.at(50), quiet.at(50)); most > 0 && (r > most || beside.failed > 0) {
			over = append(over, fmt.Sprintf("%s: ratio %.1f, %d honest requests failed (%v)", f.name, r, beside.failed, beside.last))
		}
		table.Flush()
	}
	fmt.Printf("%d CPUs; each figure over %s; keys: %s\n", runtime.NumCPU(), duration, keys)
	if over != nil {
		return fmt.Errorf("an honest device notices more than it may:\n  %s", strings.Join(over, "\n  "))
	}
	return nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
