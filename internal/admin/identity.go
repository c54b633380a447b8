package admin

import (
	"crypto/sha256"
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

// certIdentity knows an admin by the key of the certificate shown. The
// handshake proved possession of that key; who signed the certificate does not matter.
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
	if now := a.Now(); now.After(cert.NotAfter) || now.Before(cert.NotBefore) {
		return identity{}, ca.Errorf(ca.Unauthenticated, "the admin certificate is valid from %s to %s only",
			cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	admin, err := a.Reader.AdminByKey(r.Context(), sha256.Sum256(cert.RawSubjectPublicKeyInfo))
	if errors.Is(err, ca.ErrNoRecord) {
		return identity{}, ca.Errorf(ca.Unauthenticated, "no administrator is registered with this certificate's key")
	}
	if err != nil {
		return identity{}, err
	}
	return identity{Actor: "admin:" + admin.Name, Role: Role(admin.Role)}, nil
}
