package client

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The files of a Store.
const (
	KeyFile       = "key.pem"       // private key, PKCS#8, mode 0600; absent with a hardware key
	CertFile      = "cert.pem"      // the device's certificate
	ChainFile     = "chain.pem"     // its issuers, without the root; may be empty
	FullChainFile = "fullchain.pem" // cert.pem, then chain.pem
	RootsFile     = "roots.pem"     // trust anchors

	nextFile    = "next.pem"    // key and certificates on their way into the files above
	requestFile = "request.pem" // key and state of a request that has had no answer yet
	hookedFile  = ".hooked"     // digest of the certificate that the hook was last called for
	lockFile    = ".lock"
)

// ErrNoIdentity is returned by Store.Load for a directory without key and certificate.
var ErrNoIdentity = errors.New("no identity yet")

// Store keeps one Identity and its trust anchors in the files of a directory.
//
// Two files cannot be replaced at one moment, so key and certificate go through
// one that can: Save writes both to next.pem (temporary file, fsync, rename, fsync of the directory), and
// only then replaces key.pem, cert.pem and the others, and removes next.pem. Whatever
// moment the power fails: without next.pem the files are the old pair or the
// whole new one; with it, Load reads the new pair from it, and the next Save or
// Recover finishes the work.
type Store struct {
	Dir string
	// Signer is a key that lives elsewhere (a token, a TPM); nil for a key in key.pem.
	Signer crypto.Signer

	// step is told of each durable step before it is taken; tests stop there.
	step func(op, name string) error
}

// Files are the paths of a Store, for configuration of other programs.
type Files struct {
	Key       string `json:"key,omitempty"`
	Cert      string `json:"cert"`
	Chain     string `json:"chain"`
	FullChain string `json:"fullchain"`
	Roots     string `json:"roots"`
}

// Files are the paths of the store's files.
func (s *Store) Files() Files {
	f := Files{Cert: s.path(CertFile), Chain: s.path(ChainFile), FullChain: s.path(FullChainFile), Roots: s.path(RootsFile)}
	if s.Signer == nil {
		f.Key = s.path(KeyFile)
	}
	return f
}

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

