//go:build cgo

package keys_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// OpenSC's tool is an independent reader of what lies on the token.
func TestPKCS11Tool(t *testing.T) {
	uri, dir := keystest.SoftHSM(t)
	p := open(t, uri, keys.Options{})
	k, err := p.Generate(t.Context(), "issuing", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Seal(t.Context(), []byte("s"), nil); err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) (string, error) {
		args = append([]string{"--module", keystest.Module(t), "--token-label", keystest.Label, "--login", "--pin", keystest.PIN}, args...)
		out, err := exec.Command("pkcs11-tool", args...).CombinedOutput()
		return string(out), err
	}
	list := func(kind string) string {
		t.Helper()
		out, err := tool("--list-objects", "--type", kind)
		if err != nil {
			t.Fatalf("pkcs11-tool: %v: %s", err, out)
		}
		return out
	}
	private := list("privkey")
	for _, want := range []string{"issuing", "Usage:      sign\n", "sensitive, always sensitive, never extractable, local"} {
		if !strings.Contains(private, want) {
			t.Errorf("no %q in:\n%s", want, private)
		}
	}
	wrap := list("secrkey")
	for _, want := range []string{"AES length 32", "Usage:      encrypt, decrypt\n", "sensitive, always sensitive, never extractable, local"} {
		if !strings.Contains(wrap, want) {
			t.Errorf("no %q in:\n%s", want, wrap)
		}
	}
	if public := list("pubkey"); !strings.Contains(public, "issuing") {
		t.Errorf("public key: %s", public)
	}
	// The tool refuses by itself and says success; so the token is asked too.
	leak := filepath.Join(dir, "leak")
	out, _ := tool("--read-object", "--type", "privkey", "--label", "issuing", "-o", leak)
	if b, err := os.ReadFile(leak); err == nil && len(b) > 0 {
		t.Errorf("%d bytes of the private key came out: %s", len(b), out)
	}
	if err := readValue(t, "issuing"); !isErr(err, pkcs11.Error(pkcs11.CKR_ATTRIBUTE_SENSITIVE)) {
		t.Errorf("CKA_VALUE of the private key: %v", err)
	}
	// And it signs with the key that we made, so that the public key is that of the private.
	in, sig := filepath.Join(dir, "in"), filepath.Join(dir, "sig")
	sum := sha256.Sum256([]byte("message"))
	if err := os.WriteFile(in, sum[:], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := tool("--sign", "--label", "issuing", "--mechanism", "ECDSA", "--signature-format", "openssl", "-i", in, "-o", sig); err != nil {
		t.Fatalf("pkcs11-tool: %v: %s", err, out)
	}
	raw, err := os.ReadFile(sig)
	if err != nil || !verifies(k, sum[:], raw) {
		t.Errorf("pkcs11-tool's signature: %v", err)
	}
}

// readValue reads the private value of a key, in the process that p logged in.
func readValue(t *testing.T, label string) error {
	t.Helper()
	ctx, s := rawSession(t)
	err := ctx.FindObjectsInit(s, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)})
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := ctx.FindObjects(s, 2)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d keys, %v", len(found), err)
	}
	if err := ctx.FindObjectsFinal(s); err != nil {
		t.Fatal(err)
	}
	_, err = ctx.GetAttributeValue(s, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
	return err
}

// rawSession opens a session past the provider, whose login it shares.
func rawSession(t testing.TB) (*pkcs11.Ctx, pkcs11.SessionHandle) {
	t.Helper()
	ctx := pkcs11.New(keystest.Module(t))
	if ctx == nil {
		t.Fatal("the module does not load")
	}
	slots, err := ctx.GetSlotList(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, slot := range slots {
		if info, err := ctx.GetTokenInfo(slot); err != nil || info.Label != keystest.Label {
			continue
		}
		s, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ctx.CloseSession(s) })
		return ctx, s
	}
	t.Fatal("no token")
	return nil, 0
}

