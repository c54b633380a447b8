package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"
)

// ProfileLost is the profile of certificates that were entered in the ledger to be revoked: ours,
// issued after the snapshot that the ledger was restored from.
const ProfileLost = "lost"

// Lost says of which certificate a serial is that the ledger does not hold: of Cert, or of the
// CA called Issuer (a generation or a role). NotAfter is when the latter ends at the latest; zero
// is the end of its CA.
type Lost struct {
	Cert     *x509.Certificate
	Issuer   string
	NotAfter time.Time
}

// RevokeLost revokes a certificate of ours that the ledger does not hold: it enters a record, made from
// the certificate if there is one, else from the serial alone, whose revocation is published like any
// other. Such a certificate is revoked for good. Errors: Malformed (not ours, a hold), NotFound (no such
// CA), Conflict if it is in the ledger.
func (s *Service) RevokeLost(ctx context.Context, serial Serial, l Lost, reason int, invalid *time.Time, actor string) (*Certificate, error) {
	if reason == ReasonCertificateHold {
		return nil, Errorf(Malformed, "certificate %s is not in the ledger: it cannot be put on hold, only revoked for good", serial)
	}
	now := s.now()
	return s.EnterLost(ctx, serial, l, Revocation{Time: now, Reason: reason, Invalid: invalid},
		Event{Time: now, Kind: EventRevoked, Actor: actor, Serial: serial, Reason: ReasonName(reason) + ", not in the ledger before"})
}

// EnterLost is RevokeLost with a revocation as another publication says it, a hold included. It sets the event's issuer and device.
func (s *Service) EnterLost(ctx context.Context, serial Serial, l Lost, r Revocation, e Event) (*Certificate, error) {
	c, err := s.lost(serial, l)
	if err != nil {
		return nil, err
	}
	e.Issuer, e.Device = c.Issuer, c.Device
	if c.IssuedAt.IsZero() {
		c.IssuedAt = s.now()
	}
	err = s.ledger.RecordLost(ctx, c, r, e)
	if errors.Is(err, ErrRecorded) {
		return nil, Errorf(Conflict, "certificate %s is in the ledger", serial)
	}
	if err != nil {
		return nil, err
	}
	s.changed(ctx, *c)
	return c, nil
}

// lost makes the record.
func (s *Service) lost(serial Serial, l Lost) (*Certificate, error) {
	c := &Certificate{Serial: serial, Profile: ProfileLost, Protocol: "restore", Requester: "admin", Actor: "system"}
	if l.Cert == nil {
		issuer := s.current.Load().issuers[l.Issuer]
		if issuer == nil || !issuer.Record.Subordinate() {
			return nil, Errorf(NotFound, "there is no CA %q that issues certificates; list them with: ca list", l.Issuer)
		}
		c.Issuer, c.NotBefore, c.NotAfter = issuer.Record.Name, issuer.Cert.NotBefore, issuer.Cert.NotAfter
		if !l.NotAfter.IsZero() && l.NotAfter.Before(c.NotAfter) {
			c.NotAfter = l.NotAfter
		}
		return c, nil
	}
	issuer := s.issuerOf(l.Cert)
	if issuer == nil {
		return nil, Errorf(Malformed, "no issuing CA of this home signed the certificate with serial %s", serial)
	}
	if own, ok := SerialFromBig(l.Cert.SerialNumber); !ok || own != serial {
		return nil, Errorf(Malformed, "the certificate's serial is %x, not %s", l.Cert.SerialNumber, serial)
	}
	if l.Issuer != "" && s.Named(l.Issuer) != issuer.Record.Name {
		return nil, Errorf(Malformed, "%s issued the certificate, not %s", issuer.Record.Name, l.Issuer)
	}
	c.Issuer, c.DER, c.KeyID, c.Device = issuer.Record.Name, l.Cert.Raw, sha256.Sum256(l.Cert.RawSubjectPublicKeyInfo), l.Cert.Subject.CommonName
	c.IssuedAt, c.NotBefore, c.NotAfter = l.Cert.NotBefore, l.Cert.NotBefore, l.Cert.NotAfter
	for _, x := range l.Cert.Extensions {
		c.NoStatus = c.NoStatus || x.Id.Equal(oidNoRevAvail)
	}
	return c, nil
}

// issuerOf is the CA below the root whose key signed a certificate; nil if none did.
func (s *Service) issuerOf(cert *x509.Certificate) *Issuer {
	for _, i := range s.current.Load().ordered {
		if i.Record.Subordinate() && cert.CheckSignatureFrom(i.Cert) == nil {
			return i
		}
	}
	return nil
}

// IndexOnly is the serial that stands in for a certificate of which only the issuance index is known, as packs
// tell it: no certificate has it, but by a chance of 2^-96.
func IndexOnly(index uint64) Serial {
	return NewSerial(index, [12]byte{11: 1})
}
