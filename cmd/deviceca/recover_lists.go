package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/crl"
)

type signedList struct {
	*crl.List
	file   string
	issuer ca.IssuerRecord
}

func (r *recovery) readLists(files []string) (all []signedList, err error) {
	for _, file := range files {
		l, err := r.readList(file)
		if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// readList reads a CRL and finds the CA of ours that signed it. It may have expired.
func (r *recovery) readList(file string) (l signedList, err error) {
	l.file = file
	if l.List, err = readCRLFile(file); err != nil {
		return l, ca.Errorf(ca.Malformed, "%w", err)
	}
	var refusal error
	for _, record := range r.service.Issuers() {
		cert, err := x509.ParseCertificate(record.Cert)
		if err != nil {
			return l, err
		}
		if record.Role == "cross" {
			continue
		}
		err = l.Verify(cert, l.ThisUpdate)
		if err == nil {
			l.issuer = record
			return l, nil
		}
		if refusal == nil || string(cert.RawSubject) == string(l.Issuer) {
			refusal = err
		}
	}
	return l, ca.Errorf(ca.Malformed, "%s is no CRL of this CA: %w", file, refusal)
}

func readCRLFile(file string) (*crl.List, error) {
	if info, err := os.Stat(file); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", file)
	}
	return readCRL(context.Background(), file)
}

// older reports, in the passed lines, that a publication was made before the snapshot: it says nothing new, and a hold in it
// may have been released. What is published begins before it was made: what may be of before or after counts as after.
func (r *recovery) older(file, role string, thisUpdate time.Time) bool {
	backdate := r.service.Policy().Backdate()
	if role == "root" {
		backdate = ca.BackdateCA
	}
	if at := thisUpdate.Add(backdate); at.Before(r.instance.Snapshot.Truncate(time.Second)) {
		r.pass("%s was made by %s, before the backup: it says nothing new", file, instant(at))
		return true
	}
	return false
}

func (r *recovery) enterList(ctx context.Context, l signedList) error {
	if l.Number != nil && l.Number.IsInt64() && !r.dry {
		if err := r.store.RaiseCounter(ctx, "crl", l.issuer.Name, l.Number.Int64()); err != nil {
			return err
		}
	}
	if r.older(l.file, l.issuer.Role, l.ThisUpdate) {
		return nil
	}
	if l.issuer.IsRoot() {
		return r.enterRootList(ctx, l)
	}
	why := fmt.Sprintf("CRL number %s of %s", numberText(l.Number), l.issuer.Name)
	for line, err := range l.Lines() {
		if err != nil {
			return ca.Errorf(ca.Malformed, "%s: %w", l.file, err)
		}
		serial, ours := ca.SerialFromBig(line.Serial)
		switch {
		case !ours:
			r.pass("%s lists serial %x, which is none of this CA's form", l.file, line.Serial)
			continue
		case line.Reason == crl.RemoveFromCRL:
			r.pass("%s was released from hold at %s, says %s: if it still is on hold here, use cert release", serial, instant(line.Revoked), why)
			continue
		}
		rev := ca.Revocation{Time: line.Revoked, Reason: line.Reason}
		if !line.Invalid.IsZero() {
			rev.Invalid = &line.Invalid
		}
		if err := r.revoke(ctx, serial, l.issuer.Name, rev, why); err != nil {
			return err
		}
	}
	return nil
}

// enterRootList enters CAs that a root revoked, and keeps the list to be published.
func (r *recovery) enterRootList(ctx context.Context, l signedList) error {
	for line, err := range l.Lines() {
		if err != nil {
			return ca.Errorf(ca.Malformed, "%s: %w", l.file, err)
		}
		for _, record := range r.service.Issuers() {
			cert, err := x509.ParseCertificate(record.Cert)
			if err != nil {
				return err
			}
			if record.Revoked != nil || cert.SerialNumber.Cmp(line.Serial) != 0 || string(cert.RawIssuer) != string(l.Issuer) {
				continue
			}
			if !r.dry {
				if err := r.service.RevokeCA(ctx, record.Name, line.Reason, r.actor); err != nil {
					r.pass("CA %s is revoked, says %s, and cannot be here: %s", record.Name, l.file, err)
					continue
				}
			}
			r.entered("revoked CAs", "CA %s: %s", record.Name, ca.ReasonName(line.Reason))
		}
	}
	if r.dry {
		return nil
	}
	return r.store.PutSetting(ctx, crlSetting(l.issuer.Name), l.Raw,
		ca.Event{Time: time.Now(), Kind: ca.EventRootCRL, Actor: r.actor, Issuer: l.issuer.Name, Reason: "number " + numberText(l.Number) + ", recovered"})
}

// revokedLost counts revocations of certificates that were issued since the snapshot.
const revokedLost = "revocations of certificates not in the ledger"

// revoke enters one revocation, whether the ledger holds the certificate or not.
func (r *recovery) revoke(ctx context.Context, serial ca.Serial, issuer string, rev ca.Revocation, why string) error {
	c, err := r.store.CertificateBySerial(ctx, serial)
	lost := errors.Is(err, ca.ErrNoRecord)
	if err != nil && !lost {
		return err
	}
	if r.seen[serial] || !lost && c.Revocation != nil && (c.Revocation.Reason != ca.ReasonCertificateHold || rev.Reason == ca.ReasonCertificateHold) {
		return nil
	}
	if !lost && c.Issuer != issuer {
		r.pass("%s is a certificate of %s here, and of %s in the %s", serial, c.Issuer, issuer, why)
		return nil
	}
	r.indexes[place{issuer, serial.Index()}] = true
	r.seen[serial] = r.dry || rev.Reason != ca.ReasonCertificateHold
	e := ca.Event{Time: time.Now(), Kind: ca.EventRevoked, Actor: r.actor, Issuer: issuer, Serial: serial,
		Reason: fmt.Sprintf("%s at %s, recovered from %s", ca.ReasonName(rev.Reason), instant(rev.Time), why)}
	kind, name := "revocations", ""
	switch {
	case lost && r.dry:
		kind, name, err = revokedLost, "not in the ledger", nil
	case lost:
		kind, name = revokedLost, "not in the ledger"
		_, err = r.service.EnterLost(ctx, serial, ca.Lost{Issuer: issuer, NotAfter: r.notAfter}, rev, e)
		if ca.KindOf(err) == ca.Malformed && err != nil {
			r.pass("%s", ca.AsError(err).Reason)
			return nil
		}
	case r.dry:
		name = c.Device
	default:
		name, e.Device = c.Device, c.Device
		if _, err = r.store.Revoke(ctx, []ca.Serial{serial}, rev, e); err == nil && !c.NoStatus {
			r.revocation.changed(ctx, issuer, []ca.Serial{serial})
		}
	}
	if err == nil {
		r.entered(kind, "%s (%s): %s at %s, says the %s", serial, name, ca.ReasonName(rev.Reason), instant(rev.Time), why)
	}
	return err
}
