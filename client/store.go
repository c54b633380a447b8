package client

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	reserveFile = ".reserve"    // room for the files above, while a request is on its way
	lockFile    = ".lock"
)

// storeFiles are all that Store.write writes.
var storeFiles = append([]string{RootsFile, AccountFile, nextFile, requestFile, hookedFile, adviceFile, reserveFile, liveLink}, pairFiles...)

// temporary is the name under which a file is written. There is one writer at a time (lock), so one name will do, and a crash
// leaves one file at most.
func temporary(name string) string { return "." + name + ".tmp" }

// ErrNoIdentity is returned by Store.Load for a directory without key and certificate.
var ErrNoIdentity = errors.New("no identity yet")

// Store keeps one Identity and its trust anchors in the files of a directory.
//
// Two files cannot be replaced at one moment, so key.pem, cert.pem and the others are links, through one that
// can be replaced: live leads to a directory with the whole pair, written and synced before live is switched to it. Whatever moment the
// power fails, readers and Load find the old pair or the new one, whole. The pair before stays until the next Save, so that a
// program which found out where live leads can read both files there.
//
// The directory belongs to the user of the process or to root, nobody else may write it, and every file in it that is used is
// a regular one; anything else is an *Error of kind Local.
type Store struct {
	Dir string
	// Signer is a key that lives elsewhere (a token, a TPM); nil for a key in key.pem.
	Signer crypto.Signer

	// step is told of each durable step before it is taken; tests stop there.
	step  func(op, name string) error
	plain bool       // do without symbolic links; for tests
	held  *directory // while it is locked
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

// use runs do in the directory: in the one that is locked, else in one opened and checked for this.
func (s *Store) use(do func(*directory) error) error {
	if s.held != nil {
		return do(s.held)
	}
	d, err := openDirectory(s.Dir)
	if err != nil {
		return err
	}
	return errors.Join(do(d), d.Close())
}

func (s *Store) read(name string) (text []byte, err error) {
	err = s.use(func(d *directory) error {
		text, err = d.read(name)
		return err
	})
	return text, err
}

// certificates reads a file of certificates.
func (s *Store) certificates(name string) ([]*x509.Certificate, error) {
	text, err := s.read(name)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "load", Text: "the certificates cannot be read", Err: err}
	}
	return parseFile(s.path(name), text)
}

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
	if id, err := s.loadNext(); err == nil || errors.Is(err, errPlanted) {
		return id, err
	}
	certs, err := s.certificates(CertFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoIdentity
	}
	if err != nil {
		return nil, err
	}
	key := s.Signer
	if key == nil {
		text, err := s.read(KeyFile)
		if errors.Is(err, errPlanted) {
			return nil, err
		}
		if err != nil {
			return nil, &Error{Kind: Local, Op: "load", Text: "the key of " + s.path(CertFile) + " cannot be read", Err: err,
				Hint: "put the key back, or remove " + CertFile + " and enrol anew"}
		}
		if key, err = ParseKey(text); err != nil {
			return nil, &Error{Kind: Local, Op: "load", Text: s.path(KeyFile), Err: err}
		}
	}
	chain, err := s.certificates(ChainFile)
	if err == nil {
		certs = append(certs[:1], chain...)
	}
	return newIdentity(key, certs)
}

// loadNext reads next.pem. It is written whole or not at all; if something else
// spoilt it, it does not count.
func (s *Store) loadNext() (*Identity, error) {
	text, err := s.read(nextFile)
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
	id, err := newIdentity(key, certs)
	if err != nil {
		return nil, err
	}
	return id, s.belongs(id)
}

// exposed is a warning about a key that every user of the machine can read, "" for none.
func (s *Store) exposed() (warning string) {
	s.use(func(d *directory) error {
		at, err := d.locate(KeyFile)
		if err != nil {
			return err
		}
		info, err := d.Lstat(at)
		if err == nil && rights(info)&0o007 != 0 {
			warning = fmt.Sprintf("%s is open to every user (mode %04o): chmod 600 it, and renew with a new key", s.path(KeyFile), rights(info))
		}
		return err
	})
	return warning
}

