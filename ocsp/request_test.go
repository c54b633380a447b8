package ocsp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	xocsp "golang.org/x/crypto/ocsp"
)

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, path...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordedRequests(t *testing.T) {
	tests := []struct {
		file   string
		count  int
		hash   Hash
		nonce  int
		signed bool
	}{
		{"sha1-certid-ocsp-req.der", 1, SHA1, 0, false},
		{"sha224-certid-ocsp-req.der", 1, OtherHash, 0, false},
		{"sha256-certid-ocsp-req.der", 1, SHA256, 0, false},
		{"sha384-certid-ocsp-req.der", 1, OtherHash, 0, false},
		{"sha512-certid-ocsp-req.der", 1, OtherHash, 0, false},
		{"ocsp-multiple-requests-req.der", 8, SHA1, 0, false},
		{"ocsp-multiple-requests-nonce-req.der", 8, SHA1, 32, false},
		{"ocsp-signed-req.der", 1, SHA1, 0, true},
		{"ocsp-multiple-exts-clean-req.der", 1, SHA1, 32, false},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			r, err := ParseRequest(read(t, "rustcrypto", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			if r.Count != tt.count || len(r.IDs()) != tt.count || r.IDs()[0].Hash != tt.hash || len(r.Nonce) != tt.nonce || r.Signed != tt.signed {
				t.Errorf("%d certificates, hash %d, nonce %x, signed %t", r.Count, r.IDs()[0].Hash, r.Nonce, r.Signed)
			}
			if n := r.IDs()[0].SerialNumber(); n.Int64() != 0x10001 {
				t.Errorf("serial %s", n)
			}
		})
	}
}

// rawRequest puts a request together from parts that may be wrong.
func rawRequest(version, requestor, list, extensions []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(version)
			b.AddBytes(requestor)
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(list) })
			b.AddBytes(extensions)
		})
	})
	return b.BytesOrPanic()
}

func extension(oid string, critical []byte, value []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(oid)) })
		b.AddBytes(critical)
		b.AddASN1OctetString(value)
	})
	return b.BytesOrPanic()
}

func extensions(exts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(explicit(2), func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(bytes.Join(exts, nil)) })
	})
	return b.BytesOrPanic()
}

func octets(n int) []byte {
	var b cryptobyte.Builder
	b.AddASN1OctetString(make([]byte, n))
	return b.BytesOrPanic()
}

func TestRequestForms(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one := read(t, "rustcrypto", "sha1-certid-ocsp-req.der")[6:] // Request of a requestList
	id := func(alg string, hash int, serial string) []byte {
		var b cryptobyte.Builder
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddBytes(unhex(alg))
				b.AddASN1OctetString(make([]byte, hash))
				b.AddASN1OctetString(make([]byte, hash))
				b.AddBytes(unhex(serial))
			})
		})
		return b.BytesOrPanic()
	}
	const sha1NULL, sha1 = "300906052b0e03021a0500", "300706052b0e03021a"
	yes := []byte{1, 1, 0xff}
	tests := []struct {
		name string
		in   []byte
		ok   bool
	}{
		{"as recorded", rawRequest(nil, nil, one, nil), true},
		{"version written out", rawRequest(unhex("a003020100"), nil, one, nil), true},
		{"version 2", rawRequest(unhex("a003020101"), nil, one, nil), false},
		{"requestorName", rawRequest(nil, unhex("a1058203612e62"), one, nil), true},
		{"requestorName broken", rawRequest(nil, unhex("a1028203"), one, nil), false},
		{"no certificates", rawRequest(nil, nil, nil, nil), false},
		{"trailing octet", append(rawRequest(nil, nil, one, nil), 0), false},
		{"unknown extension", rawRequest(nil, nil, one, extensions(extension("\x2a\x03", nil, octets(1)))), true},
		{"unknown critical extension", rawRequest(nil, nil, one, extensions(extension("\x2a\x03", yes, octets(1)))), false},
		{"empty extensions", rawRequest(nil, nil, one, extensions()), false},
		{"an extension twice", rawRequest(nil, nil, one, extensions(extension("\x2a\x03", nil, nil), extension("\x2a\x03", nil, nil))), false},
		{"17 extensions", rawRequest(nil, nil, one, extensions(func() (e [][]byte) {
			for i := range 17 {
				e = append(e, extension(string([]byte{0x2a, byte(i)}), nil, nil))
			}
			return e
		}()...)), false},
		{"nonce of 0", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, octets(0)))), false},
		{"nonce of 1", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, octets(1)))), true},
		{"nonce of 32, critical", rawRequest(nil, nil, one, extensions(extension(oidNonce, yes, octets(32)))), true},
		{"nonce of 128", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, octets(128)))), true},
		{"nonce of 129", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, octets(129)))), false},
		{"nonce of 10,000", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, octets(10000)))), false},
		{"nonce without OCTET STRING", rawRequest(nil, nil, one, extensions(extension(oidNonce, nil, make([]byte, 16)))), false},
		{"acceptable responses, not basic", rawRequest(nil, nil, one, extensions(extension(oidAcceptable, nil, unhex("30030601550000"[:10])))), false},
		{"SHA-1 without parameters", rawRequest(nil, nil, id(sha1, 20, "020101"), nil), true},
		{"SHA-1 with NULL", rawRequest(nil, nil, id(sha1NULL, 20, "020101"), nil), true},
		{"SHA-1 with other parameters", rawRequest(nil, nil, id("300a06052b0e03021a020101", 20, "020101"), nil), false},
		{"hashes too short", rawRequest(nil, nil, id(sha1, 19, "020101"), nil), false},
		{"unknown hash", rawRequest(nil, nil, id("300306012a", 5, "020101"), nil), true},
		{"negative serial", rawRequest(nil, nil, id(sha1, 20, "0201ff"), nil), true},
		{"serial of no octets", rawRequest(nil, nil, id(sha1, 20, "0200"), nil), false},
		{"serial not minimal", rawRequest(nil, nil, id(sha1, 20, "02020001"), nil), false},
		{"serial not minimal, negative", rawRequest(nil, nil, id(sha1, 20, "0202ff81"), nil), false},
		{"empty", nil, false},
		{"text", []byte("GET / HTTP/1.1"), false},
		{"too long", rawRequest(nil, nil, bytes.Repeat(one, 300), nil), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRequest(tt.in)
			if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
		})
	}
}

