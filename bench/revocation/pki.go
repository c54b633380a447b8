package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/ocsp"
)

// authority is an issuing CA with its keys in memory.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// openAuthority reads the CA of the bench's directory, or makes it.
func openAuthority(dir string) (*authority, error) {
	file := filepath.Join(dir, "ca.pem")
	if raw, err := os.ReadFile(file); err == nil {
		keyBlock, rest := pem.Decode(raw)
		certBlock, _ := pem.Decode(rest)
		key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(certBlock.Bytes)
		return &authority{key, cert}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{Organization: []string{"Bench"}, CommonName: "Issuing CA 1"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	ec, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: ec})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	for name, data := range map[string][]byte{"ca.pem": append(keyPEM, certPEM...), "ca.key": keyPEM, "ca.crt": certPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	return &authority{key, cert}, nil
}

// delegate signs a certificate for one purpose: an OCSP responder, or a signer of packs.
func (a *authority) delegate(pub crypto.PublicKey, eku []x509.ExtKeyUsage, other []asn1.ObjectIdentifier) ([]byte, error) {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "delegate"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(0, 1, 0), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: eku, UnknownExtKeyUsage: other}
	return x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
}

// IssueResponder is part of ocsp.Certifier.
func (a *authority) IssueResponder(_ context.Context, _ string, pub crypto.PublicKey) ([]byte, error) {
	return a.delegate(pub, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, nil)
}

// serialOf is the serial of an index, which both sides of the bench know.
func serialOf(index uint64) ca.Serial {
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], index)
	sum := sha256.Sum256(be[:])
	return ca.NewSerial(index, [12]byte(sum[:12]))
}

// fleet is a Source of certificates that are all good.
type fleet struct {
	certs    uint64
	notAfter time.Time
}

// Status is part of ocsp.Source.
func (f fleet) Status(_ context.Context, _ string, serial ca.Serial) (ocsp.Status, error) {
	index := serial.Index()
	return ocsp.Status{Issued: index < f.certs && serial == serialOf(index), NotAfter: f.notAfter}, nil
}
