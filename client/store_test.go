package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var errCrash = errors.New("crash")

// ways are those to save a pair: by links, without, and by links what was saved without.
var ways = []struct {
	name          string
	before, after bool // plain
}{{"links", false, false}, {"plain", true, true}, {"upgrade", true, false}}

// TestSaveCrash stops Save before each of its durable steps, as a crash does, and
// looks at what is left: always one of the two identities whole, and after
// Recover the files agree with it and nothing is lying about.
func TestSaveCrash(t *testing.T) {
	ca := newTestCA(t, "good")
	first, second := ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)
	for _, way := range ways {
		for _, start := range []*Identity{nil, first} {
			steps := countSteps(t, ca, start, second, way.before, way.after)
			if steps < 20 {
				t.Fatalf("Save takes %d steps: the hook misses some", steps)
			}
			committed := false
			for n := range steps + 1 {
				t.Run(fmt.Sprintf("%s from %v step %d", way.name, start != nil, n), func(t *testing.T) {
					s := anchored(t, ca)
					s.plain = way.before
					if start != nil {
						save(t, s, start)
					}
					if err := s.savePending(pending{purpose: "p", key: second.Key, state: []byte("state")}); err != nil {
						t.Fatal(err)
					}
					at := 0
					s.plain = way.after
					s.step = func(op, name string) error {
						if at++; at > n {
							return errCrash
						}
						return nil
					}
					err := s.Save(second)
					if (err == nil) != (n == steps) {
						t.Fatalf("Save: %v", err)
					}
					// A process that starts after the crash.
					s = &Store{Dir: s.Dir, plain: way.after}
					got, err := s.Load()
					switch {
					case errors.Is(err, ErrNoIdentity) && start == nil && !committed:
					case err != nil:
						t.Fatalf("Load: %v", err)
					case got.Certificate.Equal(second.Certificate):
						committed = true
					case start == nil || !got.Certificate.Equal(start.Certificate) || committed:
						t.Fatal("Load: neither the old nor the new identity, or the old one again after the new")
					}
					if _, err := os.Stat(s.path(nextFile)); !committed && err == nil {
						t.Error("next.pem is there and not used")
					}
					if p, err := s.loadPending("p"); err != nil || p == nil && !committed {
						t.Errorf("the request and its key are lost before the new identity is safe: %v", err)
					}
					want := start
					if committed {
						want = second
					}
					if !way.after { // other programs need no Recover
						checkFiles(t, s, want)
					}
					if err := s.Recover(); err != nil {
						t.Fatal(err)
					}
					checkFiles(t, s, want)
					checkTidy(t, s)
				})
			}
			if !committed {
				t.Error("the new identity never became visible")
			}
		}
	}
}

// TestRecoverCrash stops Recover itself at each step after Save was stopped right at its commit.
func TestRecoverCrash(t *testing.T) {
	ca := newTestCA(t, "good")
	first, second := ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)
	for _, plain := range []bool{true, false} {
		ended := false
		for n := 0; !ended && n < 80; n++ {
			s := anchored(t, ca)
			s.plain = true
			save(t, s, first)
			committed := false
			s.step = func(op, name string) error {
				if committed {
					return errCrash
				}
				committed = op == "rename" && name == KeyFile // the file is replaced, the certificate is not
				return nil
			}
			if err := s.Save(second); !errors.Is(err, errCrash) {
				t.Fatal(err)
			}
			at := 0
			s.plain = plain
			s.step = func(string, string) error {
				if at++; at > n {
					return errCrash
				}
				return nil
			}
			err := s.Recover()
			s.step = nil
			if got, lerr := s.Load(); lerr != nil || !got.Certificate.Equal(second.Certificate) {
				t.Fatalf("step %d: %v", n, lerr)
			}
			if err == nil {
				checkFiles(t, s, second)
				checkTidy(t, s)
				ended = true
			}
		}
		if !ended {
			t.Error("Recover never ended")
		}
	}
}

