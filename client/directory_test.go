//go:build unix

package client

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDirectoryOfOthers: what others can write is neither read nor written.
func TestDirectoryOfOthers(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	refused := func(t *testing.T, c Config, text string) {
		t.Helper()
		asked := len(s.requests)
		for _, run := range []func() error{
			func() error { _, err := Run(t.Context(), c); return err },
			func() error { _, err := Show(c); return err },
			func() error { return (&Store{Dir: c.Dir}).Prepare() },
			func() error { return (&Store{Dir: c.Dir}).SaveRoots(nil) },
		} {
			err := run()
			wantError(t, err, Local, text)
			if HintOf(err) == "" {
				t.Errorf("no hint beside %v", err)
			}
		}
		if len(s.requests) != asked {
			t.Error("the server was asked")
		}
	}
	for _, mode := range []fs.FileMode{0o777, 0o775, 0o757, 0o777 | fs.ModeSticky} {
		c := s.config(t)
		if err := os.Chmod(c.Dir, mode); err != nil {
			t.Fatal(err)
		}
		refused(t, c, "can be written by others")
	}
	t.Run("a file", func(t *testing.T) {
		c := s.config(t)
		c.Dir += "/file"
		writeFile(t, c.Dir, nil, 0o600)
		_, err := Show(c)
		wantError(t, err, Local, "not a directory")
	})
	t.Run("another owner", func(t *testing.T) {
		c := s.config(t)
		mustRun(t, c)
		owner := os.Geteuid() + 1000
		foreignUser(t, c.Dir, owner)
		refused(t, c, "belongs to user")
	})
	t.Run("a link", func(t *testing.T) {
		c := s.config(t)
		link := t.TempDir() + "/link"
		if err := os.Symlink(c.Dir, link); err != nil {
			t.Fatal(err)
		}
		c.Dir = link
		mustRun(t, c) // one's own
		foreignUser(t, link, os.Geteuid()+1000)
		refused(t, c, "symbolic link of user")
	})
}

// foreignUser makes a file belong to somebody else, or, where only root could, the process's user look like somebody else.
func foreignUser(t *testing.T, path string, owner int) {
	t.Helper()
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, owner, -1); err != nil {
			t.Fatal(err)
		}
		return
	}
	old := euid
	euid = func() int { return owner }
	t.Cleanup(func() { euid = old })
}

// TestLinksInDirectory: nothing that is used is reached through a link, or is anything but a file.
func TestLinksInDirectory(t *testing.T) {
	ca := newTestCA(t, "good")
	s := newESTServer(t, ca, nil)
	for _, name := range []string{lockFile, KeyFile, CertFile, RootsFile, requestFile, nextFile} {
		t.Run(name, func(t *testing.T) {
			c := s.config(t)
			mustRun(t, c)
			c.Renew = true
			path, target := filepath.Join(c.Dir, name), t.TempDir()+"/target"
			before := []byte("before")
			if text, err := os.ReadFile(path); err == nil {
				before = text
			}
			writeFile(t, target, before, 0o600)
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			_, err := Run(t.Context(), c)
			wantError(t, err, Local, name+" in "+c.Dir+" is not a regular file")
			if !strings.Contains(HintOf(err), "remove it") {
				t.Errorf("hint %q", HintOf(err))
			}
			if after, err := os.ReadFile(target); string(after) != string(before) {
				t.Errorf("what the link leads to was written: %q, %v", after, err)
			}
		})
	}
	t.Run("a dangling lock", func(t *testing.T) {
		c := s.config(t)
		target := t.TempDir() + "/target"
		if err := os.Symlink(target, c.Dir+"/"+lockFile); err != nil {
			t.Fatal(err)
		}
		_, err := Run(t.Context(), c)
		wantError(t, err, Local, "not a regular file")
		if _, err := os.Lstat(target); err == nil {
			t.Error("a file was made where the link leads")
		}
	})
	t.Run("a temporary file", func(t *testing.T) {
		c := s.config(t)
		target := t.TempDir() + "/target"
		writeFile(t, target, []byte("before"), 0o600)
		for _, name := range []string{nextFile, KeyFile} {
			if err := os.Symlink(target, filepath.Join(c.Dir, temporary(name))); err != nil {
				t.Fatal(err)
			}
		}
		mustRun(t, c)
		if after, err := os.ReadFile(target); string(after) != "before" {
			t.Errorf("what the link leads to was written: %q, %v", after, err)
		}
	})
}

