package cms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// openssl runs the program in dir and returns what it prints.
func openssl(t testing.TB, dir string, stdin []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "openssl", args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	var says bytes.Buffer
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v\n%s", args, err, &says)
	}
	return out
}

// rsaTestKey is a fixed one, since making one costs more than all else here.
var rsaTestKey = sync.OnceValues(func() (crypto.Signer, error) {
	text, err := os.ReadFile("testdata/rsa-2048.pem")
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	return key.(*rsa.PrivateKey), err
})

// testKey makes a key of a kind named as policies do.
func testKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ecdsa-p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa-2048":
		key, err = rsaTestKey()
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatal(kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// holder is a key with its certificate, in memory and in dir as cert.pem and key.pem.
type holder struct {
	key  crypto.Signer
	cert *x509.Certificate
	dir  string
}

func newHolder(t testing.TB, kind string) holder {
	t.Helper()
	h := holder{key: testKey(t, kind), dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(4711), Subject: pkix.Name{CommonName: "lamp-1", Organization: []string{"Test"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), SubjectKeyId: []byte("twenty octets of it."),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, h.key.Public(), h.key)
	if err != nil {
		t.Fatal(err)
	}
	if h.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(h.key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(h.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// signer signs for the holder.
func (h holder) signer() Signer {
	return Signer{Key: h.key, ID: IDOf(h.cert), Certs: [][]byte{h.cert.Raw}}
}

func mustInfo(t testing.TB, msg []byte) Content {
	t.Helper()
	c, err := ParseInfo(msg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// patched is msg with one occurrence of old replaced by something of the same length.
func patched(t testing.TB, msg, old, new []byte) []byte {
	t.Helper()
	if bytes.Count(msg, old) == 0 || len(old) != len(new) {
		t.Fatalf("nothing to patch: %x", old)
	}
	return bytes.Replace(msg, old, new, 1)
}