// TestSaveOrder: each rename comes after the sync of its file and before that of
// the directory; the whole new pair is durable before anything leads to it, or the first of the
// old files changes; without links, the key goes before the certificate.
func TestSaveOrder(t *testing.T) {
	ca := newTestCA(t, "good")
	record := func(plain bool) (steps []string, at func(string) int) {
		s := &Store{Dir: t.TempDir(), plain: plain}
		save(t, s, ca.identity(t, "sensor-1", nil))
		s.step = func(op, name string) error { steps = append(steps, op+" "+name); return nil }
		save(t, s, ca.identity(t, "sensor-1", nil))
		return steps, func(step string) int {
			i := slices.Index(steps, step)
			if i < 0 {
				t.Fatalf("no step %q in %v", step, steps)
			}
			return i
		}
	}
	steps, at := record(true)
	for _, name := range []string{nextFile, KeyFile, CertFile, ChainFile, FullChainFile} {
		if temp := temporary(name); at("write "+temp) > at("sync "+temp) || at("sync "+temp) > at("rename "+name) || steps[at("rename "+name)+1] != "syncdir ." {
			t.Errorf("%s is not written safely: %v", name, steps)
		}
	}
	if at("rename "+nextFile) > at("rename "+KeyFile) || at("rename "+KeyFile) > at("rename "+CertFile) || at("remove "+nextFile) < at("rename "+FullChainFile) {
		t.Errorf("order: %v", steps)
	}
	steps, at = record(false)
	for _, name := range pairFiles {
		if file := ".pairs/2/" + name; at("write "+file) > at("sync "+file) || at("sync "+file) > at("syncdir .pairs/2") {
			t.Errorf("%s is not written safely: %v", name, steps)
		}
	}
	if at("syncdir .pairs/2") > at("syncdir .pairs") || at("syncdir .pairs") > at("rename live") || steps[at("rename live")+1] != "syncdir ." || at("remove request.pem") < at("rename live") {
		t.Errorf("order: %v", steps)
	}
}

