package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/policy"
)

// FormatIDevID is the format of certificates that devices authenticate with
// (IEEE 802.1AR). The other formats are those of evidence that names its vendor.
const FormatIDevID = "idevid"

// Formats lists what a manufacturer's anchors may be for.
func Formats() []string { return []string{FormatIDevID, "tpm", "dice", "hsm"} }

// maxAnchors is how many anchors one manufacturer may have.
const maxAnchors = 16

// Manufacturer vouches for devices: what its anchors issued names a device,
// within its constraints.
type Manufacturer struct {
	ID          int64       `json:"-"` // order of registration
	Name        string      `json:"name"`
	Format      string      `json:"format"` // one of Formats
	Level       string      `json:"level"`  // of its devices
	Anchors     [][]byte    `json:"-"`      // CA certificates, DER
	Constraints Constraints `json:"constraints,omitzero"`
	Created     time.Time   `json:"created"`
	Withdrawn   *time.Time  `json:"withdrawn,omitempty"`
	// Lists say what its CAs revoked, one for each CA that publishes any.
	Lists   []RevocationList `json:"-"`
	Version int64            `json:"-"` // how often Lists were replaced
	Lineage int64            `json:"-"` // see Register
}

// Constraints narrow what a manufacturer vouches for. Empty ones allow all.
type Constraints struct {
	// Models are patterns over the certificate, one of which must match: a glob
	// over the hardware type (the object identifier of an RFC 4108
	// hardwareModuleName), or ATTRIBUTE=GLOB over a subject attribute, such as ou=RT-*.
	Models []string `json:"models,omitempty"`
	// Serials are globs over serial numbers, or ranges FROM..TO of serial numbers
	// of one length, ends included; one must match. Case does not matter.
	Serials []string `json:"serials,omitempty"`
	// NotAfter is when the registration ends by itself; zero is never.
	NotAfter time.Time `json:"not_after,omitzero"`
}

// Mark is what Device.Credential says of the manufacturer's devices.
func (m *Manufacturer) Mark() string { return mark("manufacturer", m.Name, m.Lineage) }

func (m *Manufacturer) mayEnrol(d *device.Device) error {
	switch {
	case d.Credential != "" && d.Credential != m.Mark():
		return Errorf(Denied, "device %s came in by %s, and manufacturer %s has no say over it", d.ID, d.Credential, m.Name)
	case d.Level != m.Level:
		return Errorf(Denied, "device %s is of level %s, and manufacturer %s vouches for level %s only: use an enrolment credential", d.ID, d.Level, m.Name, m.Level)
	}
	return nil
}

// allows reports why what the certificate says is outside of what was registered.
func (c *Constraints) allows(id *deviceIdentity) error {
	if len(c.Models) > 0 && !slices.ContainsFunc(c.Models, id.isModel) {
		return errors.New("its model is not one that is registered")
	}
	if len(c.Serials) > 0 && !slices.ContainsFunc(c.Serials, func(s string) bool { return serialIn(s, id.serial) }) {
		return fmt.Errorf("its serial number %s is not one that is registered", id.serial)
	}
	return nil
}

func (id *deviceIdentity) isModel(pattern string) bool {
	attr, glob, of := strings.Cut(pattern, "=")
	if !of {
		return id.hardware != "" && globsMatch([]string{pattern}, id.hardware)
	}
	return slices.ContainsFunc(id.subject, func(a Attribute) bool {
		return strings.EqualFold(a.Attr, attr) && globsMatch([]string{glob}, a.Value)
	})
}

func serialIn(pattern, serial string) bool {
	from, to, isRange := strings.Cut(pattern, "..")
	if !isRange {
		return globsMatch([]string{pattern}, serial)
	}
	serial = device.Fold(serial)
	return len(serial) == len(from) && device.Fold(from) <= serial && serial <= device.Fold(to)
}

