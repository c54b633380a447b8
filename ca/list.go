package ca

import "time"

// CertificateFilter selects certificates; zero fields select all.
type CertificateFilter struct {
	Device        string
	Issuer        string
	Profile       string
	Revoked       *bool
	ExpiresBefore time.Time
	ExpiresAfter  time.Time
}

// CredentialFilter selects credentials; zero fields select all.
type CredentialFilter struct {
	Device string
	Group  string
}

// Admin is someone who may use the admin API from another host, known by the
// SHA-256 of a client certificate's public key.
type Admin struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"` // "admin", "operator", "auditor"
	KeyID   [32]byte  `json:"-"`
	Created time.Time `json:"created"`
}