// TestReaders: programs that read while certificates are renewed. One that finds out once where live leads never meets a pair that
// does not fit; and no file is ever missing for one that does not.
func TestReaders(t *testing.T) {
	ca := newTestCA(t, "good")
	s := anchored(t, ca)
	ids := []*Identity{ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)}
	save(t, s, ids[0])
	var pairs, single atomic.Int64
	stop := make(chan struct{})
	var readers sync.WaitGroup
	loop := func(n *atomic.Int64, read func()) {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					read()
					n.Add(1)
				}
			}
		})
	}
	loop(&pairs, func() {
		dir, err := filepath.EvalSymlinks(s.path(liveLink))
		if err == nil {
			_, err = tls.LoadX509KeyPair(filepath.Join(dir, FullChainFile), filepath.Join(dir, KeyFile))
		}
		if err != nil {
			t.Errorf("a pair: %v", err)
		}
	})
	loop(&single, func() {
		for _, name := range pairFiles {
			if text, err := os.ReadFile(s.path(name)); err != nil || !bytes.HasSuffix(text, []byte("-----END "+map[bool]string{true: "PRIVATE KEY", false: "CERTIFICATE"}[name == KeyFile]+"-----\n")) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	for i := range 20 {
		save(t, s, ids[(i+1)%2])
		before := [2]int64{pairs.Load(), single.Load()}                 // after it: the second read from here on began with this pair
		for pairs.Load() < before[0]+2 || single.Load() < before[1]+2 { // each reads at least once from beginning to end between two
			runtime.Gosched()
		}
	}
	close(stop)
	readers.Wait()
	checkTidy(t, s)
	if entries, err := os.ReadDir(s.path(pairsDir)); err != nil || len(entries) != 2 {
		t.Errorf("%v, %v: the pair in use and the one before are expected", entries, err)
	}
}

// TestAdopt: files that were put in the place of links, as from a backup, are the pair; and so are those of an older version.
func TestAdopt(t *testing.T) {
	ca := newTestCA(t, "good")
	first, second, third := ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)
	s := anchored(t, ca)
	save(t, s, first)
	content, err := s.pairContent(second)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		if err := os.Remove(s.path(name)); err != nil {
			t.Fatal(err)
		}
		writeFile(t, s.path(name), text, 0o600)
	}
	if got, err := s.Load(); err != nil || !got.Certificate.Equal(second.Certificate) {
		t.Fatalf("restored: %v", err)
	}
	save(t, s, third)
	checkFiles(t, s, third)
	if text, err := os.ReadFile(s.path(".pairs/2/" + KeyFile)); err != nil || !bytes.Equal(text, content[KeyFile]) {
		t.Errorf("the pair before is not the restored one: %v", err)
	}
	// Without the certificate, which says "enrol anew", there is no identity.
	if err := os.Remove(s.path(CertFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("Load: %v", err)
	}
	save(t, s, first)
	checkFiles(t, s, first)
	// Without any pair either; the next one is written all the same.
	if err := os.RemoveAll(s.path(pairsDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("Load: %v", err)
	}
	if err := s.Recover(); err != nil {
		t.Error(err)
	}
	save(t, s, first)
	checkFiles(t, s, first)
	// A copy that follows links: the files count, once what was a link is gone.
	other := &Store{Dir: t.TempDir()}
	if err := os.CopyFS(other.path(liveLink), os.DirFS(s.path(pairsDir))); err != nil {
		t.Fatal(err)
	}
	content, err = s.pairContent(first)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		writeFile(t, other.path(name), text, 0o600)
	}
	err = other.Save(second)
	wantError(t, err, Local, "live in ")
	if !strings.Contains(HintOf(err), "remove it") {
		t.Errorf("hint %q", HintOf(err))
	}
	if err := os.RemoveAll(other.path(liveLink)); err != nil {
		t.Fatal(err)
	}
	save(t, other, second)
	checkFiles(t, other, second)
	// A link that leads out is none of ours.
	for _, target := range []string{"/etc", ".pairs/../..", ".pairs/01", ".pairs/0", "."} {
		if err := errors.Join(os.Remove(s.path(liveLink)), os.Symlink(target, s.path(liveLink))); err != nil {
			t.Fatal(err)
		}
		_, err := s.Load()
		wantError(t, err, Local, "does not lead to one of the pairs")
		if err := s.Save(second); err == nil {
			t.Errorf("saved behind %s", target)
		}
	}
}

func TestStore(t *testing.T) {
	ca := newTestCA(t, "good")
	id := ca.identity(t, "sensor-1", nil)
	t.Run("modes", func(t *testing.T) {
		s := &Store{Dir: t.TempDir()}
		save(t, s, id)
		if err := s.SaveRoots([]*x509.Certificate{ca.root}); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{KeyFile: 0o600, CertFile: 0o644, ChainFile: 0o644, FullChainFile: 0o644, RootsFile: 0o644} {
			info, err := os.Stat(s.path(name))
			if err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
	})
	t.Run("hardware key", func(t *testing.T) {
		s := &Store{Dir: t.TempDir(), Signer: id.Key}
		save(t, s, id)
		files := 0
		err := filepath.WalkDir(s.Dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				files++
				if text, err := os.ReadFile(path); err != nil || strings.Contains(string(text), "PRIVATE") {
					t.Errorf("%s holds a private key: %v", path, err)
				}
			}
			return err
		})
		if err != nil || files != 3 {
			t.Errorf("%d files, %v", files, err)
		}
		if got, err := s.Load(); err != nil || !got.Certificate.Equal(id.Certificate) {
			t.Error(err)
		}
		if _, err := (&Store{Dir: s.Dir, Signer: newKey(t)}).Load(); err == nil {
			t.Error("another hardware key was taken for the certificate's")
		}
	})
	t.Run("mismatch", func(t *testing.T) {
		s := &Store{Dir: t.TempDir()}
		save(t, s, id)
		text, _ := EncodeKey(newKey(t))
		if err := os.WriteFile(s.path(KeyFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); KindOf(err) != Local || HintOf(err) == "" || err == nil {
			t.Errorf("Load: %v", err)
		}
	})
	t.Run("spoilt next.pem", func(t *testing.T) {
		s := &Store{Dir: t.TempDir()}
		save(t, s, id)
		if err := os.WriteFile(s.path(nextFile), []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Recover(); err != nil {
			t.Fatal(err)
		}
		checkFiles(t, s, id)
	})
	t.Run("one writer", func(t *testing.T) {
		s := &Store{Dir: t.TempDir()}
		unlock, err := s.lock()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.lock(); err == nil {
			t.Error("locked twice")
		}
		unlock()
		if unlock, err = s.lock(); err != nil {
			t.Fatal(err)
		}
		unlock()
	})
}

func TestKeys(t *testing.T) {
	for _, kind := range KeyTypes() {
		key, err := GenerateKey(kind)
		if err != nil {
			t.Fatal(err)
		}
		text, err := EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseKey(append([]byte("\ufeff"), text...))
		if err != nil || !samePublic(key.Public(), back.Public()) || KeyTypeOf(back.Public()) != kind {
			t.Errorf("%s: %v", kind, err)
		}
		req := Request{Key: key}
		if req.Names, err = DeviceNames("sensor-1", AltNames{DNS: []string{"a.example"}}); err != nil {
			t.Fatal(err)
		}
		der, err := req.csr()
		if err != nil {
			t.Fatal(err)
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || csr.CheckSignature() != nil || csr.Subject.CommonName != "sensor-1" || !slices.Equal(csr.DNSNames, []string{"a.example"}) {
			t.Errorf("%s: CSR %v, %v", kind, csr, err)
		}
	}
	for _, text := range []string{"", "rubbish", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"} {
		if _, err := ParseKey([]byte(text)); err == nil {
			t.Errorf("ParseKey(%q) gave a key", text)
		}
	}
	if _, err := GenerateKey("dsa"); KindOf(err) != Usage {
		t.Errorf("GenerateKey(dsa): %v", err)
	}
}

func save(t *testing.T, s *Store, id *Identity) {
	t.Helper()
	if err := s.Save(id); err != nil {
		t.Fatal(err)
	}
}

// anchored is a store that knows the CA.
func anchored(t *testing.T, ca *testCA) *Store {
	t.Helper()
	s := &Store{Dir: t.TempDir()}
	if err := s.SaveRoots([]*x509.Certificate{ca.root}); err != nil {
		t.Fatal(err)
	}
	return s
}

func countSteps(t *testing.T, ca *testCA, start, next *Identity, before, after bool) (n int) {
	s := anchored(t, ca)
	s.plain = before
	if start != nil {
		save(t, s, start)
	}
	if err := s.savePending(pending{purpose: "p", key: next.Key}); err != nil {
		t.Fatal(err)
	}
	s.step = func(string, string) error { n++; return nil }
	s.plain = after
	save(t, s, next)
	return n
}

// checkFiles reads the files as other programs do, without Load.
func checkFiles(t *testing.T, s *Store, want *Identity) {
	t.Helper()
	if want == nil {
		wantNoIdentity(t, s.Dir)
		return
	}
	text, err := os.ReadFile(s.path(KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(text)
	if err != nil || !samePublic(key.Public(), want.Certificate.PublicKey) {
		t.Errorf("key.pem is not the certificate's: %v", err)
	}
	for name, want := range map[string][]*x509.Certificate{CertFile: {want.Certificate}, ChainFile: want.Chain, FullChainFile: want.certificates()} {
		got, err := ReadCertificates(s.path(name))
		if err != nil || !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// checkTidy looks for what a crash leaves.
func checkTidy(t *testing.T, s *Store) {
	t.Helper()
	hidden, err := filepath.Glob(s.path(".*.tmp"))
	if _, statErr := os.Stat(s.path(nextFile)); statErr == nil || len(hidden) > 0 || err != nil {
		t.Errorf("left over: next.pem %v, %v, %v", statErr == nil, hidden, err)
	}
	if pairs, err := filepath.Glob(s.path(pairsDir + "/*")); err != nil || len(pairs) > 2 {
		t.Errorf("left over: %v, %v", pairs, err)
	}
}
