package admin

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/der"
)

func (c *call) listCAs() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	list, err := c.cas()
	return Page[CA]{Items: list}, err
}

func (c *call) cas() ([]CA, error) {
	records, err := c.Reader.Issuers(c.r.Context())
	if err != nil {
		return nil, err
	}
	list := make([]CA, 0, len(records))
	for _, r := range records {
		cert, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return nil, fmt.Errorf("the certificate of CA %s in the ledger: %w", r.Name, err)
		}
		sum := sha256.Sum256(r.Cert)
		list = append(list, CA{
			Name: r.Name, Role: r.Role, Generation: r.Generation, Key: r.Key,
			Subject: cert.Subject.String(), Serial: hex.EncodeToString(cert.SerialNumber.Bytes()),
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, SHA256: hex.EncodeToString(sum[:]),
		})
	}
	return list, nil
}

// exportCA answers with a CA's certificate and the ones above it.
func (c *call) exportCA() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	name := c.param("name")
	der, ok := c.Core.CACert(name)
	if !ok {
		return nil, ca.Errorf(ca.NotFound, "no CA %q; list them with: deviceca ca list", name)
	}
	records, err := c.Reader.Issuers(c.r.Context())
	if err != nil {
		return nil, err
	}
	out := Chain{Name: name, PEM: encodePEM(der)}
	// A hierarchy is as deep as it has certificates, at most.
	for range records {
		above, err := issuerOf(der, records)
		if err != nil {
			return nil, err
		}
		if above == nil {
			break
		}
		der = above
		out.PEM += encodePEM(der)
	}
	return out, nil
}

// issuerOf finds the certificate that signed raw; nil if it signed itself or
// its issuer is not ours (an external root's own issuer).
func issuerOf(raw []byte, records []ca.IssuerRecord) ([]byte, error) {
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	if der.SameName(cert.RawIssuer, cert.RawSubject) {
		return nil, nil
	}
	for _, r := range records {
		above, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return nil, err
		}
		if der.SameName(above.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(above) == nil {
			return r.Cert, nil
		}
	}
	return nil, nil
}
