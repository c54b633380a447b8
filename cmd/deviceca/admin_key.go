package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"go.step.sm/crypto/pemutil"
)

// makeAdminCert makes a P-256 key and a self-signed client certificate in
// path.key (0600) and path.crt, and returns the certificate in PEM. The key is encrypted if a password
// file is named. It overwrites nothing.
func makeAdminCert(name, path, passwordFile string, now time.Time) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)), // never 0
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-5 * time.Minute), // clocks differ
		NotAfter:              now.Add(adminValidity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	options := []pemutil.Options{pemutil.WithPKCS8(true)}
	if passwordFile != "" {
		options = append(options, pemutil.WithPasswordFile(passwordFile))
	}
	block, err := pemutil.Serialize(key, options...)
	if err != nil {
		return nil, err
	}
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := writeNew(path+".key", pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	if err := writeNew(path+".crt", cert, 0o644); err != nil {
		os.Remove(path + ".key")
		return nil, err
	}
	return cert, nil
}

// loadAdminPair reads an administrator's certificate and key. An encrypted key (RFC 5958) takes the
// file that its password is in.
func loadAdminPair(certFile, keyFile, passwordFile string) (pair tls.Certificate, err error) {
	certs, err := readCerts(certFile)
	if err != nil {
		return pair, err
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return pair, err
	}
	var key any
	switch block, _ := pem.Decode(text); {
	case block == nil || block.Type != "ENCRYPTED PRIVATE KEY":
		return tls.LoadX509KeyPair(certFile, keyFile)
	case passwordFile == "":
		return pair, hinted(fmt.Errorf("the key in %s is encrypted", keyFile), "name the file with its password: --key-password-file, or $DEVICECA_KEY_PASSWORD_FILE")
	}
	if key, err = pemutil.Parse(text, pemutil.WithFilename(keyFile), pemutil.WithPasswordFile(passwordFile)); err != nil {
		return pair, fmt.Errorf("the key in %s does not open with the password in %s: %w", keyFile, passwordFile, err)
	}
	signer, ok := key.(crypto.Signer)
	public, fits := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !fits || !public.Equal(signer.Public()) {
		return pair, errors.New("the key in " + keyFile + " is not that of the certificate in " + certFile)
	}
	for _, c := range certs {
		pair.Certificate = append(pair.Certificate, c.Raw)
	}
	pair.PrivateKey, pair.Leaf = key, certs[0]
	return pair, nil
}
