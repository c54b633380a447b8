package stacktest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// clearKeys says where in data a private key lies in clear: PEM or DER, as
// PKCS#8, PKCS#1 or SEC 1, at any offset, and DER in base64.
func clearKeys(data []byte) (found []string) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.Contains(block.Type, "PRIVATE KEY") && block.Type != "ENCRYPTED PRIVATE KEY" {
			found = append(found, "PEM "+block.Type)
		}
	}
	for _, text := range base64Text.FindAll(data, -1) {
		if der, err := base64.StdEncoding.DecodeString(string(text)); err == nil && len(derKeys(der)) > 0 {
			found = append(found, "base64")
		}
	}
	return append(found, derKeys(data)...)
}

var base64Text = regexp.MustCompile(`[A-Za-z0-9+/]{60,}={0,2}`)

func derKeys(data []byte) (found []string) {
	for at := range data {
		if data[at] != 0x30 || at+4 > len(data) {
			continue
		}
		var end int
		switch length := data[at+1]; {
		case length < 0x80:
			end = at + 2 + int(length)
		case length == 0x81:
			end = at + 3 + int(data[at+2])
		case length == 0x82:
			end = at + 4 + int(binary.BigEndian.Uint16(data[at+2:]))
		}
		if end == 0 || end > len(data) {
			continue
		}
		der := data[at:end]
		if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			found = append(found, "PKCS#8")
		} else if _, err := x509.ParseECPrivateKey(der); err == nil {
			found = append(found, "SEC 1")
		} else if _, err := x509.ParsePKCS1PrivateKey(der); err == nil {
			found = append(found, "PKCS#1")
		}
	}
	return found
}

// TestClearKeys shows that the search would find something.
func TestClearKeys(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	pkcs8, _ := x509.MarshalPKCS8PrivateKey(key)
	sec1, _ := x509.MarshalECPrivateKey(key)
	for name, data := range map[string][]byte{
		"PKCS#8":    pkcs8,
		"in a file": bytes.Join([][]byte{[]byte("0\x30\x82garbage"), pkcs8, []byte("tail")}, nil),
		"SEC 1":     sec1,
		"PEM":       pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}),
		"base64":    []byte("key: " + base64.StdEncoding.EncodeToString(pkcs8)),
	} {
		if len(clearKeys(data)) == 0 {
			t.Errorf("%s: a key in clear goes unseen", name)
		}
	}
	if found := clearKeys(mustPublic(t, key)); len(found) > 0 {
		t.Errorf("a public key is taken for %q", found)
	}
}

func mustPublic(t *testing.T, key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// noClearKeys searches every file below the home.
func noClearKeys(t *testing.T, h *home) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if found := clearKeys(raw); len(found) > 0 {
			t.Errorf("%s holds private keys in clear: %q", path, found)
		}
		return nil
	})
	if err != nil || files < 10 {
		t.Errorf("%d files searched: %v", files, err)
	}
}

// privateModes: what holds secrets is its owner's alone.
func privateModes(t *testing.T, h *home, parts ...string) {
	t.Helper()
	for _, part := range append(parts, "", "secrets", "ledger.db") {
		info, err := os.Stat(h.path(part))
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", h.path(part), info, err)
		}
	}
}

func TestKeysInTokens(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	g := h.addDevice("lamp-1", "--uses", "3")
	h.device(g).mustEnroll(t, "lamp-1")
	noClearKeys(t, h)
	h.stop() // the write-ahead log goes into the database
	noClearKeys(t, h)
	privateModes(t, h, "tokens", "secrets/root.pin", "secrets/issuing.pin", "secrets/sealing.key")
	for _, file := range []string{"ledger.db", "ledger.db-wal"} {
		if raw, err := os.ReadFile(h.path(file)); err == nil && bytes.Contains(raw, []byte(g.Secret)) {
			t.Errorf("%s holds an enrolment secret in clear", file)
		}
	}
	if strings.Contains(h.log.String(), "level=WARN") {
		t.Error("with tokens, the server warns")
	}
}

func TestKeysInFiles(t *testing.T) {
	t.Parallel()
	h := initHome(t, shortDir(t), "--keys", "file")
	warned := func() {
		t.Helper()
		if log := h.log.String(); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "development") {
			t.Error("no warning about keys in files")
		}
	}
	h.start()
	warned()
	h.stop()
	h.log = &lockedBuffer{}
	h.start()
	warned()
	cert, key := h.device(h.addDevice("lamp-1")).mustEnroll(t, "lamp-1")
	if a, err := h.owner(cert, key).reenroll(newCSR(t, key, "lamp-1")); err != nil || a.status != 200 {
		t.Errorf("re-enrolment: %d %q %v", a.status, a.body, err)
	}
	h.stop()
	noClearKeys(t, h)
	privateModes(t, h, "keys", "keys/root", "keys/issuing", "secrets/root.pin", "secrets/issuing.pin")
	encrypted := 0
	files, err := filepath.Glob(h.path("keys", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		encrypted += bytes.Count(raw, []byte("BEGIN ENCRYPTED PRIVATE KEY"))
	}
	if encrypted < 3 {
		t.Errorf("%d encrypted keys in %q", encrypted, files)
	}
	t.Run("not unless asked for", func(t *testing.T) {
		config, err := os.ReadFile(h.path("deviceca.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		write(t, h.path("deviceca.yaml"), replace(t, string(config), "allow_file: true", "allow_file: false"))
		if _, errs, err := h.try(nil, "serve", "--home", h.dir); err == nil || !strings.Contains(errs, "allow_file") {
			t.Errorf("%v\n%s", err, errs)
		}
	})
	t.Run("backup", func(t *testing.T) {
		write(t, h.path("deviceca.yaml"), replace(t, mustRead(t, h.path("deviceca.yaml")), "allow_file: false", "allow_file: true"))
		h.run("backup", filepath.Join(h.dir, "..", "backup"), "--home", h.dir)
		r := atHome(t, filepath.Join(shortDir(t), "ca"))
		r.run("restore", "--home", r.dir, "--from", filepath.Join(h.dir, "..", "backup"))
		r.run("recover", "--home", r.dir, "--acknowledge", "nothing was issued since")
		r.start()
		if a, err := r.owner(cert, key).reenroll(newCSR(t, key, "lamp-1")); err != nil || a.status != 200 {
			t.Errorf("re-enrolment: %d %q %v", a.status, a.body, err)
		}
	})
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}
