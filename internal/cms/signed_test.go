package cms

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var oidPKIData = OID{1, 3, 6, 1, 5, 5, 7, 12, 2}

func TestSign(t *testing.T) {
	tests := []struct {
		kind   string
		change func(*Signer)
	}{
		{"ecdsa-p256", nil},
		{"ecdsa-p384", nil},
		{"ecdsa-p521", nil},
		{"rsa-2048", nil},
		{"rsa-2048", func(s *Signer) { s.PSS = true }},
		{"ed25519", nil},
		{"ecdsa-p256", func(s *Signer) { s.ID = ID{KeyID: []byte("twenty octets of it.")} }},
		{"ecdsa-p256", func(s *Signer) { s.Time = time.Now() }},
		{"ecdsa-p256", func(s *Signer) { s.Time = time.Date(2051, 1, 1, 0, 0, 0, 0, time.UTC) }},
	}
	for i, tt := range tests {
		for _, contentType := range []OID{TypeData, oidPKIData} {
			t.Run(fmt.Sprint(i, tt.kind, contentType), func(t *testing.T) {
				h := newHolder(t, tt.kind)
				signer := h.signer()
				if tt.change != nil {
					tt.change(&signer)
				}
				content := Content{contentType, []byte("what is said\r\n")}
				signed, err := Sign(content, signer)
				if err != nil {
					t.Fatal(err)
				}
				again, err := ParseSigned(mustInfo(t, signed.Info()))
				if err != nil {
					t.Fatal(err)
				}
				if !again.Content.Type.Equal(contentType) || !bytes.Equal(again.Content.Bytes, content.Bytes) {
					t.Errorf("content %v", again.Content)
				}
				if cert := again.SignerCert(); cert == nil || !cert.Equal(h.cert) {
					t.Error("the signer's certificate is not found")
				}
				if err := again.Verify(h.key.Public()); err != nil {
					t.Error(err)
				}
				if err := again.Verify(testKey(t, "ecdsa-p256").Public()); !errors.Is(err, ErrSignature) {
					t.Errorf("another key: %v", err)
				}
				if tt.kind == "ed25519" { // OpenSSL 3.0 does not speak RFC 8419, but it knows the signature
					for name, octets := range map[string][]byte{"attrs": again.attrs, "signature": again.signature} {
						if err := os.WriteFile(filepath.Join(h.dir, name), octets, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					openssl(t, h.dir, nil, "pkeyutl", "-verify", "-rawin", "-certin", "-inkey", "cert.pem", "-in", "attrs", "-sigfile", "signature")
					return
				}
				out := openssl(t, h.dir, signed.Info(), "cms", "-verify", "-inform", "DER", "-binary", "-noverify")
				if !bytes.Equal(out, content.Bytes) {
					t.Errorf("openssl reads %q", out)
				}
			})
		}
	}
}

func TestVerifyOpenSSL(t *testing.T) {
	tests := []struct {
		kind string
		args []string
		says error
	}{
		{"ecdsa-p256", []string{"-md", "sha256"}, nil},
		{"ecdsa-p384", []string{"-md", "sha384"}, nil},
		{"ecdsa-p256", []string{"-md", "sha512", "-keyid"}, nil},
		{"rsa-2048", []string{"-md", "sha256"}, nil},
		{"rsa-2048", []string{"-md", "sha384", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:48"}, nil},
		{"ecdsa-p256", []string{"-md", "sha256", "-econtent_type", "1.3.6.1.5.5.7.12.2"}, nil},
		{"ecdsa-p256", []string{"-md", "sha256", "-nocerts"}, nil},
		{"rsa-2048", []string{"-md", "sha1"}, ErrAlgorithm},
		{"rsa-2048", []string{"-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"}, ErrAlgorithm},
		{"rsa-2048", []string{"-md", "sha256", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_mgf1_md:sha1"}, ErrAlgorithm},
		{"ecdsa-p256", []string{"-md", "sha256", "-noattr"}, ErrMalformed},
		{"ecdsa-p256", []string{"-md", "sha256", "-stream"}, ErrMalformed}, // BER
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, tt.kind, tt.args), func(t *testing.T) {
			h := newHolder(t, tt.kind)
			args := append([]string{"cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-signer", "cert.pem", "-inkey", "key.pem"}, tt.args...)
			msg := openssl(t, h.dir, []byte("what is said"), args...)
			info, err := ParseInfo(msg)
			var signed *Signed
			if err == nil {
				signed, err = ParseSigned(info)
			}
			if tt.says != nil {
				if !errors.Is(err, tt.says) {
					t.Errorf("got %v, want %v", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := signed.Verify(h.key.Public()); err != nil || string(signed.Content.Bytes) != "what is said" {
				t.Errorf("%q, %v", signed.Content.Bytes, err)
			}
			if !signed.Signer.Names(h.cert) {
				t.Error("the signer identifier is not the certificate's")
			}
		})
	}
}

func TestTamperedSigned(t *testing.T) {
	h := newHolder(t, "ecdsa-p256")
	good, err := Sign(Content{oidPKIData, []byte("what is said")}, h.signer())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseSigned(good)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		old, new []byte
		says     error
	}{
		{"content", []byte("what is said"), []byte("what is sung"), ErrSignature},
		{"digest", parsed.digest, make([]byte, 32), ErrSignature},
		{"content type", []byte{0x05, 0x05, 0x07, 0x0c, 0x02, 0xa0}, []byte{0x05, 0x05, 0x07, 0x0c, 0x03, 0xa0}, ErrMalformed},
		{"signature", parsed.signature[len(parsed.signature)-8:], make([]byte, 8), ErrSignature},
		{"digest algorithm", []byte{0x65, 3, 4, 2, 1, 0xa0}, []byte{0x65, 3, 4, 2, 3, 0xa0}, ErrAlgorithm},
		{"message digest gone", []byte{0xf7, 0x0d, 1, 9, 4}, []byte{0xf7, 0x0d, 1, 9, 5}, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			signed, err := ParseSigned(Content{TypeSigned, patched(t, good.Bytes, tt.old, tt.new)})
			if err == nil {
				err = signed.Verify(h.key.Public())
			}
			if !errors.Is(err, tt.says) {
				t.Errorf("got %v, want %v", err, tt.says)
			}
		})
	}
	for n := range len(good.Bytes) {
		if _, err := ParseSigned(Content{TypeSigned, good.Bytes[:n]}); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut to %d octets: %v", n, err)
		}
	}
	if _, err := ParseSigned(Content{TypeEnveloped, good.Bytes}); !errors.Is(err, ErrMalformed) {
		t.Errorf("another type: %v", err)
	}
	if _, err := ParseInfo(append(good.Info(), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing octet: %v", err)
	}
	if _, err := ParseSigned(Content{TypeSigned, CertsOnly(h.cert.Raw)}); !errors.Is(err, ErrMalformed) {
		t.Errorf("certs-only: %v", err)
	}
}

// liar returns signatures that are none.
type liar struct{ crypto.Signer }

func (l liar) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	s, err := l.Signer.Sign(rand, digest, opts)
	s[len(s)-1] ^= 1
	return s, err
}

func TestSignerIsDistrusted(t *testing.T) {
	h := newHolder(t, "ecdsa-p256")
	signer := h.signer()
	signer.Key = liar{h.key}
	if _, err := Sign(Content{TypeData, []byte("x")}, signer); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestKeyPackage(t *testing.T) {
	for _, kind := range []string{"ecdsa-p256", "ecdsa-p384", "rsa-2048", "ed25519"} {
		t.Run(kind, func(t *testing.T) {
			key := testKey(t, kind)
			v1, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			v2, err := OneAsymmetricKey(key)
			if err != nil {
				t.Fatal(err)
			}
			for name, one := range map[string][]byte{"v1": v1, "v2": v2} {
				c, err := KeyPackage(one)
				if err != nil {
					t.Fatal(err)
				}
				again, err := ParseKeyPackage(c)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if !again.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
					t.Errorf("%s: another key", name)
				}
			}
			openssl(t, t.TempDir(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: v1}), "pkey", "-check", "-noout")
		})
	}
}

func TestBadKeyPackage(t *testing.T) {
	v2, err := OneAsymmetricKey(testKey(t, "ecdsa-p256"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := OneAsymmetricKey(testKey(t, "ecdsa-p256"))
	if err != nil {
		t.Fatal(err)
	}
	x25519, _ := pem.Decode(openssl(t, t.TempDir(), nil, "genpkey", "-algorithm", "X25519"))
	swapped := append(bytes.Clone(v2[:len(v2)-64]), other[len(other)-64:]...)
	sequence := func(parts ...[]byte) []byte {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(parts, nil)) })
		return b.BytesOrPanic()
	}
	for name, in := range map[string][]byte{
		"none": sequence(), "two": sequence(v2, v2), "not a key": sequence(sequence()), "another public key": sequence(swapped),
		"public key in version 1": sequence(patched(t, v2, []byte{2, 1, 1, 0x30}, []byte{2, 1, 0, 0x30})),
		"trailing":                append(sequence(v2), 0), "key agreement": sequence(x25519.Bytes), "empty": {},
	} {
		if _, err := ParseKeyPackage(Content{TypeKeyPackage, in}); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAlgorithm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := KeyPackage([]byte("no key")); !errors.Is(err, ErrMalformed) {
		t.Errorf("got %v", err)
	}
}

// What parses can be verified or not, but nothing panics, and a change is noticed.
func FuzzParseSigned(f *testing.F) {
	h := newHolder(f, "ecdsa-p256")
	good, err := Sign(Content{oidPKIData, []byte("what is said")}, h.signer())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Info())
	f.Add(CertsOnly(h.cert.Raw))
	for _, kind := range []string{"rsa-2048", "ed25519"} {
		h := newHolder(f, kind)
		s := h.signer()
		s.PSS = true
		c, err := Sign(Content{TypeData, nil}, s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Info())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		info, err := ParseInfo(in)
		if err != nil {
			return
		}
		if !bytes.Equal(info.Info(), in) {
			t.Fatalf("%x is written back as %x", in, info.Info())
		}
		s, err := ParseSigned(info)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrAlgorithm) {
				t.Fatal(err)
			}
			return
		}
		s.SignerCert()
		if s.Verify(h.key.Public()) == nil && string(s.Content.Bytes) != "what is said" {
			t.Fatalf("forged: %x", in)
		}
	})
}

func FuzzParseKeyPackage(f *testing.F) {
	for _, kind := range []string{"ecdsa-p256", "ed25519"} {
		one, err := OneAsymmetricKey(testKey(f, kind))
		if err != nil {
			f.Fatal(err)
		}
		c, err := KeyPackage(one)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.Bytes)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		key, err := ParseKeyPackage(Content{TypeKeyPackage, in})
		if err == nil && key.Public() == nil {
			t.Fatal("a key without public key")
		}
	})
}
