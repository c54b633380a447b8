package cms

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

func newCert(t testing.TB, cn string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Unix(1.7e9, 0), NotAfter: time.Unix(1.8e9, 0),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func vector(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/pkits.p7b")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// message holds what a test changes in a certs-only message.
type message struct {
	contentType   encasn1.ObjectIdentifier
	version       int64
	digests       []byte
	eContentType  encasn1.ObjectIdentifier
	encapTail     []byte
	bag, crls     []byte
	signers, tail []byte
}

func (m message) build() []byte {
	set := func(b *cryptobyte.Builder, tag asn1.Tag, content []byte) {
		b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(m.contentType)
		b.AddASN1(tag0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1Int64(m.version)
				set(b, asn1.SET, m.digests)
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(m.eContentType)
					b.AddBytes(m.encapTail)
				})
				if m.bag != nil {
					set(b, tag0, m.bag)
				}
				if m.crls != nil {
					set(b, tag1, m.crls)
				}
				set(b, asn1.SET, m.signers)
				b.AddBytes(m.tail)
			})
		})
	})
	return b.BytesOrPanic()
}

func TestParseCertsOnly(t *testing.T) {
	a, b := newCert(t, "a"), newCert(t, "b")
	null := []byte{5, 0}
	good := func(change func(*message)) []byte {
		m := message{contentType: TypeSigned, version: 1, eContentType: TypeData, bag: slices.Concat(a, b)}
		if change != nil {
			change(&m)
		}
		return m.build()
	}
	deep := null
	for range 40 {
		deep = func() []byte {
			var bb cryptobyte.Builder
			bb.AddASN1(asn1.SEQUENCE, func(bb *cryptobyte.Builder) { bb.AddBytes(deep) })
			return bb.BytesOrPanic()
		}()
	}
	tests := []struct {
		name string
		in   []byte
		says string // "" is accepted
		is   error  // beside ErrCertsOnly
	}{
		{"as we write it", good(nil), "", nil},
		{"version 3", good(func(m *message) { m.version = 3 }), "", nil},
		{"with CRLs", good(func(m *message) { m.crls = []byte{0x30, 0} }), "", nil},
		{"with empty CRLs", good(func(m *message) { m.crls = []byte{} }), "", nil},
		{"with digest algorithms", good(func(m *message) { m.digests = []byte{0x30, 0} }), "", nil},
		{"other content type, absent", good(func(m *message) { m.eContentType = TypeSigned }), "", nil},
		{"most certificates", good(func(m *message) { m.bag = bytes.Repeat(a, MaxCerts) }), "", nil},

		{"empty", nil, "empty", der.ErrMalformed},
		{"truncated", good(nil)[:40], "offset 0", der.ErrMalformed},
		{"trailing octet", append(good(nil), 0), "1 after", der.ErrTrailing},
		{"indefinite length", []byte{0x30, 0x80, 0, 0}, "indefinite", der.ErrIndefinite},
		{"a certificate alone", a, "no content type", nil},
		{"not SignedData", good(func(m *message) { m.contentType = TypeData }), "1.2.840.113549.1.7.1, not SignedData", nil},
		{"version 0", good(func(m *message) { m.version = 0 }), "version 0", nil},
		{"version -1", good(func(m *message) { m.version = -1 }), "version -1", nil},
		{"version 5", good(func(m *message) { m.version = 5 }), "version 5", nil},
		{"with content", good(func(m *message) { m.encapTail = []byte{0xa0, 2, 4, 0} }), "it has content", nil},
		{"signed", good(func(m *message) { m.signers = []byte{0x30, 0} }), "it is signed", nil},
		{"no certificates", good(func(m *message) { m.bag = nil }), "no certificates", nil},
		{"empty set of certificates", good(func(m *message) { m.bag = []byte{} }), "no certificates", nil},
		{"attribute certificate", good(func(m *message) { m.bag = append(bytes.Clone(a), 0xa2, 2, 5, 0) }), "number 2", nil},
		{"too many certificates", good(func(m *message) { m.bag = bytes.Repeat(a, MaxCerts+1) }), "more than 256", nil},
		{"after signerInfos", good(func(m *message) { m.tail = null }), "RFC 5652 §5.1", nil},
		{"CRLs before certificates", good(func(m *message) {
			m.bag, m.crls = nil, []byte{0x30, 0}
			m.signers = nil
			m.digests = nil
			m.tail = []byte{0xa0, 0}
		}), "RFC 5652 §5.1", nil},
		{"nested too deeply", good(func(m *message) { m.bag = deep }), "deeply", der.ErrDepth},
		{"too large", make([]byte, MaxSize+1), "more than 1048576", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			certs, err := ParseCertsOnly(tt.in)
			if tt.says == "" {
				if err != nil || !bytes.Equal(certs[0], a) {
					t.Fatalf("got %d certificates, %v", len(certs), err)
				}
				return
			}
			if !errors.Is(err, ErrCertsOnly) || (tt.is != nil && !errors.Is(err, tt.is)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error with %q", err, tt.says)
			}
		})
	}
}

