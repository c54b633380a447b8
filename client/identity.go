package client

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/deviceca/deviceca/internal/der"
)

// Identity is a device's key with its certificate. They always match.
type Identity struct {
	Key         crypto.Signer
	Certificate *x509.Certificate
	Chain       []*x509.Certificate // from the certificate's issuer upwards, without the root
}

// newIdentity pairs key and certificates; the first is the device's own.
func newIdentity(key crypto.Signer, certs []*x509.Certificate) (*Identity, error) {
	if len(certs) == 0 {
		return nil, &Error{Kind: Local, Op: "load", Text: "there is no certificate"}
	}
	if !samePublic(key.Public(), certs[0].PublicKey) {
		return nil, &Error{Kind: Local, Op: "load", Text: "the certificate is for another key",
			Hint: "put the matching key and certificate in place, or remove both and enrol anew"}
	}
	return &Identity{Key: key, Certificate: certs[0], Chain: certs[1:]}, nil
}

// Device is the device ID: the subject's common name.
func (id *Identity) Device() string { return id.Certificate.Subject.CommonName }

// Serial is the serial number in hex.
func (id *Identity) Serial() string { return serialHex(id.Certificate) }

func serialHex(cert *x509.Certificate) string { return fmt.Sprintf("%x", cert.SerialNumber.Bytes()) }

// TLS is the identity for a tls.Config.
func (id *Identity) TLS() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: id.Key, Leaf: id.Certificate, Certificate: [][]byte{id.Certificate.Raw}}
	for _, cert := range id.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// DefaultRenewFraction is the part of its validity after which a certificate is renewed.
const DefaultRenewFraction = 0.5

// renewJitter is how far, as a part of the validity, a certificate's renewal
// lies before or after the fraction.
const renewJitter = 0.05

// RenewAt is when the certificate should be renewed: at fraction of its
// validity (0 stands for DefaultRenewFraction), moved by up to 5 % of the validity either way. The
// move is drawn from the certificate itself, so that it is the same after every
// restart, and differs between devices that enrolled together.
func (id *Identity) RenewAt(fraction float64) time.Time {
	if fraction == 0 {
		fraction = DefaultRenewFraction
	}
	at := min(max(fraction+renewJitter*(2*unit(id.Certificate)-1), 0), 1)
	validity := id.Certificate.NotAfter.Sub(id.Certificate.NotBefore)
	return id.Certificate.NotBefore.Add(time.Duration(at * float64(validity))).Truncate(time.Second)
}

// unit is the certificate's own number in [0,1).
func unit(cert *x509.Certificate) float64 {
	sum := sha256.Sum256(cert.Raw)
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) // 53 bits, exactly
}

// Due reports whether the certificate should be renewed at now, see RenewAt.
func (id *Identity) Due(now time.Time, fraction float64) bool {
	return !now.Before(id.RenewAt(fraction))
}

// Lapsed reports whether the certificate has expired at now.
func (id *Identity) Lapsed(now time.Time) bool { return now.After(id.Certificate.NotAfter) }

// ParseCertificates reads every CERTIFICATE block of PEM text; other blocks, text around them and byte order
// marks are passed over. A block that cannot be read, and no certificate at all, is an error.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	blocks, err := der.PEM(text)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "load", Text: "the PEM cannot be read", Err: err}
	}
	var certs []*x509.Certificate
	for _, block := range blocks {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &Error{Kind: Local, Op: "load", Text: fmt.Sprintf("certificate %d cannot be read", len(certs)+1), Err: err}
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, &Error{Kind: Local, Op: "load", Text: "there is no certificate", Hint: "give certificates in PEM"}
	}
	return certs, nil
}

// ReadCertificates is ParseCertificates of a file.
func ReadCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, &Error{Kind: Local, Op: "load", Text: "the certificates cannot be read", Err: err}
	}
	return parseFile(path, text)
}

func parseFile(path string, text []byte) ([]*x509.Certificate, error) {
	certs, err := ParseCertificates(text)
	if err != nil {
		return nil, &Error{Kind: KindOf(err), Op: "load", Text: path, Err: err}
	}
	return certs, nil
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

func (id *Identity) certificates() []*x509.Certificate {
	return slices.Concat([]*x509.Certificate{id.Certificate}, id.Chain)
}
