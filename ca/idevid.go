package ca

import (
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/policy"
)

// maxPeerChain is how many certificates of a peer's chain are looked at. IDevID
// hierarchies have two or three levels.
const maxPeerChain = 8

// deviceIdentity is what a manufacturer's certificate says of its device.
type deviceIdentity struct {
	serial   string // the device ID
	hardware string // hwType of the hardwareModuleName, dotted; "" if there is none
	subject  []Attribute
}

// identify reads the names of an IDevID, and binds it to a device: the device's
// ID is the one serialNumber attribute of the subject (IEEE 802.1AR), and a
// hardwareModuleName (RFC 4108 §5) that stands beside it must carry the same serial.
func identify(leaf *x509.Certificate) (*deviceIdentity, error) {
	var san []byte
	for _, e := range leaf.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			san = e.Value
		}
	}
	names, err := ParseNames(leaf.RawSubject, san)
	if err != nil {
		return nil, fmt.Errorf("its names cannot be read: %w", err)
	}
	id := &deviceIdentity{subject: names.Subject}
	for _, a := range names.Subject {
		switch {
		case a.Attr != "serialnumber":
		case id.serial != "":
			return nil, errors.New("its subject has more than one serialNumber")
		default:
			id.serial = a.Value
		}
	}
	if id.serial == "" {
		return nil, errors.New("its subject has no serialNumber, which names the device")
	}
	if err := device.CheckID(id.serial); err != nil {
		return nil, fmt.Errorf("its serialNumber is no device ID: %w", err)
	}
	for _, name := range names.SANs {
		if name.Form != "hardware-module" {
			continue
		}
		serial, hardware, _ := strings.Cut(name.Value, "/")
		switch {
		case id.hardware != "":
			return nil, errors.New("it has more than one hardwareModuleName")
		case !device.SameID(serial, id.serial):
			return nil, fmt.Errorf("its hardwareModuleName is of %q and its subject of %q", serial, id.serial)
		}
		id.hardware = hardware
	}
	return id, nil
}

// compiledManufacturer is a manufacturer with its anchors parsed. An entry of
// the register never changes, so that it is compiled once.
type compiledManufacturer struct {
	*Manufacturer
	anchors  []*x509.Certificate
	roots    *x509.CertPool
	subjects map[string]bool // of the anchors, DER
}

// mayReach reports whether a chain can lead to one of the anchors by its names,
// before any signature is looked at: strangers should cost little however many
// manufacturers there are.
func (m *compiledManufacturer) mayReach(chain []*x509.Certificate) bool {
	return slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return m.subjects[string(c.RawIssuer)] })
}

// manufacturers are those in force at now whose anchors are for a format.
func (s *Service) manufacturers(ctx context.Context, format string, now time.Time) ([]*compiledManufacturer, error) {
	ids, err := s.ledger.ManufacturersInForce(ctx, format)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(ids, func(id int64) bool { _, known := s.compiled.Load(id); return !known }) {
		if err := s.compileManufacturers(ctx); err != nil {
			return nil, err
		}
	}
	var inForce []*compiledManufacturer
	for _, id := range ids {
		if found, ok := s.compiled.Load(id); ok {
			m := found.(*compiledManufacturer)
			if end := m.Constraints.NotAfter; end.IsZero() || now.Before(end) {
				inForce = append(inForce, m)
			}
		}
	}
	return inForce, nil
}

func (s *Service) compileManufacturers(ctx context.Context) error {
	all, err := s.ledger.Manufacturers(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		c := &compiledManufacturer{Manufacturer: &all[i], roots: x509.NewCertPool(), subjects: map[string]bool{}}
		for _, der := range c.Anchors {
			anchor, err := x509.ParseCertificate(der)
			if err != nil {
				return fmt.Errorf("manufacturer %s: %w", c.Name, err)
			}
			c.anchors = append(c.anchors, anchor)
			c.roots.AddCert(anchor)
			c.subjects[string(anchor.RawSubject)] = true
		}
		s.compiled.Store(c.ID, c)
	}
	return nil
}

// authenticateIDevID finds the manufacturer that issued a certificate which is
// not ours, and the device that the certificate names. Each manufacturer is
// tried against its own anchors alone, in the order of registration; the first
// whose path and constraints both hold vouches.
//
// Whether the manufacturer revoked the certificate is not looked up.
func (s *Service) authenticateIDevID(ctx context.Context, chain []*x509.Certificate, now time.Time) (Requester, error) {
	foreign := Errorf(Unauthenticated, "the client certificate was not issued by this CA, nor by a manufacturer that is registered here")
	registered, err := s.manufacturers(ctx, FormatIDevID, now)
	if err != nil {
		return Requester{}, err
	}
	if len(registered) == 0 || len(chain) > maxPeerChain {
		return Requester{}, foreign
	}
	leaf := forVerifying(chain[0])
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	refusal := foreign
	for _, m := range registered {
		if !m.mayReach(chain) {
			continue
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: m.roots, Intermediates: between, CurrentTime: now,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if err != nil {
			// That its time is wrong is worth saying to whoever holds it.
			if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && refusal == foreign {
				refusal = Errorf(Unauthenticated, "the client certificate, or one of its chain, is not valid at this time")
			}
			continue
		}
		id, err := identify(leaf)
		if err == nil {
			err = mayIdentify(leaf)
		}
		if err == nil {
			err = m.Constraints.allows(id)
		}
		if err != nil {
			refusal = Errorf(Unauthenticated, "the client certificate is of manufacturer %s, and does not do: %w", m.Name, err)
			continue
		}
		return Requester{Kind: policy.ByIDevID, Device: id.serial, Manufacturer: m.Manufacturer}, nil
	}
	return Requester{}, refusal
}

// forVerifying is a copy of the leaf in which a critical subjectAltName is
// handled: crypto/x509 leaves one that holds other names only (a
// hardwareModuleName) to its caller, and identify reads it.
func forVerifying(leaf *x509.Certificate) *x509.Certificate {
	c := *leaf
	c.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), func(oid asn1.ObjectIdentifier) bool {
		return oid.Equal(oidSubjectAltName)
	})
	return &c
}

// mayIdentify refuses certificates of the manufacturer's that are not for
// devices to authenticate with: those of CAs and, where uses are listed, those
// for other uses. IDevIDs commonly list none.
func mayIdentify(leaf *x509.Certificate) error {
	uses := len(leaf.ExtKeyUsage) + len(leaf.UnknownExtKeyUsage)
	switch {
	case leaf.IsCA:
		return errors.New("it is a CA's")
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key usage lacks digitalSignature")
	case uses > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("its extended key usages lack clientAuth")
	}
	return nil
}