// A key whose pair another tool made is found and used as well.
func TestForeignKey(t *testing.T) {
	uri, _ := keystest.SoftHSM(t)
	out, err := exec.Command("pkcs11-tool", "--module", keystest.Module(t), "--token-label", keystest.Label, "--login", "--pin", keystest.PIN,
		"--keypairgen", "--key-type", "EC:secp384r1", "--label", "foreign", "--id", "0a0b").CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool: %v: %s", err, out)
	}
	p := open(t, uri, keys.Options{})
	k, err := p.Key(t.Context(), "foreign")
	if err != nil {
		t.Fatal(err)
	}
	if err := sign(k); err != nil {
		t.Error(err)
	}
	u, err := keys.ParseURI(k.URI())
	if err != nil || u.Object != "foreign" || !bytes.Equal(u.ID, []byte{0x0a, 0x0b}) || u.Type != "private" || u.Token != keystest.Label || !u.PINSource.IsZero() {
		t.Errorf("URI %s: %v", k.URI(), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	uri, dir := keystest.SoftHSM(t)
	good, err := keys.ParseURI(uri)
	if err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(dir, "junk.so")
	if err := os.WriteFile(junk, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	change := func(f func(*keys.URI)) string { u := good; f(&u); return u.String() }
	for _, c := range []struct{ name, uri, hint string }{
		{"slot-id", change(func(u *keys.URI) { u.SlotID = "0" }), "token=LABEL"},
		{"no token", change(func(u *keys.URI) { u.Token = "" }), "names no token"},
		{"object", change(func(u *keys.URI) { u.Object = "k" }), "leave object"},
		{"no module", change(func(u *keys.URI) { u.ModulePath = "" }), "module-path"},
		{"two modules", change(func(u *keys.URI) { u.ModuleName = "softhsm2" }), "leave one out"},
		{"unknown module name", change(func(u *keys.URI) { u.ModulePath, u.ModuleName = "", "nonesuch" }), "usual places"},
		{"module that is not there", change(func(u *keys.URI) { u.ModulePath = "/nonesuch.so" }), "no such file"},
		{"module that is no library", change(func(u *keys.URI) { u.ModulePath = junk }), "no shared library"},
		{"library that is no module", change(func(u *keys.URI) { u.ModulePath = libc(t) }), "does not load"},
		{"no such token", change(func(u *keys.URI) { u.Token = "nonesuch" }), "no token matches"},
		{"other serial", change(func(u *keys.URI) { u.Serial = "1" }), "no token matches"},
		{"other library", change(func(u *keys.URI) { u.LibraryManufacturer = "nobody" }), "library attributes"},
		{"no PIN", change(func(u *keys.URI) { u.PINSource = keys.PINSource{} }), "PIN source"},
		{"pin-value", "pkcs11:token=a?module-path=/m.so&pin-value=1", "pin-source"},
		{"unknown scheme", "vault:x", "pkcs11:token="},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := keys.Open(t.Context(), c.uri, keys.Options{})
			if err == nil {
				p.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%q does not mention %q", err, c.hint)
			}
		})
	}
	for name, uri := range map[string]string{
		"by module name": change(func(u *keys.URI) { u.ModulePath, u.ModuleName = "", "softhsm2" }),
		"by all that describes it": change(func(u *keys.URI) {
			u.Manufacturer, u.Model, u.LibraryManufacturer, u.LibraryDescription = "SoftHSM project", "SoftHSM v2", "SoftHSM", "Implementation of PKCS11"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			p := open(t, uri, keys.Options{})
			if err := p.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// libc finds a shared library that is no PKCS#11 module.
func libc(t *testing.T) string {
	t.Helper()
	for _, pattern := range []string{"/lib/*-linux-gnu*/libc.so.6", "/lib64/libc.so.6", "/usr/lib/libc.so.6"} {
		if m, _ := filepath.Glob(pattern); len(m) > 0 {
			return m[0]
		}
	}
	t.Fatal("no libc.so.6")
	return ""
}

// The first Seals on many fresh tokens, together: SoftHSM at times refuses to
// make an object while other sessions read the token.
func TestFirstSeals(t *testing.T) {
	for i := range 20 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			uri, _ := keystest.SoftHSM(t)
			p := open(t, uri, keys.Options{})
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if _, err := p.Seal(t.Context(), []byte("s"), nil); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}
