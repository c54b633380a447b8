package admin

import (
	"fmt"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/audit"
	"github.com/deviceca/deviceca/policy"
)

// Duration is a time.Duration that JSON writes as Go does: "24h0m0s".
type Duration time.Duration

// MarshalText writes "24h0m0s".
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what policy.ParseDuration reads, and nothing negative.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := policy.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration such as 30d, 24h or 30m", text)
	}
	*d = Duration(v)
	return nil
}

// Page is one page of a list. Next is the key to give as after for the next
// page; empty on the last.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// NewDevice asks for a device and its enrolment credential. Uses 0 and TTL 0
// are the defaults of the core: one use, 24 hours.
type NewDevice struct {
	ID    string   `json:"id"`
	Level string   `json:"level"`
	Group string   `json:"group,omitempty"`
	Uses  int      `json:"uses,omitempty"`
	TTL   Duration `json:"ttl,omitempty"`
}

// NewCredential asks for a credential of one known device, or of a group
// whose device IDs match one of Names.
type NewCredential struct {
	Device string   `json:"device,omitempty"`
	Group  string   `json:"group,omitempty"`
	Names  []string `json:"names,omitempty"`
	Level  string   `json:"level,omitempty"` // of a group; a device has one
	Uses   int      `json:"uses,omitempty"`
	TTL    Duration `json:"ttl,omitempty"`
}

// DeviceDetail is a device with what it holds: its newest certificates and
// credentials, MaxHoldings of each at most.
type DeviceDetail struct {
	device.Device
	Certificates []ca.Certificate    `json:"certificates"`
	Credentials  []device.Credential `json:"credentials"`
	// More says that there are more certificates or credentials than shown.
	More bool `json:"more,omitempty"`
}

// CertificateDetail is a certificate's record with the certificate.
type CertificateDetail struct {
	ca.Certificate
	PEM string `json:"pem"`
}

// Revoke asks for a revocation, or for the ones that retiring a device brings.
type Revoke struct {
	Reason  string     `json:"reason,omitempty"` // name of RFC 5280 §5.3.1, see ParseReason
	Invalid *time.Time `json:"invalidity_date,omitempty"`

	// Of a certificate that the ledger does not hold: itself (PEM), or its CA, and when it ends at the latest.
	Cert     string     `json:"cert,omitempty"`
	Issuer   string     `json:"issuer,omitempty"`
	NotAfter *time.Time `json:"not_after,omitempty"`
}

// Publish asks for CRLs and revocation packs of one CA, by generation or role;
// of all if it is "".
type Publish struct {
	CA string `json:"ca,omitempty"`
}

// Published names the CAs whose CRLs and packs were made.
type Published struct {
	CAs []string `json:"cas"`
}

// Moved answers a change of a device's state. Of the certificates revoked, Total in
// all, it holds the first ca.RevokedAtOnce.
type Moved struct {
	Device  *device.Device   `json:"device"`
	Revoked []ca.Certificate `json:"revoked,omitempty"`
	Total   int              `json:"revoked_total,omitempty"`
}

// CA is one CA certificate.
type CA struct {
	Name       string    `json:"name"`
	Role       string    `json:"role"`
	Generation int       `json:"generation"`
	Subject    string    `json:"subject"`
	Serial     string    `json:"serial"` // hex
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	SHA256     string    `json:"sha256"` // of the certificate, hex
	Key        string    `json:"key"`    // label at its provider
	Stage      ca.Stage  `json:"stage"`
	// Activates is when one that is published begins to issue; LiveUntil when the last certificate of one that
	// retires expires.
	Activates time.Time `json:"activates,omitzero"`
	LiveUntil time.Time `json:"live_until,omitzero"`
	Warning   string    `json:"warning,omitempty"` // that it nears its end
}

// Chain is a CA certificate and those above it, up to and with the root.
type Chain struct {
	Name string `json:"name"`
	PEM  string `json:"pem"`
}

// Policy is a policy file. File is for fault messages.
type Policy struct {
	File    string `json:"file,omitempty"`
	Source  string `json:"source"`
	Version string `json:"version,omitempty"`
}

