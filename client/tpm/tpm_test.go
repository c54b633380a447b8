package tpm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/deviceca/deviceca/client"
	"github.com/deviceca/deviceca/client/tpm"
	"github.com/deviceca/deviceca/internal/attesttest"
)

func TestMain(m *testing.M) {
	status := m.Run()
	attesttest.StopShared()
	os.Exit(status)
}

func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// ready gives the shared TPM with a certified AK, and the Config for it.
func ready(t *testing.T) (*attesttest.TPM, tpm.Config) {
	t.Helper()
	hardware := must(attesttest.Shared())(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	const handle = 0x81000100
	ak := must(hardware.MakeAK(attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256), handle))(t)
	dir := t.TempDir()
	c := tpm.Config{Path: "socket:" + hardware.Socket, KeyFile: filepath.Join(dir, "key.tss2.pem"), AK: fmt.Sprintf("%#x", handle), AKChain: filepath.Join(dir, "ak.pem")}
	if err := attesttest.WritePEM(c.AKChain, must(authority.Certify(hardware, ak, "sensor-17"))(t)); err != nil {
		t.Fatal(err)
	}
	return hardware, c
}

// A key is made once, signs requests, and is found again; nothing is left in the TPM's memory.
func TestKeys(t *testing.T) {
	_, c := ready(t)
	for _, kind := range []client.KeyType{"", client.ECDSAP256, client.ECDSAP384, client.RSA2048, client.RSA3072} {
		t.Run(string(kind), func(t *testing.T) {
			c := c
			c.Key, c.KeyFile = kind, filepath.Join(t.TempDir(), "key.pem")
			var first crypto.PublicKey
			for range 4 { // more often than the TPM has places for keys
				device := must(tpm.Open(c))(t)
				public := device.Signer().Public()
				if first == nil {
					first = public
				}
				if !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(first) {
					t.Fatal("another key")
				}
				want := kind
				if want == "" {
					want = client.ECDSAP256
				}
				if got := client.KeyTypeOf(public); got != want {
					t.Errorf("made %s", got)
				}
				der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "sensor-17"}}, device.Signer()))(t)
				if err := must(x509.ParseCertificateRequest(der))(t).CheckSignature(); err != nil {
					t.Error(err)
				}
				if err := device.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if info := must(os.Stat(c.KeyFile))(t); info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v", info.Mode())
			}
			if files := must(filepath.Glob(filepath.Join(filepath.Dir(c.KeyFile), ".*")))(t); len(files) > 0 {
				t.Errorf("left over: %v", files)
			}
		})
	}
}

