package ca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/der"
)

// tlv is one DER element.
func tlv(tag cbasn1.Tag, parts ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) {
		for _, p := range parts {
			b.AddBytes(p)
		}
	})
	return b.BytesOrPanic()
}

func seq(parts ...[]byte) []byte { return tlv(cbasn1.SEQUENCE, parts...) }
func set(parts ...[]byte) []byte { return tlv(cbasn1.SET, parts...) }

func oid(dotted string) []byte {
	var b cryptobyte.Builder
	der.AddOID(&b, dotted)
	return b.BytesOrPanic()
}

func rdn(dotted string, tag cbasn1.Tag, value string) []byte {
	return set(seq(oid(dotted), tlv(tag, []byte(value))))
}

func dnsExtension(names ...string) []byte {
	var all []byte
	for _, n := range names {
		all = append(all, tlv(cbasn1.Tag(2).ContextSpecific(), []byte(n))...)
	}
	return seq(oid("2.5.29.17"), tlv(cbasn1.OCTET_STRING, seq(all)))
}

func attribute(dotted string, values ...[]byte) []byte { return seq(oid(dotted), set(values...)) }

const (
	extensionRequest = "1.2.840.113549.1.9.14"
	certExtensions   = "1.3.6.1.4.1.311.2.1.14"
	ecdsaWithSHA256  = "1.2.840.10045.4.3.2"
	uuidOID          = "2.25.329800735698586629295641978511506172918"
)

// oddCSR is a request put together by hand and signed by its key.
type oddCSR struct {
	version    byte
	subject    []byte // RDNs
	attributes []byte // with their tag; nil: none at all
	algorithm  []byte
	sign       func(key *ecdsa.PrivateKey, info []byte) []byte
}

func (o oddCSR) der(t testing.TB) []byte {
	t.Helper()
	key := newKey(t)
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if o.subject == nil {
		o.subject = rdn("2.5.4.3", cbasn1.UTF8String, "lamp-1")
	}
	info := seq(tlv(cbasn1.INTEGER, []byte{o.version}), seq(o.subject), spki, o.attributes)
	if o.algorithm == nil {
		o.algorithm = seq(oid(ecdsaWithSHA256))
	}
	if o.sign == nil {
		o.sign = func(key *ecdsa.PrivateKey, info []byte) []byte {
			sum := sha256.Sum256(info)
			signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}
	}
	return seq(info, o.algorithm, tlv(cbasn1.BIT_STRING, []byte{0}, o.sign(key, info)))
}

func attributes(parts ...[]byte) []byte {
	return tlv(cbasn1.Tag(0).ContextSpecific().Constructed(), parts...)
}

type oddCase struct {
	name string
	der  []byte
	kind ca.Kind // -1: taken
	says string  // a part of the refusal, or of the names read
}

