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
//	root.crt issuing.crt quarantine.crt root.crl   what others need
//	crl/ pack/                      what is published; can be made anew
//	ledger.db                       the ledger, unless it is elsewhere
//	secrets/                        PINs and the sealed data key, 0600
//	softhsm2.conf tokens/           with --keys softhsm
//	keys/                           with --keys file
//	admin.sock lock                 while something has the home open
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

func (h Home) config() string      { return h.path(configFile) }
func (h Home) socket() string      { return h.path(admin.SocketName) }
func (h Home) dataKey() string     { return h.path("secrets", "sealing.key") }
func (h Home) softhsm() string     { return h.path("softhsm2.conf") }
func (h Home) tokens() string      { return h.path("tokens") }
func (h Home) pin(n string) string { return h.path("secrets", n+".pin") }

// exists reports whether an init was completed here: the configuration is the
// last file it writes.
func (h Home) exists() bool {
	_, err := os.Stat(h.config())
	return err == nil
}

// mustExist is the error of commands that need a CA.
func (h Home) mustExist() error {
	if _, err := os.Stat(h.path(manifestFile)); err == nil {
		// Nothing in it is touched: it must stay what its manifest says.
		return hinted(fmt.Errorf("%s is a backup: its numbers would be given a second time", h), "make a home of it with: deviceca restore --from %s --home NEW", h)
	}
	if h.exists() {
		return nil
	}
	return hinted(fmt.Errorf("there is no CA in %s", h), "make one with: deviceca init --home %s", h)
}

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
	return func() { f.Close() }, nil
}

// useSoftHSM points the SoftHSM2 library at this home's tokens. The library
// reads the variable when it is loaded, so this comes before any token is opened.
func (h Home) useSoftHSM() error {
	abs, err := filepath.Abs(h.softhsm())
	if err != nil {
		return err
	}
	return os.Setenv("SOFTHSM2_CONF", abs)
}

// writeSoftHSMConf writes softhsm2.conf for the place where the home is now.
func (h Home) writeSoftHSMConf() error {
	tokens, err := filepath.Abs(h.tokens())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(tokens, 0o700); err != nil {
		return err
	}
	conf := "# SoftHSM2, for the tokens of this CA.\ndirectories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n"
	return writeFile(h.softhsm(), []byte(conf), 0o600)
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
