package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestLive runs the command line against a CA with SoftHSM tokens: without a
// server, and then with one.
func TestLive(t *testing.T) { runScripts(t, "testdata/live") }

// The scripts run at the same time, so that no two may listen at the same port.
func TestLivePorts(t *testing.T) {
	scripts, err := filepath.Glob("testdata/live/*.txtar")
	if err != nil || len(scripts) < 10 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	port := regexp.MustCompile(`127\.0\.0\.1:(18\d{3})\b`)
	of := map[string]string{}
	for _, script := range scripts {
		text, err := os.ReadFile(script)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range port.FindAllStringSubmatch(string(text), -1) {
			if other := of[m[1]]; other != "" && other != script {
				t.Errorf("%s and %s both use port %s", other, script, m[1])
			}
			of[m[1]] = script
		}
	}
}
