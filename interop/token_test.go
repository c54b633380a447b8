//go:build interop

package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// OpenSC's pkcs11-tool looks at the tokens from outside: the keys are there,
// and cannot be taken out.
func TestTokensByPKCS11Tool(t *testing.T) {
	a := newAuthority(t)
	for _, token := range []struct {
		name string
		keys []string
	}{
		{"root", []string{"root-1", "quarantine-root-1"}},
		{"issuing", []string{"issuing-1", "quarantine-1", "audit"}},
	} {
		tool := func(args ...string) (string, error) {
			cmd := exec.Command("pkcs11-tool", append([]string{"--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "deviceca-" + token.name,
				"--login", "--pin", strings.TrimSpace(read(t, filepath.Join(a.home, "secrets", token.name+".pin")))}, args...)...)
			cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+filepath.Join(a.home, "softhsm2.conf"))
			out, err := cmd.CombinedOutput()
			return string(out), err
		}
		list, err := tool("--list-objects", "--type", "privkey")
		if err != nil {
			t.Fatalf("%v\n%s", err, list)
		}
		for _, key := range token.keys {
			mustContain(t, "the "+token.name+" token", list, "label:      "+key)
		}
		if n := strings.Count(list, "Private Key Object"); n != len(token.keys) {
			t.Errorf("the %s token holds %d private keys, want %d:\n%s", token.name, n, len(token.keys), list)
		}
		if n := strings.Count(list, "sensitive, always sensitive, never extractable"); n != len(token.keys) {
			t.Errorf("not every key of the %s token is sensitive and never extractable:\n%s", token.name, list)
		}
	}

	// The server was started with the root's token in reach; it must do without.
	a.stop()
	tokens, err := filepath.Glob(filepath.Join(a.home, "tokens", "*"))
	if err != nil || len(tokens) != 2 {
		t.Fatalf("%d tokens, %v", len(tokens), err)
	}
	away := t.TempDir()
	for _, dir := range tokens {
		if raw, _ := os.ReadFile(filepath.Join(dir, "token.object")); strings.Contains(string(raw), "deviceca-root") {
			if err := exec.Command("mv", dir, away).Run(); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.start()
	g := a.addDevice("rootless-1")
	out := t.TempDir()
	cmd := exec.Command(a.program, "enroll", "--protocol", "est", "--server", "https://"+a.https, "--roots", a.root(),
		"--id", "rootless-1", "--reference", g.Reference, "--dir", filepath.Join(out, "id"))
	cmd.Env = append(os.Environ(), "DEVICECA_SECRET="+g.Secret)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("enrolling without the root's token: %v\n%s", err, text)
	}
}
