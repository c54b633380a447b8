package policy

import "time"

// Profile is what a certificate looks like, as the policy file says it, with
// `extends` resolved and defaults filled in. It is data: package ca compiles
// it against an issuer and lints it.
type Profile struct {
	Name         string
	Issuer       string              // CA role: "issuing" (default) or "quarantine"
	Keys         []string            // key algorithms accepted, as KeyAlgorithm names them
	Subject      []SubjectTemplate   // in file order; CN first by default "{device.id}"
	SAN          []string            // SAN forms that may be asked for
	Names        map[string][]string // patterns allowed per form; a form in SAN without an entry has the defaults of DefaultPatterns
	KeyUsage     []string            // "digitalSignature", "keyEncipherment", "keyAgreement", …
	EKU          []string            // "clientAuth", "serverAuth", … or dotted OIDs
	PolicyOIDs   []string            // certificatePolicies, dotted
	Backdate     time.Duration       // how far before now notBefore lies; default 5m
	Validity     time.Duration       // upper bound of this profile; 0: the level's alone
	RenewAt      float64             // fraction of the validity, 0.5
	RenewExpired time.Duration       // renew_after_expiry: how long after notAfter the same key may still renew; 0: not at all
	Status       Status
	Approval     bool // an administrator must approve each certificate before it is issued
	// Release lets a registration authority end the hold of a certificate (CMP rr
	// with removeFromCRL); else only an administrator does.
	Release      bool
	ServerKeygen ServerKeygen
	// ChannelBinding demands that a request is bound to the TLS connection it
	// comes over (RFC 7030 §3.5, RFC 9266).
	ChannelBinding bool
}

// ServerKeygen says whether the CA may make a device's key (RFC 7030 §4.4), and
// whether it may hand it out in clear within TLS.
type ServerKeygen struct{ Allow, Clear bool }

// SubjectTemplate is one attribute of the subject: Attr is "cn", "o", "ou",
// "c", "l", "st", "serialnumber" or a dotted OID; Value may hold "{device.id}" and
// "{device.group}".
type SubjectTemplate struct{ Attr, Value string }

// Status says which pointers to its status a certificate carries.
type Status struct {
	OCSP       bool
	CRL        string // "none", "full", "partition"
	Freshest   bool   // freshestCRL (RFC 5280 §4.2.1.15)
	MustStaple bool   // TLS feature status_request (RFC 7633)
	NoRevAvail bool   // RFC 9608: excludes all of the above
}

// Level is a named trust level: what a device must show, and what it earns.
type Level struct {
	Name          string
	Evidence      []string // evidence kinds demanded
	Require       string   // CEL over evidence, device and request; "" is true
	Requesters    []RequesterKind
	Protocols     []string
	Profiles      []string // the first is the default
	Validity      time.Duration
	RenewAt       float64 // 0: the profile's
	Reattest      time.Duration
	StatusUnknown string        // "deny", "grace", "allow"
	Grace         time.Duration // with "grace"
	ACME          ACME
	CMP           CMP
}

// CMP is what CMP asks of devices of a level.
type CMP struct {
	// Timeless lets messages come without messageTime, for devices that have no clock.
	Timeless bool
}

// ACME says what authorizes an ACME account of a level to have a name.
type ACME struct {
	// Authorize lists, for each type of ACME identifier, the ways of which any one is enough:
	// challenge types, or ByBinding. A type without a way cannot be had.
	Authorize map[string][]string
	// Reuse is how long an authorization serves further orders of its account; 0: its own order alone.
	Reuse time.Duration
}
