package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/path"
	"github.com/deviceca/deviceca/internal/revlist"
)

// Limits of the revocation lists of one manufacturer, for one format.
const (
	// MaxRevocationLists is how many octets (DER) all of them may have together: a
	// list of a million certificates has 25 to 55 MB. In memory an entry takes 24 octets.
	MaxRevocationLists = 64 << 20
	maxRevocationLists = 64 // one for each CA
)

// EventManufacturerLists says that a manufacturer's revocation lists were replaced.
const EventManufacturerLists EventKind = "manufacturer.crl-replaced"

// RevocationList is what a CA of a manufacturer says it revoked: a complete list
// (RFC 5280 §5) whose signature was verified when it was given.
type RevocationList struct {
	ID         int64     `json:"-"`                // given by the ledger, never twice
	Issuer     []byte    `json:"-"`                // certificate of the CA that signed it, DER
	IssuerID   [32]byte  `json:"-"`                // of that CA's name and key: there is one list for each
	Number     string    `json:"number,omitempty"` // decimal; "" where the list has none
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Entries    int       `json:"entries"`
	Octets     int       `json:"octets"`
	SHA256     string    `json:"sha256"` // of DER, hex
	Added      time.Time `json:"added"`
	DER        []byte    `json:"-"` // only where the contract says so: it may be large

	compiled *compiledList // of one that was just judged
}

// issuerID names a CA by its subject, as it stands, and its key: the ledger keeps lists by it.
func issuerID(c *x509.Certificate) [32]byte {
	h := sha256.New()
	h.Write(c.RawSubject)
	h.Write(c.RawSubjectPublicKeyInfo)
	return [32]byte(h.Sum(nil))
}

// issuerKey names a CA by its subject, as names compare, and its key, whatever certificates it has: lists are looked up by it.
func issuerKey(c *x509.Certificate) [32]byte {
	return sha256.Sum256(append([]byte(der.NameKey(c.RawSubject)), c.RawSubjectPublicKeyInfo...))
}

// ReplaceRevocationLists gives a manufacturer newer lists, at once: each takes the
// place of the one by the same CA, and the others stay. format "" is the only one that the
// manufacturer has. input is lists, and the certificates of CAs below the anchors that
// sign them, as PEM, or one list as DER; a CA that was given once is remembered as long as its list.
//
// Errors: NotFound; Conflict if a list is older than the one that it would replace,
// or others were given meanwhile; Malformed for lists that are not complete, current and
// signed by a CA of the manufacturer's.
func (s *Service) ReplaceRevocationLists(ctx context.Context, name, format string, input []byte, actor string) (*Manufacturer, error) {
	m, err := s.inForce(ctx, name, format)
	if err != nil {
		return nil, err
	}
	now := s.now()
	given, err := m.takeLists(input, now)
	if err != nil {
		return nil, err
	}
	changed := slices.DeleteFunc(slices.Clone(given), func(l RevocationList) bool { return m.hasList(&l) })
	if len(changed) == 0 {
		return m, nil // fetched again, and there was nothing new
	}
	err = s.ledger.ReplaceRevocationLists(ctx, m.ID, m.Version, changed, m.listsEvent(changed, now, actor))
	if errors.Is(err, ErrNoRecord) {
		return nil, Errorf(Conflict, "manufacturer %s was changed meanwhile: try again", name)
	}
	if err != nil {
		return nil, err
	}
	s.listsReplaced(m, changed)
	return s.inForce(ctx, name, m.Format)
}

// inForce finds the entry of a name that is not withdrawn.
func (s *Service) inForce(ctx context.Context, name, format string) (*Manufacturer, error) {
	all, err := s.ledger.Manufacturers(ctx)
	if err != nil {
		return nil, err
	}
	var found []Manufacturer
	var formats []string
	for _, m := range all {
		if m.Name == name && m.Withdrawn == nil && (format == "" || m.Format == format) {
			found, formats = append(found, m), append(formats, m.Format)
		}
	}
	switch len(found) {
	case 0:
		return nil, Errorf(NotFound, "there is no manufacturer %s in force", strings.TrimSpace(name+" "+format))
	case 1:
		return &found[0], nil
	}
	return nil, Errorf(Malformed, "manufacturer %s is registered for the formats %s: say which of them (--format)", name, strings.Join(formats, ", "))
}

