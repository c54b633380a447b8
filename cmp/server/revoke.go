package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"log/slog"
	"slices"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/device"
)

// removeFromCRL is the reason that ends a hold (RFC 5280 §5.3.1).
const removeFromCRL = 8

// revoke answers rr (RFC 9483 §4.2): a certificate revokes itself, an IDevID one of its device's, an
// RA one of its devices' (§5.3.2), or releases that from hold. See [ca.Service.MayActFor].
func (x *exchange) revoke(ctx context.Context, b *cmp.Revocations) ([]byte, error) {
	c, reason, err := x.readRevocation(ctx, b)
	if err != nil {
		return x.revokeReply(ctx, nil, err)
	}
	if err := x.spend(c.Device); err != nil {
		return x.revokeReply(ctx, nil, err)
	}
	t, answer, err := x.begin(ctx)
	if answer != nil || err != nil {
		return answer, err
	}
	act := func() (*ca.Certificate, error) { return x.Authority.Revoke(ctx, c.Serial, reason, nil, x.actor) }
	did, conflict := "revoked", errRevokedAlready
	if reason == removeFromCRL {
		act = func() (*ca.Certificate, error) { return x.Authority.Release(ctx, c.Serial, x.actor) }
		did, conflict = "released", errNotOnHold
	}
	c, err = act()
	ctx = context.WithoutCancel(ctx)
	if err != nil {
		if ca.KindOf(err) == ca.Conflict {
			err = conflict
		}
		return x.revokeReply(ctx, nil, errors.Join(err, x.Ledger.DropTransaction(ctx, t.ID)))
	}
	x.Logger.LogAttrs(ctx, slog.LevelInfo, did, slog.String("protocol", "cmp"), slog.String("device", c.Device),
		slog.String("serial", c.Serial.String()), slog.String("reason", ca.ReasonName(reason)), slog.String("address", x.address))
	return x.revokeReply(ctx, t, nil)
}

// begin enters the transaction of an rr, or has the answer that another connection
// just gave to the same message. One that was begun long ago by who is gone is taken over.
func (x *exchange) begin(ctx context.Context) (t *Transaction, answer []byte, err error) {
	t = x.newTransaction(0)
	there, resumed, err := x.Ledger.BeginTransaction(ctx, t, x.now.Add(-abandoned))
	switch {
	case err != nil || there == nil:
		return t, nil, err
	case resumed:
		t.Begun = there.Begun
		return t, nil, nil
	}
	if answer, err = x.again(ctx, there); answer == nil && err == nil {
		err = errInUse
	}
	return nil, answer, err
}

var (
	errRevokedAlready = refuse(cmp.CertRevoked, "RFC 9483 §5.1.3", "the certificate is revoked already")
	errNotOnHold      = refuse(cmp.BadRequest, "RFC 5280 §5.3.1", "the certificate is not on hold")
)

// readRevocation finds the one certificate that the rr names, and what is wanted of it.
func (x *exchange) readRevocation(ctx context.Context, b *cmp.Revocations) (c *ca.Certificate, reason int, err error) {
	if len(b.List) != 1 {
		return nil, 0, refuse(cmp.BadRequest, "RFC 9483 §4.2", "%d RevDetails in one rr: send one", len(b.List))
	}
	v := b.List[0]
	if v.Template.Issuer == nil || v.Template.SerialNumber == nil {
		return nil, 0, refuse(cmp.AddInfoNotAvailable, "RFC 9483 §4.2", "certDetails lacks issuer or serialNumber")
	}
	reason, found, err := v.Reason()
	switch {
	case err != nil:
		return nil, 0, err
	case !found:
		reason = ca.ReasonUnspecified // RFC 9810 §5.3.9; RFC 9483 §4.2 has clients write it
	case reason < 0 || reason == 7 || reason > 10:
		return nil, 0, refuse(cmp.BadRequest, "RFC 5280 §5.3.1", "reasonCode %d is none", reason)
	}
	act := ca.ActRevoke
	switch reason {
	case ca.ReasonCertificateHold:
		act = ca.ActHold
	case removeFromCRL:
		act = ca.ActRelease
	}
	if c, err = x.named(ctx, &v.Template, act); err != nil {
		return nil, 0, err
	}
	held := c.Revocation != nil && c.Revocation.Reason == ca.ReasonCertificateHold
	switch {
	case act == ca.ActRelease && c.Revocation == nil:
		return nil, 0, errNotOnHold
	case act == ca.ActRelease && held:
		return c, reason, nil
	case c.Revocation != nil && !(held && act == ca.ActRevoke): // a hold may become final
		return nil, 0, errRevokedAlready
	case !x.now.Before(c.NotAfter):
		return nil, 0, refuse(cmp.CertRevoked, "RFC 9483 §5.1.3", "the certificate has expired, and needs no revocation")
	}
	return c, reason, nil
}

