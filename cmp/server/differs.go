package server

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// differs says how the certificate is not what was asked for. A CA may change every field of a template but the
// key (RFC 4211 §5); then the status is grantedWithMods (RFC 9810 §5.2.3). Whether an extension is
// critical is not compared: the profile decides, and the extension says the same.
func differs(w wanted, der []byte) (text []string, err error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if w.issuer != nil && !cmp.SameName(w.issuer, cert.RawIssuer) {
		text = append(text, "the issuer is "+printable(cert.Issuer.String())+", not the one asked for")
	}
	names, err := namesOf(cert)
	if err != nil {
		return nil, err
	}
	if len(w.names.Subject) > 0 && !sameSubject(w.names.Subject, names.Subject) || w.subject != nil && !cmp.SameName(w.subject, cert.RawSubject) {
		text = append(text, "the subject is "+printable(cert.Subject.String()))
	}
	if len(w.names.SANs) > 0 && !sameSANs(w.names.SANs, names.SANs) {
		text = append(text, "the subject alternative names are not those asked for")
	}
	if !w.notBefore.IsZero() && !cert.NotBefore.Equal(w.notBefore) {
		text = append(text, "the certificate begins at "+cert.NotBefore.UTC().Format(time.RFC3339))
	}
	if !w.notAfter.IsZero() && !cert.NotAfter.Equal(w.notAfter) {
		text = append(text, "the profile ends at "+cert.NotAfter.UTC().Format(time.RFC3339))
	}
	for _, asked := range w.extensions {
		i := slices.IndexFunc(cert.Extensions, func(e pkix.Extension) bool { return len(asked.Id) > 0 && e.Id.Equal(asked.Id) })
		switch {
		case len(asked.Id) == 0:
			text = append(text, "an extension that was asked for is not given by the profile")
		case i < 0:
			text = append(text, "the profile gives no extension "+asked.Id.String())
		case !sameExtension(asked, cert.Extensions[i]):
			text = append(text, "extension "+asked.Id.String()+" has another value than asked for")
		}
	}
	return text, nil
}

func namesOf(cert *x509.Certificate) (ca.Names, error) {
	var san []byte
	for _, e := range cert.Extensions {
		if e.Id.Equal(oidSubjectAltName) {
			san = e.Value
		}
	}
	return ca.ParseNames(cert.RawSubject, san)
}

// sameSubject compares without case, as names compare (RFC 5280 §7.1).
func sameSubject(a, b []ca.Attribute) bool {
	return slices.EqualFunc(a, b, func(a, b ca.Attribute) bool { return a.Attr == b.Attr && strings.EqualFold(a.Value, b.Value) })
}

// sameSANs compares as sets, without case: the ledger has seen to it that none is another's.
func sameSANs(a, b []ca.SAN) bool {
	within := func(a, b []ca.SAN) bool {
		return !slices.ContainsFunc(a, func(one ca.SAN) bool {
			return !slices.ContainsFunc(b, func(other ca.SAN) bool { return one.Form == other.Form && strings.EqualFold(one.Value, other.Value) })
		})
	}
	return within(a, b) && within(b, a)
}

// sameExtension reports whether two extensions of one type say the same: bits that clients write beyond the last
// that is set, and the order of purposes, say nothing.
func sameExtension(a, b pkix.Extension) bool {
	switch {
	case bytes.Equal(a.Value, b.Value):
		return true
	case a.Id.Equal(oidKeyUsage):
		var x, y asn1.BitString
		if !whole(a.Value, &x) || !whole(b.Value, &y) {
			return false
		}
		for i := range max(x.BitLength, y.BitLength) {
			if x.At(i) != y.At(i) {
				return false
			}
		}
		return true
	case a.Id.Equal(oidExtKeyUsage):
		x, ok := purposes(a.Value)
		y, okToo := purposes(b.Value)
		return ok && okToo && maps.Equal(x, y)
	}
	return false
}

// whole decodes the whole of raw.
func whole(raw []byte, into any) bool {
	rest, err := asn1.Unmarshal(raw, into)
	return err == nil && len(rest) == 0
}

// purposes are those of an extKeyUsage, DER: arcs may be longer than an int.
func purposes(value []byte) (set map[string]bool, ok bool) {
	var list []asn1.RawValue
	if !whole(value, &list) {
		return nil, false
	}
	set = map[string]bool{}
	for _, v := range list {
		set[string(v.FullBytes)] = true
	}
	return set, true
}

func derOID(oid asn1.ObjectIdentifier) []byte {
	raw, _ := asn1.Marshal(oid) // these are our own
	return raw
}
