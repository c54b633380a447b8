//go:build cgo

package keys_test

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// proxy is a module between the provider and SoftHSM that fails on command.
type proxy struct {
	uri, dir string
}

// newProxy compiles testdata/proxy.c and makes a token behind it.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	softhsm, dir := keystest.SoftHSM(t)
	p := &proxy{dir: dir}
	so := filepath.Join(dir, "proxy.so")
	out, err := exec.Command("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", so, "testdata/proxy.c", "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	t.Setenv("PROXY_MODULE", keystest.Module(t))
	t.Setenv("PROXY_CONTROL", filepath.Join(dir, "control"))
	t.Setenv("PROXY_LOG", filepath.Join(dir, "log"))
	u, err := keys.ParseURI(softhsm)
	if err != nil {
		t.Fatal(err)
	}
	u.ModulePath = so
	p.uri = u.String()
	return p
}

// control makes the module misbehave, or behave if lines is empty.
func (p *proxy) control(t *testing.T, lines string) {
	t.Helper()
	path := filepath.Join(p.dir, "control")
	var err error
	if lines == "" {
		err = os.Remove(path)
	} else if err = os.WriteFile(path+".new", []byte(lines+"\n"), 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// calls gives the return value and the sessions open after each call of a function.
func (p *proxy) calls(t *testing.T, function string) (rvs []string, mostOpen int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var name, rv string
		var open int
		if _, err := fmt.Sscan(line, &name, &rv, &open); err != nil {
			t.Fatal(err)
		}
		mostOpen = max(mostOpen, open)
		if name == function {
			rvs = append(rvs, rv)
		}
	}
	return rvs, mostOpen
}

var digest = sha256.Sum256([]byte("digest"))

func sign(k keys.Key) error {
	_, err := k.Sign(nil, digest[:], crypto.SHA256)
	return err
}

func generate(t *testing.T, p keys.Provider) keys.Key {
	t.Helper()
	k, err := p.Generate(t.Context(), "k", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(k); err != nil {
		t.Fatal(err)
	}
	return k
}

// wantAway checks that everything fails, as unavailable and fast.
func wantAway(t *testing.T, p keys.Provider, k keys.Key) {
	t.Helper()
	calls := map[string]func() error{
		"sign":   func() error { return sign(k) },
		"ping":   func() error { return p.Ping(t.Context()) },
		"key":    func() error { _, err := p.Key(t.Context(), "k"); return err },
		"absent": func() error { _, err := p.Key(t.Context(), "absent"); return err },
		"seal":   func() error { _, err := p.Seal(t.Context(), nil, nil); return err },
	}
	for round := range 20 {
		for name, call := range calls {
			began := time.Now()
			if err := call(); !isErr(err, keys.ErrUnavailable) {
				t.Fatalf("%s while the token is away, round %d: %v", name, round, err)
			}
			// The first finds out, and waits for the first attempt at reconnecting.
			if took := time.Since(began); round > 0 && took > 100*time.Millisecond {
				t.Errorf("%s took %v to fail", name, took)
			}
		}
	}
}

// wantBack waits for the token to serve again by itself.
func wantBack(t *testing.T, p keys.Provider, k keys.Key) {
	t.Helper()
	began := time.Now()
	for {
		err := sign(k)
		if err == nil {
			break
		}
		if !isErr(err, keys.ErrUnavailable) {
			t.Fatalf("while coming back: %v", err)
		}
		if time.Since(began) > 3*time.Second {
			t.Fatalf("not back after 3 s: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
	if err := p.Ping(t.Context()); err != nil {
		t.Errorf("signs again, but does not answer: %v", err)
	}
	if _, err := p.Key(t.Context(), "k"); err != nil {
		t.Error(err)
	}
}
