package keystest

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
)

// P11Kit makes a SoftHSM2 token as SoftHSM does, which another process holds: p11-kit's server, to
// which p11-kit-client is the module. A machine without either fails the test.
func P11Kit(t testing.TB) (moduleURI string) {
	t.Helper()
	softhsm, dir := SoftHSM(t)
	module, err := keys.FindModuleNamed("p11-kit-client")
	if err != nil {
		t.Fatal(err)
	}
	u, err := keys.ParseURI(softhsm)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "p11kit.sock")
	start(t, "p11-kit", "server", "-f", "-n", socket, "--provider", u.ModulePath, "pkcs11:token="+Label)
	WaitFor(t, "p11-kit listens", func() bool { _, err := os.Stat(socket); return err == nil })
	t.Setenv("P11_KIT_SERVER_ADDRESS", "unix:path="+socket)
	u.ModulePath = module
	return u.String()
}
