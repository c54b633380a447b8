package ca

import (
	"crypto"
	"encoding/asn1"
)

// MaxCSR is the largest PKCS#10 request read, in octets.
const MaxCSR = 64 << 10

// CSR is a PKCS#10 request (RFC 2986) whose signature was verified.
type CSR struct {
	Raw       []byte
	PublicKey crypto.PublicKey
	SPKI      []byte
	Names     Names
	// ChallengePassword is attribute 1.2.840.113549.1.9.7, "" if absent.
	ChallengePassword string
	// Attributes other than extensionRequest and challengePassword, by dotted OID.
	Attributes map[string][]byte
	// Extensions asked for beside subjectAltName: a profile decides what is
	// issued, so these are known and not copied.
	Extensions []asn1.ObjectIdentifier
}

// ParseCSR reads one DER PKCS#10 request, strictly, and verifies its proof of
// possession. Errors: Malformed (trailing bytes and unknown names included),
// BadPOP, BadKey (weak or unlisted key).
func ParseCSR(der []byte) (*CSR, error) { panic("soon") }