// named is the certificate that issuer and serial number name, if the requester
// may do this to it. Of other devices' nobody learns anything.
func (x *exchange) named(ctx context.Context, t *cmp.CertTemplate, act ca.Act) (*ca.Certificate, error) {
	unknown := refuse(cmp.BadCertID, "RFC 9483 §4.2", "the device has no such certificate")
	serial, ours := ca.SerialFromBig(t.SerialNumber)
	if !ours {
		return nil, unknown
	}
	c, err := x.Ledger.CertificateBySerial(ctx, serial)
	if errors.Is(err, ca.ErrNoRecord) {
		return nil, unknown
	} else if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(c.DER)
	if err != nil {
		return nil, err
	}
	if !x.sameOriginal(c.Device) || !cmp.SameName(cert.RawIssuer, t.Issuer) {
		return nil, unknown
	}
	err = x.Authority.MayActFor(ctx, x.requester, ca.Deed{Act: act, Certificate: c, Approvers: x.approvers})
	if err != nil && ca.KindOf(err) == ca.Denied && !x.speaksFor(c.Device) {
		return nil, unknown
	}
	if err == nil {
		err = contradiction(t, cert)
	}
	return c, err
}

// contradiction: whatever certDetails says beside issuer and serialNumber must be so, else it is not clear which
// certificate is meant.
func contradiction(t *cmp.CertTemplate, cert *x509.Certificate) error {
	var parts struct{ TBS, Algorithm, Signature asn1.RawValue }
	if !whole(cert.Raw, &parts) {
		return &ca.Error{Kind: ca.Internal, Reason: "a certificate in the ledger cannot be read"}
	}
	other := func(field string) error {
		return refuse(cmp.BadCertID, "RFC 9483 §4.2", "the certificate that certDetails names has another %s: give issuer and serialNumber alone", field)
	}
	switch v := t.Validity; {
	case t.Version != nil && *t.Version != 2:
		return other("version")
	case t.SigningAlg.Present() && !bytes.Equal(t.SigningAlg.DER(), parts.Algorithm.FullBytes):
		return other("signingAlg")
	case v != nil && (!v.NotBefore.At.IsZero() && !v.NotBefore.At.Equal(cert.NotBefore) || !v.NotAfter.At.IsZero() && !v.NotAfter.At.Equal(cert.NotAfter)):
		return other("validity")
	case t.Subject != nil && !cmp.SameName(t.Subject, cert.RawSubject):
		return other("subject")
	case t.PublicKey != nil && !bytes.Equal(t.PublicKey, cert.RawSubjectPublicKeyInfo):
		return other("publicKey")
	case t.IssuerUID != nil || t.SubjectUID != nil:
		return other("unique identifier")
	}
	for _, asked := range t.Extensions {
		if !slices.ContainsFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(asked.Id) && sameExtension(e, asked) }) {
			return other("extension " + asked.Id.String())
		}
	}
	return nil
}

// speaksFor reports whether a refusal about the device is the requester's to know.
func (x *exchange) speaksFor(id string) bool {
	if ra := x.requester.RA; ra != nil {
		return ra.Covers(id)
	}
	return device.SameID(x.requester.Device, id)
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
	if err := x.protectIn(t, m); err != nil {
		return nil, err
	}
	if err := x.Ledger.FinishTransaction(ctx, t); err != nil {
		return nil, err
	}
	return t.Answer, nil
}
