package der

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	maxOddCertificate = 64 << 10 // octets
	maxNesting        = 24
)

// Contents octets of OBJECT IDENTIFIERs.
const (
	oidRSA        = "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"
	oidSubjectKID = "\x55\x1d\x0e"
	oidIssuerKID  = "\x55\x1d\x23"
	oidExtKeyUse  = "\x55\x1d\x25"
	oidInfoAccess = "\x2b\x06\x01\x05\x05\x07\x01\x01"
	oidUUIDs      = "\x69" // 2.25
)

var errCertificate = errors.New("not a certificate (RFC 5280 §4.1)")

// Certificate reads a certificate as x509.ParseCertificate does, and also those that this refuses for
// what manufacturers get wrong and others overlook:
//
//   - names with characters that their string type does not have, with values that are no
//     strings, or with strings of types that RFC 5280 does not know;
//   - object identifiers with an arc of more than 31 bits (2.25 and a UUID) in names, extended key usages,
//     and access methods, and of extensions;
//   - a serial number below zero, an RSA key without its NULL, a key identifier that is critical.
//
// Where the fields of x509.Certificate have no place for something, they say less, never more than
// the certificate: Subject and Issuer lack the attributes that are no strings, Extensions those with such an
// identifier (a critical one counts as not handled), and 2.25 stands for other such identifiers. All Raw
// fields, Signature, SerialNumber, and the values in Extensions are those of the certificate.
func Certificate(in []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(in)
	if err == nil {
		return c, nil
	}
	if c, err := oddCertificate(bytes.Clone(in)); !errors.Is(err, errCertificate) {
		return c, err
	}
	return nil, err
}

// oddCertificate writes the certificate anew in the way that crypto/x509 takes, has it parsed, and puts back what
// was there. What crypto/x509 makes of a certificate is thereby the same for all of them.
//
//	Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm AlgorithmIdentifier, signature BIT STRING }
//	TBSCertificate ::= SEQUENCE {
//	    version [0], serialNumber INTEGER, signature AlgorithmIdentifier, issuer Name, validity SEQUENCE,
//	    subject Name, subjectPublicKeyInfo SEQUENCE,
//	    issuerUniqueID [1] OPTIONAL, subjectUniqueID [2] OPTIONAL, extensions [3] OPTIONAL }
func oddCertificate(raw []byte) (*x509.Certificate, error) {
	if len(raw) > maxOddCertificate || Check(raw, maxNesting) != nil {
		return nil, errCertificate
	}
	var body, tbs, rest, algorithm, version, serial, inner, issuer, validity, subject, spki, unique, list, signature cryptobyte.String
	var present bool
	whole := cryptobyte.String(raw)
	number := new(big.Int)
	if !whole.ReadASN1(&body, cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&tbs, cbasn1.SEQUENCE) || !body.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) ||
		!body.ReadASN1Element(&signature, cbasn1.BIT_STRING) || !body.Empty() {
		return nil, errCertificate
	}
	rest = tbs
	tag := func(n uint8) cbasn1.Tag { return cbasn1.Tag(n).ContextSpecific() }
	if !rest.ReadASN1(&rest, cbasn1.SEQUENCE) || !optionalElement(&rest, &version, tag(0).Constructed()) ||
		!rest.ReadASN1Element(&serial, cbasn1.INTEGER) ||
		!rest.ReadASN1Element(&inner, cbasn1.SEQUENCE) || !rest.ReadASN1Element(&issuer, cbasn1.SEQUENCE) ||
		!rest.ReadASN1Element(&validity, cbasn1.SEQUENCE) || !rest.ReadASN1Element(&subject, cbasn1.SEQUENCE) ||
		!rest.ReadASN1Element(&spki, cbasn1.SEQUENCE) ||
		!optionalElement(&rest, &unique, tag(1)) || !optionalElement(&rest, &unique, tag(2)) ||
		!rest.ReadOptionalASN1(&list, &present, tag(3).Constructed()) || !rest.Empty() {
		return nil, errCertificate
	}
	if s := serial; !s.ReadASN1Integer(number) {
		return nil, errCertificate
	}
	plainIssuer, err := PlainName(issuer)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	plainSubject, err := PlainName(subject)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	plainKey, err := plainSPKI(spki)
	if err != nil {
		return nil, err
	}
	ext, err := plainExtensions(list, present)
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(version)
			b.AddASN1Int64(1)
			for _, element := range [][]byte{inner, plainIssuer, validity, plainSubject, plainKey} {
				b.AddBytes(element)
			}
			if present {
				b.AddASN1(tag(3).Constructed(), func(b *cryptobyte.Builder) { addElement(b, cbasn1.SEQUENCE, ext.plain) })
			}
		})
		b.AddBytes(algorithm)
		b.AddBytes(signature)
	})
	plain, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(plain)
	if err != nil {
		return nil, err
	}
	c.Raw, c.RawTBSCertificate, c.RawSubjectPublicKeyInfo, c.RawSubject, c.RawIssuer, c.SerialNumber = raw, tbs, spki, subject, issuer, number
	ext.restore(c)
	return c, nil
}