// belongs reports whether a pair chains to the anchors of the directory, which are saved before any pair is. The time does not
// count: the pair may have waited.
func (s *Store) belongs(id *Identity) error {
	roots, err := s.Roots()
	if err != nil {
		return err
	}
	// In quarantine it chains to an anchor of its own, which is kept nowhere: a pair that somebody planted would be good for nothing.
	for _, c := range id.Chain {
		if forRemediation(c) {
			roots = union(roots, []*x509.Certificate{c})
		}
	}
	if _, err := verifyChains(id.Certificate, roots, id.Chain, id.Certificate.NotBefore); err != nil {
		return &Error{Kind: Local, Op: "load", Text: s.path(nextFile) + " holds a certificate that does not chain to the anchors in " + RootsFile + " (" + err.Error() + ")",
			Err: errPlanted, Hint: "find out who wrote it; put " + RootsFile + " back if it was changed, or remove " + nextFile}
	}
	return nil
}

// Save replaces the stored identity, for good once it returns nil. After an
// error, or a crash at any moment, Load finds the old pair or the new one.
func (s *Store) Save(id *Identity) error {
	err := s.change("the pair", func(d *directory) error { return s.savePair(d, id) })
	if errors.Is(err, errNoLinks) {
		return s.savePlain(id)
	}
	if err != nil {
		return err
	}
	return s.done()
}

// done removes what a pair that is in place leaves behind.
func (s *Store) done() error {
	if err := s.remove(requestFile); err != nil {
		return err
	}
	return s.remove(nextFile)
}

