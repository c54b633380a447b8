package der

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The otherNames that name devices and their hardware.
var (
	OIDPermanentIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 3} // RFC 4043
	OIDHardwareModuleName  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 4} // RFC 4108 §5
)

// MaxDeviceName is how long an identifier or a serial number in a device name may be, in octets.
const MaxDeviceName = 255

// ErrNoDeviceName is wrapped by the errors of names that are well formed and name no device: there is no identifier
// in them, or none that can be written.
var ErrNoDeviceName = errors.New("it names no device")

// DeviceName reads the content of an otherName (RFC 5280 §4.2.1.6) of a form that names
// devices, and writes it as draft-ietf-acme-device-attest does: form "permanent-identifier" with
// "IDENTIFIER" or "IDENTIFIER/ASSIGNER", form "hardware-module" with "SERIAL/TYPE". An
// otherName of another type is of form "other". Identifiers that are absent (RFC 4043 lets them be), and identifiers and
// serial numbers that are not plain UTF-8 without a slash, are ErrNoDeviceName: the slash separates, and no two names
// may be written alike.
func DeviceName(content cryptobyte.String) (form, value string, err error) {
	var inner, seq cryptobyte.String
	oid, ok := OID(&content)
	if !ok ||
		!content.ReadASN1(&inner, cbasn1.Tag(0).ContextSpecific().Constructed()) || !content.Empty() {
		return "", "", errors.New("not an otherName")
	}
	permanent := oid == OIDPermanentIdentifier.String()
	if !permanent && oid != OIDHardwareModuleName.String() {
		return "other", "otherName " + oid, nil
	}
	if !inner.ReadASN1(&seq, cbasn1.SEQUENCE) || !inner.Empty() {
		return "", "", errors.New("an otherName that is not a SEQUENCE")
	}
	var id cryptobyte.String
	var qualifier string
	if permanent {
		form = "permanent-identifier"
		if !seq.ReadOptionalASN1(&id, nil, cbasn1.UTF8String) ||
			!seq.Empty() && !readOID(&seq, &qualifier) || !seq.Empty() {
			return "", "", errors.New("not a PermanentIdentifier (RFC 4043)")
		}
	} else {
		form = "hardware-module"
		if !readOID(&seq, &qualifier) || !seq.ReadASN1(&id, cbasn1.OCTET_STRING) || !seq.Empty() {
			return "", "", errors.New("not a HardwareModuleName (RFC 4108)")
		}
	}
	text := string(id)
	switch {
	case text == "":
		return "", "", fmt.Errorf("%w: a %s without value", ErrNoDeviceName, form)
	case len(text) > MaxDeviceName:
		return "", "", fmt.Errorf("%w: a %s of %d octets, %d are allowed", ErrNoDeviceName, form, len(text), MaxDeviceName)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return "", "", fmt.Errorf("%w: a %s that is not plain UTF-8, or has control characters", ErrNoDeviceName, form)
	case strings.Contains(text, "/"):
		return "", "", fmt.Errorf("%w: a %s with a slash, which separates it from the object identifier beside it", ErrNoDeviceName, form)
	}
	if qualifier != "" {
		text += "/" + qualifier
	}
	return form, text, nil
}

func readOID(s *cryptobyte.String, dotted *string) (ok bool) {
	*dotted, ok = OID(s)
	return ok
}
