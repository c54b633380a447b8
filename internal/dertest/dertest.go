// Package dertest writes, for tests, certificates as manufacturers do that know better than RFC 5280.
package dertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

// Contents octets of OBJECT IDENTIFIERs.
const (
	CommonName   = "\x55\x04\x03"
	SerialNumber = "\x55\x04\x05"
	Organization = "\x55\x04\x0a"
	UniqueID     = "\x55\x04\x2d"                                                                     // x500UniqueIdentifier
	UUID         = "\x69\x83\xf8\xdf\xcd\xd1\xd8\xb5\xa5\xb8\xc4\xb4\xa0\xbd\x9c\xa1\xf2\xc3\x96\x6e" // 2.25 and a UUID
	basic        = "\x55\x1d\x13"
	keyUsage     = "\x55\x1d\x0f"
	subjectKID   = "\x55\x1d\x0e"
	extKeyUsage  = "\x55\x1d\x25"
	infoAccess   = "\x2b\x06\x01\x05\x05\x07\x01\x01"
	clientAuth   = "\x2b\x06\x01\x05\x05\x07\x03\x02"
)

// Value is an attribute of a Name.
type Value struct {
	Type, Content string // contents octets
	Tag           asn1.Tag
}

// CN is a commonName.
func CN(text string) Value { return Value{CommonName, text, asn1.UTF8String} }

// DN writes a Name with an RDN of each list.
func DN(rdns ...[]Value) []byte {
	return encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range rdns {
			b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
				for _, v := range rdn {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						add(b, asn1.OBJECT_IDENTIFIER, v.Type)
						add(b, v.Tag, v.Content)
					})
				}
			})
		}
	})
}

// Extension of a certificate.
type Extension struct {
	OID      string // contents octets
	Critical bool
	Value    []byte
}

// Certificate is what a certificate says. The zero value of a field leaves out what may be left out.
type Certificate struct {
	Serial          string // contents octets
	Issuer, Subject []byte // Name
	Begin, End      time.Time
	SPKI            []byte
	Extensions      []Extension
}

// Device is a certificate of a device for key, issued by issuer: an IDevID.
func Device(issuer *x509.Certificate, id string, key crypto.PublicKey) *Certificate {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	return &Certificate{Serial: "\x2a", Issuer: issuer.RawSubject,
		Subject: DN([]Value{{Organization, "Acme", asn1.UTF8String}}, []Value{{SerialNumber, id, asn1.PrintableString}}),
		Begin:   now.Add(-time.Hour), End: now.Add(24 * time.Hour), SPKI: spki,
		Extensions: []Extension{{keyUsage, true, []byte("\x03\x02\x07\x80")}}}
}

// Add adds an attribute to the subject, as an RDN of its own.
func (c *Certificate) Add(v Value) {
	s := cryptobyte.String(c.Subject)
	if !s.ReadASN1(&s, asn1.SEQUENCE) {
		panic("the subject is no Name")
	}
	more := cryptobyte.String(DN([]Value{v}))
	more.ReadASN1(&more, asn1.SEQUENCE)
	c.Subject = encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(s); b.AddBytes(more) })
}

// Extend adds an extension.
func (c *Certificate) Extend(oid string, critical bool, value []byte) {
	c.Extensions = append(c.Extensions, Extension{oid, critical, value})
}

// MakeCA makes it a CA's.
func (c *Certificate) MakeCA() {
	c.Extensions = []Extension{{basic, true, []byte("\x30\x03\x01\x01\xff")}, {keyUsage, true, []byte("\x03\x02\x02\x04")}}
}

