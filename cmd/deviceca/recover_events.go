package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// loggedEvent is an event as webhooks and audit export write it.
type loggedEvent struct {
	ID int64 `json:"id"`
	ca.Event
}

// readEvents reads events from a stream of JSON values: single ones, arrays, and bodies of posts.
func (r *recovery) readEvents(files []string) (all []loggedEvent, err error) {
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%w", err)
		}
		events, err := decodeEvents(f)
		f.Close()
		if err != nil {
			return nil, ca.Errorf(ca.Malformed, "%s: event %d: %w", file, len(events)+1, err)
		}
		all = append(all, events...)
	}
	all = slices.DeleteFunc(all, func(e loggedEvent) bool {
		return e.ID != 0 && e.ID <= r.instance.KnownEvent || e.ID == 0 && e.Time.Before(r.instance.Snapshot)
	})
	slices.SortStableFunc(all, func(a, b loggedEvent) int { return a.Time.Compare(b.Time) })
	return all, nil
}

func decodeEvents(in io.Reader) (all []loggedEvent, err error) {
	dec := json.NewDecoder(in)
	for {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
		var many []loggedEvent
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &many)
		} else {
			var post struct {
				Events []loggedEvent `json:"events"`
				loggedEvent
			}
			err = json.Unmarshal(raw, &post)
			if many = post.Events; many == nil {
				many = []loggedEvent{post.loggedEvent}
			}
		}
		if err != nil {
			return all, err
		}
		for _, e := range many {
			if e.Kind == "" || e.Time.IsZero() {
				return all, errors.New("is no event: kind and time are missing")
			}
		}
		all = append(all, many...)
	}
}

