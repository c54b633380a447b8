package est_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/cms"
)

// attribute is one attribute of a request.
type attribute struct {
	oid   encasn1.ObjectIdentifier
	value []byte // DER
}

var (
	attrChallenge = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	attrCaps      = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 15}
	attrSecretID  = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 37}
	attrPublicID  = encasn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 16, 2, 54}
)

var (
	aes128CBC  = cms.OID{2, 16, 840, 1, 101, 3, 4, 1, 2}
	aes256CBC  = cms.OID{2, 16, 840, 1, 101, 3, 4, 1, 42}
	aes128GCM  = cms.OID{2, 16, 840, 1, 101, 3, 4, 1, 6}
	aes128Wrap = cms.OID{2, 16, 840, 1, 101, 3, 4, 1, 5}
	aes256Wrap = cms.OID{2, 16, 840, 1, 101, 3, 4, 1, 45}
	rsaOAEP    = cms.OID{1, 2, 840, 113549, 1, 1, 7}
)

func capabilities(oids ...cms.OID) attribute {
	return attribute{attrCaps, cms.Capabilities(oids).Bytes()}
}

func octets(oid encasn1.ObjectIdentifier, value []byte) attribute {
	var b cryptobyte.Builder
	b.AddASN1OctetString(value)
	return attribute{oid, b.BytesOrPanic()}
}

func challengePassword(value string) attribute {
	var b cryptobyte.Builder
	b.AddASN1(asn1.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
	return attribute{attrChallenge, b.BytesOrPanic()}
}

// csrWith is a request with attributes that crypto/x509 does not write, for a P-256 key.
func csrWith(t testing.TB, key *ecdsa.PrivateKey, id string, attributes ...attribute) []byte {
	t.Helper()
	subject, err := encasn1.Marshal(pkix.Name{CommonName: id}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	var info cryptobyte.Builder
	info.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		b.AddBytes(subject)
		b.AddBytes(spki)
		b.AddASN1(asn1.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			for _, a := range attributes {
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(a.oid)
					b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { b.AddBytes(a.value) })
				})
			}
		})
	})
	signed := info.BytesOrPanic()
	digest := sha256.Sum256(signed)
	signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(signed)
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(encasn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2})
		})
		b.AddASN1BitString(signature)
	})
	return b.BytesOrPanic()
}
