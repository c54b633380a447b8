//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// authority is one CA that a test has to itself, served by the built program.
type authority struct {
	t       *testing.T
	program string
	home    string
	https   string // host:port
	http    string
	server  *exec.Cmd
	log     *bytes.Buffer
}

// newAuthority makes a CA with SoftHSM tokens and serves it.
func newAuthority(t *testing.T, env ...string) *authority {
	t.Helper()
	a := prepareAuthority(t)
	a.start(env...)
	return a
}

// prepareAuthority makes a CA that is not served yet; args are more of init's.
func prepareAuthority(t *testing.T, args ...string) *authority {
	t.Helper()
	program, err := filepath.Abs("../bin/deviceca")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("build the program first (make build): %v", err)
	}
	// Not t.TempDir: a Unix socket's path has about 100 characters.
	dir, err := os.MkdirTemp("", "dca")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a := &authority{t: t, program: program, home: filepath.Join(dir, "ca"), https: freeAddr(t), http: freeAddr(t)}
	a.deviceca(append([]string{"init", "--home", a.home, "--url", "http://" + a.http}, args...)...)
	return a
}

func (a *authority) start(env ...string) {
	a.t.Helper()
	a.log = &bytes.Buffer{}
	a.server = exec.Command(a.program, "serve", "--home", a.home, "--https", a.https, "--http", a.http, "--metrics", "off")
	a.server.Env = append(os.Environ(), env...)
	a.server.Stderr = a.log
	if err := a.server.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(a.stop)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + a.http + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("the server does not get ready: %v\n%s", err, a.log)
		}
	}
}

func (a *authority) stop() {
	if a.server == nil {
		return
	}
	a.server.Process.Signal(syscall.SIGTERM)
	if err := a.server.Wait(); err != nil {
		a.t.Errorf("the server ended with %v\n%s", err, a.log)
	}
	a.server = nil
	if a.t.Failed() {
		a.t.Logf("server log:\n%s", a.log)
	}
}

// deviceca runs a command that must succeed, and returns its stdout.
func (a *authority) deviceca(args ...string) string {
	a.t.Helper()
	return run(a.t, "", a.program, args...)
}

type grant struct {
	ID, Reference, Secret string
	ACME                  struct {
		KID  string `json:"kid"`
		HMAC string `json:"hmac_key"`
	}
}

// addDevice registers a device at level software.
func (a *authority) addDevice(id string, args ...string) grant {
	a.t.Helper()
	out := a.deviceca(append([]string{"device", "add", "--home", a.home, "--id", id, "--level", "software", "--json"}, args...)...)
	var g grant
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		a.t.Fatalf("device add printed %q: %v", out, err)
	}
	return g
}

func (a *authority) root() string { return filepath.Join(a.home, "root.crt") }

// run runs a program that must succeed.
func run(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	stdout, stderr, err := try(dir, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", filepath.Base(program), strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// try runs a program that may fail.
func try(dir, program string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func write(t *testing.T, file, content string) string {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustContain(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not hold %q:\n%s", what, part, text)
		}
	}
}

func url(addr, format string, args ...any) string {
	return "https://" + addr + fmt.Sprintf(format, args...)
}
