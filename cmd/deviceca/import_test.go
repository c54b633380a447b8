package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/store"
)

// TestImportInterrupted: an import of which only the root was recorded is named, and repeated.
func TestImportInterrupted(t *testing.T) {
	dir := t.TempDir()
	home := Home(filepath.Join(dir, "ca"))
	run := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command("deviceca", args...).CombinedOutput()
		if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
			t.Fatalf("%v: %v, want %q\n%s", args, err, want, out)
		}
	}
	run("", "init", "--home", string(home), "--keys", "file", "--root", "external")

	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := ca.Hierarchy{Organization: "Elsewhere", URL: "http://ca.example", Now: time.Now()}
	root, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ca.NewRoot(rootKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	put := func(role string, cert []byte) string {
		path := filepath.Join(dir, role+".crt")
		if err := os.WriteFile(path, pemCert(cert), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"ca", "import", "--home", string(home)}
	for _, role := range []string{"issuing", "quarantine"} {
		raw, err := os.ReadFile(home.path(role + ".csr"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.NewSubordinate(root, rootKey, role, 1, csr.PublicKey, h)
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--"+role, put(role, cert))
	}

	// What a kill between two records leaves.
	ledger, err := store.Open(t.Context(), home.path("ledger.db"), store.Options{MustExist: true})
	if err != nil {
		t.Fatal(err)
	}
	r := ca.IssuerRecord{Name: "root-1", Role: "root", Generation: 1, Key: "root-1", Cert: root, Created: time.Now()}
	if err := ledger.AddIssuer(t.Context(), r, ca.Event{Time: r.Created, Kind: ca.EventIssuerAdded, Issuer: r.Name}); err != nil {
		t.Fatal(err)
	}
	if err := ledger.Close(); err != nil {
		t.Fatal(err)
	}
	run("the import of this CA's certificates was interrupted", "status", "--home", string(home))
	run("took another certificate as root-1", append(args, "--root", put("other", other))...)
	run("", append(args, "--root", put("root", root))...)
	run("", "status", "--home", string(home))
	run("already", append(args, "--root", put("root", root))...)
}