// Load reads the identity; it writes nothing. It returns ErrNoIdentity where
// there is none, and an *Error for one that is broken.
func (s *Store) Load() (*Identity, error) {
	// Another process may be replacing the files between our two reads: next.pem
	// was there before the first and is gone after the last, so look again.
	const tries = 5
	for n := 1; ; n++ {
		id, err := s.load()
		if err == nil || errors.Is(err, ErrNoIdentity) || n == tries {
			return id, err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Store) load() (*Identity, error) {
	if id, err := s.loadNext(); err == nil {
		return id, nil
	}
	certs, err := ReadCertificates(s.path(CertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoIdentity
	}
	if err != nil {
		return nil, err
	}
	key := s.Signer
	if key == nil {
		text, err := os.ReadFile(s.path(KeyFile))
		if err != nil {
			return nil, &Error{Kind: Local, Op: "load", Text: "the key of " + s.path(CertFile) + " cannot be read", Err: err,
				Hint: "put the key back, or remove " + CertFile + " and enrol anew"}
		}
		if key, err = ParseKey(text); err != nil {
			return nil, &Error{Kind: Local, Op: "load", Text: s.path(KeyFile), Err: err}
		}
	}
	chain, err := ReadCertificates(s.path(ChainFile))
	if err == nil {
		certs = append(certs[:1], chain...)
	}
	return newIdentity(key, certs)
}

// loadNext reads next.pem. It is written whole or not at all; if something else
// spoilt it, it does not count.
func (s *Store) loadNext() (*Identity, error) {
	text, err := os.ReadFile(s.path(nextFile))
	if err != nil {
		return nil, err
	}
	certs, err := ParseCertificates(text)
	if err != nil {
		return nil, err
	}
	key := s.Signer
	if key == nil {
		if key, err = ParseKey(text); err != nil {
			return nil, err
		}
	}
	return newIdentity(key, certs)
}

// Save replaces the stored identity, for good once it returns nil. After an
// error, or a crash at any moment, Load finds the old pair or the new one.
func (s *Store) Save(id *Identity) error {
	next := encodeCertificates(id.certificates()...)
	if s.Signer == nil {
		key, err := EncodeKey(id.Key)
		if err != nil {
			return err
		}
		next = slices.Concat(key, next)
	}
	if err := s.write(nextFile, next, 0o600); err != nil {
		return err
	}
	return s.finish(id)
}

// Recover finishes what a crash left half done, and removes left-over temporary files. Run calls it.
func (s *Store) Recover() error {
	leftovers, err := filepath.Glob(filepath.Join(s.Dir, ".*.tmp"))
	if err != nil {
		return saveError("recover", err)
	}
	for _, path := range leftovers {
		if err := os.Remove(path); err != nil {
			return saveError("recover", err)
		}
	}
	switch id, err := s.loadNext(); {
	case err == nil:
		return s.finish(id)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		// Spoilt by something other than a crash of ours: the pair in the other files stands, if it is one.
		if _, err := s.load(); err != nil && !errors.Is(err, ErrNoIdentity) {
			return err
		}
		return s.remove(nextFile)
	}
}

// finish brings what is in next.pem into the other files; it may be run any
// number of times. next.pem goes last, for it is what makes the others repairable.
func (s *Store) finish(id *Identity) error {
	if s.Signer == nil {
		key, err := EncodeKey(id.Key)
		if err != nil {
			return err
		}
		if err := s.write(KeyFile, key, 0o600); err != nil {
			return err
		}
	} else if err := s.remove(KeyFile); err != nil { // the key of an earlier certificate
		return err
	}
	for _, f := range []struct {
		name  string
		certs []*x509.Certificate
	}{{CertFile, id.certificates()[:1]}, {ChainFile, id.Chain}, {FullChainFile, id.certificates()}} {
		if err := s.write(f.name, encodeCertificates(f.certs...), 0o644); err != nil {
			return err
		}
	}
	if err := s.remove(requestFile); err != nil {
		return err
	}
	return s.remove(nextFile)
}

// Roots reads the trust anchors; none kept yet is no error.
func (s *Store) Roots() ([]*x509.Certificate, error) {
	roots, err := ReadCertificates(s.path(RootsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return roots, err
}

// SaveRoots replaces the trust anchors, if they differ.
func (s *Store) SaveRoots(roots []*x509.Certificate) error {
	text := encodeCertificates(roots...)
	if old, err := os.ReadFile(s.path(RootsFile)); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return s.write(RootsFile, text, 0o644)
}

// write replaces a file so that a crash leaves the old or the new content, never a part.
func (s *Store) write(name string, data []byte, mode os.FileMode) error {
	// One writer at a time (lock), so one name will do, and a crash leaves one file at most.
	temp := s.path("." + name + ".tmp")
	if err := s.at("create", name); err != nil {
		return err
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return saveError(name, err)
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return saveError(name, err)
	}
	// A umask may have taken bits away that readers of the certificate need.
	err = errors.Join(f.Chmod(mode), s.at("write", name))
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = s.at("sync", name)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return saveError(name, err)
	}
	if err := s.at("rename", name); err != nil {
		return err
	}
	if err := os.Rename(temp, s.path(name)); err != nil {
		return saveError(name, err)
	}
	return s.syncDir(name)
}

// remove removes a file durably; a missing one is no error.
func (s *Store) remove(name string) error {
	if err := s.at("remove", name); err != nil {
		return err
	}
	switch err := os.Remove(s.path(name)); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return saveError(name, err)
	}
	return s.syncDir(name)
}

func (s *Store) syncDir(name string) error {
	if err := s.at("syncdir", name); err != nil {
		return err
	}
	if err := syncDir(s.Dir); err != nil {
		return saveError(name, err)
	}
	return nil
}

func (s *Store) at(op, name string) error {
	if s.step == nil {
		return nil
	}
	return s.step(op, name)
}

// lock takes the directory for one writer, making it (0755: it holds certificates that others
// read; the key has its own mode) where it is missing. A process that dies gives it up.
func (s *Store) lock() (unlock func(), err error) {
	if s.Dir == "" {
		return nil, &Error{Kind: Usage, Op: "store", Text: "no directory was given", Hint: "name the directory for key and certificate"}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, saveError("lock", err)
	}
	f, err := os.OpenFile(s.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, saveError("lock", err)
	}
	if err := lockHandle(f); err != nil {
		f.Close()
		return nil, &Error{Kind: Local, Op: "lock", Text: fmt.Sprintf("another process works on %s", s.Dir), Err: err, Hint: "wait for it to end"}
	}
	return func() { f.Close() }, nil
}

func saveError(name string, err error) error {
	return &Error{Kind: Local, Op: "save", Text: name + " could not be written", Err: err, Hint: "check the space left and the rights on the directory"}
}
