package keys_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

func pinSource(t testing.TB, s string) keys.PINSource {
	t.Helper()
	p, err := keys.ParsePINSource(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(t testing.TB, uri string, opts keys.Options) keys.Provider {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	p, err := keys.Open(context.Background(), uri, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestSoftHSM(t *testing.T) {
	uri, _ := keystest.SoftHSM(t)
	keystest.Run(t, func(t *testing.T) keys.Provider { return open(t, uri, keys.Options{}) }, keys.Specs())
}

func TestFile(t *testing.T) {
	t.Setenv("TEST_PASSPHRASE", "correct horse")
	uri := "file:" + t.TempDir() + "/new%20keys"
	opts := keys.Options{PIN: pinSource(t, "env:TEST_PASSPHRASE"), AllowFile: true}
	keystest.Run(t, func(t *testing.T) keys.Provider { return open(t, uri, opts) }, keys.Specs())
}

func TestFileOnDisk(t *testing.T) {
	t.Setenv("TEST_PASSPHRASE", "correct horse")
	dir := t.TempDir()
	opts := keys.Options{PIN: pinSource(t, "env:TEST_PASSPHRASE")}
	if _, err := keys.Open(t.Context(), "file:"+dir, opts); err == nil {
		t.Fatal("file keys are open without AllowFile")
	}
	opts.AllowFile = true
	var log bytes.Buffer
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p := open(t, "file:"+dir, opts)
	if !strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "correct horse") {
		t.Errorf("logged: %s", &log)
	}
	if _, err := p.Generate(t.Context(), "k", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Seal(t.Context(), []byte("s"), nil); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v: want the key and the wrapping key, nothing else", files, err)
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info.Mode(), err)
		}
	}
	// An independent reader opens it with the passphrase alone.
	out, err := exec.Command("openssl", "pkey", "-in", filepath.Join(dir, "k.key.pem"), "-passin", "env:TEST_PASSPHRASE", "-noout", "-text").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("prime256v1")) {
		t.Errorf("openssl: %v: %s", err, out)
	}
	t.Setenv("TEST_PASSPHRASE", "wrong")
	if _, err := keys.Open(t.Context(), "file:"+dir, opts); !isErr(err, keys.ErrPIN) {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context()); !isErr(err, keys.ErrUnavailable) {
		t.Errorf("ping of a directory that is away: %v", err)
	}
	if _, err := p.Key(t.Context(), "other"); !isErr(err, keys.ErrUnavailable) {
		t.Errorf("key of a directory that is away: %v", err)
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err := p.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
