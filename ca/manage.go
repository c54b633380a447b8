package ca

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
)

// CRLReason codes (RFC 5280 §5.3.1) that we give ourselves.
const (
	ReasonUnspecified          = 0
	ReasonKeyCompromise        = 1
	ReasonSuperseded           = 4
	ReasonCessationOfOperation = 5
	ReasonCertificateHold      = 6
	ReasonPrivilegeWithdrawn   = 9
)

// reasonNames are the CRLReasons by number; 7 is not used.
var reasonNames = []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded",
	"cessationOfOperation", "certificateHold", "", "removeFromCRL", "privilegeWithdrawn", "aACompromise"}

// ReasonName is the name of a CRLReason.
func ReasonName(reason int) string {
	if reason < 0 || reason >= len(reasonNames) || reasonNames[reason] == "" {
		return fmt.Sprintf("reason %d", reason)
	}
	return reasonNames[reason]
}

// Reasons are the names of the CRLReasons that an administrator may give:
// removeFromCRL is not a reason to revoke.
func Reasons() []string {
	return slices.DeleteFunc(slices.Clone(reasonNames), func(r string) bool { return r == "" || r == "removeFromCRL" })
}

// ParseReason reads a reason of Reasons, by name without case or by number.
func ParseReason(text string) (int, error) {
	for _, name := range Reasons() {
		if code := slices.Index(reasonNames, name); strings.EqualFold(text, name) || text == fmt.Sprint(code) {
			return code, nil
		}
	}
	return 0, fmt.Errorf("%q is not a revocation reason; use one of %s", text, strings.Join(Reasons(), ", "))
}

// Limits of what an administrator may ask for.
const (
	maxUses  = 100_000_000
	maxTTL   = 10 * 365 * 24 * time.Hour
	maxGlobs = 64
)

// Defaults of a credential.
const (
	DefaultUses = 1
	DefaultTTL  = 24 * time.Hour
)

// Grant is a new credential with its secret, which is shown here and never again.
type Grant struct {
	ID        string    `json:"id,omitempty"`
	Group     string    `json:"group,omitempty"`
	Level     string    `json:"level"`
	Reference string    `json:"reference"`
	Secret    string    `json:"secret"`
	ACME      ACMEGrant `json:"acme"`
	Uses      int       `json:"uses"`
	Expires   time.Time `json:"expires"`
	// Warnings say what stands in the way of devices that use it.
	Warnings []string `json:"warnings,omitempty"`
}

// ACMEGrant is the same credential for ACME's external account binding.
type ACMEGrant struct {
	KID     string `json:"kid"`
	HMACKey string `json:"hmac_key"` // base64url
}

// AddDevice enters a device (state claimed unless d says manufactured) and, if it may
// enrol, makes its credential. Errors: Malformed, Conflict if it is there already.
func (s *Service) AddDevice(ctx context.Context, d device.Device, uses int, ttl time.Duration, actor string) (*Grant, error) {
	if d.State == "" {
		d.State = device.Claimed
	}
	c := device.Credential{Device: d.ID, Level: d.Level, Uses: uses}
	if err := s.checkCredential(&c, &ttl); err != nil {
		return nil, err
	}
	results, err := s.ImportDevices(ctx, []device.Device{d}, actor)
	if err = errors.Join(err, errors.Join(results...)); errors.Is(err, ErrRecorded) {
		return nil, Errorf(Conflict, "device %s is registered already; give it another credential with `credential add --device %s`", d.ID, d.ID)
	} else if err != nil {
		return nil, err
	}
	return s.addCredential(ctx, c, ttl, actor)
}

// ImportDevices enters up to 1000 devices without credentials. For each it
// returns nil, an error of kind Malformed, or one that wraps ErrRecorded for a
// device that is there already.
func (s *Service) ImportDevices(ctx context.Context, devices []device.Device, actor string) ([]error, error) {
	results := make([]error, len(devices))
	var good []device.Device
	var at []int
	now := s.now()
	for i, d := range devices {
		if d.State == "" {
			d.State = device.Claimed
		}
		d.Created, d.Updated, d.Credential = now, now, ""
		if results[i] = s.checkDevice(d); results[i] == nil {
			good, at = append(good, d), append(at, i)
		}
	}
	if len(good) == 0 {
		return results, nil
	}
	e := Event{Time: now, Kind: EventDeviceAdded, Actor: actor, Reason: fmt.Sprintf("%d devices", len(good))}
	if len(good) == 1 {
		e.Device, e.Reason = good[0].ID, "level "+good[0].Level
	}
	added, err := s.ledger.AddDevices(ctx, good, e)
	if err != nil {
		return nil, err
	}
	for i, err := range added {
		results[at[i]] = err
	}
	return results, nil
}

