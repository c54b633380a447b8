package ca

import "time"

// Event is one line of the audit log: who did what to whom, and why. It never
// holds a secret. Its JSON, in this order of fields, is what the audit log
// hashes; add fields at the end, with omitempty.
type Event struct {
	Time     time.Time `json:"time"`
	Kind     EventKind `json:"kind"`
	Actor    string    `json:"actor"` // "device:ID", "account:N", "credential:REF", "manufacturer:NAME", "ra:NAME", "admin:NAME", "system"
	Protocol string    `json:"protocol,omitempty"`
	Device   string    `json:"device,omitempty"`
	Issuer   string    `json:"issuer,omitempty"`
	Serial   Serial    `json:"serial,omitzero"`
	Outcome  string    `json:"outcome,omitempty"`
	Rule     string    `json:"rule,omitempty"`
	Policy   string    `json:"policy,omitempty"`
	Digest   string    `json:"digest,omitempty"` // SHA-256 of the certificate, policy, … concerned, hex
	Reason   string    `json:"reason,omitempty"`
	Request  int64     `json:"request,omitempty"` // PendingRequest.ID
	Account  int64     `json:"account,omitempty"` // of ACME
}

// EventKind names what happened.
type EventKind string

const (
	EventIssued            EventKind = "certificate.issued"
	EventRefused           EventKind = "certificate.refused"
	EventRevoked           EventKind = "certificate.revoked"
	EventReleased          EventKind = "certificate.released"
	EventDeviceAdded       EventKind = "device.added"
	EventDeviceMoved       EventKind = "device.moved"
	EventCredentialAdded   EventKind = "credential.added"
	EventCredentialRevoked EventKind = "credential.revoked"
	EventPolicyApplied     EventKind = "policy.applied"
	EventIssuerAdded       EventKind = "ca.added"
	EventIndexMoved        EventKind = "ca.index-moved"
	EventIssuerRevoked     EventKind = "ca.revoked"
	EventRootCRL           EventKind = "ca.crl-signed"
	EventAdminAdded        EventKind = "admin.added"
	EventAdminRemoved      EventKind = "admin.removed"
	EventAccountAdded      EventKind = "account.added"
	EventAccountChanged    EventKind = "account.changed"
	EventAccountEnded      EventKind = "account.deactivated"
	EventBackup            EventKind = "store.backup"
	EventRestored          EventKind = "store.restored"
)