func TestSign(t *testing.T) {
	_, c := ready(t)
	digest := sha256.Sum256([]byte("message"))
	for _, kind := range []client.KeyType{client.ECDSAP256, client.RSA2048} {
		c := c
		c.Key, c.KeyFile = kind, filepath.Join(t.TempDir(), "key.pem")
		device := must(tpm.Open(c))(t)
		defer device.Close()
		signer := device.Signer()
		for _, c := range []struct {
			name   string
			digest []byte
			opts   crypto.SignerOpts
			says   string
		}{
			{"SHA-256", digest[:], crypto.SHA256, ""},
			{"SHA-384", make([]byte, 48), crypto.SHA384, ""},
			{"SHA-512", make([]byte, 64), crypto.SHA512, ""},
			{"PSS with the salt that there is", digest[:], &rsa.PSSOptions{Hash: crypto.SHA256}, ""},
			{"SHA-1", make([]byte, 20), crypto.SHA1, "SHA-256, SHA-384 or SHA-512 is due"},
			{"no hash", []byte("message"), crypto.Hash(0), "SHA-256, SHA-384 or SHA-512 is due"},
			{"digest of another size", digest[:20], crypto.SHA256, "one of 20 octets"},
		} {
			signature, err := signer.Sign(rand.Reader, c.digest, c.opts)
			if c.says != "" {
				if err == nil || !strings.Contains(err.Error(), c.says) {
					t.Errorf("%s, %s: %v", kind, c.name, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s, %s: %v", kind, c.name, err)
				continue
			}
			switch key := signer.Public().(type) {
			case *ecdsa.PublicKey:
				if !ecdsa.VerifyASN1(key, c.digest, signature) {
					t.Errorf("%s, %s: does not verify", kind, c.name)
				}
			case *rsa.PublicKey:
				err := rsa.VerifyPKCS1v15(key, c.opts.HashFunc(), c.digest, signature)
				if options, ok := c.opts.(*rsa.PSSOptions); ok {
					err = rsa.VerifyPSS(key, c.opts.HashFunc(), c.digest, signature, options)
				}
				if err != nil {
					t.Errorf("%s, %s: %v", kind, c.name, err)
				}
			}
		}
	}
}

// An AK in a file does as well as a persistent one.
func TestAKInFile(t *testing.T) {
	hardware, c := ready(t)
	c.AK = filepath.Join(t.TempDir(), "ak.tss2.pem")
	if err := tpm.CreateKeyFile(hardware, attesttest.RSAAK(tpm2.TPMAlgRSAPSS, tpm2.TPMAlgSHA384), c.AK); err != nil {
		t.Fatal(err)
	}
	if _, err := tpm.Open(c); err == nil || !strings.Contains(err.Error(), "is not the attestation key's") {
		t.Errorf("an AK with the certificate of another: %v", err)
	}
	file := must(tpm.ParseKeyFile(must(os.ReadFile(c.AK))(t)))(t)
	area := must(tpm2.Unmarshal[tpm2.TPMTPublic](file.Public))(t)
	authority := must(attesttest.NewAuthority("Acme"))(t)
	chain := must(authority.Issue(must(tpm2.Pub(*area))(t), "sensor-17"))(t)
	if err := attesttest.WritePEM(c.AKChain, chain); err != nil {
		t.Fatal(err)
	}
	device := must(tpm.Open(c))(t)
	defer device.Close()
	must(device.Attest(t.Context(), "token.thumbprint"))(t)
}

// Several at once take their turns.
func TestConcurrent(t *testing.T) {
	_, c := ready(t)
	device := must(tpm.Open(c))(t)
	defer device.Close()
	digest := sha256.Sum256([]byte("message"))
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, err := device.Signer().Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
				t.Error(err)
			}
			if made, err := device.Attest(context.Background(), "token.thumbprint"); err != nil || made.Key.Public() == nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := device.Attest(cancelled, "token.thumbprint"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What is wrong is said, and what to do about it; and nothing is left in the TPM's memory.
func TestOpenRefuses(t *testing.T) {
	hardware, good := ready(t)
	must(tpm.Open(good))(t).Close()
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := must(os.ReadFile(good.KeyFile))(t)
	spoilt := must(tpm.ParseKeyFile(key))(t)
	spoilt.Private[len(spoilt.Private)-1] ^= 1
	orphan := must(tpm.ParseKeyFile(key))(t)
	orphan.Parent = 0x81000123
	plain := must(hardware.MakeAK(deviceKey(), 0x81000102))(t)
	for _, c := range []struct {
		name string
		edit func(*tpm.Config)
		kind client.Kind
		says string
	}{
		{"no such TPM", func(c *tpm.Config) { c.Path = filepath.Join(dir, "none") }, client.Local, "cannot be opened"},
		{"no such socket", func(c *tpm.Config) { c.Path = "socket:" + filepath.Join(dir, "none") }, client.Local, "cannot be opened"},
		{"a file as TPM", func(c *tpm.Config) { c.Path = write("plain", nil) }, client.Local, "cannot be opened"},
		{"no chain", func(c *tpm.Config) { c.AKChain = filepath.Join(dir, "none") }, client.Local, "certificates cannot be read"},
		{"no AK there", func(c *tpm.Config) { c.AK = "0x81000777" }, client.Local, "attestation key cannot be used"},
		{"no AK file", func(c *tpm.Config) { c.AK = filepath.Join(dir, "none") }, client.Local, "attestation key cannot be used"},
		{"an AK that signs anything", func(c *tpm.Config) { c.AK = fmt.Sprintf("%#x", uint32(plain.Handle)) }, client.Local, "is not an attestation key"},
		{"the key as AK", func(c *tpm.Config) { c.AK = good.KeyFile }, client.Local, "is not an attestation key"},
		{"a key of another TPM", func(c *tpm.Config) { c.KeyFile = write("spoilt", spoilt.Marshal()) }, client.Local, "remove it, and the device gets a new key"},
		{"a key whose parent is gone", func(c *tpm.Config) { c.KeyFile = write("orphan", orphan.Marshal()) }, client.Local, "its parent 0x81000123"},
		{"a key file that is none", func(c *tpm.Config) { c.KeyFile = write("text", []byte("text")) }, client.Local, "there is no TSS2 PRIVATE KEY"},
		{"a kind that TPMs do not make", func(c *tpm.Config) { c.KeyFile, c.Key = filepath.Join(dir, "new"), client.Ed25519 }, client.Local, `no key of kind "ed25519"`},
		{"a directory that is not there", func(c *tpm.Config) { c.KeyFile = filepath.Join(dir, "none", "key") }, client.Local, "no such file"},
		{"a PCR that is not there", func(c *tpm.Config) { c.PCRs = []int{0, 24} }, client.Usage, "no PCR 24"},
	} {
		config := good
		c.edit(&config)
		device, err := tpm.Open(config)
		if err == nil {
			device.Close()
			t.Errorf("%s: opened", c.name)
			continue
		}
		if c.name != "a key of another TPM" && strings.Contains(client.HintOf(err), "remove") {
			t.Errorf("%s: hint %q", c.name, client.HintOf(err))
		}
		if text := err.Error() + client.HintOf(err); client.KindOf(err) != c.kind || !strings.Contains(text, c.says) {
			t.Errorf("%s: %v (%v), hint %q", c.name, err, client.KindOf(err), client.HintOf(err))
		}
	}
	must(tpm.Open(good))(t).Close()
}

// deviceKey is a key that signs what it is given.
func deviceKey() tpm2.TPMTPublic {
	k := attesttest.ECCAK(tpm2.TPMECCNistP256, tpm2.TPMAlgSHA256)
	k.ObjectAttributes.Restricted = false
	return k
}

func TestKeyFile(t *testing.T) {
	good := tpm.KeyFile{Parent: 0x40000001, Public: []byte{1, 2, 3}, Private: []byte{4, 5}}
	back := must(tpm.ParseKeyFile(good.Marshal()))(t)
	if back.Parent != good.Parent || !bytes.Equal(back.Public, good.Public) || !bytes.Equal(back.Private, good.Private) {
		t.Errorf("%+v", back)
	}
	block, _ := pem.Decode(good.Marshal())
	wrap := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "TSS2 PRIVATE KEY", Bytes: der}) }
	changed := func(at int, to byte) []byte {
		der := bytes.Clone(block.Bytes)
		der[at] = to
		return wrap(der)
	}
	// optional is the file with another optional field in the place of emptyAuth.
	optional := func(tag uint8, content ...byte) []byte {
		old := string(block.Bytes[10:15])
		if old != "\xa0\x03\x01\x01\xff" {
			t.Fatalf("emptyAuth is %x", old)
		}
		field := append([]byte{0xa0 | tag, byte(len(content))}, content...)
		der := append(append(bytes.Clone(block.Bytes[:10]), field...), block.Bytes[15:]...)
		der[1] = byte(len(der) - 2)
		return wrap(der)
	}
	none := append(bytes.Clone(block.Bytes[:10]), block.Bytes[15:]...)
	none[1] = byte(len(none) - 2)
	for name, text := range map[string][]byte{
		"TRUE as 1":     changed(14, 1),
		"FALSE":         changed(14, 0),
		"nothing":       wrap(none),
		"a description": optional(4, 12, 3, 'a', 'k', '1'),
		"an ECC parent": optional(5, 1, 1, 0),
	} {
		if k, err := tpm.ParseKeyFile(text); err != nil || !bytes.Equal(k.Private, good.Private) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
	for name, text := range map[string][]byte{
		"nothing":          nil,
		"another block":    pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes}),
		"a tail":           wrap(append(bytes.Clone(block.Bytes), 0)),
		"another type":     changed(8, 4), // an importable key, 2.23.133.10.1.4 and so on
		"a policy":         optional(1, 0x30, 0),
		"a secret":         optional(2, 4, 0),
		"an RSA parent":    optional(5, 1, 1, 0xff),
		"a long boolean":   optional(0, 1, 2, 0, 0),
		"no description":   optional(4, 4, 0),
		"negative parent":  changed(17, 0x80),
		"a longer TPM2B":   changed(23, 4),
		"an empty private": wrap(must(pemBytes(tpm.KeyFile{Parent: 1, Public: []byte{1}}.Marshal()))(t)),
	} {
		if k, err := tpm.ParseKeyFile(text); err == nil {
			t.Errorf("%s: read: %+v", name, k)
		}
	}
}

