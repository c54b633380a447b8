package ca

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/device"
	"github.com/deviceca/deviceca/internal/der"
)

// Attesting is a manufacturer in force whose anchors are for one format of evidence.
type Attesting struct {
	*Manufacturer
	Certificates []*x509.Certificate // its anchors
	lists        revocations         // of all for the format
}

// Attesting lists the manufacturers that vouch by evidence of a format, in the order
// of registration. Those whose registration ended are left out.
func (s *Service) Attesting(ctx context.Context, format string) ([]Attesting, error) {
	inForce, err := s.manufacturers(ctx, format, s.now())
	if err != nil {
		return nil, err
	}
	all := make([]Attesting, len(inForce))
	for i, m := range inForce {
		all[i] = Attesting{m.Manufacturer, m.anchors, inForce}
	}
	return all, nil
}

// Revoked looks a certificate up on the revocation lists of issuer, which signed it.
// checked is false where there is none. It is an error, which may be shown, if the
// certificate was revoked or no list of issuer's is current.
func (a *Attesting) Revoked(cert, issuer *x509.Certificate, now time.Time) (checked bool, err error) {
	return a.lists.revoked(cert, issuer, now)
}

// Allows reports why the manufacturer does not vouch for a device by the
// certificate that signed its evidence: its models and serials are others, or the
// device is of another level. serial is the device's as the evidence has it.
func (a *Attesting) Allows(attester *x509.Certificate, serial string, d *device.Device) error {
	if d.Level != a.Level {
		return Errorf(BadEvidence, "device %s is of level %s, and manufacturer %s vouches for level %s only", d.ID, d.Level, a.Name, a.Level)
	}
	if len(a.Constraints.Models) == 0 && len(a.Constraints.Serials) == 0 {
		return nil
	}
	if attester == nil {
		return Errorf(BadEvidence, "the registration of manufacturer %s is for some models or serials, and this evidence has no certificate that says which", a.Name)
	}
	id, err := attested(attester)
	if err != nil {
		return Errorf(BadEvidence, "the names of the attesting certificate cannot be read: %w", err)
	}
	id.serial = serial
	if err := a.Constraints.allows(id); err != nil {
		return Errorf(BadEvidence, "manufacturer %s does not vouch for this device: %w", a.Name, err)
	}
	return nil
}

var errDirectoryName = errors.New("not a directoryName")

// attested reads what an attesting certificate says of the model: its subject, a
// hardwareModuleName, and the directoryName in which TPMs have theirs (TCG EK
// credential profile §3.2.9, in AK certificates too).
func attested(cert *x509.Certificate) (*deviceIdentity, error) {
	id := &deviceIdentity{}
	subject, err := der.PlainName(cert.RawSubject)
	if err != nil {
		return nil, err
	}
	if id.subject, err = parseSubject(subject); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidSubjectAltName) })
	if i < 0 {
		return id, nil
	}
	san := cert.Extensions[i].Value
	names, err := parseSANs(san)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n.Form == "hardware-module" {
			_, id.hardware, _ = strings.Cut(n.Value, "/")
		}
	}
	input, list := cryptobyte.String(san), cryptobyte.String(nil)
	if !input.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil, errDirectoryName
	}
	for !list.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !list.ReadAnyASN1(&value, &tag) {
			return nil, errDirectoryName
		}
		if tag == cbasn1.Tag(tagDirectory).ContextSpecific().Constructed() {
			attrs, err := parseSubject(value)
			if err != nil {
				return nil, err
			}
			id.subject = append(id.subject, attrs...)
		}
	}
	return id, nil
}
