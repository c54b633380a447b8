package main

import (
	"bytes"
	"crypto/rsa"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// hsm is a module with two empty tokens that lie outside of any home.
type hsm struct {
	t   *testing.T
	dir string
	env []string
}

func newHSM(t *testing.T) *hsm {
	module, dir := keystest.Module(t), t.TempDir()
	h := &hsm{t, dir, append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(dir, "softhsm2.conf"), "ISSUING_PIN=1111", "ROOT_PIN=2222", "WRONG_PIN=3333")}
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := "directories.tokendir = " + filepath.Join(dir, "tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(filepath.Join(dir, "softhsm2.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	for label, pin := range map[string]string{"issuing": "1111", "root": "2222"} {
		if err := keys.InitToken(module, label, "officer", pin); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// clone is another such module, for a test of its own.
func (h *hsm) clone(t *testing.T) *hsm {
	other := &hsm{t, t.TempDir(), append(slices.Clone(h.env), "SOFTHSM2_CONF=")}
	other.env[len(other.env)-1] += filepath.Join(other.dir, "softhsm2.conf")
	if err := os.CopyFS(other.dir, os.DirFS(h.dir)); err != nil {
		t.Fatal(err)
	}
	conf, err := os.ReadFile(filepath.Join(h.dir, "softhsm2.conf"))
	if err == nil {
		err = os.WriteFile(filepath.Join(other.dir, "softhsm2.conf"), []byte(strings.ReplaceAll(string(conf), h.dir, other.dir)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return other
}

// initArgs makes a CA on both tokens.
func (h *hsm) initArgs(home string, more ...string) []string {
	module := "?module-path=" + keystest.Module(h.t)
	return append([]string{"init", "--home", home, "--name", "Lamps", "--url", "http://ca.example", "--keys", "pkcs11:token=issuing" + module, "--pin", "env:ISSUING_PIN",
		"--root-keys", "pkcs11:token=root" + module, "--root-pin", "env:ROOT_PIN"}, more...)
}

// run runs the program, and says how it ended: with an exit status, or -1 if it was killed.
func (h *hsm) run(fault string, args ...string) (status int, errs string) {
	h.t.Helper()
	cmd := exec.Command("deviceca", args...)
	cmd.Env = append(slices.Clone(h.env), "DEVICECA_TEST_INIT="+fault)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		h.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

// mustRun is run for what must succeed.
func (h *hsm) mustRun(args ...string) {
	h.t.Helper()
	if status, errs := h.run("", args...); status != 0 {
		h.t.Fatalf("%v: status %d\n%s", args, status, errs)
	}
}

// objects are how many objects are on the tokens.
func (h *hsm) objects() int {
	h.t.Helper()
	all, err := filepath.Glob(filepath.Join(h.dir, "tokens", "*", "*.object"))
	if err != nil {
		h.t.Fatal(err)
	}
	return len(slices.DeleteFunc(all, func(path string) bool { return filepath.Base(path) == "token.object" }))
}

// gone demands that nothing of an init is left.
func (h *hsm) gone(what, home string) {
	h.t.Helper()
	if _, err := os.Stat(home); err == nil {
		entries, _ := os.ReadDir(home)
		h.t.Errorf("%s: %s is there still, with %v", what, home, entries)
	}
	if n := h.objects(); n != 0 {
		h.t.Errorf("%s: %d objects are on the tokens still", what, n)
	}
}

// steps are those of an init with arguments, but for the last one.
func (h *hsm) steps(args []string) []string {
	h.t.Helper()
	status, errs := h.run("steps:", args...)
	var steps []string
	for _, m := range regexp.MustCompile(`(?m)^step: (.*)$`).FindAllStringSubmatch(errs, -1) {
		steps = append(steps, m[1])
	}
	if status != 0 || len(steps) < 8 || steps[len(steps)-1] != "configuration" {
		h.t.Fatalf("status %d, steps %q\n%s", status, steps, errs)
	}
	return steps[:len(steps)-1]
}

// complete demands a CA that works.
func (h *hsm) complete(what, home string) {
	h.t.Helper()
	h.mustRun("credential", "add", "--home", home, "--group", "lamps", "--names", "lamp-*", "--level", "software")
	h.mustRun("ca", "crl", "root", "--home", home)
	if _, err := os.Stat(filepath.Join(home, initMark)); err == nil {
		h.t.Errorf("%s: %s is there still", what, initMark)
	}
}

// TestInitFails: an init that fails after any of its steps leaves nothing behind, in the home or on the tokens.
func TestInitFails(t *testing.T) {
	h := newHSM(t)
	steps := h.clone(t).steps(h.initArgs(filepath.Join(t.TempDir(), "first")))
	home := filepath.Join(t.TempDir(), "ca")
	for _, step := range steps {
		status, errs := h.run("fail:"+step, h.initArgs(home)...)
		if status != exitFailed || !strings.Contains(errs, "a fault of the test's") {
			t.Errorf("%s: status %d\n%s", step, status, errs)
		}
		h.gone(step, home)
	}
	h.mustRun(h.initArgs(home)...)
	h.complete("after all faults", home)
	objects := h.objects()
	status, errs := h.run("", h.initArgs(filepath.Join(t.TempDir(), "second"))...)
	if status != exitFailed || !strings.Contains(errs, "label in use") || !strings.Contains(errs, "hint: it holds the keys of a CA already") {
		t.Errorf("a second CA on the tokens: status %d\n%s", status, errs)
	}
	if h.objects() != objects {
		t.Errorf("there were %d objects, and there are %d", objects, h.objects())
	}
	h.complete("after a second CA was refused", home)
}

// TestInitKilled: an init that was killed after any of its steps goes on with --resume, and uses the keys that it made.
func TestInitKilled(t *testing.T) {
	empty := newHSM(t)
	whole := empty.clone(t)
	steps := whole.steps(whole.initArgs(filepath.Join(t.TempDir(), "first")))
	for i, step := range append(steps, "configuration") {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			h, home := empty.clone(t), filepath.Join(t.TempDir(), "ca")
			if status, errs := h.run("kill:"+step, h.initArgs(home)...); status != -1 {
				t.Fatalf("status %d\n%s", status, errs)
			}
			if step == "configuration" {
				h.complete(step, home) // all was done
				return
			}
			refused := [][]string{{"status", "--home", home}, {"serve", "--home", home}, h.initArgs(home)}[i%3]
			if status, errs := h.run("", refused...); status != exitFailed || !strings.Contains(errs, "an init in "+home+" was interrupted") || !strings.Contains(errs, "hint: let it go on with: deviceca init --resume") {
				t.Errorf("%s: status %d\n%s", refused[0], status, errs)
			}
			if i%3 == 0 { // one that goes on may fail too
				if status, errs := h.run("fail:policy", "init", "--home", home, "--resume"); status != exitFailed {
					t.Errorf("status %d\n%s", status, errs)
				}
			}
			h.mustRun("init", "--home", home, "--resume")
			h.complete(step, home)
			if have, want := h.objects(), whole.objects(); have != want {
				t.Errorf("%d objects on the tokens, and an init that is not killed makes %d", have, want)
			}
			cfg, err := LoadConfig(home, func(string) string { return "" })
			if err != nil || cfg.Name != "Lamps" || cfg.URL != "http://ca.example" || cfg.Keys.PINRoot != "env:ROOT_PIN" {
				t.Errorf("%+v, %v", cfg, err)
			}
		})
	}
}

// TestInitResumeDiffers: an init goes on with what it began with.
func TestInitResumeDiffers(t *testing.T) {
	h := newHSM(t)
	home := filepath.Join(t.TempDir(), "ca")
	h.run("kill:key issuing-1", h.initArgs(home)...)
	objects := h.objects()
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"--keys", "softhsm"}, exitUsage, "goes on with the same"},
		{[]string{"--key-type", "rsa-3072"}, exitFailed, "--key-type ecdsa-p256"},
		{[]string{"--root-pin", "env:WRONG_PIN"}, exitFailed, "PIN refused"},
	} {
		status, errs := h.run("", append([]string{"init", "--home", home, "--resume"}, c.args...)...)
		if status != c.status || !strings.Contains(errs, c.want) || h.objects() != objects {
			t.Errorf("%v: status %d, %d objects of %d\n%s", c.args, status, h.objects(), objects, errs)
		}
	}
	h.mustRun("init", "--home", home, "--resume", "--name", "Bulbs") // no certificate has the name yet
	h.complete("resumed", home)
	if cfg, err := LoadConfig(home, func(string) string { return "" }); err != nil || cfg.Name != "Bulbs" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// behindProxy is initArgs with internal/keys' proxy between, which does what the file control says.
func (h *hsm) behindProxy(home string, more ...string) (args []string, control string) {
	h.t.Helper()
	proxy := filepath.Join(h.dir, "proxy.so")
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", proxy, "../../internal/keys/testdata/proxy.c", "-ldl").CombinedOutput(); err != nil {
		h.t.Fatalf("gcc: %v: %s", err, out)
	}
	control = filepath.Join(h.dir, "control")
	h.env = append(h.env, "PROXY_MODULE="+keystest.Module(h.t), "PROXY_CONTROL="+control, "PROXY_LOG="+filepath.Join(h.dir, "log"))
	args = h.initArgs(home, more...)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], keystest.Module(h.t), proxy)
	}
	return args, control
}