func pemBytes(text []byte) ([]byte, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	return block.Bytes, nil
}

// encodedByTools is what tpm2_encodeobject 5.4 of Debian 12 makes: an ECDSA key below 0x81000001, without authorization value.
const encodedByTools = `-----BEGIN TSS2 PRIVATE KEY-----
MIHzBgZngQUKAQOgAwEBAAIFAIEAAAEEWgBYACMACwAFBHIAAAAQABgACwADABAA
IJfPVyZOrh6e5cIfaRG3mOObYjC7b6mKFSCghtJp8bnhACAdK7Ni+z3zcGzQvp09
lNpFRocNr3qIXv5kZmECGt8uUwSBgAB+ACCjI/B2Zkk+4P7euJiZArko/XhthKxb
MySnmdqcwyzqHwAQh1xxSm5MfYI/pE4uBgypn10i05+eC/MrOYfeO34CPL+6Kkff
mK7y8W00SgE9Yei+ldHruQK9wqu7ZdHx9m0f+Ao7QK7U7zEaPNCmvaTDlmRc0jPv
sUKP9T/p
-----END TSS2 PRIVATE KEY-----
`

func TestKeyFileOfTools(t *testing.T) {
	k := must(tpm.ParseKeyFile([]byte(encodedByTools)))(t)
	public := must(tpm2.Unmarshal[tpm2.TPMTPublic](k.Public))(t)
	if a := public.ObjectAttributes; k.Parent != 0x81000001 || public.Type != tpm2.TPMAlgECC || !a.Restricted || !a.SignEncrypt || !a.NoDA {
		t.Errorf("parent %#x, %+v", k.Parent, public)
	}
}

