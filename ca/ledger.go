package ca

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// Certificate is one line of the ledger.
type Certificate struct {
	ID        int64     `json:"-"` // order of recording; the paging key
	Serial    Serial    `json:"serial"`
	Issuer    string    `json:"issuer"` // CA name with its generation, "issuing-1"
	Device    string    `json:"device"`
	KeyID     [32]byte  `json:"-"` // SHA-256 of the SubjectPublicKeyInfo
	Profile   string    `json:"profile"`
	Level     string    `json:"level"`
	Protocol  string    `json:"protocol"`
	Requester string    `json:"requester"` // Requester.Kind
	Actor     string    `json:"actor"`     // Requester.Actor
	Replaces  Serial    `json:"replaces,omitzero"`
	IssuedAt  time.Time `json:"issued"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Request is a digest of key, names and profile asked for: what makes a
	// repeated request the same request.
	Request  [32]byte        `json:"-"`
	Decision policy.Decision `json:"decision"`
	// Input is what policy decided on (policy.Input as JSON), for `policy explain`.
	Input []byte `json:"-"`
	DER   []byte `json:"-"`

	// NoStatus: the certificate carries noRevAvail (RFC 9608). Its revocation
	// bars our own protocols and is published nowhere.
	NoStatus bool `json:"no_status,omitempty"`

	Revocation *Revocation `json:"revocation,omitempty"`
}

// Revocation says that a certificate is no longer to be trusted.
type Revocation struct {
	Sequence int64      `json:"sequence"` // place in the revocation journal, strictly increasing
	Time     time.Time  `json:"time"`
	Reason   int        `json:"reason"` // CRLReason, RFC 5280 §5.3.1
	Invalid  *time.Time `json:"invalidity_date,omitempty"`
}

// textTime is how times are kept in the ledger.
const textTime = "2006-01-02T15:04:05.000000Z"

// Text says all of a revocation but its place: "keyCompromise 2030-01-31T12:00:00.000000Z",
// and behind that "invalid since " and a time if there is one.
func (r Revocation) Text() string {
	text := ReasonName(r.Reason) + " " + r.Time.UTC().Format(textTime)
	if r.Invalid != nil {
		text += " invalid since " + r.Invalid.UTC().Format(textTime)
	}
	return text
}

// ParseRevocation reads what Text says.
func ParseRevocation(text string) (r Revocation, err error) {
	said, invalid, has := strings.Cut(text, " invalid since ")
	reason, at, _ := strings.Cut(said, " ")
	if r.Reason, err = ParseReason(reason); err != nil {
		return r, err
	}
	if r.Time, err = time.Parse(textTime, at); err != nil || !has {
		return r, err
	}
	since, err := time.Parse(textTime, invalid)
	r.Invalid = &since
	return r, err
}

// ReleasedText says that a hold was released: "released 2030-01-31T12:00:00.000000Z".
func ReleasedText(at time.Time) string { return "released " + at.UTC().Format(textTime) }

// revocationJSON is a Revocation whose reason is written by its name.
type revocationJSON struct {
	*plainRevocation
	Reason jsonReason `json:"reason"`
}

type plainRevocation Revocation

type jsonReason int

func (r jsonReason) MarshalText() ([]byte, error) { return []byte(ReasonName(int(r))), nil }

// UnmarshalJSON reads numbers too, which earlier versions wrote.
func (r *jsonReason) UnmarshalJSON(raw []byte) error {
	var name string
	if json.Unmarshal(raw, &name) != nil {
		return json.Unmarshal(raw, (*int)(r))
	}
	code := slices.Index(reasonNames, name)
	if code < 0 {
		if _, err := fmt.Sscanf(name, "reason %d", &code); err != nil {
			return fmt.Errorf("%q is not a revocation reason", name)
		}
	}
	*r = jsonReason(code)
	return nil
}

// MarshalJSON writes the reason by its name.
func (r Revocation) MarshalJSON() ([]byte, error) {
	return json.Marshal(revocationJSON{(*plainRevocation)(&r), jsonReason(r.Reason)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (r *Revocation) UnmarshalJSON(raw []byte) error {
	read := revocationJSON{plainRevocation: (*plainRevocation)(r)}
	err := json.Unmarshal(raw, &read)
	r.Reason = int(read.Reason)
	return err
}

// Issuance is one certificate with everything that must become durable together with it.
type Issuance struct {
	Certificate *Certificate
	Possession  Possession // of its key: see Standing.KeyOwner
	// NewDevice enters the inventory with this certificate, if it is not there
	// yet (group credentials, manufacturers).
	NewDevice  *device.Device
	Credential string // if set, it loses one use
	// Newest is Standing.Newest as it was when this was decided. With Once, a certificate that answers the same
	// request of the same actor and is newer is ErrRecorded, so that a repetition on another connection
	// spends no second use, and makes no second certificate.
	Newest Serial
	Once   bool
	// Pending, if set, is the ID of an approved request that this spends; ErrUnapproved
	// if it is not approved any more.
	Pending int64
	// Manufacturer or RA, if set, vouches, and must still be registered. A device
	// that nobody had brought in is marked as the manufacturer's (Manufacturer.Mark).
	Manufacturer *Manufacturer
	RA           *RA
	Event        Event
	// With, if set, is a protocol's own record, of a type that the ledger knows.
	// Where one like it is there already, nothing is recorded: ErrAnswered; ErrAccountGone if it is of
	// an ACME account that ended meanwhile, or the credential behind it.
	With any
}

// Errors of Record, beside Unavailable: the world changed between decision and
// record, and nothing was recorded.
var (
	ErrSpent      = errors.New("the credential has no uses left, or was revoked")
	ErrKeyTaken   = errors.New("the key belongs to another device")
	ErrDeviceGone = errors.New("the device may not enrol any more")
	ErrReplaced   = errors.New("the certificate that asked was revoked")
	// ErrNoRecord is returned by reads that find nothing.
	ErrNoRecord = errors.New("no such record")
	// ErrRecorded is returned by inserts of what is there already.
	ErrRecorded = errors.New("there already")
	// ErrAnswered is Issuance.With having lost to another that answers the same message or
	// fulfils the same order. It and ErrAccountGone are told of Issuance.With.
	ErrAnswered    = errors.New("this was answered on another connection")
	ErrAccountGone = errors.New("the account was deactivated, or the credential behind it revoked")
)

// RevokedAtOnce bounds the certificates that one transaction of a bulk act revokes,
// and those that a bulk act returns.
const RevokedAtOnce = 500

// Standing is what the ledger knows that bears on one request.
type Standing struct {
	Device *device.Device // nil: not in the inventory
	// KeyOwner is the device that has a certificate for this key and has proven that it has the key; "": none.
	KeyOwner string
	Newest   Serial // of the device's certificates for this key, proven or not; zero: none
}

// IssuerRecord is one CA certificate generation.
type IssuerRecord struct {
	Name       string    `json:"name"` // "root-1", "issuing-1", "quarantine-1"; "root-1-by-2" for a cross-certificate
	Role       string    `json:"role"` // "root", "quarantine-root", "cross", "issuing", "quarantine"
	Generation int       `json:"generation"`
	Key        string    `json:"key"` // label of its key at the provider
	Cert       []byte    `json:"-"`   // DER
	Created    time.Time `json:"created"`
	// Activates is when it begins to issue; zero: when it was Created.
	Activates time.Time `json:"activates,omitzero"`
	// Revoked is when and why the CA was revoked; such a one neither signs nor is handed out.
	Revoked *Revocation `json:"revoked,omitempty"`
}

// IsRoot reports whether the CA is a trust anchor, with its key in the root's token.
func (r IssuerRecord) IsRoot() bool { return r.Role == "root" || r.Role == "quarantine-root" }

// Since is when the CA began, or will begin, to issue.
func (r IssuerRecord) Since() time.Time {
	if r.Activates.IsZero() {
		return r.Created
	}
	return r.Activates
}

// Subordinate reports whether the CA stands below a root, with its key in the issuing token.
func (r IssuerRecord) Subordinate() bool { return r.Role == "issuing" || r.Role == "quarantine" }

// Ledger is the durable memory of the core. Whatever a method changes, and its
// Event, is durable and on the audit chain when the method returns nil.
// Concurrent changes are committed together; one that fails fails alone.
//
// Every method returns an *Error of kind Unavailable when the database is away
// (full disk included), ErrNoRecord where a read finds nothing.
type Ledger interface {
	// ReserveIndexes sets the next n issuance indexes of an issuer aside and
	// returns the first. What was reserved is never reserved again.
	ReserveIndexes(ctx context.Context, issuer string, n int) (first uint64, err error)
	// Standing reads, in one go, the device called id and who holds the key.
	Standing(ctx context.Context, id string, keyID [32]byte) (Standing, error)
	// Record makes an issuance durable. A certificate without a device (our own
	// server's) has nothing to check but its index. Within the same transaction it checks
	// again: the device may enrol (a claimed one becomes active), the key is no
	// other device's (proven; or, for one that is Vouched, vouched), the credential has a use left (and loses it), the certificate replaced is
	// not revoked (an ACME order may replace one that is). Else one of the errors above.
	Record(ctx context.Context, i *Issuance) error
	// Settle confirms a certificate: nothing waits for its confirmation any more, and one issued with possession
	// to be proven Later owns its key. ErrKeyTaken, and nothing changes, if another device has proven that it has it.
	Settle(ctx context.Context, serial Serial) error
	// RecordEvent makes an event alone durable.
	RecordEvent(ctx context.Context, e Event) error

	CertificateBySerial(ctx context.Context, serial Serial) (*Certificate, error)
	// Presented reads of a certificate what says whether it is ours and good, and
	// nothing of how it came to be: Serial, Issuer, Device, KeyID, Profile, Level,
	// validity, DER, Revocation; and the device's line in the inventory, nil for the CA's own certificates.
	Presented(ctx context.Context, serial Serial) (*Certificate, *device.Device, error)
	// Certificates lists in order of recording, from the one after the ID given.
	Certificates(ctx context.Context, f CertificateFilter, after int64, limit int) ([]Certificate, error)
	// Revoke revokes the certificates named and returns those that were not
	// revoked before, or on hold only and now for good, each with its Revocation, and each
	// with its event: e with the certificate's device, issuer, serial and revocation.
	Revoke(ctx context.Context, serials []Serial, r Revocation, e Event) ([]Certificate, error)
	// RecordLost enters a certificate of ours that the ledger does not hold, with its revocation,
	// and sets its ID and Revocation. A Device that is in the inventory gets it. ErrRecorded if it is there;
	// Malformed if its index was not given out yet, or is another certificate's.
	RecordLost(ctx context.Context, c *Certificate, r Revocation, e Event) error
	// Release ends a hold, and enters that in the revocation journal under the next
	// sequence. Conflict if the certificate is not on hold.
	Release(ctx context.Context, serial Serial, at time.Time, e Event) (*Certificate, error)

	Credential(ctx context.Context, reference string) (*device.Credential, error)
	AddCredential(ctx context.Context, c *device.Credential, e Event) error
	// RevokeCredential ends a credential, and what was queued with it (see PendingLedger).
	RevokeCredential(ctx context.Context, reference string, at time.Time, e Event) error

	Device(ctx context.Context, id string) (*device.Device, error)
	// AddDevices enters devices (at most 1000) in one transaction and reports
	// for each whether it was there already (ErrRecorded).
	AddDevices(ctx context.Context, devices []device.Device, e Event) ([]error, error)
	// SetDevice corrects a device, and its unrevoked credentials with it, and returns it as it is then. What it
	// has waiting for approval is void. The event is completed by what changed; if nothing did, there is none.
	// ErrNoRecord; Conflict if the device is retired.
	SetDevice(ctx context.Context, id string, c device.Change, e Event) (*device.Device, error)
	// RemoveDevice takes a device that never had a certificate out of the inventory, and ends its
	// credentials, with an event each. ErrNoRecord; Conflict if it had a certificate.
	RemoveDevice(ctx context.Context, id string, e Event) error
	// MoveDevice changes a device's state, having checked the move
	// (device.CheckMove). On Suspended and Retired what the device has waiting for approval is void.
	// On Retired, in the same transaction, its credentials end, and its unexpired certificates
	// (those on hold too) are revoked with r, each with an event: the first RevokedAtOnce of them, which are returned.
	// Where there may be more the ledger remembers that.
	MoveDevice(ctx context.Context, id string, to device.State, r Revocation, e Event) ([]Certificate, error)
	// RevokeRetired goes on where MoveDevice, or the call before, left off, with as many at most and an
	// event for each. Fewer mean that no more are left; ErrNoRecord that nothing was.
	RevokeRetired(ctx context.Context, id string, at time.Time) ([]Certificate, error)
	// Retiring lists devices for which RevokeRetired has something to do.
	Retiring(ctx context.Context, limit int) ([]string, error)

	Register

	Issuers(ctx context.Context) ([]IssuerRecord, error)
	AddIssuer(ctx context.Context, i IssuerRecord, e Event) error
	// ActivateIssuer sets when a CA begins to issue; ErrNoRecord if there is none of that name.
	ActivateIssuer(ctx context.Context, name string, at time.Time, e Event) error
	// RevokeIssuer marks a CA as revoked; ErrNoRecord, or ErrRecorded if it is already.
	RevokeIssuer(ctx context.Context, name string, r Revocation, e Event) error
	// LiveUntil is when the last certificate of an issuer expires, but for those under which OCSP answers and packs are
	// signed; zero if none lives.
	LiveUntil(ctx context.Context, issuer string) (time.Time, error)

	PendingLedger
	PolicyLedger

	// DeactivateAccount ends a valid ACME account, and what it has queued; ErrNoRecord if there is none.
	DeactivateAccount(ctx context.Context, id int64, e Event) error
}