func (m *Manufacturer) listsEvent(lists []RevocationList, now time.Time, actor string) Event {
	digest := sha256.New() // of the list, if it is one
	said := make([]string, len(lists))
	for i, l := range lists {
		digest.Write(l.DER)
		said[i] = fmt.Sprintf("%d entries until %s", l.Entries, l.NextUpdate.UTC().Format(time.RFC3339))
		if issuer, err := der.Certificate(l.Issuer); err == nil {
			said[i] = issuer.Subject.String() + " " + said[i]
		}
	}
	return Event{Time: now, Kind: EventManufacturerLists, Actor: actor, Digest: hex.EncodeToString(digest.Sum(nil)),
		Reason: fmt.Sprintf("%s, format %s: %s", m.Name, m.Format, strings.Join(said, "; "))}
}

// hasList reports whether that very list is stored.
func (m *Manufacturer) hasList(l *RevocationList) bool {
	return slices.ContainsFunc(m.Lists, func(old RevocationList) bool {
		return old.IssuerID == l.IssuerID && old.SHA256 == l.SHA256
	})
}

// takeLists reads and judges what was given:
//
//  1. Certificates beside the lists must be of CAs that lead to an anchor.
//  2. Each list must be complete and plain, current, and signed by an anchor, by one of
//     those, or by the CA of a list that is stored. Nobody else's signature is believed
//     later, so that a forged list cannot push a real one out.
//  3. None may be older than what is stored, and all must fit.
func (m *Manufacturer) takeLists(input []byte, now time.Time) ([]RevocationList, error) {
	lists, certs, err := splitLists(input)
	if err != nil {
		return nil, err
	}
	signers, err := m.signers(certs, now)
	if err != nil {
		return nil, err
	}
	var given []RevocationList
	for i, raw := range lists {
		l, err := readList(raw, signers, now)
		if err == nil {
			err = m.advances(l)
		}
		if err == nil && slices.ContainsFunc(given, func(o RevocationList) bool { return o.IssuerID == l.IssuerID }) {
			err = Errorf(Malformed, "another list of the same CA was given with it")
		}
		if err != nil {
			return nil, Errorf(KindOf(err), "list %d: %s", i+1, AsError(err).Reason)
		}
		given = append(given, *l)
	}
	return given, m.fit(given)
}

// splitLists reads PEM with lists and certificates, or one list in DER.
func splitLists(input []byte) (lists, certs [][]byte, err error) {
	if len(input) > 0 && input[0] == 0x30 {
		return [][]byte{input}, nil, nil
	}
	blocks, err := der.PEM(input)
	if err != nil {
		return nil, nil, Errorf(Malformed, "give revocation lists in PEM or DER: %w", err)
	}
	for _, block := range blocks {
		switch block.Type {
		case "X509 CRL":
			lists = append(lists, block.Bytes)
		case "CERTIFICATE":
			certs = append(certs, block.Bytes)
		default:
			return nil, nil, Errorf(Malformed, "a %.40q stands among the revocation lists: give lists and certificates of CAs alone", block.Type)
		}
	}
	switch {
	case len(lists) == 0:
		return nil, nil, Errorf(Malformed, "there is no revocation list in it, in PEM or DER")
	case len(lists) > maxRevocationLists || len(certs) > maxRevocationLists:
		return nil, nil, Errorf(Malformed, "more than %d lists, or certificates, at once", maxRevocationLists)
	}
	return lists, certs, nil
}