// SetDevice corrects a wrong level or group. It counts from the next request on: certificates that the
// device has stay as they are, and what it has waiting for approval is void. Errors: Malformed, NotFound, Conflict (retired).
func (s *Service) SetDevice(ctx context.Context, id string, c device.Change, actor string) (*device.Device, error) {
	if c.Level == nil && c.Group == nil {
		return nil, Errorf(Malformed, "nothing to change: give a level or a group")
	}
	if c.Level != nil {
		if err := s.checkLevel(*c.Level); err != nil {
			return nil, err
		}
	}
	d, err := s.ledger.SetDevice(ctx, id, c, Event{Time: s.now(), Kind: EventDeviceChanged, Actor: actor})
	if errors.Is(err, ErrNoRecord) {
		return nil, Errorf(NotFound, "there is no device %s", id)
	}
	return d, err
}

// RemoveDevice takes a device that was entered by mistake out of the inventory, with its credentials.
// Errors: NotFound, Conflict if it ever had a certificate.
func (s *Service) RemoveDevice(ctx context.Context, id, actor string) error {
	err := s.ledger.RemoveDevice(ctx, id, Event{Time: s.now(), Kind: EventDeviceRemoved, Actor: actor})
	if errors.Is(err, ErrNoRecord) {
		return Errorf(NotFound, "there is no device %s", id)
	}
	return err
}

func (s *Service) checkDevice(d device.Device) error {
	if err := device.CheckNewID(d.ID); err != nil {
		return Errorf(Malformed, "%w", err)
	}
	if d.State != device.Claimed && d.State != device.Manufactured {
		return Errorf(Malformed, "device %s: a new device is claimed or manufactured, not %q", d.ID, d.State)
	}
	return s.checkLevel(d.Level)
}

func (s *Service) checkLevel(level string) error {
	p := s.Policy()
	if _, ok := p.Level(level); !ok {
		return Errorf(Malformed, "there is no level %q: the policy has %s", level, strings.Join(p.Levels(), ", "))
	}
	return nil
}

// AddCredential makes a credential for a known device (its level is the
// device's) or for a group. Errors: Malformed, NotFound, Conflict (device retired).
func (s *Service) AddCredential(ctx context.Context, c device.Credential, ttl time.Duration, actor string) (*Grant, error) {
	if c.Device != "" {
		d, err := s.ledger.Device(ctx, c.Device)
		if errors.Is(err, ErrNoRecord) {
			return nil, Errorf(NotFound, "there is no device %s; register it with `device add`", c.Device)
		}
		if err != nil {
			return nil, err
		}
		if d.State == device.Retired {
			return nil, Errorf(Conflict, "device %s is retired", d.ID)
		}
		c.Device, c.Level = d.ID, d.Level
	}
	if err := s.checkCredential(&c, &ttl); err != nil {
		return nil, err
	}
	return s.addCredential(ctx, c, ttl, actor)
}

func (s *Service) checkCredential(c *device.Credential, ttl *time.Duration) error {
	if c.Uses == 0 {
		c.Uses = DefaultUses
	}
	if *ttl == 0 {
		*ttl = DefaultTTL
	}
	switch {
	case c.Uses < 1 || c.Uses > maxUses:
		return Errorf(Malformed, "%d uses: use 1 to %d", c.Uses, maxUses)
	case *ttl < time.Minute || *ttl > maxTTL:
		return Errorf(Malformed, "a life of %s: use a minute to ten years", *ttl)
	case (c.Device == "") == (c.Group == ""):
		return Errorf(Malformed, "a credential is for one device or for one group")
	case c.Group != "" && (len(c.Names) == 0 || len(c.Names) > maxGlobs):
		return Errorf(Malformed, "a group credential needs 1 to %d name patterns, for example lamp-*", maxGlobs)
	}
	if c.Group != "" {
		if err := device.CheckNewID(c.Group); err != nil {
			return Errorf(Malformed, "group name: %w", err)
		}
	}
	for _, glob := range c.Names {
		if err := device.CheckGlob(glob); err != nil {
			return Errorf(Malformed, "%w", err)
		}
	}
	return s.checkLevel(c.Level)
}

