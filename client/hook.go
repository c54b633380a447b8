package client

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// hookTime bounds a hook, so that one that hangs does not end renewal.
const hookTime = 5 * time.Minute

// CommandHook is an Agent's Hook that runs a command: the program of that path, or else a line for the shell. What it should know is in
// its environment (DEVICECA_DEVICE, _SERIAL, _ACTION, _OUTCOME, _CERT, _KEY, _ROOTS); the credential's secret is not. Its
// output goes to out.
func CommandHook(command string, out io.Writer) func(context.Context, Result) error {
	return func(ctx context.Context, r Result) error {
		ctx, cancel := context.WithTimeout(ctx, hookTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, command)
		if _, err := exec.LookPath(command); err != nil {
			cmd = exec.CommandContext(ctx, "/bin/sh", "-c", command)
		}
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = 5 * time.Second
		for _, e := range os.Environ() {
			if !strings.HasPrefix(e, "DEVICECA_SECRET=") {
				cmd.Env = append(cmd.Env, e)
			}
		}
		cmd.Env = append(cmd.Env, "DEVICECA_DEVICE="+r.Device, "DEVICECA_SERIAL="+r.Serial, "DEVICECA_ACTION="+string(r.Action),
			"DEVICECA_OUTCOME="+r.Outcome, "DEVICECA_CERT="+r.Files.FullChain, "DEVICECA_KEY="+r.Files.Key, "DEVICECA_ROOTS="+r.Files.Roots)
		return cmd.Run()
	}
}
