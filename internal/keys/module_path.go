package keys

import (
	"fmt"
	"os"
	"path/filepath"
)

// moduleDirs are where distributions and Homebrew put PKCS#11 modules.
var moduleDirs = []string{
	"/usr/lib/softhsm",
	"/usr/lib/*-linux-gnu*/softhsm",
	"/usr/lib64/softhsm",
	"/usr/lib/*-linux-gnu*/pkcs11",
	"/usr/lib64/pkcs11",
	"/usr/lib/pkcs11",
	"/usr/local/lib/softhsm",
	"/usr/local/lib/pkcs11",
	"/opt/homebrew/lib/softhsm",
	"/usr/lib/*-linux-gnu*",
	"/usr/lib64",
	"/usr/lib",
	"/usr/local/lib",
}

// FindModule finds SoftHSM2's PKCS#11 module where distributions put it.
func FindModule() (string, error) {
	path, err := findModule("softhsm2")
	if err != nil {
		return "", fmt.Errorf("%w; install SoftHSM2 (Debian: apt-get install softhsm2)", err)
	}
	return path, nil
}

// FindModuleNamed finds a module in the usual places by its name of RFC 7512, such as softhsm2.
func FindModuleNamed(name string) (string, error) { return findModule(name) }

// findModule finds a module by its name of RFC 7512: the file name without
// "lib" and suffix.
func findModule(name string) (string, error) {
	for _, dir := range moduleDirs {
		for _, base := range []string{"lib" + name + ".so", name + ".so", "lib" + name + ".dylib"} {
			dirs, err := filepath.Glob(dir)
			if err != nil {
				return "", err
			}
			for _, d := range dirs {
				path := filepath.Join(d, base)
				if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
					return path, nil
				}
			}
		}
	}
	return "", fmt.Errorf("keys: no PKCS#11 module %q in the usual places: name it by module-path=/…", name)
}
