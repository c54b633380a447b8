package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A pair, the key and the certificates that go with it, changes at one moment for all readers:
//
//	key.pem, cert.pem, chain.pem, fullchain.pem   links to live/key.pem and so on, made once
//	live                                          link to .pairs/N, replaced by one rename
//	.pairs/N/key.pem …                            the pair in use; never changed once it is written
//	.pairs/M/key.pem …                            the pair before, for readers that are half-way
//
// Where the file system has no symbolic links, the files themselves are replaced, by way of next.pem (see Store.savePlain).
const (
	liveLink = "live"
	pairsDir = ".pairs"
)

var pairFiles = []string{KeyFile, CertFile, ChainFile, FullChainFile}

// errNoLinks: there are no symbolic links here.
var errNoLinks = errors.New("no symbolic links")

func pairDir(n int) string { return path.Join(pairsDir, strconv.Itoa(n)) }

// live is the number of the pair in use, 0 for none.
func (d *directory) live() (int, error) {
	target, err := d.Readlink(liveLink)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	number, ok := strings.CutPrefix(target, pairsDir+"/")
	n, parseErr := strconv.Atoi(number)
	if err != nil || !ok || parseErr != nil || n < 1 || pairDir(n) != target {
		return 0, &Error{Kind: Local, Op: "store", Text: fmt.Sprintf("%s in %s does not lead to one of the pairs there", liveLink, d.Name()),
			Err: errPlanted, Hint: "it is a symbolic link to .pairs/ and a number. If a copy made files of links, remove it, for key.pem and cert.pem stand for themselves then; else find out who changed it"}
	}
	return n, nil
}

// locate is where the content of a file is: behind a link of ours, the pair in use.
func (d *directory) locate(name string) (string, error) {
	if !slices.Contains(pairFiles, name) {
		return name, nil
	}
	target, err := d.Readlink(name)
	if err != nil || target != path.Join(liveLink, name) {
		return name, nil // a file, nothing, or a link of somebody else's: it is opened, or refused, as what it is
	}
	n, err := d.live()
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", fs.ErrNotExist
	}
	return path.Join(pairDir(n), name), nil
}

// pairContent is what the files of an identity hold.
func (s *Store) pairContent(id *Identity) (map[string][]byte, error) {
	content := map[string][]byte{}
	if s.Signer == nil {
		key, err := EncodeKey(id.Key)
		if err != nil {
			return nil, err
		}
		content[KeyFile] = key
	}
	for name, certs := range map[string][]*x509.Certificate{CertFile: id.certificates()[:1], ChainFile: id.Chain, FullChainFile: id.certificates()} {
		content[name] = encodeCertificates(certs...)
	}
	return content, nil
}

// savePair puts an identity in the place of the one before, in this order:
//
//  1. files that are no links yet, from an older version or a restored backup, become a pair and links, and read the same meanwhile
//  2. the new pair, durable before anything leads to it
//  3. links, where there are none; they lead nowhere as long as there is no pair
//  4. live, which leads to the new pair from this moment on
//  5. what is of no use any more goes
func (s *Store) savePair(d *directory, id *Identity) error {
	if s.plain {
		return errNoLinks
	}
	n, err := d.live()
	if err != nil {
		return err
	}
	if n == 0 {
		if err := s.probeLinks(d); err != nil {
			return err
		}
	}
	if n, err = s.adopt(d, n); err != nil {
		return err
	}
	content, err := s.pairContent(id)
	if err != nil {
		return err
	}
	if err := s.writePair(d, n+1, content); err != nil {
		return err
	}
	for name := range content {
		if _, err := d.Lstat(name); errors.Is(err, fs.ErrNotExist) {
			if err := s.link(d, path.Join(liveLink, name), name); err != nil {
				return err
			}
		}
	}
	if err := s.link(d, pairDir(n+1), liveLink); err != nil {
		return err
	}
	return s.tidy(d)
}

// probeLinks finds out whether the file system has symbolic links.
func (s *Store) probeLinks(d *directory) error {
	temp := temporary(liveLink)
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := d.Symlink(pairDir(1), temp)
	if linkless(err) {
		return errNoLinks
	}
	return err
}

// adopt makes the n-th pair and links out of files that are none, and returns the number of the pair in use.
func (s *Store) adopt(d *directory, n int) (int, error) {
	var files []string
	content := map[string][]byte{}
	for _, name := range pairFiles {
		info, err := d.Lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if info.Mode()&fs.ModeSymlink == 0 {
			files = append(files, name)
		}
		if content[name], err = d.read(name); errors.Is(err, fs.ErrNotExist) {
			delete(content, name)
		} else if err != nil {
			return 0, err
		}
	}
	if len(files) == 0 {
		return n, nil
	}
	if err := s.writePair(d, n+1, content); err != nil {
		return 0, err
	}
	if err := s.link(d, pairDir(n+1), liveLink); err != nil {
		return 0, err
	}
	for _, name := range files {
		if err := s.link(d, path.Join(liveLink, name), name); err != nil {
			return 0, err
		}
	}
	return n + 1, nil
}

// writePair writes a pair that nothing leads to yet.
func (s *Store) writePair(d *directory, n int, content map[string][]byte) error {
	dir := pairDir(n)
	if err := s.at("mkdir", dir); err != nil {
		return err
	}
	if err := d.RemoveAll(dir); err != nil { // of a crash
		return err
	}
	// A umask may take rights away that readers of the certificate need.
	for _, name := range []string{pairsDir, dir} {
		if err := d.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := d.Chmod(name, 0o755); err != nil {
			return err
		}
	}
	if err := eachFile(content, func(name string, data []byte, mode fs.FileMode) error {
		return s.create(d, path.Join(dir, name), data, mode)
	}); err != nil {
		return err
	}
	for _, name := range []string{dir, pairsDir} {
		if err := s.sync(d, name); err != nil {
			return err
		}
	}
	return nil
}

// create writes a new file, durably but for its name.
func (s *Store) create(d *directory, name string, data []byte, mode os.FileMode) error {
	if err := s.at("create", name); err != nil {
		return err
	}
	f, err := d.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
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
	return errors.Join(err, f.Close())
}

// link puts a symbolic link in the place of what has that name, at one moment.
func (s *Store) link(d *directory, target, name string) error {
	temp := temporary(name)
	if err := s.at("symlink", name); err != nil {
		return err
	}
	if err := d.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.Symlink(target, temp); err != nil {
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

// tidy removes every pair but the one in use and the one before, which readers may be half-way through; and the link to a key
// that is in hardware now.
func (s *Store) tidy(d *directory) error {
	n, err := d.live()
	if n == 0 || err != nil {
		return err
	}
	entries, err := fs.ReadDir(d.FS(), pairsDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var numbers []int
	for _, e := range entries {
		if m, err := strconv.Atoi(e.Name()); err == nil && m < n {
			numbers = append(numbers, m)
		}
	}
	before := 0
	if len(numbers) > 0 {
		before = slices.Max(numbers)
	}
	for _, e := range entries {
		if m, err := strconv.Atoi(e.Name()); err != nil || m == n || m == before {
			continue
		}
		if err := s.at("remove", path.Join(pairsDir, e.Name())); err != nil {
			return err
		}
		if err := d.RemoveAll(path.Join(pairsDir, e.Name())); err != nil {
			return err
		}
	}
	if s.Signer == nil {
		return nil
	}
	return s.remove(KeyFile)
}
