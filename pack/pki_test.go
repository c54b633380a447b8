package pack

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"testing"
	"time"
)

// epochStart is when the tests take place.
var epochStart = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// serialOf makes a serial of the form that the CA gives.
func serialOf(index uint64) []byte {
	s := make([]byte, 19)
	binary.BigEndian.PutUint64(s[:8], 1<<56|index<<8) // the last octet of these is random already
	filler := sha256.Sum256(s[:7])
	copy(s[7:], filler[:])
	return s
}

// testKey is an Ed25519 key that is the same in each run.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("deviceca pack test key: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func keys(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]crypto.Signer{"ES256": p256, "ES384": p384, "EdDSA": testKey("issuer"), "PS256": rsaKey}
}

func certificate(t testing.TB, template, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func issuerCert(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serialOf(1)),
		Subject:               pkix.Name{CommonName: "Test Issuing CA"},
		NotBefore:             epochStart.AddDate(-1, 0, 0),
		NotAfter:              epochStart.AddDate(9, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return certificate(t, template, template, key.Public(), key)
}

// delegateTemplate is of index 500.
func delegateTemplate() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:       new(big.Int).SetBytes(serialOf(500)),
		Subject:            pkix.Name{CommonName: "Test pack signer"},
		NotBefore:          epochStart.Add(-day),
		NotAfter:           epochStart.Add(30 * day),
		KeyUsage:           x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{SigningEKU()},
	}
}

// ca is an issuing CA with a signer of its own key.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
	sign *Signer
}

func newCA(t testing.TB, key crypto.Signer) *ca {
	t.Helper()
	c := &ca{cert: issuerCert(t, key), key: key}
	var err error
	if c.sign, err = NewSigner(c.cert, key, nil); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *ca) delegate(t testing.TB, key crypto.Signer, template *x509.Certificate) (*Signer, *x509.Certificate) {
	t.Helper()
	cert := certificate(t, template, c.cert, key.Public(), c.key)
	s, err := NewSigner(c.cert, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	return s, cert
}

func (c *ca) header(epoch, sequence, first, size uint64) Header {
	at := epochStart.Add(time.Duration(sequence) * time.Hour)
	return Header{Issuer: IssuerHash(c.cert), Epoch: epoch, Sequence: sequence, ThisUpdate: at, NextUpdate: at.Add(week), First: first, Size: size}
}

func (c *ca) options() Options { return Options{Issuer: c.cert} }

// raw signs a payload as it is, which no exported function does.
func (c *ca) raw(t testing.TB, contentType string, aad, payload []byte) []byte {
	t.Helper()
	e := envelope{contentType: contentType, kid: keyID(c.cert), alg: c.sign.alg.id, payload: payload}
	e.protected = e.appendProtected(nil)
	return c.reseal(t, e, aad)
}

func (c *ca) reseal(t testing.TB, e envelope, aad []byte) []byte {
	t.Helper()
	var err error
	if e.signature, err = c.sign.alg.sign(c.key, e.toBeSigned(aad)); err != nil {
		t.Fatal(err)
	}
	return e.append(nil)
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
