// Package revlist reads certificate revocation lists (RFC 5280 §5), ours and
// those of others: the relying party's side of package crl.
package revlist

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// RemoveFromCRL is the reason by which a delta takes an entry back (§5.3.1).
const RemoveFromCRL = 8

// Extensions of lists, id-ce 2.5.29.
const (
	ExtNumber   = 20
	ExtDelta    = 27
	ExtIDP      = 28
	ExtAKI      = 35
	ExtFreshest = 46
)

func explicit(n uint8) asn1.Tag { return asn1.Tag(n).Constructed().ContextSpecific() }

// ErrMalformed is wrapped by the errors of Parse.
var ErrMalformed = errors.New("malformed CRL")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// List is a list as read, its signature not yet verified; see [List.Verify].
type List struct {
	Raw        []byte
	TBS        []byte
	Issuer     []byte // Name, DER
	ThisUpdate time.Time
	NextUpdate time.Time // zero: absent, which RFC 5280 §5.1.2.5 forbids
	Count      int       // of entries

	Number   *big.Int // nil: absent
	Base     *big.Int // of a delta; nil: complete
	KeyID    []byte   // authority key identifier; nil: absent
	Scope    Scope
	Point    []byte   // the issuingDistributionPoint that Scope was read from; nil: absent
	Freshest []string // where deltas are

	// Faults are breaches of RFC 5280 that leave the list readable.
	Faults []string

	Algorithm []byte // AlgorithmIdentifier
	Signature []byte

	entries  cryptobyte.String
	critical []string // unknown critical extensions
}

// Scope is what an issuingDistributionPoint says (RFC 5280 §5.2.5); its zero
// value is a list of everything that its issuer issued.
type Scope struct {
	URLs      []string
	Names     [][]byte // of its distribution point, GeneralNames (DER), the URLs too
	Named     bool     // it has a distribution point, maybe one without full names
	OnlyUsers bool
	OnlyCAs   bool
	Indirect  bool
	Partial   bool // only some reasons, or only attribute certificates
}

// Line is one entry of a list that was read. Its serial need not be of our form.
type Line struct {
	Serial  *big.Int
	Revoked time.Time
	Reason  int
	Invalid time.Time
}

func (l *List) fault(format string, args ...any) {
	if len(l.Faults) < 32 {
		l.Faults = append(l.Faults, fmt.Sprintf(format, args...))
	}
}

// Parse reads a list strictly as DER, all entries included. It keeps in, and no
// copy of the entries. What can be read and yet breaks RFC 5280 is in Faults.
func Parse(in []byte) (*List, error) {
	l := &List{Raw: in}
	input := cryptobyte.String(in)
	var body, tbs, alg, inner, part cryptobyte.String
	if !input.ReadASN1(&body, asn1.SEQUENCE) || !input.Empty() || !body.ReadASN1Element(&tbs, asn1.SEQUENCE) ||
		!body.ReadASN1Element(&alg, asn1.SEQUENCE) || !body.ReadASN1BitStringAsBytes(&l.Signature) || !body.Empty() {
		return nil, malformed("no CertificateList")
	}
	l.TBS, l.Algorithm = tbs, alg
	var version int
	var ok bool
	if !tbs.ReadASN1(&tbs, asn1.SEQUENCE) {
		return nil, malformed("no TBSCertList")
	}
	if tbs.PeekASN1Tag(asn1.INTEGER) {
		if !tbs.ReadASN1Integer(&version) || version != 1 {
			return nil, malformed("version %d", version)
		}
	} else {
		l.fault("version 1, without extensions: use 2 (§5.1.2.1)")
	}
	if !tbs.ReadASN1Element(&inner, asn1.SEQUENCE) || !bytes.Equal(inner, alg) {
		return nil, malformed("two signature algorithms that differ")
	}
	if bytes.HasPrefix(alg[2:], []byte("\x06\x08\x2a\x86\x48\xce\x3d\x04\x03")) && bytes.HasSuffix(alg, []byte{5, 0}) {
		l.fault("NULL parameters of an ECDSA signature (RFC 5758 §3.2)")
	}
	if !tbs.ReadASN1Element(&part, asn1.SEQUENCE) {
		return nil, malformed("no issuer")
	}
	l.Issuer = part
	var err error
	if l.ThisUpdate, err = l.time(&tbs, "thisUpdate"); err != nil {
		return nil, err
	}
	if tbs.PeekASN1Tag(asn1.UTCTime) || tbs.PeekASN1Tag(asn1.GeneralizedTime) {
		if l.NextUpdate, err = l.time(&tbs, "nextUpdate"); err != nil {
			return nil, err
		}
	} else {
		l.fault("no nextUpdate (§5.1.2.5)")
	}
	if !tbs.ReadOptionalASN1(&l.entries, &ok, asn1.SEQUENCE) {
		return nil, malformed("bad revokedCertificates")
	}
	if ok && l.entries.Empty() {
		l.fault("revokedCertificates is empty: leave it out (§5.1.2.6)")
	}
	if !tbs.ReadOptionalASN1(&part, &ok, explicit(0)) || !tbs.Empty() {
		return nil, malformed("bad crlExtensions")
	}
	if ok {
		if err := readExtensions(part, l.extension); err != nil {
			return nil, err
		}
	}
	if l.Number == nil {
		l.fault("no CRL number (§5.2.3)")
	}
	if l.KeyID == nil {
		l.fault("no authority key identifier (§5.2.1)")
	}
	if l.Base != nil && l.Freshest != nil {
		l.fault("a delta that names a freshest CRL (§5.2.6)")
	}
	for _, err := range l.Lines() {
		if err != nil {
			return nil, err
		}
		l.Count++
	}
	return l, nil
}

