package policy

import (
	"encoding/json"
	"time"
)

// Outcome is what a request earns. Only Deny yields no certificate.
type Outcome string

const (
	Issue          Outcome = "issue"
	Restricted     Outcome = "restricted"
	Quarantine     Outcome = "quarantine"
	UpdateRequired Outcome = "update-required"
	Deny           Outcome = "deny"
)

// RequesterKind says how a requester proved who it is.
type RequesterKind string

const (
	ByCredential  RequesterKind = "credential"  // an enrolment credential (EST Basic, ACME EAB, CMP MAC)
	ByCertificate RequesterKind = "certificate" // the device's own operational certificate
	ByQuarantine  RequesterKind = "quarantine"  // the device's own quarantine certificate
	ByIDevID      RequesterKind = "idevid"      // a manufacturer's certificate
	ByRA          RequesterKind = "ra"          // a registration authority, on behalf of a device
	ByAccount     RequesterKind = "account"     // an ACME account that no credential vouches for: anybody
)

// Input is everything a decision may depend on. Deciding reads no clock, no
// database and no network: the same Input under the same Policy always gives
// the same Decision, which is how `policy explain` replays one.
type Input struct {
	Now       time.Time     `json:"now"`
	Protocol  string        `json:"protocol"`  // "est", "acme", "cmp"
	Operation string        `json:"operation"` // "enroll" or "renew"
	Requester RequesterKind `json:"requester"`
	Profile   string        `json:"profile,omitempty"` // as asked for; "" is the level's first
	Device    Device        `json:"device"`
	Key       string        `json:"key"`             // "ecdsa-p256", "rsa-3072", … as KeyAlgorithm names it
	Names     []Name        `json:"names,omitempty"` // every name asked for, subject attributes included
	// Evidence that a verifier accepted; Verifiable lists the evidence kinds
	// that this server has a verifier for, so that a level which demands
	// another kind denies with that reason.
	Evidence   []Evidence `json:"evidence,omitempty"`
	Verifiable []string   `json:"verifiable,omitempty"`
}

// Device is what the inventory says of the device.
type Device struct {
	ID    string `json:"id"`
	Level string `json:"level"`
	Group string `json:"group,omitempty"`
	State string `json:"state,omitempty"`
}

// Name is one name asked for. Form is "dns", "uri", "ip", "email",
// "permanent-identifier", "hardware-module" for a SAN, and "subject.cn",
// "subject.o", "subject.ou", "subject.c", "subject.serialnumber", … for an
// attribute of the subject (an unknown attribute is "subject." and its OID).
type Name struct {
	Form  string `json:"form"`
	Value string `json:"value"`
}

// Evidence is one verified piece of evidence: Facts are what CEL sees as
// `evidence.<fact>`, Vector the AR4SI trustworthiness claims behind `verdict`.
type Evidence struct {
	Kind   string         `json:"kind"` // "hsm", "tpm", "dice", …
	Facts  map[string]any `json:"facts,omitempty"`
	Vector Vector         `json:"vector,omitempty"`
}

// Vector is an AR4SI trustworthiness vector: claim name ("hardware",
// "executables", …) to its value −128…127 (draft-ietf-rats-ar4si §2.3).
type Vector map[string]int8

// Decision is the answer, complete enough to be stored and read years later.
type Decision struct {
	Outcome  Outcome       `json:"outcome"`
	Rule     string        `json:"rule"`              // name of the rule that decided
	Profile  string        `json:"profile,omitempty"` // the profile that will be issued
	Level    string        `json:"level"`
	Validity time.Duration `json:"validity,omitempty"`
	Revoke   bool          `json:"revoke,omitempty"` // the rule also revokes the device's certificates
	Reasons  []string      `json:"reasons,omitempty"`
	Version  string        `json:"policy"` // Policy.Version
	// Trace is each rule tried, in order, with the values that decided. It is
	// left out of the stored decision and made anew by replay.
	Trace []Step `json:"-"`
}

// decisionJSON is a Decision whose validity is written as Go writes durations, "24h0m0s".
type decisionJSON struct {
	Outcome  Outcome      `json:"outcome"`
	Rule     string       `json:"rule"`
	Profile  string       `json:"profile,omitempty"`
	Level    string       `json:"level"`
	Validity jsonDuration `json:"validity,omitempty"`
	Revoke   bool         `json:"revoke,omitempty"`
	Reasons  []string     `json:"reasons,omitempty"`
	Version  string       `json:"policy"`
}

// jsonDuration reads nanoseconds too, which decisions of earlier versions have.
type jsonDuration time.Duration

func (d jsonDuration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *jsonDuration) UnmarshalJSON(raw []byte) error {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return json.Unmarshal(raw, (*int64)(d))
	}
	v, err := time.ParseDuration(text)
	*d = jsonDuration(v)
	return err
}

// MarshalJSON writes what AppendJSON does.
func (d Decision) MarshalJSON() ([]byte, error) {
	return json.Marshal(decisionJSON{d.Outcome, d.Rule, d.Profile, d.Level, jsonDuration(d.Validity), d.Revoke, d.Reasons, d.Version})
}

// UnmarshalJSON reads what AppendJSON writes, and what earlier versions did.
func (d *Decision) UnmarshalJSON(raw []byte) error {
	var in decisionJSON
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*d = Decision{Outcome: in.Outcome, Rule: in.Rule, Profile: in.Profile, Level: in.Level, Validity: time.Duration(in.Validity), Revoke: in.Revoke, Reasons: in.Reasons, Version: in.Version}
	return nil
}

// Step is one rule tried.
type Step struct {
	Rule    string            `json:"rule"`
	Expr    string            `json:"expr,omitempty"`
	Matched bool              `json:"matched"`
	Values  map[string]string `json:"values,omitempty"`
	Note    string            `json:"note,omitempty"`
}