// Sign writes the certificate, signed with SHA-256.
func (c *Certificate) Sign(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	algorithm := []byte("\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02")
	switch key.(type) {
	case *rsa.PrivateKey:
		algorithm = []byte("\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00")
	case *ecdsa.PrivateKey:
	default:
		t.Fatalf("a %T does not sign here", key)
	}
	tbs := encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		add(b, asn1.INTEGER, c.Serial)
		b.AddBytes(algorithm)
		b.AddBytes(c.Issuer)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1UTCTime(c.Begin); b.AddASN1UTCTime(c.End) })
		b.AddBytes(c.Subject)
		b.AddBytes(c.SPKI)
		b.AddASN1(asn1.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				for _, e := range c.Extensions {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
						add(b, asn1.OBJECT_IDENTIFIER, e.OID)
						if e.Critical {
							b.AddASN1Boolean(true)
						}
						b.AddASN1OctetString(e.Value)
					})
				}
			})
		})
	})
	digest := sha256.Sum256(tbs)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		b.AddBytes(algorithm)
		b.AddASN1BitString(signature)
	})
}

// An Oddity is something that crypto/x509 refuses and others overlook.
type Oddity struct {
	Name string
	RSA  bool // the key must be RSA
	Edit func(*Certificate)
}

// Oddities are those that devices in the field have.
var Oddities = []Oddity{
	{"negative serial number", false, func(c *Certificate) { c.Serial = "\xfe\x01\x02\x03" }},
	{"underscore in a PrintableString", false, func(c *Certificate) { c.Add(Value{CommonName, "a_b", asn1.PrintableString}) }},
	{"at sign in a PrintableString", false, func(c *Certificate) { c.Add(Value{Organization, "x@y", asn1.PrintableString}) }},
	{"BIT STRING in the subject", false, func(c *Certificate) { c.Add(Value{UniqueID, "\x00\x01\x02", asn1.BIT_STRING}) }},
	{"UniversalString in the subject", false, func(c *Certificate) { c.Add(Value{CommonName, "\x00\x00\x00a\x00\x00\x00b", asn1.Tag(28)}) }},
	{"IA5String beyond ASCII", false, func(c *Certificate) { c.Add(Value{CommonName, "caf\xe9", asn1.IA5String}) }},
	{"2.25.UUID in the subject", false, func(c *Certificate) { c.Add(Value{UUID, "x", asn1.UTF8String}) }},
	{"2.25.UUID as an extension", false, func(c *Certificate) { c.Extend(UUID, false, []byte("\x05\x00")) }},
	{"2.25.UUID as a key usage", false, func(c *Certificate) { c.Extend(extKeyUsage, false, usages(clientAuth, UUID)) }},
	{"2.25.UUID as an access method", false, func(c *Certificate) {
		c.Extend(infoAccess, false, encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
				add(b, asn1.OBJECT_IDENTIFIER, UUID)
				add(b, asn1.Tag(6).ContextSpecific(), "http://a/")
			})
		}))
	}},
	{"critical key identifier", false, func(c *Certificate) { c.Extend(subjectKID, true, []byte("\x04\x01\x07")) }},
	{"RSA key without NULL", true, func(c *Certificate) { c.SPKI = withoutNULL(c.SPKI) }},
}

func usages(oids ...string) []byte {
	return encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, oid := range oids {
			add(b, asn1.OBJECT_IDENTIFIER, oid)
		}
	})
}

// withoutNULL leaves the parameters out of an RSA key.
func withoutNULL(in []byte) []byte {
	s := cryptobyte.String(in)
	var body, algorithm, oid cryptobyte.String
	if !s.ReadASN1(&body, asn1.SEQUENCE) || !body.ReadASN1(&algorithm, asn1.SEQUENCE) || !algorithm.ReadASN1Element(&oid, asn1.OBJECT_IDENTIFIER) {
		panic("not a SubjectPublicKeyInfo")
	}
	return encode(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		add(b, asn1.SEQUENCE, string(oid))
		b.AddBytes(body)
	})
}

// Negative is the number of contents octets that encode an INTEGER below zero.
func Negative(content string) *big.Int {
	n := new(big.Int).SetBytes([]byte(content))
	return n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(content))))
}

func add(b *cryptobyte.Builder, tag asn1.Tag, content string) {
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(content)) })
}

func encode(tag asn1.Tag, content func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, content)
	return b.BytesOrPanic()
}