// signers are the certificates of the CAs whose lists count: the anchors, those
// given that lead to one, and those known from lists that are stored.
func (m *Manufacturer) signers(given [][]byte, now time.Time) ([]*x509.Certificate, error) {
	var all, below []*x509.Certificate
	for _, raw := range m.Anchors {
		c, err := der.Certificate(raw)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	anchors := all
	for i, raw := range given {
		c, err := der.Certificate(raw)
		if err != nil {
			return nil, Errorf(Malformed, "certificate %d cannot be read: %w", i+1, err)
		}
		below = append(below, c)
	}
	for i, c := range below {
		_, err := path.Verify(c, below, path.Options{Anchors: path.Anchors(anchors), Now: now})
		if err == nil && !c.IsCA {
			err = errors.New("it is not a CA's")
		}
		if err != nil {
			return nil, Errorf(Malformed, "certificate %d, %s, is of no CA below the anchors of manufacturer %s: %w", i+1, c.Subject, m.Name, err)
		}
	}
	for _, l := range m.Lists {
		c, err := der.Certificate(l.Issuer)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return append(all, below...), nil
}

// readList holds a list to what can be looked up in: complete, for all that its CA
// issued (an issuingDistributionPoint says otherwise), current, signed by one of signers.
func readList(raw []byte, signers []*x509.Certificate, now time.Time) (*RevocationList, error) {
	if len(raw) > MaxRevocationLists {
		return nil, Errorf(Malformed, "it has more than %d octets", MaxRevocationLists)
	}
	l, err := revlist.Parse(raw)
	switch {
	case err != nil:
		return nil, Errorf(Malformed, "%w", err)
	case l.Base != nil:
		return nil, Errorf(Malformed, "it is a delta: give the complete list")
	case l.Number != nil && (l.Number.Sign() < 0 || l.Number.BitLen() > 160):
		return nil, Errorf(Malformed, "its CRL number is below zero, or has more than 20 octets (RFC 5280 §5.2.3)")
	case l.Point != nil:
		return nil, Errorf(Malformed, "it is indirect, or for a part of what its CA issued (issuingDistributionPoint): give the list of all of them")
	}
	digest := sha256.Sum256(raw)
	compiled, err := compileList(hex.EncodeToString(digest[:]), l)
	if err != nil {
		return nil, Errorf(Malformed, "%w", err)
	}
	var refusal error = Errorf(Malformed, "its CA, %s, is neither an anchor nor known from a list before: give that CA's certificate along, in PEM", nameText(l.Issuer))
	for _, signer := range signers {
		if !der.SameName(signer.RawSubject, l.Issuer) {
			continue
		}
		if err := l.Verify(signer, now); err != nil {
			refusal = Errorf(Malformed, "%w", err)
			continue
		}
		r := &RevocationList{Issuer: signer.Raw, IssuerID: issuerID(signer), ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate,
			Entries: l.Count, Octets: len(raw), SHA256: compiled.sha256, Added: now, DER: raw, compiled: compiled}
		if l.Number != nil {
			r.Number = l.Number.String()
		}
		return r, nil
	}
	return nil, refusal
}

// advances refuses a list that is older than the stored one of its CA.
func (m *Manufacturer) advances(l *RevocationList) error {
	for _, old := range m.Lists {
		if old.IssuerID != l.IssuerID {
			continue
		}
		switch {
		case l.ThisUpdate.Before(old.ThisUpdate):
			return Errorf(Conflict, "it is of %s, and the one that is stored is of %s, which is newer", l.ThisUpdate.UTC().Format(time.RFC3339), old.ThisUpdate.UTC().Format(time.RFC3339))
		case len(l.Number) < len(old.Number) || len(l.Number) == len(old.Number) && l.Number < old.Number: // decimal, "" where there is none
			return Errorf(Conflict, "its number is %q, and the one that is stored has number %s, which is newer", l.Number, old.Number)
		}
	}
	return nil
}

// fit refuses more lists than a manufacturer may have.
func (m *Manufacturer) fit(given []RevocationList) error {
	count, octets := len(given), 0
	for _, l := range given {
		octets += l.Octets
	}
	for _, old := range m.Lists {
		if !slices.ContainsFunc(given, func(l RevocationList) bool { return l.IssuerID == old.IssuerID }) {
			count, octets = count+1, octets+old.Octets
		}
	}
	if count > maxRevocationLists || octets > MaxRevocationLists {
		return Errorf(Malformed, "manufacturer %s would have %d lists of %d octets; %d lists of %d octets together is the most", m.Name, count, octets, maxRevocationLists, MaxRevocationLists)
	}
	return nil
}
