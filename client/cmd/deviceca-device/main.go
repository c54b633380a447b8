// Command deviceca-device gets a certificate for the device that it runs on, and
// keeps it current. It is one static file without dependencies.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/deviceca/deviceca/client"
)

const usage = `Usage:
  deviceca-device enroll -server URL -id ID -dir DIR [flags]   get a certificate, or renew it when due
  deviceca-device watch  -server URL -id ID -dir DIR [flags]   the same, for ever
  deviceca-device show   -dir DIR [-json]                      what there is

The first contact needs -roots FILE (or over EST -root-sha256 HEX), and a credential:
  DEVICECA_SECRET=… deviceca-device enroll -server https://ca.example:8443 \
      -id sensor-17 -dir /var/lib/device/tls -reference R -root-sha256 HEX

Over ACME, with a name that the CA wants to see proven (it asks at port 80 of the name):
  deviceca-device enroll -protocol acme -server https://ca.example:8443 -roots root.pem \
      -id gw-1 -dir /var/lib/device/tls -reference R -secret-file FILE -dns gw-1.example -http01 :80

The secret comes from -secret-file or the environment variable DEVICECA_SECRET.
"deviceca-device enroll -h" lists the flags.
`

// Exit statuses.
const (
	done   = 0
	failed = 1
	misuse = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// run is main with its surroundings given, and returns the exit status.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return misuse
	}
	switch args[0] {
	case "enroll", "watch", "show":
	case "help", "-h", "--help", "-help":
		fmt.Fprint(stdout, usage)
		return done
	default:
		fmt.Fprintf(stderr, "deviceca-device: no command %q\nhint: use enroll, watch or show\n", args[0])
		return misuse
	}
	o, err := parse(args[0], args[1:], getenv, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return done
	}
	if err != nil {
		return report(stderr, err)
	}
	switch args[0] {
	case "show":
		result, err := client.Show(o.config)
		if errors.Is(err, client.ErrNoIdentity) {
			err = &client.Error{Kind: client.Local, Text: "there is no certificate in " + o.config.Dir, Hint: "get one with: deviceca-device enroll"}
		}
		if err != nil {
			return report(stderr, err)
		}
		return show(stdout, stderr, result, o.json)
	case "watch":
		o.config.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
		agent := client.Agent{Config: o.config}
		if o.hook != "" {
			agent.Hook = client.CommandHook(o.hook, stderr)
		}
		if err := agent.Watch(ctx); ctx.Err() == nil {
			return report(stderr, err)
		}
		return done // told to stop
	}
	result, err := client.Run(ctx, o.config)
	if err != nil {
		return report(stderr, err)
	}
	return show(stdout, stderr, result, o.json)
}

// report prints an error and its hint, and returns the status that it deserves.
func report(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "deviceca-device: %s\n", strings.ReplaceAll(err.Error(), "\n", "\n  then: "))
	if hint := client.HintOf(err); hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	if client.KindOf(err) == client.Usage {
		return misuse
	}
	return failed
}

func show(stdout, stderr io.Writer, r client.Result, asJSON bool) int {
	if asJSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		if err := e.Encode(r); err != nil {
			return report(stderr, err)
		}
		return done
	}
	date := func(t time.Time) string { return t.Format(time.RFC3339) }
	fmt.Fprintf(stdout, "%s: %s, serial %s\n", r.Action, r.Device, r.Serial)
	fmt.Fprintf(stdout, "valid %s to %s, renewal at %s\n", date(r.NotBefore), date(r.NotAfter), date(r.RenewAt))
	if r.Outcome != "" && r.Outcome != "issue" {
		fmt.Fprintf(stdout, "outcome %s: %s\n", r.Outcome, strings.Join(r.Reasons, "; "))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(stderr, "warning: %s\n", w)
	}
	fmt.Fprintf(stdout, "certificate %s\n", r.Files.FullChain)
	if r.Files.Key != "" {
		fmt.Fprintf(stdout, "key         %s\n", r.Files.Key)
	}
	return done
}
