package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/attesttest"
)

// TestEnrollEnds: a TPM that does not answer keeps nobody from ending the program.
func TestEnrollEnds(t *testing.T) {
	dir := t.TempDir()
	socket, chain := filepath.Join(dir, "tpm"), filepath.Join(dir, "ak.pem")
	authority, err := attesttest.NewAuthority("Acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := attesttest.WritePEM(chain, []*x509.Certificate{authority.Root}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, more := range [][]string{nil, {"--watch"}} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // asked, and silent
			if conn, err := l.Accept(); err == nil {
				defer conn.Close()
				conn.Read(make([]byte, 1))
				cancel()
				<-t.Context().Done()
			}
		}()
		var out, errs bytes.Buffer
		start := time.Now()
		status := run(ctx, house{}, append([]string{"enroll", "--protocol", "acme", "--server", "https://127.0.0.1:1", "--roots", chain, "--id", "lamp-1", "--dir", filepath.Join(dir, "d"),
			"--tpm", "socket:" + socket, "--tpm-ak", "0x81000100", "--tpm-ak-chain", chain}, more...), nil, &out, &errs)
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("it took %v", d)
		}
		if more == nil && (status != exitFailed || !strings.Contains(errs.String(), "does not answer")) || more != nil && status != exitDone {
			t.Errorf("%v: status %d, %s", more, status, &errs)
		}
		cancel()
	}
}

func TestEnrollFlags(t *testing.T) {
	for want, args := range map[string][]string{
		"given twice":      {"--server", "https://a.example", "--server", "https://b.example"},
		"--hook is for":    {"--server", "https://a.example", "--id", "x", "--dir", t.TempDir(), "--hook", "true"},
		"two names":        {"--server", "https://a.example", "--id", "x", "--dir", t.TempDir(), "--profile", "a", "--label", "b"},
		"--tpm is missing": {"--server", "https://a.example", "--id", "x", "--dir", t.TempDir(), "--watch", "--tpm-ak", "1"},
	} {
		var out, errs bytes.Buffer
		if status := run(t.Context(), house{}, append([]string{"enroll"}, args...), nil, &out, &errs); status != exitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: status %d, %s", args, status, &errs)
		}
	}
}
