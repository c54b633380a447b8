package client

import (
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/bits"
)

// Certificates come from whoever answers. These bounds hold before any of their keys is used: to verify with an RSA key takes
// time that grows with the square of its length, and Go bounds that by itself only in TLS handshakes.
const (
	maxCertificate = 64 << 10 // octets; the longest signatures of today, SLH-DSA's, take 50,000
	maxReplyCerts  = 32       // in a reply to a request: the certificate, its chain, cross certificates
	maxCACertCount = 128      // in cacerts: many generations of CAs
	maxAnchors     = 16       // trust anchors that are kept
	maxRSABits     = 8192     // as crypto/tls has it; a verification takes 1 ms
	maxRSAExponent = 17       // bits: 65537, the usual one, has as many
)

// parseCertificates parses certificates in DER that a server sent, at most so many.
func parseCertificates(raw [][]byte, most int) ([]*x509.Certificate, error) {
	if len(raw) > most {
		return nil, fmt.Errorf("%d certificates, and %d is the most taken", len(raw), most)
	}
	certs := make([]*x509.Certificate, len(raw))
	for i, der := range raw {
		var err error
		if certs[i], err = parseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return certs, nil
}

// parseCertificate parses one certificate in DER that a server sent.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertificate {
		return nil, fmt.Errorf("it has %d octets, and %d is the most taken", len(der), maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return cert, checkKey(cert)
}

// checkKey refuses a key that takes long to verify with. Keys of kinds unknown to Go are never used, so they pass.
func checkKey(cert *x509.Certificate) error {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok:
		return nil
	case key.N.BitLen() > maxRSABits:
		return fmt.Errorf("its RSA key has %d bits, and %d is the most taken", key.N.BitLen(), maxRSABits)
	case bits.Len(uint(key.E)) > maxRSAExponent:
		return fmt.Errorf("its RSA exponent has %d bits, and %d is the most taken", bits.Len(uint(key.E)), maxRSAExponent)
	}
	return nil
}

// checkKeys is checkKey for what an Enroller of others hands over.
func checkKeys(certs ...[]*x509.Certificate) error {
	for _, list := range certs {
		for _, c := range list {
			if err := checkKey(c); err != nil {
				return fmt.Errorf("the certificate of \"%s\": %w", printable(c.Subject.String()), err)
			}
		}
	}
	return nil
}
