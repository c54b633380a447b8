package revlist

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/internal/der"
)

// ErrNotTrusted is wrapped by the errors of Verify and Lookup.
var ErrNotTrusted = errors.New("the CRL is not to be used")

func distrust(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrNotTrusted}, args...)...)
}

// IsOf reports whether a list says that issuer signed it: by its name and, where both have
// one, by its key identifier. Nothing is verified.
func (l *List) IsOf(issuer *x509.Certificate) error {
	switch {
	case !der.SameName(l.Issuer, issuer.RawSubject):
		return distrust("another CA issued it than %s", issuer.Subject)
	case l.KeyID != nil && len(issuer.SubjectKeyId) > 0 && !bytes.Equal(l.KeyID, issuer.SubjectKeyId):
		return distrust("another key of %s signed it; find that generation's certificate", issuer.Subject)
	}
	return nil
}

// Verify checks that issuer signed the list, with SHA-256 or better, that it is current at now,
// and that nothing critical in it is unknown here (RFC 5280 §6.3.3). Faults do not make it fail.
func (l *List) Verify(issuer *x509.Certificate, now time.Time) error {
	if err := l.IsOf(issuer); err != nil {
		return err
	}
	switch {
	case issuer.KeyUsage != 0 && issuer.KeyUsage&x509.KeyUsageCRLSign == 0:
		return distrust("%s may not sign CRLs", issuer.Subject)
	case len(l.critical) > 0:
		return distrust("it has an unknown critical extension, %s", l.critical[0])
	case l.Scope.Indirect || l.Scope.Partial:
		return distrust("it is indirect or for some reasons only")
	case l.NextUpdate.IsZero():
		return distrust("it has no nextUpdate, so it could be of any age")
	case l.ThisUpdate.After(now):
		return distrust("it begins in the future, at %s; check the clock", l.ThisUpdate.Format(time.RFC3339))
	case l.NextUpdate.Before(now):
		return distrust("it ended at %s; fetch a new one", l.NextUpdate.Format(time.RFC3339))
	}
	alg := der.SignatureOf(l.Algorithm)
	if err := der.AcceptSignature(alg); err != nil {
		return distrust("%v", err)
	}
	if err := der.AcceptKey(issuer.PublicKey); err != nil {
		return distrust("%s: %v", issuer.Subject, err)
	}
	if err := issuer.CheckSignature(alg, l.TBS, l.Signature); err != nil {
		return distrust("its signature is wrong: %v", err)
	}
	return nil
}

// CheckDelta reports whether delta may be combined with l (RFC 5280 §5.2.4): one
// issuer and key, one scope, a base no newer than l, and a delta newer than l.
func (l *List) CheckDelta(delta *List) error {
	switch {
	case l.Base != nil || delta.Base == nil:
		return distrust("a delta completes a complete CRL, in this order")
	case !der.SameName(l.Issuer, delta.Issuer) || !bytes.Equal(l.KeyID, delta.KeyID):
		return distrust("the delta is of another issuer or key")
	case !bytes.Equal(l.Point, delta.Point):
		return distrust("the delta is of another scope")
	case l.Number == nil || delta.Number == nil:
		return distrust("a CRL without a number")
	case l.Number.Cmp(delta.Base) < 0:
		return distrust("the delta needs the complete CRL number %s or later, this is %s; fetch it", delta.Base, l.Number)
	case l.Number.Cmp(delta.Number) > 0:
		return distrust("the delta, number %s, is older than the complete CRL, %s", delta.Number, l.Number)
	}
	return nil
}

// Lookup says whether a serial is revoked: nil if it is not. delta may be nil. It
// goes through the entries one by one. Verify both lists first, and see that
// the scope holds the certificate ([List.Covers]).
func Lookup(complete, delta *List, serial *big.Int) (*Line, error) {
	if complete.Base != nil {
		return nil, distrust("a delta alone says nothing of the rest")
	}
	if delta != nil {
		if err := complete.CheckDelta(delta); err != nil {
			return nil, err
		}
		if line := delta.Find(serial); line != nil {
			if line.Reason == RemoveFromCRL {
				return nil, nil
			}
			return line, nil
		}
	}
	return complete.Find(serial), nil
}

// Find looks for an entry, one by one; nil if there is none. Of several the first that revokes counts.
func (l *List) Find(serial *big.Int) (found *Line) {
	for line := range l.Lines() {
		if line.Serial.Cmp(serial) != 0 {
			continue
		}
		if line.Reason != RemoveFromCRL {
			return &line
		}
		found = &line
	}
	return found
}

// Covers reports whether cert is within the list's scope: a list with a distribution point
// covers the certificates that have one of its names in a distribution point of theirs that is
// for all reasons and the CA's own (§6.3.3 b 2, d), or whose issuer is that name.
func (l *List) Covers(cert *x509.Certificate) bool {
	if !der.SameName(l.Issuer, cert.RawIssuer) || l.Scope.OnlyUsers && cert.IsCA || l.Scope.OnlyCAs && !cert.IsCA {
		return false
	}
	if !l.Scope.Named {
		return true
	}
	mine := append(namesOfPoints(cert), directoryName(cert.RawIssuer))
	return slices.ContainsFunc(l.Scope.Names, func(name []byte) bool {
		return slices.ContainsFunc(mine, func(named []byte) bool { return sameGeneralName(name, named) })
	})
}

// sameGeneralName compares names of distribution points: octet by octet, but directoryNames as Names.
func sameGeneralName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	one, other := cryptobyte.String(a), cryptobyte.String(b)
	var x, y cryptobyte.String
	return one.ReadASN1(&x, explicit(4)) && other.ReadASN1(&y, explicit(4)) && der.SameName(x, y)
}

func directoryName(dn []byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(explicit(4), func(b *cryptobyte.Builder) { b.AddBytes(dn) })
	return b.BytesOrPanic()
}

var oidDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}

// namesOfPoints are the names of a certificate's distribution points (RFC 5280 §4.2.1.13) but
// for those with reasons or a cRLIssuer, whose lists are partial or indirect.
func namesOfPoints(cert *x509.Certificate) (names [][]byte) {
	i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidDistributionPoints) })
	if i < 0 {
		return nil
	}
	value := cryptobyte.String(cert.Extensions[i].Value)
	var list, one cryptobyte.String
	if !value.ReadASN1(&list, cbasn1.SEQUENCE) || !value.Empty() {
		return nil
	}
	for !list.Empty() {
		if !list.ReadASN1(&one, cbasn1.SEQUENCE) {
			return nil
		}
		if p, err := readPoint(&one); err == nil && one.Empty() {
			names = append(names, p.names...)
		}
	}
	return names
}
