package admin

import (
	"context"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// Rotation makes and takes new CA generations. The key of a new generation is
// made here; its certificate is made where the root's key is.
type Rotation interface {
	// Request makes the key of the role's next generation, or finds the one that
	// an earlier request made, and returns a request for its certificate.
	Request(ctx context.Context, role string) (CARequest, error)
	// Take enters a CA certificate, which issues from its record's time on.
	Take(ctx context.Context, r ca.IssuerRecord, actor string) error
}

// CARequest asks a root for the certificate of a new CA generation.
type CARequest struct {
	Name       string `json:"name"` // "issuing-2"
	Role       string `json:"role"`
	Generation int    `json:"generation"`
	CSR        string `json:"csr"` // PEM
}

// NewCA is the certificate of a new CA generation, of a new root, or one that
// leads from one root to another.
type NewCA struct {
	Name       string `json:"name"`
	Role       string `json:"role"`
	Generation int    `json:"generation"`
	Cert       string `json:"cert"` // PEM
	// Activates is when it begins to issue; without it, at once.
	Activates time.Time `json:"activates,omitzero"`
}

func (c *call) requestCA() (any, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	role := c.param("name")
	if role != "issuing" && role != "quarantine" {
		return nil, ca.Errorf(ca.Malformed, "%q is not the role of a CA whose key is here: issuing or quarantine", role)
	}
	if c.Rotation == nil {
		return nil, ca.Errorf(ca.Denied, "this server makes no CAs")
	}
	if err := c.Core.MayRotate(role); err != nil {
		return nil, err
	}
	request, err := c.Rotation.Request(c.r.Context(), role)
	if err != nil {
		return nil, err
	}
	return request, nil
}

func (c *call) takeCA() (any, error) {
	var in NewCA
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if c.Rotation == nil {
		return nil, ca.Errorf(ca.Denied, "this server makes no CAs")
	}
	cert, err := oneCertificate(in.Cert)
	if err != nil {
		return nil, err
	}
	return nil, c.Rotation.Take(c.r.Context(), ca.IssuerRecord{Name: in.Name, Role: in.Role, Generation: in.Generation, Key: in.Name, Cert: cert, Activates: in.Activates}, c.who.Actor)
}

// activateCA lets a CA that is published issue at once.
func (c *call) activateCA() (any, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	return nil, c.Core.Activate(c.r.Context(), c.param("name"), c.who.Actor)
}

// RevokedCA says why a CA is revoked.
type RevokedCA struct {
	Reason string `json:"reason"`
}

func (c *call) revokeCA() (any, error) {
	var in RevokedCA
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	reason, err := ca.ParseReason(in.Reason)
	if err != nil {
		return nil, ca.Errorf(ca.Malformed, "%w", err)
	}
	return nil, c.Core.RevokeCA(c.r.Context(), c.param("name"), reason, c.who.Actor)
}
