package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/policy"
)

// CMCRAUse is id-kp-cmcRA (RFC 6402 §2.10): the extended key usage of
// certificates that enrol on behalf of others.
const CMCRAUse = "1.3.6.1.5.5.7.3.28"

var oidCMCRA = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 28}

// maxRALevels is how many levels one registration authority may serve.
const maxRALevels = 32

// RA is a registration authority: it asks for certificates on behalf of
// devices, within the names and levels given to it. It is known by one exact
// certificate, whoever issued that.
type RA struct {
	ID      int64      `json:"-"` // order of registration
	Name    string     `json:"name"`
	Cert    []byte     `json:"-"`      // DER
	KeyID   [32]byte   `json:"-"`      // SHA-256 of its SubjectPublicKeyInfo
	Names   []string   `json:"names"`  // globs over device IDs (path.Match syntax)
	Levels  []string   `json:"levels"` // of devices that it may act for; one it brings in gets the first
	Created time.Time  `json:"created"`
	Removed *time.Time `json:"removed,omitempty"`
	Lineage int64      `json:"-"` // see Register
}

// Mark is what Device.Credential says of devices that the RA brought in.
func (ra *RA) Mark() string { return mark("ra", ra.Name, ra.Lineage) }

// Covers reports whether the RA may act for the device id.
func (ra *RA) Covers(id string) bool { return globsMatch(ra.Names, id) }

func (ra *RA) mayEnrol(d *device.Device) error {
	if !slices.Contains(ra.Levels, d.Level) {
		return Errorf(Denied, "registration authority %s may not act for devices of level %s", ra.Name, d.Level)
	}
	return nil
}

// mayApprove reports why the RA may not approve of what a device asks for itself.
func (ra *RA) mayApprove(d *device.Device) error {
	if !ra.Covers(d.ID) {
		return Errorf(Denied, "registration authority %s may not approve for device %s: its names are others", ra.Name, d.ID)
	}
	return ra.mayEnrol(d)
}

// globsMatch compares without case, as device IDs do.
func globsMatch(globs []string, s string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, _ := path.Match(device.Fold(glob), device.Fold(s))
		return ok
	})
}

// authenticateRA finds the RA whose certificate this is; nil if it is nobody's.
// Only certificates for that use are looked up, so that devices pay nothing. An
// RA's key under another certificate is not the RA: what is registered is a certificate.
func (s *Service) authenticateRA(ctx context.Context, leaf *x509.Certificate, now time.Time) (*RA, error) {
	if !MayBeRA(leaf) {
		return nil, nil
	}
	ra, err := s.ledger.RAByKey(ctx, sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
	if errors.Is(err, ErrNoRecord) || err == nil && !bytes.Equal(ra.Cert, leaf.Raw) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return nil, Errorf(Unauthenticated, "the certificate of registration authority %s is valid from %s to %s: register a new one with `ra add`",
			ra.Name, leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	// One that we issued ourselves may have been revoked in the ledger.
	if serial, ours := SerialFromBig(leaf.SerialNumber); ours {
		c, _, err := s.ledger.Presented(ctx, serial)
		if err != nil && !errors.Is(err, ErrNoRecord) {
			return nil, err
		}
		if err == nil && bytes.Equal(c.DER, leaf.Raw) && c.Revocation != nil {
			return nil, revoked(c)
		}
	}
	return ra, nil
}

// MayBeRA reports whether a certificate is for registration authorities.
func MayBeRA(c *x509.Certificate) bool {
	return !c.IsCA && slices.ContainsFunc(c.UnknownExtKeyUsage, oidCMCRA.Equal)
}

// AddRA registers a registration authority by its certificate: Name, Cert,
// Names and Levels of ra count. Errors: Malformed, Conflict if the name or the
// certificate's key is registered already.
func (s *Service) AddRA(ctx context.Context, ra RA, actor string) (*RA, error) {
	now := s.now()
	if err := device.CheckNewID(ra.Name); err != nil {
		return nil, Errorf(Malformed, "%q cannot be the name of a registration authority: use 1 to %d of A-Z a-z 0-9 . _ : -, without . or - at its beginning and . at its end", ra.Name, device.MaxIDLength)
	}
	cert, err := der.Certificate(ra.Cert)
	if err != nil {
		return nil, Errorf(Malformed, "the certificate cannot be read: %w", err)
	}
	switch {
	case cert.IsCA:
		return nil, Errorf(Malformed, "this is a CA's certificate: a registration authority has its own, and a CA none")
	case !MayBeRA(cert):
		return nil, Errorf(Malformed, "the certificate lacks the extended key usage id-kp-cmcRA (%s), which says that its holder may act for others", CMCRAUse)
	case cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return nil, Errorf(Malformed, "the certificate's key usage lacks digitalSignature, without which it cannot authenticate to TLS")
	case now.After(cert.NotAfter):
		return nil, Errorf(Malformed, "the certificate expired at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	case len(ra.Names) == 0 || len(ra.Names) > maxGlobs:
		return nil, Errorf(Malformed, "a registration authority needs 1 to %d name patterns, for example lamp-*", maxGlobs)
	case len(ra.Levels) == 0 || len(ra.Levels) > maxRALevels:
		return nil, Errorf(Malformed, "a registration authority needs 1 to %d levels; devices that it brings in get the first", maxRALevels)
	}
	if err := der.AcceptKey(cert.PublicKey); err != nil {
		return nil, Errorf(Malformed, "the certificate does not do: %w", err)
	}
	if _, err := policy.KeyAlgorithm(cert.PublicKey); err != nil {
		return nil, Errorf(Malformed, "the certificate's key is unfit for a registration authority: %w", err)
	}
	for _, glob := range ra.Names {
		if err := device.CheckGlob(glob); err != nil {
			return nil, Errorf(Malformed, "%w", err)
		}
	}
	for _, level := range ra.Levels {
		if err := s.checkLevel(level); err != nil {
			return nil, err
		}
	}
	added := &RA{Name: ra.Name, Cert: ra.Cert, KeyID: sha256.Sum256(cert.RawSubjectPublicKeyInfo), Names: ra.Names, Levels: ra.Levels, Created: now}
	digest := sha256.Sum256(ra.Cert)
	err = s.ledger.AddRA(ctx, added, Event{Time: now, Kind: EventRAAdded, Actor: actor, Digest: hex.EncodeToString(digest[:]),
		Reason: fmt.Sprintf("%s for %s, levels %s", ra.Name, strings.Join(ra.Names, " "), strings.Join(ra.Levels, " "))})
	if errors.Is(err, ErrRecorded) {
		return nil, Errorf(Conflict, "a registration authority with this name or this key is there already: remove it first")
	}
	return added, err
}

// RemoveRA ends what a registration authority may do, at once. Certificates
// that it brought stay. Errors: NotFound.
func (s *Service) RemoveRA(ctx context.Context, name, actor string) error {
	now := s.now()
	err := s.ledger.RemoveRA(ctx, name, now, Event{Time: now, Kind: EventRARemoved, Actor: actor, Reason: name})
	if errors.Is(err, ErrNoRecord) {
		return Errorf(NotFound, "there is no registration authority %q", name)
	}
	return err
}