func (c *Constraints) check(now time.Time) error {
	if len(c.Models) > maxGlobs || len(c.Serials) > maxGlobs {
		return Errorf(Malformed, "more than %d models or serials", maxGlobs)
	}
	for _, pattern := range c.Models {
		glob := pattern
		if attr, rest, of := strings.Cut(pattern, "="); of {
			glob = rest
			if _, err := attributeOID(strings.ToLower(attr)); err != nil {
				return Errorf(Malformed, "model %q: %q is not a subject attribute: use cn, o, ou, c, … or an object identifier", pattern, attr)
			}
		}
		if device.CheckGlob(glob) != nil {
			return Errorf(Malformed, "%q is not a model: use a hardware type such as 1.3.6.1.4.1.4128.* or a subject attribute such as ou=RT-*", pattern)
		}
	}
	for _, pattern := range c.Serials {
		from, to, isRange := strings.Cut(pattern, "..")
		switch {
		case !isRange:
			if device.CheckGlob(pattern) != nil {
				return Errorf(Malformed, "%q is not a serial pattern: use A10* or A1000..A1999", pattern)
			}
		case len(from) != len(to) || device.CheckID(from) != nil || device.CheckID(to) != nil || device.Fold(from) > device.Fold(to):
			return Errorf(Malformed, "%q is not a range of serials: the ends have one length and stand in order, as A1000..A1999", pattern)
		}
	}
	if !c.NotAfter.IsZero() && !now.Before(c.NotAfter) {
		return Errorf(Malformed, "%s has passed: a registration ends in the future", c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// AddManufacturer registers a manufacturer: Name, Format ("" is idevid), Level,
// Anchors and Constraints of m count. Errors: Malformed, Conflict if one with
// this name and format is registered already.
func (s *Service) AddManufacturer(ctx context.Context, m Manufacturer, actor string) (*Manufacturer, error) {
	return s.AddManufacturerWithLists(ctx, m, nil, actor)
}

// AddManufacturerWithLists is AddManufacturer with revocation lists from the first
// moment, as [Service.ReplaceRevocationLists] takes them; nil for none.
func (s *Service) AddManufacturerWithLists(ctx context.Context, m Manufacturer, lists []byte, actor string) (*Manufacturer, error) {
	now := s.now()
	if m.Format == "" {
		m.Format = FormatIDevID
	}
	switch {
	case device.CheckNewID(m.Name) != nil:
		return nil, Errorf(Malformed, "%q cannot be the name of a manufacturer: use 1 to %d of A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", m.Name, device.MaxIDLength)
	case !slices.Contains(Formats(), m.Format):
		return nil, Errorf(Malformed, "format %q is not known: use %s", m.Format, strings.Join(Formats(), ", "))
	case len(m.Anchors) == 0 || len(m.Anchors) > maxAnchors:
		return nil, Errorf(Malformed, "a manufacturer has 1 to %d anchors", maxAnchors)
	}
	if err := s.checkLevel(m.Level); err != nil {
		return nil, err
	}
	for i, der := range m.Anchors {
		if err := s.checkAnchor(der, now); err != nil {
			return nil, Errorf(Malformed, "anchor %d: %w", i+1, err)
		}
	}
	if err := m.Constraints.check(now); err != nil {
		return nil, err
	}
	added := &Manufacturer{Name: m.Name, Format: m.Format, Level: m.Level, Anchors: m.Anchors, Constraints: m.Constraints, Created: now}
	event := Event{Time: now, Kind: EventManufacturerAdded, Actor: actor,
		Reason: fmt.Sprintf("%s, format %s, level %s, %d anchors", m.Name, m.Format, m.Level, len(m.Anchors))}
	if lists != nil {
		var err error
		if added.Lists, err = added.takeLists(lists, now); err != nil {
			return nil, err
		}
		event.Reason += fmt.Sprintf(", %d revocation lists", len(added.Lists))
	}
	digest := sha256.Sum256(bytes.Join(m.Anchors, nil))
	event.Digest = hex.EncodeToString(digest[:])
	err := s.ledger.AddManufacturer(ctx, added, event)
	if errors.Is(err, ErrRecorded) {
		return nil, Errorf(Conflict, "manufacturer %s is registered for format %s already: withdraw it first", m.Name, m.Format)
	}
	return added, err
}

// maxAnchorRSA is the longest RSA key of an anchor that is looked into, in bits: longer ones are taken as they are.
const maxAnchorRSA = 16384

// checkAnchor refuses what cannot be a manufacturer's anchor. Our own CAs
// least of all: what they issued would come back past its revocation.
func (s *Service) checkAnchor(raw []byte, now time.Time) error {
	c, err := der.Certificate(raw)
	switch {
	case err != nil:
		return fmt.Errorf("the certificate cannot be read: %w", err)
	case !c.IsCA || !c.BasicConstraintsValid:
		return errors.New("not a CA's certificate (basicConstraints); give the one that issued the devices' certificates, or its root")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("its key usage lacks keyCertSign")
	case now.After(c.NotAfter):
		return fmt.Errorf("it expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	// Size and exponent are the manufacturer's choice, made long ago; what anyone can factor vouches for nothing.
	if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() <= maxAnchorRSA {
		if err := policy.CheckFactors(key.N); err != nil {
			return err
		}
	}
	for _, own := range s.current.Load().ordered {
		// Not by its octets: a key has more than one encoding.
		if key, ok := own.Cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); ok && key.Equal(c.PublicKey) {
			return fmt.Errorf("it has the key of this CA's own %s, which is not a manufacturer's", own.Record.Name)
		}
	}
	return der.AcceptKey(c.PublicKey)
}

// WithdrawManufacturer ends what a manufacturer vouches for, at once: format ""
// is all its formats. Certificates that its devices have stay. Errors: NotFound.
func (s *Service) WithdrawManufacturer(ctx context.Context, name, format, actor string) error {
	now := s.now()
	err := s.ledger.WithdrawManufacturer(ctx, name, format, now, Event{Time: now, Kind: EventManufacturerWithdrawn, Actor: actor,
		Reason: strings.TrimSpace(name + " " + format)})
	if errors.Is(err, ErrNoRecord) {
		return Errorf(NotFound, "there is no manufacturer %s in force", strings.TrimSpace(name+" "+format))
	}
	return err
}
