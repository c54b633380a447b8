package client

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProgram drives the real deviceca-device, built as for devices, against the EST server.
func TestProgram(t *testing.T) {
	tmp := t.TempDir()
	program := filepath.Join(tmp, "deviceca-device")
	build := exec.Command("go", "build", "-tags", "nethttpomithttp2", "-o", program, "./cmd/deviceca-device")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	roots, secret, dir := filepath.Join(tmp, "root.pem"), filepath.Join(tmp, "secret"), filepath.Join(tmp, "tls")
	writeFile(t, roots, encodeCertificates(ca.root), 0o644)
	writeFile(t, secret, []byte(testSecret+"\n"), 0o600)

	open, bad := filepath.Join(tmp, "open"), filepath.Join(tmp, "bad.pem")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	writeFile(t, bad, encodeCertificates(ca.root, ca.leaf(t, "lamp-1", newKey(t).Public(), nil)), 0o644)

	run := func(env string, args ...string) (stdout, stderr string, code int) {
		t.Helper()
		cmd := exec.Command(program, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if env != "" {
			cmd.Env = append(cmd.Env, env)
		}
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String()+errs.String(), testSecret) {
			t.Error("the secret was printed")
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	pin := hex.EncodeToString(digest(ca.root))
	server := []string{"-server", s.URL, "-id", "sensor-1"}
	enroll := func(dir string, more ...string) []string {
		return append(append([]string{"enroll", "-dir", dir}, server...), more...)
	}
	for _, tt := range []struct {
		name, env string
		args      []string
		code      int
		stdout    string
		stderr    string
	}{
		{name: "no command", code: 2, stderr: "Usage"},
		{name: "unknown command", args: []string{"enrol"}, code: 2, stderr: "hint: use enroll"},
		{name: "help", args: []string{"help"}, stdout: "root-sha256"},
		{name: "help of a command", args: []string{"enroll", "-h"}, stderr: "-secret-file"},
		{name: "unknown flag", args: []string{"enroll", "-secret", "x"}, code: 2, stderr: "-secret"},
		{name: "stray argument", args: []string{"show", "-dir", dir, "x"}, code: 2, stderr: `"x"`},
		{name: "no directory", args: []string{"show"}, code: 2, stderr: "-dir is missing"},
		{name: "nothing to show", args: []string{"show", "-dir", dir}, code: 1, stderr: "hint: get one with"},
		{name: "no server", args: []string{"enroll", "-dir", dir}, code: 2, stderr: "-server"},
		{name: "no trust", args: enroll(dir), code: 2, stderr: "root-sha256"},
		{name: "bad pin", args: enroll(dir, "-root-sha256", "12"), code: 2, stderr: "openssl"},
		{name: "bad key type", args: enroll(dir, "-roots", roots, "-key", "dsa"), code: 2, stderr: "ecdsa-p256"},
		{name: "reference without secret", args: enroll(dir, "-roots", roots, "-reference", testUser), code: 2, stderr: "DEVICECA_SECRET"},
		{name: "secret without reference", args: enroll(dir, "-roots", roots, "-secret-file", secret), code: 2, stderr: "-reference"},
		{name: "roots that are not there", args: enroll(dir, "-roots", roots+"x"), code: 1, stderr: "no such file"},
		{name: "a leaf among the roots", args: enroll(dir, "-roots", bad), code: 1, stderr: bad + `: certificate 2, of "CN=lamp-1", is no trust anchor`},
		{name: "a directory for everybody", args: enroll(open, "-roots", roots, "-reference", testUser, "-secret-file", secret), code: 1, stderr: "hint: look through it, then: chmod go-w " + open},
		{name: "show of a directory for everybody", args: []string{"show", "-dir", open}, code: 1, stderr: "chmod go-w"},
		{name: "wrong secret", env: "DEVICECA_SECRET=wrong", args: enroll(dir, "-roots", roots, "-reference", testUser), code: 1, stderr: "not known"},
		{name: "enrol by file and pin", args: enroll(dir, "-root-sha256", pin, "-reference", testUser, "-secret-file", secret, "-json"), stdout: `"action": "enrolled"`},
		{name: "again", args: enroll(dir, "-json"), stdout: `"action": "current"`},
		{name: "show", args: []string{"show", "-dir", dir}, stdout: "current: sensor-1"},
		{name: "renew", args: enroll(dir, "-renew"), stdout: "renewed: sensor-1"},
		{name: "two servers", args: enroll(dir, "-server", "https://other.example"), code: 2, stderr: "given twice"},
		{name: "two profiles", args: enroll(dir, "-label", "a", "-profile", "b"), code: 2, stderr: "-label and -profile"},
		{name: "a secret that is gone", args: enroll(dir, "-reference", testUser, "-secret-file", secret+"x"), stdout: "current: sensor-1", stderr: "the device is enrolled and goes on without"},
		{name: "a secret that is gone, and needed", args: enroll(dir, "-force", "-reference", testUser, "-secret-file", secret+"x"), code: 1, stderr: "no such file"},
		{name: "another name", args: enroll(dir, "-dns", "b.example"), stdout: "current: sensor-1", stderr: "warning: asked for, and not in the certificate: DNS b.example"},
		{name: "another device", args: []string{"enroll", "-dir", dir, "-server", s.URL, "-id", "sensor-2"}, code: 2, stderr: "sensor-1"},
		{name: "force by environment", env: "DEVICECA_SECRET=" + testSecret, args: enroll(dir, "-force", "-reference", testUser, "-key", "ed25519", "-dns", "a.example", "-ip", "192.0.2.1", "-uri", "urn:x:y"), stdout: "enrolled: sensor-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			stdout, stderr, code := run(tt.env, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
			}
			if tt.code != 0 && stdout != "" {
				t.Errorf("a failure wrote to stdout: %s", stdout)
			}
		})
	}
	stdout, _, _ := run("", "show", "-dir", dir, "-json")
	var r Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || r.Files.Key != filepath.Join(dir, KeyFile) {
		t.Errorf("%v in %s", err, stdout)
	}

	t.Run("watch", func(t *testing.T) {
		hook, seen := filepath.Join(tmp, "hook"), filepath.Join(tmp, "seen")
		writeFile(t, hook, []byte("#!/bin/sh\necho \"$DEVICECA_DEVICE $DEVICECA_CERT [$DEVICECA_SECRET]\" > "+seen+".tmp && mv "+seen+".tmp "+seen+"\n"), 0o755)
		cmd := exec.Command(program, append([]string{"watch", "-dir", dir, "-renew", "-hook", hook}, server...)...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "DEVICECA_SECRET=" + testSecret}
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 20*time.Second; time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(dir, hookedFile)); err == nil {
				break
			}
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("watch, told to stop: %v", err)
		}
		if got, err := os.ReadFile(seen); string(got) != "sensor-1 "+filepath.Join(dir, FullChainFile)+" []\n" {
			t.Errorf("the hook saw %q, %v; log: %s", got, err, &log)
		}
	})
}

func writeFile(t *testing.T, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
}