func oddCSRs(t testing.TB) []oddCase {
	const good = ca.Kind(-1)
	san, other := dnsExtension("a.example"), dnsExtension("b.example")
	keyUsage := seq(oid("2.5.29.15"), tlv(cbasn1.OCTET_STRING, []byte{3, 2, 7, 0x80}))
	long := strings.Repeat("я", 300)
	all := []struct {
		name string
		odd  oddCSR
		kind ca.Kind
		says string
	}{
		{"names in extensionRequest", oddCSR{attributes: attributes(attribute(extensionRequest, seq(san)))}, good, "dns a.example"},
		{"names in Microsoft's attribute", oddCSR{attributes: attributes(attribute(certExtensions, seq(san)))}, good, "dns a.example"},
		{"names in one, usage in the other", oddCSR{attributes: attributes(attribute(extensionRequest, seq(keyUsage)), attribute(certExtensions, seq(san)))}, good, "dns a.example"},
		{"names in both", oddCSR{attributes: attributes(attribute(extensionRequest, seq(san)), attribute(certExtensions, seq(other)))}, ca.Malformed, "extension 2.5.29.17 is asked for twice"},
		{"a second value", oddCSR{attributes: attributes(attribute(extensionRequest, seq(san), seq(other)))}, ca.Malformed, "two values"},
		{"a second value of Microsoft's attribute", oddCSR{attributes: attributes(attribute(certExtensions, seq(keyUsage), seq(other)))}, ca.Malformed, "two values"},
		{"a second attribute", oddCSR{attributes: attributes(attribute(extensionRequest, seq(keyUsage)), attribute(extensionRequest, seq(other)))}, ca.Malformed, "comes twice"},
		{"an extension twice", oddCSR{attributes: attributes(attribute(extensionRequest, seq(keyUsage, keyUsage)))}, ca.Malformed, "extension 2.5.29.15 is asked for twice"},
		{"two challengePasswords", oddCSR{attributes: attributes(attribute("1.2.840.113549.1.9.7", tlv(cbasn1.UTF8String, []byte("a")), tlv(cbasn1.UTF8String, []byte("b"))))}, ca.Malformed, "two values"},
		{"an extension with an arc of 128 bits", oddCSR{attributes: attributes(attribute(extensionRequest, seq(seq(oid(uuidOID), tlv(cbasn1.OCTET_STRING)), san)))}, good, "dns a.example"},
		{"an attribute with an arc of 128 bits", oddCSR{attributes: attributes(attribute(uuidOID, seq()))}, good, "cn lamp-1"},
		{"no attributes", oddCSR{}, good, "cn lamp-1"},
		{"a subject attribute with an arc of 128 bits", oddCSR{subject: rdn(uuidOID, cbasn1.UTF8String, "x")}, good, uuidOID + " x"},
		{"underscore in PrintableString", oddCSR{subject: rdn("2.5.4.3", cbasn1.PrintableString, "lamp_1")}, good, "cn lamp_1"},
		{"BMPString with a pair of surrogates", oddCSR{subject: rdn("2.5.4.3", cbasn1.Tag(30), "\xd8\x3d\xdc\xa1")}, good, "cn 💡"},
		{"UniversalString", oddCSR{subject: rdn("2.5.4.3", cbasn1.Tag(28), "\x00\x00\x00A\x00\x01\xf4\xa1")}, good, "cn A💡"},
		{"BIT STRING in a name", oddCSR{subject: rdn("2.5.4.45", cbasn1.BIT_STRING, "\x00A")}, ca.Malformed, "2.5.4.45: a BIT STRING, where a string is wanted"},
		{"255 letters of two octets", oddCSR{subject: rdn("2.5.4.3", cbasn1.UTF8String, long[:510])}, good, "cn я"},
		{"300 letters of two octets", oddCSR{subject: rdn("2.5.4.3", cbasn1.UTF8String, long)}, ca.Malformed, "300 characters long, 1 to 255 allowed"},
		{"version 1", oddCSR{version: 1}, ca.Malformed, "version other than 0"},
		{"NULL after ECDSA", oddCSR{algorithm: seq(oid(ecdsaWithSHA256), []byte{5, 0})}, good, "cn lamp-1"},
		{"SHA-1", oddCSR{algorithm: seq(oid("1.2.840.10045.4.1")), sign: func(key *ecdsa.PrivateKey, info []byte) []byte {
			sum := sha1.Sum(info)
			signature, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
			if err != nil {
				t.Fatal(err)
			}
			return signature
		}}, ca.BadAlg, "SHA-1 with ECDSA, which is not accepted"},
		{"an unknown algorithm", oddCSR{algorithm: seq(oid("1.2.3.4"))}, ca.BadAlg, "signed with 1.2.3.4, which is not accepted"},
		{"an RSA algorithm for an EC key", oddCSR{algorithm: seq(oid("1.2.840.113549.1.1.11"), []byte{5, 0})}, ca.BadPOP, "its key is of EC"},
		{"a wrong signature", oddCSR{sign: func(*ecdsa.PrivateKey, []byte) []byte {
			return seq(tlv(cbasn1.INTEGER, []byte{1}), tlv(cbasn1.INTEGER, []byte{1}))
		}}, ca.BadPOP, "does not verify"},
	}
	var cases []oddCase
	for _, c := range all {
		cases = append(cases, oddCase{c.name, c.odd.der(t), c.kind, c.says})
	}
	return append(cases, oddCase{"an indefinite length", []byte{0x30, 0x80, 0, 0}, ca.Malformed, "indefinite length"})
}