// What NewRequest writes, x/crypto reads alike; what it writes, we read alike.
func TestRequestOracle(t *testing.T) {
	c := newCA(t, "oracle", time.Now)
	for _, hash := range []Hash{SHA1, SHA256} {
		in := request(t, c, hash, make([]byte, 32), big.NewInt(77))
		got, err := xocsp.ParseRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ParseRequest(in)
		if err != nil {
			t.Fatal(err)
		}
		id := ours.IDs()[0]
		if got.SerialNumber.Int64() != 77 || !bytes.Equal(got.IssuerNameHash, id.NameHash) || !bytes.Equal(got.IssuerKeyHash, id.KeyHash) || !id.matches(c.cert) {
			t.Errorf("hash %d: %+v", hash, got)
		}
	}
	leaf := c.leaf(t, serial(5))
	in, err := xocsp.CreateRequest(leaf, c.cert, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := request(t, c, SHA1, nil, leaf.SerialNumber); !bytes.Equal(in, want) {
		t.Errorf("x/crypto asks %x, we %x", in, want)
	}
}

func TestParseRequestAllocatesNothing(t *testing.T) {
	in := read(t, "rustcrypto", "sha256-certid-ocsp-req.der")
	var r Request
	if n := testing.AllocsPerRun(100, func() {
		if r.Parse(in) != nil {
			t.Error("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever is accepted survives taking apart: CertIDs lie within the request
// and read alike on their own, and x/crypto agrees about the first.
func FuzzRequest(f *testing.F) {
	files, err := filepath.Glob("testdata/rustcrypto/*-req.der")
	if err != nil || len(files) < 9 {
		f.Fatal("no seeds", err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := ParseRequest(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if len(r.Nonce) > MaxNonce || r.Count < 1 {
			t.Fatalf("nonce %x, %d certificates", r.Nonce, r.Count)
		}
		for _, id := range r.IDs() {
			s := cryptobyte.String(id.Raw)
			var again CertID
			if !bytes.Contains(in, id.Raw) || again.parse(&s) != nil || !s.Empty() || again.Hash != id.Hash {
				t.Fatalf("CertID %x", id.Raw)
			}
		}
		if x, err := xocsp.ParseRequest(in); err == nil && x.SerialNumber.Cmp(r.IDs()[0].SerialNumber()) != 0 {
			t.Fatalf("serial %s, x/crypto says %s", r.IDs()[0].SerialNumber(), x.SerialNumber)
		}
	})
}

// Lengths are right wherever DER's own length grows by an octet.
func TestWrap(t *testing.T) {
	for _, n := range []int{0, 40, 60, 80, 100, 115, 125, 126, 127, 128, 200, 230, 240, 255, 256, 65400, 65440, 65480, 65500, 65535, 65536, 100_000} {
		tbs, certs := octets(n), octets(3)
		raw := wrap(tbs, []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02"), make([]byte, 70), certs)
		var body, basic cryptobyte.String
		s := cryptobyte.String(raw)
		if !s.ReadASN1(&body, asn1.SEQUENCE) || !s.Empty() || !body.SkipASN1(asn1.ENUM) || !body.ReadASN1(&body, explicit(0)) ||
			!body.ReadASN1(&body, asn1.SEQUENCE) || !body.SkipASN1(asn1.OBJECT_IDENTIFIER) || !body.ReadASN1(&basic, asn1.OCTET_STRING) || !body.Empty() ||
			!basic.ReadASN1(&basic, asn1.SEQUENCE) || !bytes.HasPrefix(basic, tbs) || !bytes.HasSuffix(basic, certs) || cap(raw) != len(raw) {
			t.Errorf("%d octets", n)
		}
	}
}
