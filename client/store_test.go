package client

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var errCrash = errors.New("crash")

// TestSaveCrash stops Save before each of its durable steps, as a crash does, and
// looks at what is left: always one of the two identities whole, and after
// Recover the files agree with it and nothing is lying about.
func TestSaveCrash(t *testing.T) {
	ca := newTestCA(t, "good")
	first, second := ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)
	for _, start := range []*Identity{nil, first} {
		steps := countSteps(t, ca, start, second)
		if steps < 20 {
			t.Fatalf("Save takes %d steps: the hook misses some", steps)
		}
		committed := false
		for n := range steps + 1 {
			t.Run(fmt.Sprintf("from %v step %d", start != nil, n), func(t *testing.T) {
				s := anchored(t, ca)
				if start != nil {
					save(t, s, start)
				}
				if err := s.savePending(pending{purpose: "p", key: second.Key, state: []byte("state")}); err != nil {
					t.Fatal(err)
				}
				at := 0
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
				s = &Store{Dir: s.Dir}
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
				if err := s.Recover(); err != nil {
					t.Fatal(err)
				}
				want := start
				if committed {
					want = second
				}
				checkFiles(t, s, want)
			})
		}
		if !committed {
			t.Error("the new identity never became visible")
		}
	}
}

// TestRecoverCrash stops Recover itself at each step after Save was stopped right at its commit.
func TestRecoverCrash(t *testing.T) {
	ca := newTestCA(t, "good")
	first, second := ca.identity(t, "sensor-1", nil), ca.identity(t, "sensor-1", nil)
	for n := range 60 {
		s := anchored(t, ca)
		save(t, s, first)
		committed := false
		s.step = func(op, name string) error {
			if committed {
				return errCrash
			}
			committed = op == "syncdir" && name == nextFile
			return nil
		}
		if err := s.Save(second); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		at := 0
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
			return
		}
	}
	t.Error("Recover never ended")
}

// TestSaveOrder: each rename comes after the sync of its file and before that of
// the directory; the whole new pair is durable before the first of the
// old files changes; the key goes before the certificate.
func TestSaveOrder(t *testing.T) {
	ca := newTestCA(t, "good")
	s := &Store{Dir: t.TempDir()}
	save(t, s, ca.identity(t, "sensor-1", nil))
	var steps []string
	s.step = func(op, name string) error { steps = append(steps, op+" "+name); return nil }
	save(t, s, ca.identity(t, "sensor-1", nil))
	at := func(step string) int {
		i := slices.Index(steps, step)
		if i < 0 {
			t.Fatalf("no step %q in %v", step, steps)
		}
		return i
	}
	for _, name := range []string{nextFile, KeyFile, CertFile, ChainFile, FullChainFile} {
		if at("write "+name) > at("sync "+name) || at("sync "+name) > at("rename "+name) || at("syncdir "+name) != at("rename "+name)+1 {
			t.Errorf("%s is not written safely: %v", name, steps)
		}
	}
	if at("syncdir "+nextFile) > at("rename "+KeyFile) || at("syncdir "+KeyFile) > at("rename "+CertFile) || at("remove "+nextFile) < at("syncdir "+FullChainFile) {
		t.Errorf("order: %v", steps)
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
			info, err := os.Lstat(s.path(name))
			if err != nil || info.Mode() != want {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
	})
	t.Run("hardware key", func(t *testing.T) {
		s := &Store{Dir: t.TempDir(), Signer: id.Key}
		save(t, s, id)
		entries, _ := os.ReadDir(s.Dir)
		for _, e := range entries {
			if text, _ := os.ReadFile(s.path(e.Name())); strings.Contains(string(text), "PRIVATE") {
				t.Errorf("%s holds a private key", e.Name())
			}
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
		back, err := ParseKey(text)
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

func countSteps(t *testing.T, ca *testCA, start, next *Identity) (n int) {
	s := anchored(t, ca)
	if start != nil {
		save(t, s, start)
	}
	if err := s.savePending(pending{purpose: "p", key: next.Key}); err != nil {
		t.Fatal(err)
	}
	s.step = func(string, string) error { n++; return nil }
	save(t, s, next)
	return n
}

// checkFiles reads the files as other programs do, without Load.
func checkFiles(t *testing.T, s *Store, want *Identity) {
	t.Helper()
	hidden, _ := filepath.Glob(s.path(".*.tmp"))
	if _, err := os.Stat(s.path(nextFile)); err == nil || len(hidden) > 0 {
		t.Errorf("left over: next.pem %v, %v", err == nil, hidden)
	}
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
