package admin

import (
	"bytes"
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
	all := c.Core.Generations()
	list := make([]CA, 0, len(all))
	for _, r := range all {
		cert, err := x509.ParseCertificate(r.Cert)
		if err != nil {
			return nil, fmt.Errorf("the certificate of CA %s in the ledger: %w", r.Name, err)
		}
		sum := sha256.Sum256(r.Cert)
		list = append(list, CA{
			Name: r.Name, Role: r.Role, Generation: r.Generation, Key: r.Key,
			Subject: cert.Subject.String(), Serial: hex.EncodeToString(cert.SerialNumber.Bytes()),
			NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, SHA256: hex.EncodeToString(sum[:]),
			Stage: r.Stage, LiveUntil: r.LiveUntil, Warning: c.Core.Warning(r.Name),
		})
		if r.Stage == ca.StagePublished {
			list[len(list)-1].Activates = r.Since()
		}
	}
	return list, nil
}

// exportCA answers with a CA's certificate, those that lead from its root to other roots, and its root.
func (c *call) exportCA() (any, error) {
	if _, err := c.query(); err != nil {
		return nil, err
	}
	name := c.param("name")
	der, ok := c.Core.CACert(name)
	if !ok {
		return nil, ca.Errorf(ca.NotFound, "no CA %q; list them with: deviceca ca list", name)
	}
	root, err := rootOf(der, c.Core.Generations())
	if err != nil {
		return nil, err
	}
	out := Chain{Name: name}
	if root == nil { // it is one itself, or its own is not ours
		out.PEM = encodePEM(der)
		return out, nil
	}
	for _, der := range append(c.Core.Chain(name), root) {
		out.PEM += encodePEM(der)
	}
	return out, nil
}

// rootOf finds the root that signed raw; nil if raw is a root.
func rootOf(raw []byte, all []ca.Generation) ([]byte, error) {
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	for _, g := range all {
		root, err := x509.ParseCertificate(g.Cert)
		if err != nil {
			return nil, err
		}
		if g.IsRoot() && !bytes.Equal(g.Cert, raw) && der.SameName(root.RawSubject, cert.RawIssuer) && cert.CheckSignatureFrom(root) == nil {
			return g.Cert, nil
		}
	}
	return nil, nil
}