// TestInitWithoutEC: a token that has neither EC nor AES-GCM makes a CA of RSA keys, the audit key too, and the report says
// how the data key is sealed.
func TestInitWithoutEC(t *testing.T) {
	h := newHSM(t)
	home := filepath.Join(t.TempDir(), "ca")
	args, control := h.behindProxy(home, "--key-type", "rsa-3072", "--json")
	faults := "C_GetMechanismInfo lack 1040\nC_GetMechanismInfo lack 1041\nC_GetMechanismInfo lack 1087\n" // EC_KEY_PAIR_GEN, ECDSA, AES_GCM
	if err := os.WriteFile(control, []byte(faults), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("deviceca", args...)
	cmd.Env = h.env
	out, err := cmd.Output()
	var report initReport
	if err != nil || json.Unmarshal(out, &report) != nil || report.AuditKey != "rsa-3072" || report.SealedBy != "AES-CBC and HMAC" {
		t.Fatalf("%v: %s", err, out)
	}
	h.complete("made", home)
	t.Setenv("PROXY_MODULE", keystest.Module(t))
	t.Setenv("PROXY_CONTROL", control)
	t.Setenv("ISSUING_PIN", "1111")
	cfg, err := LoadConfig(home, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := openKeys(t.Context(), Home(home), cfg, "issuing", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer issuing.Close()
	ca, err := issuing.Key(t.Context(), "issuing-1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second finds what the first made
		responder, err := responderKey(t.Context(), issuing, "issuing-1", ca.Public())
		if err != nil {
			t.Fatal(err)
		}
		if _, isRSA := responder.Public().(*rsa.PublicKey); !isRSA {
			t.Errorf("the OCSP responder's key is a %T", responder.Public())
		}
	}
}

// TestInitNoWayToSeal: a module that lists mechanisms, and then does not do them, fails when keys are there already.
func TestInitNoWayToSeal(t *testing.T) {
	h := newHSM(t)
	home := filepath.Join(t.TempDir(), "ca")
	args, control := h.behindProxy(home)
	broken := "C_EncryptInit fail 70\nC_DecryptInit fail 70\nC_DeriveKey fail 70\n"
	for fault, want := range map[string]string{
		broken: "the token can seal nothing", "C_GetMechanismInfo fail 70\n": "does not offer CKM_", // CKR_MECHANISM_INVALID
	} {
		if err := os.WriteFile(control, []byte(fault), 0o600); err != nil {
			t.Fatal(err)
		}
		if status, errs := h.run("", args...); status != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("status %d\n%s", status, errs)
		}
		h.gone(fault, home)
	}
	// A token that goes away meanwhile leaves what it made; when it is back, the init goes on.
	if err := os.WriteFile(control, []byte(broken+"C_DestroyObject fail 30\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, errs := h.run("", args...); status != exitFailed || !strings.Contains(errs, "is there still") || !strings.Contains(errs, "hint: mend what is wrong, and let it go on with: deviceca init --resume") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if err := os.Remove(control); err != nil {
		t.Fatal(err)
	}
	h.mustRun("init", "--home", home, "--resume")
	h.complete("resumed", home)
}

// TestInitChecks: what is wrong is known before anything is made.
func TestInitChecks(t *testing.T) {
	h := newHSM(t)
	parent := t.TempDir()
	home := filepath.Join(parent, "ca")
	none := filepath.Join(parent, "none")
	for name, c := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"the root's PIN":      {h.initArgs(home, "--root-pin", "env:WRONG_PIN"), exitFailed, "PIN refused"},
		"the issuing PIN":     {h.initArgs(home, "--pin", "env:WRONG_PIN"), exitFailed, "PIN refused"},
		"no PIN":              {h.initArgs(home, "--root-pin", "file:"+none), exitFailed, none},
		"a PIN in a flag":     {h.initArgs(home, "--root-pin", "2222"), exitUsage, "--root-pin"},
		"no such token":       {h.initArgs(home, "--root-keys", "pkcs11:token=other?module-path="+keystest.Module(t)), exitFailed, "root keys"},
		"no such module":      {h.initArgs(home, "--root-keys", "pkcs11:token=root?module-path="+none), exitFailed, none},
		"no URI":              {h.initArgs(home, "--root-keys", "pkcs11:tokn=root"), exitUsage, "--root-keys"},
		"one token":           {h.initArgs(home, "--root-keys", h.initArgs(home)[8]), exitUsage, "the same token"},
		"kind of key":         {h.initArgs(home, "--key-type", "rsa-512"), exitUsage, "--key-type"},
		"name":                {h.initArgs(home, "--name", strings.Repeat("x", 41)), exitUsage, "1 to 40 characters"},
		"URL":                 {h.initArgs(home, "--url", "ftp://x"), exitUsage, "url"},
		"kind of root":        {h.initArgs(home, "--root", "offline"), exitUsage, "internal or external"},
		"root here and there": {h.initArgs(home, "--root", "external"), exitUsage, "--root external"},
		"PIN without URI":     {[]string{"init", "--home", home, "--pin", "env:ISSUING_PIN"}, exitUsage, "--pin"},
		"kind of keys":        {[]string{"init", "--home", home, "--keys", "paper"}, exitUsage, "paper"},
		"no root":             {h.initArgs(home, "--root-keys", "", "--root-pin", ""), exitUsage, "--root-keys"},
	} {
		t.Run(name, func(t *testing.T) {
			status, errs := h.run("", c.args...)
			if status != c.status || !strings.Contains(errs, c.want) {
				t.Errorf("status %d, want %d with %q\n%s", status, c.status, c.want, errs)
			}
			h.gone(name, home)
		})
	}
	// A directory that is there stays, and what is in it.
	if err := os.MkdirAll(filepath.Join(home, "lost+found"), 0o700); err != nil {
		t.Fatal(err)
	}
	if status, errs := h.run("", h.initArgs(home, "--root-pin", "env:WRONG_PIN")...); status != exitFailed {
		t.Errorf("status %d\n%s", status, errs)
	}
	if entries, err := os.ReadDir(home); err != nil || len(entries) != 1 || entries[0].Name() != "lost+found" {
		t.Errorf("left: %v, %v", entries, err)
	}
	h.mustRun(h.initArgs(home)...)
	h.complete("after all mistakes", home)
}

// TestInitOnAFullDisk: the disk is named, nothing is left, and it works when there is room.
func TestInitOnAFullDisk(t *testing.T) {
	h := newHSM(t)
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=320k"); err != nil {
		t.Fatalf("this test needs root, to mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	home := filepath.Join(disk, "ca")
	for _, args := range [][]string{h.initArgs(home), {"init", "--home", home}, {"init", "--home", home, "--keys", "file"}} {
		status, errs := h.run("", args...)
		if status != exitFailed || !strings.Contains(errs, "the disk of "+home+" is full") || !strings.Contains(errs, "hint: make room") {
			t.Errorf("%v: status %d\n%s", args[3:], status, errs)
		}
		h.gone("a full disk", home)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", syscall.MS_REMOUNT, "size=32m"); err != nil {
		t.Fatal(err)
	}
	h.mustRun(h.initArgs(home)...)
	h.complete("with room", home)
}
