package server_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDocs: each test that docs/cmp.md names is there.
func TestDocs(t *testing.T) {
	defined := map[string]bool{}
	for _, dir := range []string{".", "..", "../../cmd/deviceca", "../../interop"} {
		for _, file := range must[[]string](t)(filepath.Glob(filepath.Join(dir, "*_test.go"))) {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(must[[]byte](t)(os.ReadFile(file)), -1) {
				defined[string(m[1])] = true
			}
		}
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)[`/]").FindAllSubmatch(must[[]byte](t)(os.ReadFile("../../docs/cmp.md")), -1)
	if len(named) < 50 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !defined[string(m[1])] {
			t.Errorf("there is no %s", m[1])
		}
	}
}
