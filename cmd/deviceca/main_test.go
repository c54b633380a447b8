package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write golden files anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"deviceca": mainWithFaults})
}

// mainWithFaults is main, but that an init ends where DEVICECA_TEST_INIT says: fail:STEP or kill:STEP.
func mainWithFaults() {
	h := parts()
	how, at, _ := strings.Cut(os.Getenv("DEVICECA_TEST_INIT"), ":")
	h.initFault = func(step string) error {
		switch {
		case how == "steps":
			fmt.Fprintln(os.Stderr, "step: "+step)
		case how == "kill" && step == at:
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		case how == "fail" && step == at:
			return errors.New("a fault of the test's")
		}
		return nil
	}
	os.Exit(process(h))
}

// TestScripts runs the command line as a user does, without a CA.
func TestScripts(t *testing.T) { runScripts(t, "testdata") }

func runScripts(t *testing.T, dir string) {
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s (%v)", dir, err)
	}
	testscript.Run(t, testscript.Params{
		Files:               scripts,
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		ContinueOnError:     true,
		Setup: func(env *testscript.Env) error {
			// DEVICECA_* of whoever runs the tests must not get in.
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("TMPDIR", os.TempDir())
			testdata, err := filepath.Abs("testdata")
			if err != nil {
				return err
			}
			env.Setenv("TESTDATA", testdata)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": status, "waitfor": waitFor, "grant": grant, "serial": serial, "fetch": fetch, "state": state,
			"receive": receive, "until": until, "askcrl": askCRL, "tpm": startTPM,
		},
	})
}

// status runs a command and checks its exit status: status CODE COMMAND ARGS…
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND ARGS…")
	}
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(interface{ ExitCode() int })
		if !ok {
			ts.Fatalf("%v: %v", args[1:], err)
		}
		got = string(rune('0' + exit.ExitCode()))
	}
	if got != args[0] {
		ts.Fatalf("%v: exit status %s, want %s", args[1:], got, args[0])
	}
}

// waitFor waits until a file is there: waitfor FILE
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
	}
	ts.Fatalf("%s does not appear", args[0])
}

// fetch waits until a URL gives something, for as long as a revocation may take
// to be published on a loaded machine, and keeps it: fetch URL FILE [OLD]. With OLD it
// waits for something else than that file holds.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	status := ""
	for until := time.Now().Add(15 * time.Second); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get(args[0])
		if err != nil {
			status = err.Error()
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		old := ""
		if len(args) == 3 {
			old = ts.ReadFile(args[2])
		}
		if status = resp.Status; err == nil && resp.StatusCode == http.StatusOK && string(body) != old {
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), body, 0o644))
			return
		}
	}
	ts.Fatalf("%s: %s", args[0], status)
}

// state puts the state of a pack, as verify's JSON says it, into the environment.
func state(ts *testscript.TestScript, neg bool, args []string) {
	var v struct {
		Sources []struct{ State string }
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
	ts.Setenv("STATE", v.Sources[0].State)
}

// grant puts the reference and the secret of a grant's JSON into the environment.
func grant(ts *testscript.TestScript, neg bool, args []string) {
	var g struct{ Reference, Secret string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &g))
	ts.Setenv("REFERENCE", g.Reference)
	ts.Setenv("DEVICECA_SECRET", g.Secret)
}

// serial puts the serial of enroll's JSON into the environment, as other
// programs write it: upper case, with colons.
func serial(ts *testscript.TestScript, neg bool, args []string) {
	var r struct{ Serial string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &r))
	var pairs []string
	for s := strings.ToUpper(r.Serial); s != ""; s = s[2:] {
		pairs = append(pairs, s[:2])
	}
	ts.Setenv("SERIAL", strings.Join(pairs, ":"))
}