// PolicySummary says what a policy holds.
type PolicySummary struct {
	Version  string   `json:"version"`
	Levels   []string `json:"levels"`
	Profiles []string `json:"profiles"`
	Warnings []string `json:"warnings,omitempty"` // of levels whose evidence is not verified yet
}

// PolicyView is the policy in force.
type PolicyView struct {
	PolicySummary
	Source string `json:"source"`
}

// Explanation is a decision with every rule tried. On replay of a certificate
// Stored is the decision it was issued under.
type Explanation struct {
	Input    policy.Input     `json:"input"`
	Decision policy.Decision  `json:"decision"`
	Trace    []policy.Step    `json:"trace"`
	Serial   ca.Serial        `json:"serial,omitzero"`
	Stored   *policy.Decision `json:"stored,omitempty"`
	// Notes say what the decision does not: what was assumed, and what bars the device whatever policy says.
	Notes []string `json:"notes,omitempty"`
}

// PolicyVersionView is a policy that is or was in force, with its source.
type PolicyVersionView struct {
	ca.PolicyVersion
	Source string `json:"source"`
}

// Admin is one administrator.
type Admin struct {
	ca.Admin
	KeySHA256  string `json:"key_sha256"`            // of the SubjectPublicKeyInfo, hex
	CertSHA256 string `json:"cert_sha256,omitempty"` // of the certificate, hex; "" if any with the key does, see ca.Admin
}

// NewAdmin registers whoever holds a certificate.
type NewAdmin struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	Cert string `json:"cert"` // PEM
}

// Status is how the CA fares.
type Status struct {
	Version string            `json:"version"`
	Started *time.Time        `json:"started,omitempty"` // of the server; absent when none runs
	Policy  string            `json:"policy"`            // version in force
	Counts  map[string]int64  `json:"counts"`
	CAs     []CA              `json:"cas"`
	Health  map[string]string `json:"health"` // part: "ok", or what is wrong
	// Warnings are what an administrator should know though everything answers.
	Warnings []string `json:"warnings,omitempty"`
}

// Healthy reports whether every part answers.
func (s *Status) Healthy() bool {
	for _, h := range s.Health {
		if h != healthOK {
			return false
		}
	}
	return true
}

// BackupReport says what a backup holds.
type BackupReport struct {
	Dir   string   `json:"dir"`
	Files []string `json:"files"` // below Dir
	Bytes int64    `json:"bytes"`
	// Outside are files that the configuration names outside of the home: they are not in the backup.
	Outside []string `json:"outside,omitempty"`
}

// Recovery asks to enter what happened after the snapshot that the home was restored from. Files are absolute
// paths on the server's host.
type Recovery struct {
	CRLs  []string `json:"crls,omitempty"`  // PEM or DER; complete and delta, of any CA of this home
	Packs []string `json:"packs,omitempty"` // full, and deltas that follow them
	Logs  []string `json:"logs,omitempty"`  // events in JSON, as webhooks are posted or audit export prints them
	// NotAfter is when the last certificate ends that was issued after the snapshot; zero: with its CA.
	NotAfter *time.Time `json:"not_after,omitempty"`
	DryRun   bool       `json:"dry_run,omitempty"` // enter nothing
	// Acknowledge, if set, opens the home: it says what the administrator knows of the time since the snapshot.
	Acknowledge string `json:"acknowledge,omitempty"`
}

// RecoveryReport says what was entered, or would be.
type RecoveryReport struct {
	Closed   bool           `json:"closed"`
	Snapshot time.Time      `json:"snapshot"` // of the backup
	Instance string         `json:"instance"`
	Entered  []string       `json:"entered"` // one line for each thing
	Counts   map[string]int `json:"counts"`  // of what was entered or found, by kind
	Passed   []string       `json:"passed"`  // what was passed over, and why
}

// EventFilter selects audit events; zero fields select all.
type EventFilter struct {
	Kind          ca.EventKind
	Device        string
	device.Window // by when they were recorded; pages begin after an ID
}

// AuditEvent is one line of the audit log with its place in it.
type AuditEvent struct {
	ID int64 `json:"id"` // from 1, in order; the paging key
	ca.Event
}