// TestNamesAreNoPatterns: a directory's name is a name, and only our own left-overs are removed.
func TestNamesAreNoPatterns(t *testing.T) {
	s := newESTServer(t, newTestCA(t, "good"), nil)
	c := s.config(t)
	parent := c.Dir
	c.Dir = parent + "/dev[1]"
	own := temporary(KeyFile)
	for _, dir := range []string{"dev1", "dev[1]"} {
		if err := os.Mkdir(parent+"/"+dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{own, ".tpm-1.tmp", ".notes.tmp"} {
			writeFile(t, filepath.Join(parent, dir, name), []byte("x"), 0o600)
		}
	}
	mustRun(t, c)
	for path, want := range map[string]bool{"dev1/" + own: true, "dev1/.tpm-1.tmp": true, "dev1/.notes.tmp": true,
		"dev[1]/" + own: false, "dev[1]/.tpm-1.tmp": false, "dev[1]/.notes.tmp": true, "dev[1]/" + KeyFile: true} {
		if _, err := os.Lstat(parent + "/" + path); (err == nil) != want {
			t.Errorf("%s is there: %v", path, !want)
		}
	}
}

// TestPlantedNext: a pair in next.pem counts if it is of our CA and of our device.
func TestPlantedNext(t *testing.T) {
	ca, foreign := newTestCA(t, "good"), newTestCA(t, "foreign")
	s := newESTServer(t, ca, nil)
	next := func(t *testing.T, dir string, id *Identity) {
		key, err := EncodeKey(id.Key)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir+"/"+nextFile, append(key, encodeCertificates(id.certificates()...)...), 0o600)
	}
	selfSigned := func() *Identity {
		key := newKey(t)
		return &Identity{Key: key, Certificate: sign(t, &x509.Certificate{SerialNumber: serialNumber(t), Subject: ca.leaf(t, "sensor-1", key.Public(), nil).Subject,
			NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, nil, key.Public(), key)}
	}
	for _, tt := range []struct {
		name string
		id   *Identity
		kind Kind
		text string
	}{
		{"of another CA", foreign.identity(t, "sensor-1", nil), Local, "does not chain"},
		{"of nobody", selfSigned(), Local, "does not chain"},
		{"of another device", ca.identity(t, "sensor-2", nil), Usage, `for "sensor-2", not "sensor-1"`},
	} {
		for _, enrolled := range []bool{true, false} {
			c := s.config(t)
			if enrolled {
				mustRun(t, c)
			}
			next(t, c.Dir, tt.id)
			kind, text := tt.kind, tt.text
			if !enrolled {
				kind = Local
				text = "does not chain"
			}
			_, err := Run(t.Context(), c)
			wantError(t, err, kind, text)
			if HintOf(err) == "" {
				t.Error("no hint")
			}
			if _, err := os.Lstat(c.Dir + "/" + nextFile); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			c.Force = true
			if r := mustRun(t, c); r.Device != "sensor-1" {
				t.Errorf("%s: %+v", tt.name, r)
			}
			if id := load(t, c); id.Certificate.Equal(tt.id.Certificate) {
				t.Errorf("%s: it was taken", tt.name)
			}
		}
	}
	c := s.config(t)
	mustRun(t, c)
	good := ca.identity(t, "sensor-1", nil)
	next(t, c.Dir, good)
	if r := mustRun(t, c); r.Serial != good.Serial() {
		t.Errorf("ours was not taken: %+v", r)
	}
}