func (s *Service) addCredential(ctx context.Context, c device.Credential, ttl time.Duration, actor string) (*Grant, error) {
	now, secret := s.now(), device.NewSecret()
	c.Reference, c.Created, c.Expires = device.NewReference(), now, now.Add(ttl).Truncate(time.Second)
	c.Sealed = s.opts.Sealer.Seal(c.Reference, secret)
	e := Event{Time: now, Kind: EventCredentialAdded, Actor: actor, Device: c.Device,
		Reason: strings.TrimSpace(fmt.Sprintf("%s level %s, %d uses, until %s %s", c.Reference, c.Level, c.Uses, c.Expires.UTC().Format(time.RFC3339), c.Group))}
	if err := s.ledger.AddCredential(ctx, &c, e); err != nil {
		return nil, err
	}
	return &Grant{ID: c.Device, Group: c.Group, Level: c.Level, Reference: c.Reference, Secret: string(secret),
		ACME: ACMEGrant{c.Reference, base64.RawURLEncoding.EncodeToString(secret.HMACKey())},
		Uses: c.Uses, Expires: c.Expires}, nil
}

// RevokeCredential ends a credential. Errors: NotFound.
func (s *Service) RevokeCredential(ctx context.Context, reference, actor string) error {
	now := s.now()
	err := s.ledger.RevokeCredential(ctx, reference, now, Event{Time: now, Kind: EventCredentialRevoked, Actor: actor, Reason: reference})
	if errors.Is(err, ErrNoRecord) {
		return Errorf(NotFound, "there is no credential %s", reference)
	}
	return err
}

// changed tells those who publish status. Certificates without status are not their affair.
func (s *Service) changed(ctx context.Context, certs ...Certificate) {
	if s.opts.Changed == nil {
		return
	}
	serials := map[string][]Serial{}
	for i := range certs {
		if c := &certs[i]; !c.NoStatus {
			serials[c.Issuer] = append(serials[c.Issuer], c.Serial)
		}
	}
	for issuer, of := range serials {
		s.opts.Changed(ctx, issuer, of)
	}
}

// Revoke revokes one certificate. A hold can be replaced by a reason that is for good.
// Errors: NotFound, Conflict if it is revoked already.
func (s *Service) Revoke(ctx context.Context, serial Serial, reason int, invalid *time.Time, actor string) (*Certificate, error) {
	now := s.now()
	revoked, err := s.ledger.Revoke(ctx, []Serial{serial}, Revocation{Time: now, Reason: reason, Invalid: invalid},
		Event{Time: now, Kind: EventRevoked, Actor: actor, Reason: ReasonName(reason)})
	if errors.Is(err, ErrNoRecord) {
		return nil, Errorf(NotFound, "there is no certificate %s", serial)
	}
	if err != nil {
		return nil, err
	}
	if len(revoked) == 0 {
		return nil, Errorf(Conflict, "certificate %s is revoked already", serial)
	}
	s.changed(ctx, revoked...)
	return &revoked[0], nil
}

// Release ends the hold of a certificate (RFC 5280 §5.3.1): it is good again.
// Errors: NotFound, Conflict if it is not on hold.
func (s *Service) Release(ctx context.Context, serial Serial, actor string) (*Certificate, error) {
	now := s.now()
	c, err := s.ledger.Release(ctx, serial, now, Event{Time: now, Kind: EventReleased, Actor: actor})
	if errors.Is(err, ErrNoRecord) {
		return nil, Errorf(NotFound, "there is no certificate %s", serial)
	}
	if err != nil {
		return nil, err
	}
	s.changed(ctx, *c)
	return c, nil
}