// AuditReport is the outcome of checking the audit log.
type AuditReport struct {
	First       uint64     `json:"first"` // sequence of the oldest entry
	Last        uint64     `json:"last"`
	Head        string     `json:"head"`        // hash of the newest entry, hex
	Events      uint64     `json:"events"`      // hashed again
	Dropped     uint64     `json:"dropped"`     // by age: only their entries could be checked
	Checkpoints uint64     `json:"checkpoints"` // signatures checked
	Signed      uint64     `json:"signed"`      // a signature covers everything up to this entry
	SignedAt    *time.Time `json:"signed_at,omitempty"`
	Fault       string     `json:"fault,omitempty"` // the first thing found wrong; "" if nothing is

	Certificates uint64       `json:"certificates"`         // records that agree with their event, and the other way round
	Revocations  uint64       `json:"revocations"`          // and revocations and releases
	Unnamed      uint64       `json:"unnamed"`              // of these, those whose event names a device and no serial number
	Unchecked    uint64       `json:"unchecked"`            // records whose events were dropped by age
	Heads        []AuditHeads `json:"heads,omitempty"`      // that the log was held against
	NotChecked   []string     `json:"not_checked,omitzero"` // what this does not prove, in words; set by the client
}

// AuditHeads is a file with heads that the log was held against.
type AuditHeads struct {
	File     string    `json:"file"`
	Own      bool      `json:"own,omitempty"`     // the one that this CA writes itself
	Heads    uint64    `json:"heads"`             // read
	Without  int       `json:"without,omitempty"` // lines with none
	Newest   uint64    `json:"newest"`            // sequence of the newest
	NewestAt time.Time `json:"newest_at"`
}

// Add counts a head.
func (h *AuditHeads) Add(c audit.Checkpoint) {
	if h.Heads++; c.Sequence >= h.Newest {
		h.Newest, h.NewestAt = c.Sequence, c.Time
	}
}

// AuditProgress is how much of the log was checked.
type AuditProgress struct {
	Done uint64 `json:"done"` // entries
	Of   uint64 `json:"of"`
}

// AuditLine is one line of the answer to a check: exactly one field is set, and
// the last line has a report or a problem.
type AuditLine struct {
	Progress *AuditProgress `json:"progress,omitempty"`
	Report   *AuditReport   `json:"report,omitempty"`
	Problem  *Problem       `json:"problem,omitempty"`
}

// HeadsToCheck are heads that the log must have.
type HeadsToCheck struct {
	Heads []audit.Checkpoint `json:"heads"` // up to MaxHeads
}

// HeadsChecked says whether it has.
type HeadsChecked struct {
	Fault string `json:"fault,omitempty"` // the first that it has not; "" if it has all
}

// MaxHeads is how many heads are checked at a time.
const MaxHeads = 1000

// ImportLine is one device of an import, with its line in the operator's file.
type ImportLine struct {
	Line  int          `json:"line"`
	ID    string       `json:"id"`
	Level string       `json:"level"`
	Group string       `json:"group,omitempty"`
	State device.State `json:"state,omitempty"` // "claimed" if empty
}

// ImportCounts counts the lines of an import so far.
type ImportCounts struct {
	Read   int64 `json:"read"`
	Added  int64 `json:"added"`
	There  int64 `json:"there"`  // in the inventory already
	Differ int64 `json:"differ"` // of those there: with another level or group
	Failed int64 `json:"failed"`
}

// ImportFailure is a device that could not be entered. As a difference, Error says how
// the inventory differs from the file: "level hsm to software" has hsm in the inventory.
type ImportFailure struct {
	Line  int    `json:"line"`
	ID    string `json:"id,omitempty"`
	Error string `json:"error"`
}

// ImportReport is one line of the answer to an import: exactly one field is set.
// Done is the last line of an import that came to its end; beside it may be warnings about
// levels of devices that were added.
type ImportReport struct {
	Failure    *ImportFailure `json:"failure,omitempty"`
	Difference *ImportFailure `json:"difference,omitempty"` // it is there, and was left as it is
	Progress   *ImportCounts  `json:"progress,omitempty"`
	Done       *ImportCounts  `json:"done,omitempty"`
	Warnings   []string       `json:"warnings,omitempty"`
	Problem    *Problem       `json:"problem,omitempty"` // and the import ends here
}
