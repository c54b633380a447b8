package server

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
)

// revoke answers rr (RFC 9483 §4.2): a device revokes a certificate of its own, an RA one of its devices'.
func (x *exchange) revoke(ctx context.Context, b *cmp.Revocations) ([]byte, error) {
	serial, reason, err := x.readRevocation(ctx, b)
	if err != nil {
		return x.revokeReply(ctx, nil, err)
	}
	t, _, answer, err := x.begin(ctx, 0)
	if answer != nil || err != nil {
		return answer, err
	}
	revoked, err := x.Authority.Revoke(ctx, serial, reason, nil, x.actor)
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if ca.KindOf(err) == ca.Conflict {
			err = errRevokedAlready
		}
		return x.revokeReply(ctx, nil, errors.Join(err, x.Ledger.DropTransaction(ctx, t.ID)))
	}
	x.Logger.LogAttrs(ctx, slog.LevelInfo, "revoked", slog.String("protocol", "cmp"), slog.String("device", revoked.Device),
		slog.String("serial", revoked.Serial.String()), slog.String("reason", ca.ReasonName(reason)), slog.String("address", x.address))
	return x.revokeReply(ctx, t, nil)
}

var errRevokedAlready = refuse(cmp.CertRevoked, "RFC 9483 §4.2", "the certificate is revoked already")

// readRevocation finds the one certificate that the rr names.
func (x *exchange) readRevocation(ctx context.Context, b *cmp.Revocations) (serial ca.Serial, reason int, err error) {
	if len(b.List) != 1 {
		return serial, 0, refuse(cmp.BadRequest, "RFC 9483 §4.2", "%d RevDetails in one rr: send one", len(b.List))
	}
	v := b.List[0]
	if v.Template.Issuer == nil || v.Template.SerialNumber == nil {
		return serial, 0, refuse(cmp.AddInfoNotAvailable, "RFC 9483 §4.2", "certDetails lacks issuer or serialNumber")
	}
	reason, found, err := v.Reason()
	switch {
	case err != nil:
		return serial, 0, err
	case !found:
		return serial, 0, refuse(cmp.BadRequest, "RFC 9483 §4.2", "crlEntryDetails has no reasonCode")
	case reason == 8:
		return serial, 0, refuse(cmp.NotAuthorized, "RFC 9483 §4.2", "a certificate on hold is released by an administrator")
	case reason < 0 || reason == 7 || reason > 10:
		return serial, 0, refuse(cmp.BadRequest, "RFC 5280 §5.3.1", "reasonCode %d is none", reason)
	}
	unknown := refuse(cmp.BadCertID, "RFC 9483 §4.2", "the device has no such certificate")
	serial, ours := ca.SerialFromBig(v.Template.SerialNumber)
	if !ours {
		return serial, 0, unknown
	}
	c, err := x.Ledger.CertificateBySerial(ctx, serial)
	if errors.Is(err, ca.ErrNoRecord) {
		return serial, 0, unknown
	} else if err != nil {
		return serial, 0, err
	}
	cert, err := x509.ParseCertificate(c.DER)
	switch {
	case err != nil:
		return serial, 0, err
	case !x.mayRevoke(c) || !cmp.SameName(cert.RawIssuer, v.Template.Issuer):
		return serial, 0, unknown // of others nobody learns anything
	case c.Revocation != nil:
		return serial, 0, errRevokedAlready
	}
	return serial, reason, nil
}

// mayRevoke: a device speaks for its own certificates (RFC 9483 §4.2), a
// registration authority for those of the devices within its bounds (§5.3.2).
func (x *exchange) mayRevoke(c *ca.Certificate) bool {
	if ra := x.requester.RA; ra != nil {
		return c.Device != "" && ra.Covers(c.Device) && slices.Contains(ra.Levels, c.Level)
	}
	return c.Device != "" && device.SameID(c.Device, x.requester.Device)
}

// revokeReply answers with rp; with a transaction, durably.
func (x *exchange) revokeReply(ctx context.Context, t *Transaction, err error) ([]byte, error) {
	info := cmp.StatusInfo{Status: cmp.Accepted}
	if err != nil {
		info = status(err, true)
		x.outcome = info.FailInfo.String()
		x.logRefusal(ctx, err)
	}
	m := x.reply(&cmp.RevocationResults{Statuses: []cmp.StatusInfo{info}})
	if t == nil {
		if err := x.protect(m); err != nil {
			return nil, err
		}
		return m.Raw(), nil
	}
	t.State = Done
	if err := x.finishWith(ctx, t, m); err != nil {
		return nil, err
	}
	return t.Answer, nil
}
