package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/deviceca/deviceca/device"
)

// Revoked is what a bulk act has revoked.
type Revoked struct {
	Count int
	First []Certificate // the first of them, RevokedAtOnce at most
}

// add counts a page of certificates.
func (r *Revoked) add(page []Certificate) {
	r.Count += len(page)
	r.First = append(r.First, page[:min(len(page), RevokedAtOnce-len(r.First))]...)
}

// MoveDevice claims, suspends, resumes or retires a device. Resuming is a move
// to Active, which leads back to the state before the suspension: a device that never
// had a certificate is claimed again. Suspending and retiring void what it has waiting for approval. Retiring
// ends its credentials and revokes its certificates for reason: it is in force at
// once, and the certificates follow page by page, so that other changes come in
// between. If ctx ends before they all are, Run goes on with them.
//
// Errors: NotFound, Conflict (a move that the state does not allow).
func (s *Service) MoveDevice(ctx context.Context, id string, to device.State, reason int, actor string) (Revoked, error) {
	now := s.now()
	d, err := s.ledger.Device(ctx, id)
	if errors.Is(err, ErrNoRecord) {
		return Revoked{}, Errorf(NotFound, "there is no device %s", id)
	}
	if err != nil {
		return Revoked{}, err
	}
	if to, err = s.target(ctx, d, to); err != nil {
		return Revoked{}, err
	}
	page, err := s.ledger.MoveDevice(ctx, d.ID, to, Revocation{Time: now, Reason: reason},
		Event{Time: now, Kind: EventDeviceMoved, Actor: actor, Device: d.ID, Reason: fmt.Sprintf("%s to %s", d.State, to)})
	if err != nil {
		return Revoked{}, err
	}
	s.changed(ctx, page...)
	var all Revoked
	all.add(page)
	if len(page) == RevokedAtOnce {
		if err := s.goOnRetiring(ctx, d.ID, &all); err != nil {
			s.log.Warn("a device is retired, and not all of its certificates are revoked yet", "device", d.ID, "revoked", all.Count, "err", err)
		}
	}
	return all, nil
}

// target is the state that an administrator's move leads to.
func (s *Service) target(ctx context.Context, d *device.Device, to device.State) (device.State, error) {
	switch {
	case to == device.Claimed && d.State == device.Suspended:
		return to, Errorf(Conflict, "device %s is suspended: resume it", d.ID)
	case to == device.Active && d.State == device.Claimed:
		return to, Errorf(Conflict, "device %s is claimed, not suspended: its first certificate makes it active", d.ID)
	case to == device.Active && d.State == device.Suspended:
		had, err := s.ledger.Certificates(ctx, CertificateFilter{Device: d.ID}, 0, 1)
		if err != nil {
			return to, err
		}
		if len(had) == 0 {
			return device.Claimed, nil
		}
		return to, nil
	}
	if err := device.CheckMove(d.State, to); err != nil {
		return to, Errorf(Conflict, "device %s: %w", d.ID, err)
	}
	return to, nil
}

// goOnRetiring revokes the rest of a retired device's certificates.
func (s *Service) goOnRetiring(ctx context.Context, id string, all *Revoked) error {
	for {
		page, err := s.ledger.RevokeRetired(ctx, id, s.now())
		if errors.Is(err, ErrNoRecord) { // somebody else was quicker
			return nil
		}
		if err != nil {
			return err
		}
		s.changed(ctx, page...)
		all.add(page)
		if len(page) < RevokedAtOnce {
			return nil
		}
	}
}

// finishRetiring does what is left of retirements that were interrupted.
func (s *Service) finishRetiring(ctx context.Context) error {
	for {
		devices, err := s.ledger.Retiring(ctx, 100)
		if err != nil || len(devices) == 0 {
			return err
		}
		for _, id := range devices {
			var rest Revoked
			if err := s.goOnRetiring(ctx, id, &rest); err != nil {
				return err
			}
			s.log.Info("the certificates of a retired device are all revoked", "device", id, "revoked", rest.Count)
		}
	}
}

// RevokeDevice revokes every live certificate of a device, on hold or not, but for
// those kept, page by page.
func (s *Service) RevokeDevice(ctx context.Context, id string, reason int, actor string, keep ...Serial) (all Revoked, err error) {
	now := s.now()
	for after := int64(0); ; {
		page, err := s.ledger.Certificates(ctx, CertificateFilter{Device: id, ExpiresAfter: now}, after, RevokedAtOnce)
		if err != nil || len(page) == 0 {
			return all, err
		}
		after = page[len(page)-1].ID
		var serials []Serial
		for _, c := range page {
			if !slices.Contains(keep, c.Serial) && (c.Revocation == nil || c.Revocation.Reason == ReasonCertificateHold) {
				serials = append(serials, c.Serial)
			}
		}
		if len(serials) == 0 {
			continue
		}
		revoked, err := s.ledger.Revoke(ctx, serials, Revocation{Time: now, Reason: reason},
			Event{Time: now, Kind: EventRevoked, Actor: actor, Reason: ReasonName(reason)})
		if err != nil {
			return all, err
		}
		s.changed(ctx, revoked...)
		all.add(revoked)
	}
}
