//go:build cgo

package keys_test

import (
	"cmp"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// What a token lacks, one mechanism after the other.
var lacks = []struct{ without, sealedBy string }{
	{"", "AES-GCM"},
	{"C_GetMechanismInfo lack 1087", "AES-CBC and HMAC"}, // CKM_AES_GCM
	{"C_GetMechanismInfo lack 251", "RSA-OAEP"},          // CKM_SHA256_HMAC
	{"C_GetMechanismInfo lack 9", "ECDH"},                // CKM_RSA_PKCS_OAEP
	{"C_GetMechanismInfo lack 1050", ""},                 // CKM_ECDH1_DERIVE
}

// A token seals by the best that it has, and each way keeps the whole contract.
func TestSealByWhatThereIs(t *testing.T) {
	control := ""
	for _, c := range lacks {
		control += c.without + "\n"
		t.Run(cmp.Or(c.sealedBy, "nothing"), func(t *testing.T) {
			proxy := newProxy(t)
			proxy.control(t, control)
			if c.sealedBy == "" {
				wantNoSeal(t, open(t, proxy.uri, keys.Options{}))
				return
			}
			keystest.Run(t, func(t *testing.T) keys.Provider { return open(t, proxy.uri, keys.Options{}) }, []keys.Spec{keys.ECDSAP256})
			p := open(t, proxy.uri, keys.Options{})
			sealed, err := p.Seal(t.Context(), []byte("secret"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if by := keys.SealedBy(sealed); by != c.sealedBy {
				t.Errorf("sealed by %s, want %s", by, c.sealedBy)
			}
			// A token that learns more goes on with the key that it has.
			proxy.control(t, "")
			again, err := p.Seal(t.Context(), []byte("secret"), nil)
			if err != nil || keys.SealedBy(again) != c.sealedBy {
				t.Errorf("later sealed by %s, %v", keys.SealedBy(again), err)
			}
		})
	}
}

func wantNoSeal(t *testing.T, p keys.Provider) {
	t.Helper()
	for _, err := range []error{p.Check(t.Context(), nil, true), func() error { _, err := p.Seal(t.Context(), nil, nil); return err }()} {
		if err == nil || isErr(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "CKM_RSA_PKCS_OAEP") {
			t.Errorf("a token that can seal nothing: %v", err)
		}
	}
}

// A mechanism that is offered and then fails is passed over, and leaves nothing behind.
func TestSealOfferedButFails(t *testing.T) {
	for _, fails := range []string{"C_GenerateKey fail d0", "C_Encrypt fail 6", "C_EncryptInit fail 70"} {
		t.Run(fails, func(t *testing.T) {
			proxy := newProxy(t)
			p := open(t, proxy.uri, keys.Options{})
			proxy.control(t, fails)
			var wg sync.WaitGroup
			for range 4 { // those that come meanwhile must not take a key that does not stay
				wg.Go(func() {
					sealed, err := p.Seal(t.Context(), []byte("secret"), []byte("aad"))
					if err != nil || keys.SealedBy(sealed) != "RSA-OAEP" {
						t.Errorf("sealed by %s, %v", keys.SealedBy(sealed), err)
					}
					if got, err := p.Unseal(t.Context(), sealed, []byte("aad")); err != nil || string(got) != "secret" {
						t.Errorf("unsealed %q, %v", got, err)
					}
				})
			}
			wg.Wait()
			proxy.control(t, "")
			// Another value looks anew: were a key left, it would seal with that.
			other := open(t, proxy.uri, keys.Options{})
			if sealed, err := other.Seal(t.Context(), nil, nil); err != nil || keys.SealedBy(sealed) != "RSA-OAEP" {
				t.Errorf("another value seals by %s, %v", keys.SealedBy(sealed), err)
			}
		})
	}
}

// A token that is away while the wrapping key is made is away: nothing is concluded from it.
func TestSealWhileAway(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{})
	proxy.control(t, "* fail 30")
	if _, err := p.Seal(t.Context(), nil, nil); !isErr(err, keys.ErrUnavailable) {
		t.Errorf("sealed: %v", err)
	}
	proxy.control(t, "")
	keystest.WaitFor(t, "it seals by AES-GCM", func() bool {
		sealed, err := p.Seal(t.Context(), nil, nil)
		return err == nil && keys.SealedBy(sealed) == "AES-GCM"
	})
}

// What the version before the other ways sealed, opens: testdata/sealed-v1 is a token and a directory of its making.
func TestUnsealOld(t *testing.T) {
	_, dir := keystest.SoftHSM(t) // for its configuration
	old := filepath.Join(dir, "old")
	copyTree(t, "testdata/sealed-v1", old)
	conf := "directories.tokendir = " + filepath.Join(old, "tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(filepath.Join(dir, "softhsm2.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TEST_PASSPHRASE", "correct horse")
	token := keys.URI{Token: keystest.Label, ModulePath: keystest.Module(t)}.String()
	for _, c := range []struct{ sealed, uri, pin string }{
		{"sealed", token, "file:" + filepath.Join(dir, "user.pin")},
		{"sealed-file", "file:" + filepath.Join(old, "file"), "env:TEST_PASSPHRASE"},
	} {
		p := open(t, c.uri, keys.Options{PIN: pinSource(t, c.pin), AllowFile: true})
		text, err := os.ReadFile(filepath.Join(old, c.sealed))
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := hex.DecodeString(string(text))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := p.Unseal(t.Context(), sealed, []byte("aad")); err != nil || string(got) != "an old secret" {
			t.Errorf("%s: unsealed %q, %v", c.sealed, got, err)
		}
		again, err := p.Seal(t.Context(), nil, nil)
		if err != nil || again[0] != sealed[0] {
			t.Errorf("%s: sealed again by %s, %v", c.sealed, keys.SealedBy(again), err)
		}
	}
}

// copyTree copies files for their owner alone, as tokens and keys are kept.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(target, 0o700))
		}
		b, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(target, b, 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
}
