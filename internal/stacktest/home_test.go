package stacktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// home is one CA with its server process.
type home struct {
	t     *testing.T
	dir   string
	https string // host:port
	http  string
	env   []string // of the server and of every command
	log   *lockedBuffer

	mu     sync.Mutex
	server *exec.Cmd
}

// newHome makes a CA and serves it.
func newHome(t *testing.T, env ...string) *home {
	t.Helper()
	h := initHome(t, shortDir(t))
	h.env = env
	h.start()
	return h
}

// initHome makes a CA in a directory "ca" below parent.
func initHome(t *testing.T, parent string, args ...string) *home {
	t.Helper()
	h := atHome(t, filepath.Join(parent, "ca"))
	h.run(append([]string{"init", "--home", h.dir, "--url", "http://ca.example:8080"}, args...)...)
	return h
}

// atHome is a home that something else makes.
func atHome(t *testing.T, dir string) *home {
	h := &home{t: t, dir: dir, https: freeAddr(t), http: freeAddr(t), log: &lockedBuffer{}}
	t.Cleanup(func() {
		h.stop()
		if log := h.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "DATA RACE") {
			t.Errorf("the server on %s panicked:\n%s", dir, log)
		}
		if t.Failed() {
			t.Logf("log of the server on %s:\n%s", dir, h.log.tail(8000))
		}
	})
	return h
}

// shortDir is a directory whose path is short: that of a Unix socket has about 100 characters.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dcst")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// launch serves.
func (h *home) launch(env ...string) {
	h.t.Helper()
	cmd := exec.Command(program, "serve", "--home", h.dir, "--https", h.https, "--http", h.http, "--metrics", "off")
	cmd.Env = slices.Concat(os.Environ(), []string{"DEVICECA_LOG_LEVEL=debug"}, h.env, env) // net/http's panics come as debug
	cmd.Stderr = h.log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	h.server = cmd
	h.mu.Unlock()
}

// start serves, waits until the server is ready, and says how long that took.
func (h *home) start(env ...string) time.Duration {
	h.t.Helper()
	began := time.Now()
	h.launch(env...)
	for time.Since(began) < 30*time.Second {
		if status, _ := h.get("/readyz"); status == http.StatusOK {
			return time.Since(began)
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("the server does not get ready:\n%s", h.log.tail(4000))
	return 0
}

// take is the server process, which the caller then ends.
func (h *home) take() *exec.Cmd {
	h.mu.Lock()
	defer h.mu.Unlock()
	cmd := h.server
	h.server = nil
	return cmd
}

// stop ends the server as an administrator would.
func (h *home) stop() {
	cmd := h.take()
	if cmd == nil {
		return
	}
	cmd.Process.Signal(syscall.SIGTERM)
	late := time.AfterFunc(30*time.Second, func() {
		h.t.Errorf("the server on %s does not stop", h.dir)
		cmd.Process.Kill()
	})
	defer late.Stop()
	if err := cmd.Wait(); err != nil {
		h.t.Errorf("the server on %s ended with %v", h.dir, err)
	}
}

// kill ends the server as a power cut would end it, but for the disk's cache.
func (h *home) kill() {
	h.t.Helper()
	cmd := h.take()
	if err := cmd.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	cmd.Wait()
}

// hup asks the server to read its policy again.
func (h *home) hup() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.server.Process.Signal(syscall.SIGHUP)
}

func (h *home) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

// get asks the plain http listener; 0 if it does not answer.
func (h *home) get(path string) (status int, header http.Header) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + h.http + path)
	if err != nil {
		return 0, nil
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header
}

// run runs a command that must succeed, and returns its stdout.
func (h *home) run(args ...string) string {
	h.t.Helper()
	out, errs, err := h.try(nil, args...)
	if err != nil {
		h.t.Fatalf("deviceca %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// try runs a command that may fail. A nil stdin is empty.
func (h *home) try(stdin []byte, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = slices.Concat(os.Environ(), h.env)
	cmd.Stdin = bytes.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// fails runs a command that must fail with status 1 and a hint, and returns its stderr.
func (h *home) fails(args ...string) string {
	h.t.Helper()
	_, errs, err := h.try(nil, args...)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 1 {
		h.t.Errorf("deviceca %s: want exit status 1, got %v\n%s", strings.Join(args, " "), err, errs)
	}
	if !strings.Contains(errs, "\nhint: ") {
		h.t.Errorf("deviceca %s fails without a hint:\n%s", strings.Join(args, " "), errs)
	}
	return errs
}

type grant struct{ ID, Reference, Secret string }

// addDevice registers a device at level software.
func (h *home) addDevice(id string, args ...string) grant {
	h.t.Helper()
	return read[grant](h, append([]string{"device", "add", "--id", id, "--level", "software"}, args...)...)
}

// addGroup makes a group credential for the devices that glob names.
func (h *home) addGroup(glob string, uses string) grant {
	h.t.Helper()
	return read[grant](h, "credential", "add", "--group", "fleet", "--names", glob, "--level", "software", "--uses", uses)
}

// read runs a command with --json on the home and reads what it prints.
func read[T any](h *home, args ...string) (v T) {
	h.t.Helper()
	out := h.run(append(args, "--home", h.dir, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		h.t.Fatalf("deviceca %s printed %q: %v", strings.Join(args, " "), out, err)
	}
	return v
}

type certificate struct {
	Serial, Issuer, Device, Profile, Protocol, Actor, Replaces string
	Decision                                                   struct{ Outcome, Rule, Version string }
}

type credential struct {
	Reference  string
	Uses, Used int
}

// ledger is what a device's request can change: certificates by serial, but for the server's own,
// and how many uses each credential has spent.
type ledger struct {
	certs map[string]certificate
	used  map[string]int
}

func (h *home) ledger() ledger {
	h.t.Helper()
	l := ledger{map[string]certificate{}, map[string]int{}}
	for _, c := range read[[]certificate](h, "cert", "list") {
		if c.Device != "" {
			if _, twice := l.certs[c.Serial]; twice {
				h.t.Errorf("serial %s is in the ledger twice", c.Serial)
			}
			l.certs[c.Serial] = c
		}
	}
	for _, c := range read[[]credential](h, "credential", "list") {
		l.used[c.Reference] = c.Used
	}
	return l
}

// by counts the certificates that a credential brought.
func (l ledger) by(reference string) (n int) {
	for _, c := range l.certs {
		if c.Actor == "credential:"+reference {
			n++
		}
	}
	return n
}

// auditHolds verifies the audit chain.
func (h *home) auditHolds() {
	h.t.Helper()
	if _, errs, err := h.try(nil, "audit", "verify", "--home", h.dir); err != nil {
		h.t.Errorf("audit verify: %v\n%s", err, errs)
	}
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

// eventually polls until ok, and says how long that took.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			t.Fatalf("not within %s: %s", within, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began)
}

// lockedBuffer takes a process's log while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) tail(n int) string {
	s := l.String()
	return s[max(0, len(s)-n):]
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace replaces what must be there.
func replace(t *testing.T, text, old, new string) string {
	t.Helper()
	if !strings.Contains(text, old) {
		t.Fatalf("no %q in:\n%s", old, text)
	}
	return strings.ReplaceAll(text, old, new)
}
