package keystest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
)

// Label and PIN are of the token that SoftHSM makes.
const (
	Label = "deviceca-test"
	PIN   = "test-user-pin"
	SOPIN = "test-officer-pin"
)

// SoftHSM makes a fresh SoftHSM2 token for one test and points SOFTHSM2_CONF at
// it (so the test cannot be parallel). The URI opens the token as it is: it
// names the module and, by pin-source, a file with the PIN. Under dir lie
// tokens/ (the token directory), softhsm2.conf and user.pin. Providers must be
// closed before the test ends: the module reads its configuration when the
// first of them opens.
func SoftHSM(t testing.TB) (moduleURI, dir string) {
	t.Helper()
	module := Module(t)
	dir = t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	write(t, filepath.Join(dir, "softhsm2.conf"), conf)
	write(t, filepath.Join(dir, "user.pin"), PIN+"\n")
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	if err := keys.InitToken(module, Label, SOPIN, PIN); err != nil {
		t.Fatal(err)
	}
	pin, err := keys.ParsePINSource("file:" + filepath.Join(dir, "user.pin"))
	if err != nil {
		t.Fatal(err)
	}
	return keys.URI{Token: Label, ModulePath: module, PINSource: pin}.String(), dir
}

// Module gives the path of SoftHSM2's module; a machine without it fails the test.
func Module(t testing.TB) string {
	t.Helper()
	module, err := keys.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	return module
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
