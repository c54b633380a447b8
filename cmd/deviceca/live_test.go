package main

import "testing"

// TestLive runs the command line against a CA with SoftHSM tokens: without a
// server, and then with one.
func TestLive(t *testing.T) { runScripts(t, "testdata/live") }