// TestOwnerPassword: the advice is about the password, and not to throw the key away.
func TestOwnerPassword(t *testing.T) {
	hardware, c := ready(t)
	must(tpm.Open(c))(t).Close()
	owner := func(old, new string) {
		t.Helper()
		conn := must(linuxudstpm.Open(hardware.Socket))(t)
		defer conn.Close()
		if _, err := (tpm2.HierarchyChangeAuth{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth([]byte(old))},
			NewAuth: tpm2.TPM2BAuth{Buffer: []byte(new)}}).Execute(conn); err != nil {
			t.Fatal(err)
		}
	}
	owner("", "secret")
	_, err := tpm.Open(c)
	owner("secret", "")
	if err == nil || !strings.Contains(err.Error(), "the owner hierarchy has a password") || strings.Contains(err.Error()+client.HintOf(err), "remove it") ||
		strings.Contains(err.Error(), "authorization value") {
		t.Errorf("%v, hint %q", err, client.HintOf(err))
	}
	must(tpm.Open(c))(t).Close()
}

// What is read is written alike, or differs in what DER leaves open here: whether emptyAuth is there.
func FuzzParseKeyFile(f *testing.F) {
	f.Add(tpm.KeyFile{Parent: 0x40000001, Public: []byte{1, 2, 3}, Private: []byte{4, 5}}.Marshal())
	f.Add([]byte(encodedByTools))
	f.Add([]byte("-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := tpm.ParseKeyFile(text)
		if err != nil {
			return
		}
		back, err := tpm.ParseKeyFile(k.Marshal())
		if err != nil || back.Parent != k.Parent || !bytes.Equal(back.Public, k.Public) || !bytes.Equal(back.Private, k.Private) {
			t.Errorf("%+v, and back %+v, %v", k, back, err)
		}
	})
}
