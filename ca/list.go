package ca

import (
	"time"

	"github.com/deviceca/deviceca/device"
)

// CertificateFilter selects certificates; zero fields select all.
type CertificateFilter struct {
	Device        string
	Issuer        string
	Profile       string
	Revoked       *bool
	ExpiresBefore time.Time
	ExpiresAfter  time.Time
	device.Window // by IssuedAt
}

// CredentialFilter selects credentials; zero fields select all.
type CredentialFilter struct {
	Device        string
	Group         string
	device.Window // by Created
}

// Admin is someone who may use the admin API from another host, known by the
// SHA-256 of a client certificate's public key.
type Admin struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"` // "admin", "operator", "auditor"
	KeyID   [32]byte  `json:"-"`    // SHA-256 of the SubjectPublicKeyInfo
	Created time.Time `json:"created"`
	// CertID is the SHA-256 of the one certificate that the administrator is known by, and NotAfter its end.
	// Zero for those registered before these were kept, who are known by their key.
	CertID   [32]byte  `json:"-"`
	NotAfter time.Time `json:"not_after,omitzero"`
}

// ByKey reports whether any certificate with the administrator's key does.
func (a *Admin) ByKey() bool { return a.CertID == [32]byte{} }
