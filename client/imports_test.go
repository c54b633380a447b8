package client

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImports: a device carries nothing of the server, and no cgo. Nor does it carry what speaks to
// TPMs, which is a package of its own for those who want it.
func TestImports(t *testing.T) {
	const own = "github.com/deviceca/deviceca/"
	allowed := []string{own + "client", own + "client/cmd/deviceca-device", own + "cmp", own + "internal/cms", own + "internal/der"}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}} {{len .CgoFiles}}{{end}}", ".", "./cmd/...")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		path, cgo, _ := strings.Cut(strings.TrimSpace(line), " ")
		if path == "" {
			continue
		}
		seen++
		if cgo != "0" {
			t.Errorf("%s needs cgo", path)
		}
		if !slices.Contains(allowed, path) && !strings.HasPrefix(path, "golang.org/x/crypto/") {
			t.Errorf("%s is not for devices", path)
		}
	}
	if seen < len(allowed) {
		t.Errorf("only %d packages were looked at", seen)
	}
}
