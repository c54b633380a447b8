package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/path"
	"github.com/deviceca/deviceca/internal/revlist"
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
	// Attributes that are no strings stay out: they name no device and no model.
	subject, err := der.PlainName(leaf.RawSubject)
	if err != nil {
		return nil, fmt.Errorf("its subject cannot be read: %w", err)
	}
	names, err := ParseNames(subject, san)
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

// compiledManufacturer is a manufacturer with its anchors and revocation lists
// parsed: of an entry of the register nothing changes but the lists, and with them its version.
type compiledManufacturer struct {
	*Manufacturer
	anchors []*x509.Certificate
	trust   []path.Anchor              // the same, to verify paths
	lists   map[[32]byte]*compiledList // by issuerKey
}

// manufacturers are those in force at now whose anchors are for a format.
func (s *Service) manufacturers(ctx context.Context, format string, now time.Time) ([]*compiledManufacturer, error) {
	current, err := s.ledger.ManufacturersInForce(ctx, format)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(current, s.uncompiled) {
		if err := s.compileManufacturers(ctx, current); err != nil {
			return nil, err
		}
	}
	var inForce []*compiledManufacturer
	for _, v := range current {
		if found, ok := s.compiled.Load(v.ID); ok {
			m := found.(*compiledManufacturer)
			if end := m.Constraints.NotAfter; end.IsZero() || now.Before(end) {
				inForce = append(inForce, m)
			}
		}
	}
	return inForce, nil
}

// uncompiled reports that an entry is not compiled, or in an older version only.
func (s *Service) uncompiled(v ManufacturerVersion) bool {
	found, ok := s.compiled.Load(v.ID)
	return !ok || found.(*compiledManufacturer).Version < v.Version
}

// compileManufacturers compiles what changed. One at a time: a list may have
// megabytes, and who waits for it finds the work done.
func (s *Service) compileManufacturers(ctx context.Context, current []ManufacturerVersion) error {
	s.compiling.Lock()
	defer s.compiling.Unlock()
	if !slices.ContainsFunc(current, s.uncompiled) {
		return nil
	}
	all, err := s.ledger.Manufacturers(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		m := &all[i]
		switch {
		case m.Withdrawn != nil:
			s.compiled.Delete(m.ID)
		case s.uncompiled(ManufacturerVersion{m.ID, m.Version}):
			c, err := s.compileManufacturer(ctx, m)
			if err != nil {
				return fmt.Errorf("manufacturer %s: %w", m.Name, err)
			}
			s.compiled.Store(m.ID, c)
		}
	}
	return nil
}

// listsReplaced spares the next request the work of compiling what was compiled
// when it was judged, if the entry was compiled as of before.
func (s *Service) listsReplaced(m *Manufacturer, lists []RevocationList) {
	s.compiling.Lock()
	defer s.compiling.Unlock()
	found, ok := s.compiled.Load(m.ID)
	if !ok || found.(*compiledManufacturer).Version != m.Version {
		return
	}
	c, next := *found.(*compiledManufacturer), *m
	next.Version++
	c.Manufacturer, c.lists = &next, maps.Clone(c.lists)
	for _, l := range lists {
		issuer, err := der.Certificate(l.Issuer)
		if err != nil { // it was, when the list was judged
			return
		}
		c.lists[issuerKey(issuer)] = l.compiled
	}
	s.compiled.Store(m.ID, &c)
}

func (s *Service) compileManufacturer(ctx context.Context, m *Manufacturer) (*compiledManufacturer, error) {
	c := &compiledManufacturer{Manufacturer: m, lists: map[[32]byte]*compiledList{}}
	for _, raw := range c.Anchors {
		anchor, err := der.Certificate(raw)
		if err != nil {
			return nil, err
		}
		c.anchors = append(c.anchors, anchor)
	}
	c.trust = path.Anchors(c.anchors)
	if len(m.Lists) == 0 {
		return c, nil
	}
	var before map[[32]byte]*compiledList
	if found, ok := s.compiled.Load(m.ID); ok {
		before = found.(*compiledManufacturer).lists
	}
	// They may be newer than m by now, which the next request finds out.
	lists, err := s.ledger.RevocationLists(ctx, m.ID)
	if err != nil {
		return nil, err
	}
	for _, l := range lists {
		issuer, err := der.Certificate(l.Issuer)
		if err != nil {
			return nil, err
		}
		id := issuerKey(issuer)
		if other := c.lists[id]; other != nil && other.thisUpdate.After(l.ThisUpdate) {
			continue // of one CA under two spellings of its name the newer list counts
		}
		if old := before[id]; old != nil && old.sha256 == l.SHA256 {
			c.lists[id] = old
			continue
		}
		parsed, err := revlist.Parse(l.DER)
		if err == nil {
			c.lists[id], err = compileList(l.SHA256, parsed)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// authenticateIDevID finds the manufacturer that issued a certificate which is
// not ours, and the device that the certificate names. Each manufacturer is
// tried against its own anchors alone, in the order of registration; the first
// whose path and constraints both hold vouches. A certificate that a manufacturer's
// list revokes, or whose issuer's list is out of date, is refused whoever else would
// vouch for it; where there is no list, revocation is not looked up.
func (s *Service) authenticateIDevID(ctx context.Context, chain []*x509.Certificate, now time.Time) (Requester, error) {
	foreign := Errorf(Unauthenticated, "the client certificate was not issued by this CA, nor by a manufacturer that is registered here")
	registered, err := s.manufacturers(ctx, FormatIDevID, now)
	if err != nil {
		return Requester{}, err
	}
	if len(registered) == 0 || len(chain) > maxPeerChain {
		return Requester{}, foreign
	}
	leaf := chain[0]
	refusal, sent := foreign, path.NewChain(chain)
	for _, m := range registered {
		// A critical subjectAltName may hold a hardwareModuleName alone, which identify reads.
		paths, err := sent.Verify(path.Options{Anchors: m.trust, Now: now, ReadsNames: true})
		if err != nil {
			// That its time is wrong, or its chain weak or constrained, is worth saying to whoever holds it.
			invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
			_, broken := errors.AsType[*path.Error](err)
			switch {
			case refusal != foreign:
			case ok && invalid.Reason == x509.Expired:
				refusal = Errorf(Unauthenticated, "the client certificate, or one of its chain, is not valid at this time")
			case broken:
				refusal = Errorf(Unauthenticated, "the client certificate does not lead to the anchors of manufacturer %s: %w", m.Name, err)
			}
			continue
		}
		if err := revocations(registered).revokedAll(paths, now); err != nil {
			return Requester{}, Errorf(Unauthenticated, "the client certificate is of manufacturer %s, and does not do: %w", m.Name, err)
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