// optionalElement takes an element of the tag off s, if there is one.
func optionalElement(s, element *cryptobyte.String, tag cbasn1.Tag) bool {
	return !s.PeekASN1Tag(tag) || s.ReadASN1Element(element, tag)
}

// plainSPKI gives an RSA key the NULL that it lacks (RFC 4055 §1.2).
func plainSPKI(in []byte) ([]byte, error) {
	s := cryptobyte.String(in)
	var body, algorithm, oid cryptobyte.String
	if !s.ReadASN1(&body, cbasn1.SEQUENCE) || !body.ReadASN1(&algorithm, cbasn1.SEQUENCE) || !algorithm.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) {
		return nil, errCertificate
	}
	if string(oid) != oidRSA || !algorithm.Empty() {
		return in, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addElement(b, cbasn1.OBJECT_IDENTIFIER, oid)
			addElement(b, cbasn1.NULL, nil)
		})
		b.AddBytes(body)
	})
	return b.Bytes()
}

// oddExtensions are extensions as crypto/x509 takes them, and what they were.
type oddExtensions struct {
	plain     []byte   // without those whose identifier it does not take
	values    [][]byte // of those in plain
	critical  []bool
	unhandled bool // one of those left out was critical
}

func plainExtensions(list cryptobyte.String, present bool) (*oddExtensions, error) {
	ext := new(oddExtensions)
	if !present {
		return ext, nil
	}
	if !list.ReadASN1(&list, cbasn1.SEQUENCE) {
		return nil, errCertificate
	}
	var plain cryptobyte.Builder
	seen := map[string]bool{}
	for !list.Empty() {
		var one, oid, value cryptobyte.String
		critical := false
		if !list.ReadASN1(&one, cbasn1.SEQUENCE) || !one.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) ||
			one.PeekASN1Tag(cbasn1.BOOLEAN) && !one.ReadASN1Boolean(&critical) ||
			!one.ReadASN1(&value, cbasn1.OCTET_STRING) || !one.Empty() {
			return nil, errCertificate
		}
		if seen[string(oid)] {
			return nil, errors.New("the certificate has an extension twice (RFC 5280 §4.2)")
		}
		seen[string(oid)] = true
		if !plainOID(oid) {
			if new(x509.OID).UnmarshalBinary(oid) != nil {
				return nil, errCertificate
			}
			ext.unhandled = ext.unhandled || critical
			continue
		}
		ext.values, ext.critical = append(ext.values, value), append(ext.critical, critical)
		switch string(oid) {
		case oidSubjectKID, oidIssuerKID:
			critical = false
		case oidExtKeyUse, oidInfoAccess:
			var err error
			if value, err = plainOIDs(value); err != nil {
				return nil, err
			}
		}
		plain.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			addElement(b, cbasn1.OBJECT_IDENTIFIER, oid)
			if critical {
				b.AddASN1Boolean(true)
			}
			addElement(b, cbasn1.OCTET_STRING, value)
		})
	}
	var err error
	ext.plain, err = plain.Bytes()
	return ext, err
}

// restore puts back what the certificate said.
func (e *oddExtensions) restore(c *x509.Certificate) {
	for i := range c.Extensions {
		c.Extensions[i].Value, c.Extensions[i].Critical = e.values[i], e.critical[i]
	}
	if e.unhandled {
		c.UnhandledCriticalExtensions = append(c.UnhandledCriticalExtensions, asn1.ObjectIdentifier{2, 25})
	}
}

// plainOIDs writes an element anew with 2.25 for identifiers that crypto/x509 does not take.
func plainOIDs(in []byte) ([]byte, error) {
	if Check(in, maxNesting) != nil {
		return nil, errCertificate
	}
	var b cryptobyte.Builder
	var write func(b *cryptobyte.Builder, s cryptobyte.String)
	write = func(b *cryptobyte.Builder, s cryptobyte.String) {
		for !s.Empty() {
			var content cryptobyte.String
			var tag cbasn1.Tag
			if !s.ReadAnyASN1(&content, &tag) { // Check has read it
				b.SetError(errCertificate)
				return
			}
			b.AddASN1(tag, func(b *cryptobyte.Builder) {
				switch {
				case tag&constructed != 0:
					write(b, content)
				case tag == cbasn1.OBJECT_IDENTIFIER && !plainOID(content):
					b.AddBytes([]byte(oidUUIDs))
				default:
					b.AddBytes(content)
				}
			})
		}
	}
	write(&b, in)
	return b.Bytes()
}
