package ca

import (
	"strconv"
	"time"

	"github.com/deviceca/deviceca/policy"
)

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
	Count    int64     `json:"count,omitempty"`   // of what the event stands for, where that is not one
	// Revocation is what the ledger says of the certificate since then: Revocation.Text, or ReleasedText.
	// The audit log is compared with it. Of a device that was retired it is what its certificates have got.
	Revocation string `json:"revocation,omitempty"`
}

// AppendJSON appends what json.Marshal would give, octet for octet and more cheaply.
func (e Event) AppendJSON(b []byte) ([]byte, error) {
	b, err := policy.AppendTime(append(b, `{"time":`...), e.Time)
	if err != nil {
		return nil, err
	}
	b = policy.AppendString(append(b, `,"kind":`...), string(e.Kind))
	b = policy.AppendString(append(b, `,"actor":`...), e.Actor)
	for _, field := range [...]struct{ name, value string }{
		{`,"protocol":`, e.Protocol}, {`,"device":`, e.Device}, {`,"issuer":`, e.Issuer}, {`,"serial":`, e.serial()}, {`,"outcome":`, e.Outcome},
		{`,"rule":`, e.Rule}, {`,"policy":`, e.Policy}, {`,"digest":`, e.Digest}, {`,"reason":`, e.Reason},
	} {
		if field.value != "" {
			b = policy.AppendString(append(b, field.name...), field.value)
		}
	}
	if e.Request != 0 {
		b = strconv.AppendInt(append(b, `,"request":`...), e.Request, 10)
	}
	if e.Account != 0 {
		b = strconv.AppendInt(append(b, `,"account":`...), e.Account, 10)
	}
	if e.Count != 0 {
		b = strconv.AppendInt(append(b, `,"count":`...), e.Count, 10)
	}
	if e.Revocation != "" {
		b = policy.AppendString(append(b, `,"revocation":`...), e.Revocation)
	}
	return append(b, '}'), nil
}

func (e Event) serial() string {
	if e.Serial.IsZero() {
		return ""
	}
	return e.Serial.String()
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
	EventDeviceChanged     EventKind = "device.changed"
	EventDeviceRemoved     EventKind = "device.removed"
	EventCredentialAdded   EventKind = "credential.added"
	EventCredentialRevoked EventKind = "credential.revoked"
	EventPolicyApplied     EventKind = "policy.applied"
	EventIssuerAdded       EventKind = "ca.added"
	EventIssuerActivated   EventKind = "ca.activated"
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
