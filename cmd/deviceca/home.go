package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/deviceca/deviceca/internal/admin"
)

// Home is the directory that holds everything of one CA.
//
//	deviceca.yaml policy.yaml       configuration and policy
//	root.crt issuing.crt root.crl             what others need
//	quarantine-root.crt quarantine.crt quarantine-root.crl   what remediation needs
//	crl/ pack/                      what is published; can be made anew
//	ledger.db                       the ledger, unless it is elsewhere
//	audit-heads.log                 signed heads of the audit log, unless they are elsewhere
//	secrets/                        PINs and the sealed data key, 0600
//	softhsm2.conf tokens/           with --keys softhsm
//	keys/                           with --keys file
//	admin.sock lock                 while something has the home open
//	init.json                       while an init is under way
type Home string

func (h Home) path(elem ...string) string {
	return filepath.Join(append([]string{string(h)}, elem...)...)
}

// abs is the home by its absolute path.
func (h Home) abs() Home {
	if abs, err := filepath.Abs(string(h)); err == nil {
		return Home(abs)
	}
	return h
}

// initMark is a file that is there from the beginning of an init to its end.
const initMark = "init.json"

func (h Home) config() string      { return h.path(configFile) }
func (h Home) socket() string      { return h.path(admin.SocketName) }
func (h Home) dataKey() string     { return h.path("secrets", "sealing.key") }
func (h Home) softhsm() string     { return h.path("softhsm2.conf") }
func (h Home) tokens() string      { return h.path("tokens") }
func (h Home) pin(n string) string { return h.path("secrets", n+".pin") }

// take takes a home that holds a CA.
func (h Home) take() (unlock func(), err error) {
	if err := h.mustExist(); err != nil {
		return nil, err
	}
	return h.lock()
}

// lock takes the home for this process alone, so that only one serves it or
// changes it offline.
func (h Home) lock() (unlock func(), err error) {
	f, err := os.OpenFile(h.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, hinted(fmt.Errorf("%s is in use by another deviceca process", h), "a server may be starting: try again, or see what holds the lock: fuser %s", h.path("lock"))
		}
		return nil, err
	}
	if h.exists() {
		os.Remove(h.path(initMark)) // an init was killed after all else was done
	}
	return func() { f.Close() }, nil
}

// writeFile writes a file so that, whatever happens, it holds the old content or
// the new one whole.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
