//go:build cgo

package keys

import (
	"debug/elf"
	"fmt"
	"os"
	"runtime"

	"github.com/miekg/pkcs11"
)

// load opens a library. pkcs11.New calls C_GetFunctionList of whatever it finds
// and says nothing about why it failed, so the likely mistakes are looked for first.
func load(path string) (*pkcs11.Ctx, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("keys: PKCS#11 module: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("keys: PKCS#11 module %s is not a file", path)
	}
	if runtime.GOOS == "linux" {
		f, err := elf.Open(path)
		if err != nil {
			return nil, fmt.Errorf("keys: %s is no shared library: %w", path, err)
		}
		f.Close()
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("keys: %s does not load as a PKCS#11 module (try: pkcs11-tool --module %s -I)", path, path)
	}
	return ctx, nil
}
