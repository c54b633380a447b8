package keystest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
)

// TPM2 makes a fresh token of tpm2-pkcs11 in a software TPM (swtpm) for one test: a second module, which
// shares no line with SoftHSM2. A machine without either fails the test. Providers must be closed before the test ends.
func TPM2(t testing.TB) (moduleURI string) {
	t.Helper()
	module, err := keys.FindModuleNamed("tpm2_pkcs11")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, d := range []string{"tpm", "store"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "tpm.sock")
	if len(socket) > 100 { // the longest path of a Unix socket is 107 octets
		t.Fatalf("%s is too long for a socket", socket)
	}
	start(t, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+filepath.Join(dir, "tpm"),
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "startup-clear,not-need-init")
	WaitFor(t, "swtpm listens", func() bool { return listens(socket + ".ctrl") })
	// A TPM holds three objects at a time: the resource manager exchanges them, which on
	// real machines the kernel does. It is reached over a bus, here one of its own.
	bus := filepath.Join(dir, "bus")
	start(t, "dbus-daemon", "--session", "--nofork", "--nopidfile", "--address=unix:path="+bus)
	WaitFor(t, "the bus listens", func() bool { return listens(bus) })
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path="+bus)
	start(t, "tpm2-abrmd", "--session", "--allow-root", "--max-transients=100", "--tcti=swtpm:path="+socket)
	WaitFor(t, "the resource manager is on the bus", func() bool {
		return exec.Command("dbus-send", "--session", "--print-reply", "--dest=com.intel.tss2.Tabrmd", "/com/intel/tss2/Tabrmd/Tcti", "org.freedesktop.DBus.Peer.Ping").Run() == nil
	})
	t.Setenv("TPM2_PKCS11_STORE", filepath.Join(dir, "store"))
	t.Setenv("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session")
	if os.Getenv("TSS2_LOG") == "" {
		t.Setenv("TSS2_LOG", "all+NONE") // it tells of every key that is not loaded yet
	}
	if err := keys.InitToken(module, Label, SOPIN, PIN); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "user.pin"), PIN+"\n")
	pin, err := keys.ParsePINSource("file:" + filepath.Join(dir, "user.pin"))
	if err != nil {
		t.Fatal(err)
	}
	return keys.URI{Token: Label, ModulePath: module, PINSource: pin}.String()
}

// start runs a program until the test ends.
func start(t testing.TB, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getuid() != 0 {
		path, err = "/usr/sbin/"+program, nil // not in everybody's PATH
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
}

func listens(socket string) bool {
	c, err := net.Dial("unix", socket)
	if err == nil {
		c.Close()
	}
	return err == nil
}
