package admin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// identity is who asks.
type identity struct {
	Actor string // as the audit log names them
	Role  Role
	Local bool
}

// localIdentity trusts the listener: only the owner of the home reaches it. Its
// connections carry the peer's user ID as their address (see Listen).
func (a *API) localIdentity(r *http.Request) (identity, error) {
	actor := "admin:local"
	if uid, ok := strings.CutPrefix(r.RemoteAddr, uidPrefix); ok {
		actor += "(uid " + uid + ")"
	}
	return identity{Actor: actor, Role: RoleAdmin, Local: true}, nil
}

// certIdentity knows an admin by the one certificate that is registered (an admin registered before certificates were
// kept: by its key). The handshake proved possession of the key; who signed the certificate does not matter, but one of this CA's
// counts no longer once it is revoked.
func (a *API) certIdentity(r *http.Request) (identity, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return identity{}, ca.Errorf(ca.Unauthenticated, "the admin API takes a client certificate; register one on the host with: deviceca admin add NAME --role ROLE")
	}
	if a.Closed != nil {
		if err := a.Closed(r.Context()); err != nil {
			return identity{}, err
		}
	}
	cert := r.TLS.PeerCertificates[0]
	admin, err := a.Reader.AdminByKey(r.Context(), sha256.Sum256(cert.RawSubjectPublicKeyInfo))
	if errors.Is(err, ca.ErrNoRecord) {
		return identity{}, ca.Errorf(ca.Unauthenticated, "no administrator is registered with this certificate's key")
	}
	if err != nil {
		return identity{}, err
	}
	if !admin.ByKey() && admin.CertID != sha256.Sum256(cert.Raw) {
		return identity{}, ca.Errorf(ca.Unauthenticated, "administrator %s is registered with another certificate of this key: use that, or remove the administrator and add it with this one", admin.Name)
	}
	if now := a.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return identity{}, ca.Errorf(ca.Unauthenticated, "the admin certificate is valid from %s to %s only: remove the administrator and add it with a new one",
			cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if err := a.notRevoked(r.Context(), cert); err != nil {
		return identity{}, err
	}
	// Administrators get no tickets; one from before the registration may still be about.
	if r.TLS.DidResume {
		return identity{}, ca.Errorf(ca.Unauthenticated, "an administrator needs a full TLS handshake, and this session was resumed: connect again without resuming")
	}
	return identity{Actor: "admin:" + admin.Name, Role: Role(admin.Role)}, nil
}

// notRevoked asks the ledger about a certificate that this CA may have issued.
func (a *API) notRevoked(ctx context.Context, cert *x509.Certificate) error {
	serial, ours := ca.SerialFromBig(cert.SerialNumber)
	if !ours {
		return nil
	}
	c, err := a.Reader.CertificateBySerial(ctx, serial)
	if errors.Is(err, ca.ErrNoRecord) {
		return nil
	}
	if err != nil {
		return err
	}
	if bytes.Equal(c.DER, cert.Raw) && c.Revocation != nil {
		return ca.Errorf(ca.Unauthenticated, "the admin certificate %s was revoked at %s: remove the administrator and add it with a new one",
			c.Serial, c.Revocation.Time.UTC().Format(time.RFC3339))
	}
	return nil
}