// The vector has two certificates and an empty CRL set, which ours leaves out.
func TestVector(t *testing.T) {
	certs, err := ParseCertsOnly(vector(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range certs {
		cert, err := x509.ParseCertificate(c)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, cert.Subject.CommonName)
	}
	if got := fmt.Sprint(names); got != "[Valid EE Certificate Test1 Good CA]" {
		t.Errorf("certificates %s", got)
	}
	want := message{contentType: TypeSigned, version: 1, eContentType: TypeData, bag: slices.Concat(certs...)}
	if !bytes.Equal(CertsOnly(certs...), want.build()) {
		t.Error("written again, it is not the same message without the CRL set")
	}
	want.crls = []byte{}
	if !bytes.Equal(vector(t), want.build()) {
		t.Error("the vector is not what this test takes it to be")
	}
}

func TestCertsOnlyOrder(t *testing.T) {
	a, b := newCert(t, "a"), newCert(t, "a-with-a-longer-name")
	if !bytes.Equal(CertsOnly(a, b), CertsOnly(b, a)) {
		t.Error("the same certificates give different messages")
	}
	given := [][]byte{b, a}
	CertsOnly(given...)
	if !bytes.Equal(given[0], b) {
		t.Error("the caller's slice was sorted")
	}
}

func TestOpenSSLReads(t *testing.T) {
	a, b := newCert(t, "lamp-1"), newCert(t, "lamp-2")
	cmd := exec.CommandContext(t.Context(), "openssl", "pkcs7", "-inform", "DER", "-print_certs")
	cmd.Stdin = bytes.NewReader(CertsOnly(a, b))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"CN=lamp-1", "CN=lamp-2"} { // OpenSSL 3.0 has spaces there
		if !strings.Contains(strings.ReplaceAll(string(out), " ", ""), want) {
			t.Errorf("openssl does not print %q:\n%s", want, out)
		}
	}
}

func TestOpenSSLWrites(t *testing.T) {
	file := t.TempDir() + "/a.crt"
	a := newCert(t, "lamp-1")
	if err := os.WriteFile(file, a, 0o600); err != nil {
		t.Fatal(err)
	}
	pem, err := exec.CommandContext(t.Context(), "openssl", "x509", "-inform", "DER", "-in", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "crl2pkcs7", "-nocrl", "-certfile", file, "-outform", "DER").Output()
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ParseCertsOnly(out)
	if err != nil || len(certs) != 1 || !bytes.Equal(certs[0], a) {
		t.Fatalf("got %d certificates, %v", len(certs), err)
	}
}

// What is read and written again reads the same, and is the same message if it
// was in the one form that we write.
func FuzzParseCertsOnly(f *testing.F) {
	a, b := newCert(f, "a"), newCert(f, "b")
	f.Add(vector(f))
	f.Add(CertsOnly(a))
	f.Add(CertsOnly(a, b))
	f.Add(message{contentType: TypeSigned, version: 3, eContentType: TypeData, bag: []byte{0x30, 0}, crls: []byte{0x30, 0}}.build())
	f.Add([]byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		certs, err := ParseCertsOnly(in)
		if err != nil {
			return
		}
		out := CertsOnly(certs...)
		if len(out) > MaxSize {
			return // dropping CRLs cannot make it longer, but a content type may
		}
		again, err := ParseCertsOnly(out)
		if err != nil {
			t.Fatalf("our own message: %v", err)
		}
		if !bytes.Equal(CertsOnly(again...), out) {
			t.Error("our own message changes when written again")
		}
		ours := message{contentType: TypeSigned, version: 1, eContentType: TypeData, bag: slices.Concat(certs...)}
		if slices.IsSortedFunc(certs, bytes.Compare) && bytes.Equal(in, ours.build()) && !bytes.Equal(in, out) {
			t.Error("a message in our form changes when written again")
		}
	})
}

func BenchmarkCertsOnly(b *testing.B) {
	cert := newCert(b, "lamp-1")
	b.ReportAllocs()
	for b.Loop() {
		CertsOnly(cert)
	}
}
