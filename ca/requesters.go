package ca

import (
	"context"
	"errors"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// ErrWithdrawn is what Ledger.Record says when the manufacturer or registration
// authority behind a request was taken out of the register meanwhile.
var ErrWithdrawn = errors.New("the manufacturer or registration authority that vouches is no longer registered")

// Events about those who may vouch for devices.
const (
	EventManufacturerAdded     EventKind = "manufacturer.added"
	EventManufacturerWithdrawn EventKind = "manufacturer.withdrawn"
	EventRAAdded               EventKind = "ra.added"
	EventRARemoved             EventKind = "ra.removed"
)

// Register is the part of the Ledger that holds who may vouch for devices. An
// entry never changes but to end, and for the revocation lists of a manufacturer; a
// name whose entry ended may be given again.
//
// Lineage tells those that had one name after another apart: it is 0 for the first of a name
// (and format), that of the newest earlier one with which an entry shares an anchor, or an RA's key, and else the entry's
// own ID. So a manufacturer that is registered anew keeps its devices, and somebody else under
// its name inherits nothing.
type Register interface {
	// AddManufacturer enters a manufacturer with its Lists and sets its ID and Lineage; ErrRecorded
	// if its name and format are there and not withdrawn.
	AddManufacturer(ctx context.Context, m *Manufacturer, e Event) error
	// Manufacturers lists all, withdrawn ones included, in the order of registration;
	// with their Lists, but for the DER of those.
	Manufacturers(ctx context.Context) ([]Manufacturer, error)
	// ManufacturersInForce gives those with that format that are not withdrawn, in
	// the order of registration. It is asked for each certificate that is not ours.
	ManufacturersInForce(ctx context.Context, format string) ([]ManufacturerVersion, error)
	// RevocationLists gives all lists of a manufacturer that is not withdrawn, whole.
	RevocationLists(ctx context.Context, manufacturer int64) ([]RevocationList, error)
	// ReplaceRevocationLists enters lists, each in the place of the one with its
	// IssuerID, and moves the manufacturer from version to the next; ErrNoRecord if it is
	// withdrawn, or not of that version.
	ReplaceRevocationLists(ctx context.Context, manufacturer, version int64, lists []RevocationList, e Event) error
	// WithdrawManufacturer ends the entry of that name and format (all formats
	// if ""), and drops its lists; ErrNoRecord if none is in force.
	WithdrawManufacturer(ctx context.Context, name, format string, at time.Time, e Event) error

	// AddRA enters a registration authority and sets its ID and Lineage; ErrRecorded if its
	// name or its key is there and not removed.
	AddRA(ctx context.Context, ra *RA, e Event) error
	// RAs lists all, removed ones included, in the order of registration.
	RAs(ctx context.Context) ([]RA, error)
	// RAByKey finds the registration authority in force by the SHA-256 of its SubjectPublicKeyInfo.
	RAByKey(ctx context.Context, keyID [32]byte) (*RA, error)
	// RemoveRA ends an entry; ErrNoRecord if none is in force.
	RemoveRA(ctx context.Context, name string, at time.Time, e Event) error
}

// ManufacturerVersion is an entry of the register, and how often its lists were replaced.
type ManufacturerVersion struct{ ID, Version int64 }

// covers reports why a requester that is not bound to one device may not act for id.
func (r *Requester) covers(id string) error {
	switch {
	case r.Kind == policy.ByAccount:
		return nil // nobody vouches: policy decides whether that will do
	case r.RA != nil:
		if !r.RA.Covers(id) {
			return Errorf(Denied, "registration authority %s may not act for device %s: its names are others", r.RA.Name, id)
		}
	case r.Credential == nil || !r.Credential.Covers(id):
		return Errorf(Denied, "this credential is not for device %s", id)
	}
	return nil
}

// newcomer is a device that the inventory does not know, as this requester may
// bring it in; nil if it may not.
func (r *Requester) newcomer(id string, now time.Time) *device.Device {
	d := &device.Device{ID: id, State: device.Active, Created: now, Updated: now}
	switch {
	case r.Manufacturer != nil:
		d.Level, d.Credential = r.Manufacturer.Level, r.Manufacturer.Mark()
	case r.RA != nil:
		d.Level, d.Credential = r.RA.Levels[0], r.RA.Mark()
	case r.Credential != nil && r.Credential.Group != "":
		d.Level, d.Group, d.Credential = r.Credential.Level, r.Credential.Group, r.Credential.Reference
	default:
		return nil
	}
	return d
}

// mayEnrol reports why the requester may not enrol a device of the inventory:
// who brings devices in by itself is held to what it was given.
func (r *Requester) mayEnrol(d *device.Device) error {
	switch c := r.Credential; {
	case r.Manufacturer != nil:
		return r.Manufacturer.mayEnrol(d)
	case r.RA != nil:
		return r.RA.mayEnrol(d)
	case c != nil && c.Group != "" && d.Credential != c.Reference:
		return Errorf(Denied, "device %s was not first enrolled with this group's credential; use its own", d.ID)
	}
	return nil
}
