package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A client that is refused thousands of times does not fill the log, and hides nobody else's lines.
func TestCalmLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(newCalmLog(slog.NewTextHandler(&out, nil), 10)).With("listener", "https")
		refused := func(address string) { log.Info("refused", "protocol", "est", "address", address) }
		for range 1000 {
			refused("192.0.2.1:4711")
		}
		if n := strings.Count(out.String(), "refused"); n != 10 {
			t.Errorf("%d lines for 1000 refusals, want 10", n)
		}
		refused("192.0.2.2:1")
		if !strings.Contains(out.String(), "address=192.0.2.2:1 left_out=990") {
			t.Errorf("another address's line, with the count: %s", out.String())
		}
		out.Reset()
		log.Error("refused", "address", "192.0.2.1:4711")
		log.Info("issued", "address", "192.0.2.1:4711")
		time.Sleep(6 * time.Second)
		refused("192.0.2.1:4712")
		refused("192.0.2.1:4712")
		if n := strings.Count(out.String(), "\n"); n != 3 {
			t.Errorf("%d lines, want a fault, an issuance, and one refusal 6 s later:\n%s", n, out.String())
		}
	})
}