// savePlain is Save where there are no symbolic links: it writes the pair to next.pem (temporary file, fsync, rename, fsync of the
// directory), and only then replaces key.pem, cert.pem and the others, and removes next.pem. With next.pem, Load reads the new
// pair from it, and the next Save or Recover finishes the work. Only other programs can meet a half-replaced pair.
func (s *Store) savePlain(id *Identity) error {
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
func (s *Store) Recover() error { return s.recover("") }

// recover is Recover for a device; "" is any.
func (s *Store) recover(device string) error {
	if _, err := os.Stat(s.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := s.change("recover", removeTemporary); err != nil {
		return err
	}
	if err := s.change("recover", s.tidy); err != nil {
		return err
	}
	switch id, err := s.loadNext(); {
	case err == nil && device != "" && !sameID(device, id.Device()):
		return s.another(id, device)
	case err == nil:
		return s.Save(id)
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, errPlanted):
		return err
	default:
		// Spoilt by something other than a crash of ours: the pair in the other files stands, if it is one.
		if _, err := s.load(); err != nil && !errors.Is(err, ErrNoIdentity) {
			return err
		}
		return s.remove(nextFile)
	}
}

// another is the error for an identity of another device.
func (s *Store) another(id *Identity, device string) error {
	return &Error{Kind: Usage, Op: "load", Text: fmt.Sprintf("the certificate in %s is for \"%s\", not \"%s\"", s.Dir, printable(id.Device()), printable(device)),
		Hint: "use another directory, or force a new enrolment"}
}

// removeTemporary removes the files that this package, and package tpm beside it, write before they rename them.
func removeTemporary(d *directory) error {
	entries, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		own := slices.ContainsFunc(storeFiles, func(f string) bool { return name == temporary(f) })
		if !own && !(strings.HasPrefix(name, ".tpm-") && strings.HasSuffix(name, ".tmp")) {
			continue
		}
		if err := d.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// finish brings what is in next.pem into the other files; it may be run any
// number of times. next.pem goes last, for it is what makes the others repairable.
func (s *Store) finish(id *Identity) error {
	content, err := s.pairContent(id)
	if err != nil {
		return err
	}
	if s.Signer != nil { // the key of an earlier certificate
		if err := s.remove(KeyFile); err != nil {
			return err
		}
	}
	if err := eachFile(content, s.write); err != nil {
		return err
	}
	return s.done()
}

// eachFile does something with each file of a pair, in the order of pairFiles, and its mode.
func eachFile(content map[string][]byte, do func(name string, data []byte, mode fs.FileMode) error) error {
	for _, name := range pairFiles {
		data, ok := content[name]
		if !ok {
			continue
		}
		mode := fs.FileMode(0o644)
		if name == KeyFile {
			mode = 0o600
		}
		if err := do(name, data, mode); err != nil {
			return err
		}
	}
	return nil
}

// Roots reads the trust anchors; none kept yet is no error.
func (s *Store) Roots() ([]*x509.Certificate, error) {
	roots, err := s.certificates(RootsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return roots, checkAnchors(s.path(RootsFile), roots)
}

// SaveRoots replaces the trust anchors, if they differ.
func (s *Store) SaveRoots(roots []*x509.Certificate) error {
	text := encodeCertificates(roots...)
	if old, err := s.read(RootsFile); err == nil && bytes.Equal(old, text) {
		return nil
	}
	return s.write(RootsFile, text, 0o644)
}

// write replaces a file so that a crash leaves the old or the new content, never a part.
func (s *Store) write(name string, data []byte, mode os.FileMode) error {
	return s.change(name, func(d *directory) error { return s.replace(d, name, data, mode) })
}

func (s *Store) replace(d *directory, name string, data []byte, mode os.FileMode) error {
	temp := temporary(name)
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.create(d, temp, data, mode); err != nil {
		return err
	}
	if err := s.at("rename", name); err != nil {
		return err
	}
	if err := d.Rename(temp, name); err != nil {
		return err
	}
	return s.sync(d, ".")
}

// reserve makes sure that there is room for an answer before it is asked for: a CA that repeats nothing would issue another
// certificate at each attempt on a full disk. What it writes cannot be compressed away.
func (s *Store) reserve() error {
	const size = 128 << 10 // a pair, anchors, and what file systems add to small files
	filler := make([]byte, size)
	rand.Read(filler)
	return s.write(reserveFile, filler, 0o600)
}

// remove removes a file durably; a missing one is no error.
func (s *Store) remove(name string) error {
	return s.change(name, func(d *directory) error {
		if err := s.at("remove", name); err != nil {
			return err
		}
		if err := d.Remove(name); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
		return s.sync(d, ".")
	})
}

// change is use for what writes.
func (s *Store) change(name string, do func(*directory) error) error {
	err := s.use(do)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return saveError(name, err)
}

func (s *Store) sync(d *directory, name string) error {
	if err := s.at("syncdir", name); err != nil {
		return err
	}
	return d.sync(name)
}

func (s *Store) at(op, name string) error {
	if s.step == nil {
		return nil
	}
	return s.step(op, name)
}

// Prepare makes the directory where it is missing (0755: it holds certificates that others read; the key has its own mode),
// and checks that nobody else can write it.
func (s *Store) Prepare() error {
	d, err := s.prepare()
	if err != nil {
		return err
	}
	return d.Close()
}

func (s *Store) prepare() (*directory, error) {
	if s.Dir != "" {
		if err := os.MkdirAll(s.Dir, 0o755); err != nil {
			return nil, saveError(s.Dir, err)
		}
	}
	d, err := openDirectory(s.Dir)
	if _, ok := errors.AsType[*Error](err); err != nil && !ok {
		return nil, saveError(s.Dir, err)
	}
	return d, err
}

// lock takes the directory, see Prepare, for one writer. A process that dies gives it up.
func (s *Store) lock() (unlock func(), err error) {
	d, err := s.prepare()
	if err != nil {
		return nil, err
	}
	f, err := d.open(lockFile, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		d.Close()
		if _, ok := errors.AsType[*Error](err); ok {
			return nil, err
		}
		return nil, saveError("lock", err)
	}
	if err := lockHandle(f); err != nil {
		f.Close()
		d.Close()
		return nil, &Error{Kind: Local, Op: "lock", Text: fmt.Sprintf("another process works on %s", s.Dir), Err: err, Hint: "wait for it to end"}
	}
	s.held = d
	return func() {
		s.held = nil
		f.Close()
		d.Close()
	}, nil
}

func saveError(name string, err error) error {
	return &Error{Kind: Local, Op: "save", Text: name + " could not be written", Err: err, Hint: "check the space left and the rights on the directory"}
}