func (r *recovery) enterEvents(ctx context.Context, events []loggedEvent) error {
	moved := map[string]loggedEvent{} // the last of each device
	for _, e := range events {
		var err error
		switch e.Kind {
		case ca.EventIssued:
			err = r.issued(ctx, e)
		case ca.EventRevoked:
			err = r.revoked(ctx, e)
		case ca.EventReleased:
			r.pass("certificate %s was released from hold at %s: if it still is on hold here, use cert release", e.Serial, instant(e.Time))
		case ca.EventDeviceMoved:
			moved[device.Fold(e.Device)] = e
		case ca.EventAccountAdded:
			err = r.accountAdded(ctx, e)
		default:
			err = r.ended(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(moved)) {
		if err := r.moved(ctx, moved[id]); err != nil {
			return err
		}
	}
	return nil
}

// issued notes a certificate that the ledger does not hold, and the use that it cost.
func (r *recovery) issued(ctx context.Context, e loggedEvent) error {
	if e.Serial.IsZero() {
		return nil
	}
	c, err := r.store.CertificateBySerial(ctx, e.Serial)
	if err != nil && !errors.Is(err, ca.ErrNoRecord) || err == nil && c.Profile != ca.ProfileLost {
		return err
	}
	credential, _ := strings.CutPrefix(e.Actor, "credential:")
	if e.Actor == credential || e.Protocol == "acme" { // an order spends nothing: its account did
		credential = ""
	}
	return r.note(ctx, e.Serial[:], e, credential, "certificates issued since the backup, not in the ledger",
		fmt.Sprintf("certificate %s of %s, issued by %s", e.Serial, e.Device, e.Issuer))
}

func (r *recovery) accountAdded(ctx context.Context, e loggedEvent) error {
	credential, bound := strings.CutPrefix(e.Actor, "credential:")
	if !bound {
		return nil
	}
	return r.note(ctx, fmt.Appendf(nil, "account %d %d", e.ID, e.Time.UnixMicro()), e, credential, "ACME accounts made since the backup, not in the ledger", "ACME account of credential "+credential)
}

func (r *recovery) note(ctx context.Context, key []byte, e loggedEvent, credential, kind, line string) error {
	fresh := true
	if !r.dry {
		var err error
		if fresh, err = r.store.NoteLost(ctx, key, e.Issuer, e.Device, credential, e.Time); err != nil {
			return err
		}
	}
	if fresh {
		r.entered(kind, "%s", line)
	}
	return nil
}

func (r *recovery) revoked(ctx context.Context, e loggedEvent) error {
	if e.Serial.IsZero() {
		r.pass("%s of device %s were revoked at %s: give the CRL, or use cert revoke", e.Reason, e.Device, instant(e.Time))
		return nil
	}
	name, _, _ := strings.Cut(e.Reason, ",")
	reason, err := ca.ParseReason(name)
	if err != nil {
		reason = ca.ReasonUnspecified
	}
	rev := ca.Revocation{Time: e.Time, Reason: reason}
	if said, err := ca.ParseRevocation(e.Revocation); err == nil { // earlier versions did not say it
		rev = said
	}
	return r.revoke(ctx, e.Serial, e.Issuer, rev, "log")
}

// moved enters the state that a device was left in, if that takes something away.
func (r *recovery) moved(ctx context.Context, e loggedEvent) error {
	_, name, found := strings.Cut(e.Reason, " to ")
	to := device.State(name)
	if !found || to != device.Suspended && to != device.Retired {
		return nil
	}
	d, err := r.store.Device(ctx, e.Device)
	if errors.Is(err, ca.ErrNoRecord) {
		return nil // unknown devices enrol with nothing
	}
	if err != nil || d.State == to {
		return err
	}
	if err := device.CheckMove(d.State, to); err != nil {
		r.pass("device %s became %s at %s: %s", d.ID, to, instant(e.Time), err)
		return nil
	}
	if !r.dry {
		if _, err := r.service.MoveDevice(ctx, d.ID, to, ca.ReasonCessationOfOperation, r.actor); err != nil {
			return err
		}
	}
	r.entered("devices "+string(to), "device %s: %s", d.ID, to)
	return nil
}

// added names what was added since the backup. Recover only takes away, so an administrator adds it again.
func (r *recovery) added(ctx context.Context, e loggedEvent) error {
	what := e.Reason
	switch e.Kind {
	case ca.EventDeviceAdded:
		if e.Device == "" { // several at once: the reason says how many
			break
		}
		if _, err := r.store.Device(ctx, e.Device); !errors.Is(err, ca.ErrNoRecord) {
			return err
		}
		what = "device " + e.Device + ", " + e.Reason
	case ca.EventCredentialAdded:
		what = "credential " + e.Reason
		if e.Device != "" {
			what = "credential of " + e.Device + ": " + e.Reason
		}
	case ca.EventAdminAdded:
		what = "administrator " + e.Reason
	case ca.EventRAAdded:
		what = "registration authority " + e.Reason
	case ca.EventManufacturerAdded:
		what = "manufacturer " + e.Reason
	case ca.EventIssuerAdded:
		what = "CA " + e.Issuer
	case ca.EventPolicyApplied:
		what = "policy " + e.Policy
	}
	r.report.Counts[jsonName("additions since the backup, to be made again by hand")]++
	r.pass("%s was added at %s: add it again by hand", what, instant(e.Time))
	return nil
}

// ended enters the end of a credential, an account, an administrator, or of who vouches.
func (r *recovery) ended(ctx context.Context, e loggedEvent) error {
	var kind, what string
	var end func() error
	switch e.Kind {
	case ca.EventCredentialRevoked:
		kind, what = "credentials revoked", "credential "+e.Reason
		if c, err := r.store.Credential(ctx, e.Reason); errors.Is(err, ca.ErrNoRecord) || err == nil && c.Revoked != nil {
			return nil
		}
		end = func() error { return r.service.RevokeCredential(ctx, e.Reason, r.actor) }
	case ca.EventAccountEnded:
		kind, what = "accounts deactivated", fmt.Sprintf("account %d", e.Account)
		if a, err := r.store.Account(ctx, e.Account); errors.Is(err, ca.ErrNoRecord) || err == nil && a.Status != "valid" {
			return nil
		}
		end = func() error { return r.service.DeactivateAccount(ctx, e.Account, r.actor) }
	case ca.EventAdminRemoved:
		kind, what = "administrators removed", "administrator "+e.Reason
		all, err := r.store.Admins(ctx)
		if err != nil || !slices.ContainsFunc(all, func(a ca.Admin) bool { return a.Name == e.Reason && a.Created.Before(e.Time) }) {
			return err
		}
		end = func() error {
			return r.store.RemoveAdmin(ctx, e.Reason, ca.Event{Time: time.Now(), Kind: ca.EventAdminRemoved, Actor: r.actor, Reason: e.Reason})
		}
	case ca.EventRARemoved:
		kind, what = "registration authorities removed", "registration authority "+e.Reason
		all, err := r.store.RAs(ctx)
		if err != nil || !slices.ContainsFunc(all, func(ra ca.RA) bool { return ra.Name == e.Reason && ra.Removed == nil && ra.Created.Before(e.Time) }) {
			return err
		}
		end = func() error { return r.service.RemoveRA(ctx, e.Reason, r.actor) }
	case ca.EventManufacturerWithdrawn:
		name, format, _ := strings.Cut(e.Reason, " ")
		kind, what = "manufacturers withdrawn", "manufacturer "+e.Reason
		all, err := r.store.Manufacturers(ctx)
		if err != nil || !slices.ContainsFunc(all, func(m ca.Manufacturer) bool {
			return m.Name == name && (format == "" || m.Format == format) && m.Withdrawn == nil && m.Created.Before(e.Time)
		}) {
			return err
		}
		end = func() error { return r.service.WithdrawManufacturer(ctx, name, format, r.actor) }
	case ca.EventIssuerRevoked:
		r.pass("CA %s was revoked at %s (%s): give the root's CRL, or use ca revoke", e.Issuer, instant(e.Time), e.Reason)
		return nil
	case ca.EventDeviceChanged:
		r.pass("device %s was changed at %s (%s): if it is not so here, use device set", e.Device, instant(e.Time), e.Reason)
		return nil
	case ca.EventDeviceRemoved:
		r.pass("device %s was removed at %s: if it is here, use device remove", e.Device, instant(e.Time))
		return nil
	case ca.EventPolicyApplied, ca.EventIssuerAdded, ca.EventAdminAdded, ca.EventRAAdded, ca.EventManufacturerAdded, ca.EventCredentialAdded, ca.EventDeviceAdded:
		return r.added(ctx, e)
	default:
		return nil
	}
	if !r.dry {
		if err := end(); err != nil {
			return err
		}
	}
	r.entered(kind, "%s", what)
	return nil
}