// No name is passed over, and each refusal says what is wrong.
func TestOddCSRs(t *testing.T) {
	for _, c := range oddCSRs(t) {
		t.Run(c.name, func(t *testing.T) {
			csr, err := ca.ParseCSR(c.der)
			if c.kind >= 0 {
				if err == nil || ca.KindOf(err) != c.kind || !contains(ca.AsError(err).Reason, c.says) {
					t.Errorf("got %v, want %v with %q", err, c.kind, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var read []string
			for _, a := range csr.Names.Subject {
				read = append(read, a.Attr+" "+a.Value)
			}
			for _, s := range csr.Names.SANs {
				read = append(read, s.Form+" "+s.Value)
			}
			if !contains(strings.Join(read, ", "), c.says) {
				t.Errorf("read %q, want %q", read, c.says)
			}
		})
	}
}

type oddKey struct {
	name string
	spki []byte
	says string // "" is taken
}

// oddKeys are encodings of a P-256 key, and of keys that are none.
func oddKeys(t testing.TB, key *ecdsa.PrivateKey) []oddKey {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	const ec, p256, rsaKey = "1.2.840.10045.2.1", "1.2.840.10045.3.1.7", "1.2.840.113549.1.1.1"
	spki := func(algorithm []byte, key []byte) []byte {
		return seq(algorithm, tlv(cbasn1.BIT_STRING, []byte{0}, key))
	}
	modulus := append([]byte{0}, make([]byte, 256)...)
	copy(modulus[1:], new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1)).Bytes())
	rsaPublic := func(exponent ...byte) []byte {
		return seq(tlv(cbasn1.INTEGER, modulus), tlv(cbasn1.INTEGER, exponent))
	}
	null := []byte{5, 0}
	offCurve := append([]byte{4}, make([]byte, 64)...)
	offCurve[64] = 1
	explicit, err := hex.DecodeString("3081e0020101302c06072a8648ce3d0101022100ffffffff00000001000000000000000000000000ffffffffffffffffffffffff")
	if err != nil {
		t.Fatal(err)
	}
	return []oddKey{
		{"P-256", spki(seq(oid(ec), oid(p256)), point), ""},
		{"compressed", spki(seq(oid(ec), oid(p256)), elliptic.MarshalCompressed(elliptic.P256(), key.X, key.Y)), "its point is compressed, which need not be supported (RFC 5480 §2.2)"},
		{"hybrid", spki(seq(oid(ec), oid(p256)), append([]byte{6 | point[64]&1}, point[1:]...)), "neither compressed nor uncompressed"},
		{"at infinity", spki(seq(oid(ec), oid(p256)), []byte{0}), "at infinity"},
		{"point too short", spki(seq(oid(ec), oid(p256)), point[:64]), "64 octets, and on this curve it must have 65"},
		{"off the curve", spki(seq(oid(ec), oid(p256)), offCurve), "cannot be read"},
		{"explicit parameters", spki(seq(oid(ec), seq(explicit[3:])), point), "spells out the parameters of its curve"},
		{"no parameters", spki(seq(oid(ec)), point), "does not name its curve"},
		{"secp256k1", spki(seq(oid(ec), oid("1.3.132.0.10")), point), "the curve secp256k1 is not accepted"},
		{"RSA without NULL", spki(seq(oid(rsaKey)), rsaPublic(1, 0, 1)), "must be NULL (RFC 4055 §1.2)"},
		{"RSA with a long exponent", spki(seq(oid(rsaKey), null), rsaPublic(1, 0, 0, 0, 1)), "2^31 or above"},
		{"RSA with a negative exponent", spki(seq(oid(rsaKey), null), rsaPublic(0x80, 0, 0, 1)), "negative"},
		{"RSA of 2^2048-1", spki(seq(oid(rsaKey), null), rsaPublic(1, 0, 1)), "prime factor below"},
		{"RSA that is none", spki(seq(oid(rsaKey), null), point), "not an RSAPublicKey"},
		{"Ed25519 with NULL", spki(seq(oid("1.3.101.112"), null), point[:32]), "has no parameters"},
		{"X25519", spki(seq(oid("1.3.101.110")), point[:32]), "keys of X25519 are not accepted"},
		{"ML-DSA", spki(seq(oid("2.16.840.1.101.3.4.3.18")), make([]byte, 1952)), "keys of ML-DSA-65 are not accepted"},
		{"an unknown kind", spki(seq(oid(uuidOID)), point), "keys of algorithm " + uuidOID},
		{"no SubjectPublicKeyInfo", seq(oid(ec)), "not a SubjectPublicKeyInfo"},
	}
}

func TestParseKey(t *testing.T) {
	key := newKey(t)
	for _, c := range oddKeys(t, key) {
		t.Run(c.name, func(t *testing.T) {
			pub, err := ca.ParseKey(c.spki)
			if c.says == "" {
				if err != nil || !key.PublicKey.Equal(pub) {
					t.Errorf("got %v, %v", pub, err)
				}
				return
			}
			if err == nil || ca.KindOf(err) != ca.BadKey || !contains(ca.AsError(err).Reason, c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			parsed, err := x509.ParseCertificateRequest(oddCSR{attributes: attributes()}.der(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ca.ParseCSR(replaceKey(t, parsed, c.spki)); err == nil || ca.KindOf(err) != ca.BadKey && c.name != "no SubjectPublicKeyInfo" || !contains(ca.AsError(err).Reason, c.says) {
				t.Errorf("in a request: %v, want %q", err, c.says)
			}
		})
	}
}

// FuzzParseKey: never a panic, and a key that is taken has this one encoding.
func FuzzParseKey(f *testing.F) {
	for _, c := range oddKeys(f, newKey(f)) {
		f.Add(c.spki)
	}
	f.Fuzz(func(t *testing.T, spki []byte) {
		pub, err := ca.ParseKey(spki)
		if err != nil {
			if ca.KindOf(err) != ca.BadKey {
				t.Errorf("kind %v: %v", ca.KindOf(err), err)
			}
			return
		}
		if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, spki) {
			t.Errorf("%x is encoded as %x, %v", spki, again, err)
		}
	})
}
