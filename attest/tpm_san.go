package attest

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// The attributes by which a certificate names a TPM (TCG EK Credential Profile §3.1.2).
var (
	oidTPMManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidTPMModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidTPMVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
)

// Limits of a subjectAltName.
const (
	maxNames       = 16
	maxAttribute   = 64 // octets of one attribute of the TPM's
	maxIdentifiers = 8
)

// parseAKNames reads the subjectAltName of an AK's certificate: manufacturer, model and version of
// the TPM, each once, in a directoryName; the device's identifiers in otherNames. Names
// of other forms, and those without an identifier that can be written, say nothing that matters here.
func parseAKNames(san []byte) (*akIdentity, error) {
	if err := der.Check(san, 12); err != nil {
		return nil, err
	}
	names, err := der.Whole(san, cbasn1.SEQUENCE)
	if err != nil {
		return nil, err
	}
	var ak akIdentity
	for n := 1; !names.Empty(); n++ {
		var name cryptobyte.String
		var tag cbasn1.Tag
		if n > maxNames {
			return nil, fmt.Errorf("more than %d names", maxNames)
		}
		if !names.ReadAnyASN1(&name, &tag) {
			return nil, errors.New("not GeneralNames")
		}
		switch tag {
		case cbasn1.Tag(0).ContextSpecific().Constructed(): // otherName
			form, value, err := der.DeviceName(name)
			if form == "other" || errors.Is(err, der.ErrNoDeviceName) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if len(ak.identifiers) == maxIdentifiers {
				return nil, fmt.Errorf("more than %d identifiers", maxIdentifiers)
			}
			ak.identifiers = append(ak.identifiers, Identifier{form, value})
		case cbasn1.Tag(4).ContextSpecific().Constructed(): // directoryName
			if err := ak.readDirectoryName(name); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case ak.manufacturer == "" || ak.model == "" || ak.version == "":
		return nil, errors.New("manufacturer, model and version of the TPM are due (2.23.133.2.1, .2 and .3), and not all are there")
	case !isVendorID(ak.manufacturer):
		return nil, fmt.Errorf("the TPM's manufacturer is %q, where id: and eight hex digits are due", ak.manufacturer)
	}
	return &ak, nil
}

// readDirectoryName reads the TPM's attributes out of
//
//	Name ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }
func (ak *akIdentity) readDirectoryName(name cryptobyte.String) error {
	fault := errors.New("not a Name")
	var rdns cryptobyte.String
	if !name.ReadASN1(&rdns, cbasn1.SEQUENCE) || !name.Empty() {
		return fault
	}
	for !rdns.Empty() {
		var set cryptobyte.String
		if !rdns.ReadASN1(&set, cbasn1.SET) {
			return fault
		}
		for !set.Empty() {
			var pair, value cryptobyte.String
			var oid asn1.ObjectIdentifier
			var tag cbasn1.Tag
			if !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&oid) ||
				!pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return fault
			}
			if err := ak.setAttribute(oid, tag, value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (ak *akIdentity) setAttribute(oid asn1.ObjectIdentifier, tag cbasn1.Tag, value []byte) error {
	var to *string
	switch {
	case oid.Equal(oidTPMManufacturer):
		to = &ak.manufacturer
	case oid.Equal(oidTPMModel):
		to = &ak.model
	case oid.Equal(oidTPMVersion):
		to = &ak.version
	default:
		return nil
	}
	text := string(value)
	switch {
	case *to != "":
		return fmt.Errorf("%v is there twice", oid)
	case tag != cbasn1.UTF8String && tag != cbasn1.PrintableString,
		text == "", len(text) > maxAttribute, strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r > 0x7e }):
		return fmt.Errorf("%v is not a string of 1 to %d visible characters", oid, maxAttribute)
	}
	*to = text
	return nil
}

// isVendorID reports whether s is a vendor ID as the TCG registry writes them in certificates.
func isVendorID(s string) bool {
	digits, ok := strings.CutPrefix(s, "id:")
	return ok && len(digits) == 8 && !strings.ContainsFunc(digits, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'A' && r <= 'F' || r >= 'a' && r <= 'f')
	})
}