// time reads a Time and notes one that is in the wrong form for its year.
func (l *List) time(s *cryptobyte.String, what string) (time.Time, error) {
	general := s.PeekASN1Tag(asn1.GeneralizedTime)
	t, err := der.Time(s)
	if err != nil {
		return t, malformed("%s: %v", what, err)
	}
	if general != (t.Year() >= 2050 || t.Year() < 1950) {
		l.fault("%s %s is in the wrong form: UTCTime through 2049, GeneralizedTime from 2050 (§5.1.2.4)", what, t.Format(time.DateOnly))
	}
	return t, nil
}

// Lines are the entries in the order of the list. Parse has read them all, so
// after it there is no error; faults are noted on the first pass.
func (l *List) Lines() iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for s := l.entries; !s.Empty(); {
			line, err := l.line(&s)
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

func (l *List) line(s *cryptobyte.String) (x Line, err error) {
	var one, serial cryptobyte.String
	if !s.ReadASN1(&one, asn1.SEQUENCE) || !one.ReadASN1(&serial, asn1.INTEGER) || len(serial) == 0 ||
		len(serial) > 1 && (serial[0] == 0 && serial[1]&0x80 == 0 || serial[0] == 0xff && serial[1]&0x80 != 0) {
		return x, malformed("bad entry")
	}
	x.Serial = new(big.Int).SetBytes(serial)
	if serial[0]&0x80 != 0 {
		x.Serial.Sub(x.Serial, new(big.Int).Lsh(big.NewInt(1), uint(8*len(serial))))
	}
	if x.Revoked, err = l.time(&one, "revocationDate"); err != nil || one.Empty() {
		return x, err
	}
	return x, readExtensions(one, func(id int, critical bool, value cryptobyte.String) error {
		switch id {
		case 21:
			if !value.ReadASN1Enum(&x.Reason) || !value.Empty() || x.Reason < 0 || x.Reason > 10 {
				return malformed("bad reason code")
			}
			if x.Reason == 0 || x.Reason == 7 || x.Reason == RemoveFromCRL && l.Base == nil {
				l.fault("reason code %d (§5.3.1)", x.Reason)
			}
		case 24:
			general := value.PeekASN1Tag(asn1.GeneralizedTime)
			if x.Invalid, err = der.Time(&value); err != nil || !general || !value.Empty() {
				return malformed("bad invalidity date")
			}
		default:
			if critical {
				l.critical = append(l.critical[:min(len(l.critical), 7)], "of an entry")
			}
		}
		return nil
	})
}

// extension reads one crlExtension.
func (l *List) extension(id int, critical bool, value cryptobyte.String) error {
	marked := func(want bool, name string) {
		if critical != want {
			l.fault("%s must be critical: %t", name, want)
		}
	}
	switch id {
	case ExtAKI:
		var body, key cryptobyte.String
		var ok bool
		if !value.ReadASN1(&body, asn1.SEQUENCE) || !value.Empty() || !body.ReadOptionalASN1(&key, &ok, asn1.Tag(0).ContextSpecific()) {
			return malformed("bad authority key identifier")
		}
		if ok {
			l.KeyID = key
		}
		marked(false, "authorityKeyIdentifier")
	case ExtNumber, ExtDelta:
		n := new(big.Int)
		if !value.ReadASN1Integer(n) || !value.Empty() {
			return malformed("bad CRL number")
		}
		if n.Sign() < 0 || len(n.Bytes()) > 20 || n.BitLen() == 160 {
			l.fault("a CRL number below zero or of more than 20 octets (§5.2.3)")
		}
		if id == ExtNumber {
			l.Number = n
		} else {
			l.Base = n
		}
		marked(id == ExtDelta, map[bool]string{true: "deltaCRLIndicator", false: "cRLNumber"}[id == ExtDelta])
	case ExtIDP:
		l.Point = value
		marked(true, "issuingDistributionPoint")
		return l.scope(value)
	case ExtFreshest:
		var points, point cryptobyte.String
		if !value.ReadASN1(&points, asn1.SEQUENCE) || !value.Empty() || points.Empty() {
			return malformed("bad freshestCRL")
		}
		marked(false, "freshestCRL")
		for !points.Empty() {
			if !points.ReadASN1(&point, asn1.SEQUENCE) {
				return malformed("bad freshestCRL")
			}
			p, err := readPoint(&point)
			if err != nil {
				return err
			}
			if !point.Empty() {
				l.fault("freshestCRL says more than a distribution point's name (§5.2.6)")
			}
			l.Freshest = append(l.Freshest, p.urls...)
		}
	default:
		if critical {
			l.critical = append(l.critical, "of the list")
		}
	}
	return nil
}

// scope reads an issuingDistributionPoint.
func (l *List) scope(value cryptobyte.String) error {
	var body cryptobyte.String
	if !value.ReadASN1(&body, asn1.SEQUENCE) || !value.Empty() {
		return malformed("bad issuingDistributionPoint")
	}
	if body.Empty() {
		l.fault("issuingDistributionPoint is empty (§5.2.5)")
	}
	point, err := readPoint(&body)
	if err != nil {
		return err
	}
	l.Scope.URLs, l.Scope.Names, l.Scope.Named = point.urls, point.names, point.there
	attributes := false
	for _, flag := range []struct {
		tag asn1.Tag
		to  *bool
	}{
		{asn1.Tag(1), &l.Scope.OnlyUsers}, {asn1.Tag(2), &l.Scope.OnlyCAs}, {asn1.Tag(3), &l.Scope.Partial},
		{asn1.Tag(4), &l.Scope.Indirect}, {asn1.Tag(5), &attributes},
	} {
		var part cryptobyte.String
		var ok bool
		if !body.ReadOptionalASN1(&part, &ok, flag.tag.ContextSpecific()) {
			return malformed("bad issuingDistributionPoint")
		}
		if ok && flag.tag != 3 && string(part) != "\xff" {
			l.fault("issuingDistributionPoint writes out a default (§5.2.5)")
			ok = false
		}
		*flag.to = ok
	}
	if !body.Empty() {
		return malformed("bad issuingDistributionPoint")
	}
	if l.Scope.OnlyUsers && l.Scope.OnlyCAs || attributes {
		l.fault("issuingDistributionPoint: at most one of the onlyContains… flags, and not that of attribute certificates (§5.2.5)")
	}
	l.Scope.Partial = l.Scope.Partial || attributes
	return nil
}

// pointName is a DistributionPointName; one that is relative to the CRL's issuer has no names here.
type pointName struct {
	there bool
	names [][]byte // GeneralNames, DER
	urls  []string
}

// readPoint takes an optional distributionPoint [0] off s.
func readPoint(s *cryptobyte.String) (p pointName, err error) {
	var point, names cryptobyte.String
	var tag asn1.Tag
	if !s.ReadOptionalASN1(&point, &p.there, explicit(0)) {
		return p, malformed("bad distributionPoint")
	}
	if !p.there {
		return p, nil
	}
	if !point.ReadAnyASN1(&names, &tag) || !point.Empty() {
		return p, malformed("bad distributionPoint")
	}
	for tag == explicit(0) && !names.Empty() {
		var element, name cryptobyte.String
		var kind asn1.Tag
		if !names.ReadAnyASN1Element(&element, &kind) {
			return p, malformed("bad distributionPoint")
		}
		p.names = append(p.names, element)
		if kind == asn1.Tag(6).ContextSpecific() && element.ReadASN1(&name, kind) {
			p.urls = append(p.urls, string(name))
		}
	}
	return p, nil
}

// readExtensions reads Extensions; id is the last arc of an OID below id-ce, else −1.
func readExtensions(in cryptobyte.String, each func(id int, critical bool, value cryptobyte.String) error) error {
	var list cryptobyte.String
	if !in.ReadASN1(&list, asn1.SEQUENCE) || !in.Empty() || list.Empty() {
		return malformed("bad extensions")
	}
	var seen [128]bool
	for !list.Empty() {
		var ext, oid, flag, value cryptobyte.String
		var critical bool
		if !list.ReadASN1(&ext, asn1.SEQUENCE) || !ext.ReadASN1(&oid, asn1.OBJECT_IDENTIFIER) ||
			!ext.ReadOptionalASN1(&flag, &critical, asn1.BOOLEAN) || !ext.ReadASN1(&value, asn1.OCTET_STRING) || !ext.Empty() ||
			critical && string(flag) != "\xff" {
			return malformed("bad extension")
		}
		id := -1
		if len(oid) == 3 && oid[0] == 0x55 && oid[1] == 0x1d && oid[2] < 128 {
			id = int(oid[2])
			if seen[id] {
				return malformed("extension 2.5.29.%d twice", id)
			}
			seen[id] = true
		}
		if err := each(id, critical, value); err != nil {
			return err
		}
	}
	return nil
}
