package cmp

import (
	encasn1 "encoding/asn1"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte/asn1"
)

// The values of genm and genp (RFC 9810 §5.3.19, RFC 9483 §4.3). A function that
// makes an Info is named after the type; the method on Infos of that name reads it.

// CACerts returns the CA certificates of a genp in DER. None where there are none to give.
func (l Infos) CACerts() (certs [][]byte, found bool, err error) {
	return optionalInfo(l, OIDCACerts, "caCerts", func(r *in) [][]byte { return oneOrMore(r, "caCerts", readCert) })
}

// CACerts makes the answer to caCerts (RFC 9483 §4.3.1); without certificates, the
// question, or the answer that there are none.
func CACerts(certs ...[]byte) (Info, error) {
	return listInfo(OIDCACerts, certs, func(b *out, c []byte) { addRaw(b, c, "certificate") })
}

// RootCACert returns the root certificate that a rootCaCert question is about.
func (l Infos) RootCACert() (cert []byte, found bool, err error) {
	return optionalInfo(l, OIDRootCACert, "rootCaCert", readCert)
}

// RootCACert makes the question for what follows a root certificate (RFC 9483
// §4.3.2); nil where the CA is to know which.
func RootCACert(cert []byte) Info { return Info{OIDRootCACert, cert} }

//	RootCaKeyUpdateContent ::= SEQUENCE {
//	    newWithNew       CMPCertificate,
//	    newWithOld   [0] CMPCertificate OPTIONAL,
//	    oldWithNew   [1] CMPCertificate OPTIONAL }

// RootCAKeyUpdate is a RootCaKeyUpdateContent: certificates in DER, the last two
// nil when absent.
type RootCAKeyUpdate struct{ NewWithNew, NewWithOld, OldWithNew []byte }

// RootCAKeyUpdate returns the answer to rootCaCert; nil without one: nothing new.
func (l Infos) RootCAKeyUpdate() (update *RootCAKeyUpdate, found bool, err error) {
	return optionalInfo(l, OIDRootCAKeyUpdate, "rootCaKeyUpdate", func(r *in) *RootCAKeyUpdate {
		s := r.seq("RootCaKeyUpdateContent")
		v := &RootCAKeyUpdate{NewWithNew: s.cert("newWithNew")}
		v.NewWithOld = s.optName(0, "newWithOld")
		v.OldWithNew = s.optName(1, "oldWithNew")
		s.end("RootCaKeyUpdateContent")
		return v
	})
}

// Info makes the answer to rootCaCert; of a nil update, that there is nothing new.
func (u *RootCAKeyUpdate) Info() (Info, error) {
	if u == nil {
		return Info{Type: OIDRootCAKeyUpdate}, nil
	}
	return makeInfo(OIDRootCAKeyUpdate, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addRaw(b, u.NewWithNew, "newWithNew")
			for n, c := range [][]byte{u.NewWithOld, u.OldWithNew} {
				if c != nil {
					addExplicit(b, uint8(n), func(b *out) { addRaw(b, c, "certificate") })
				}
			}
		})
	})
}

//	CertReqTemplateContent ::= SEQUENCE {
//	    certTemplate           CertTemplate,
//	    keySpec                Controls OPTIONAL }

// CertReqTemplate is a CertReqTemplateContent: what a request should look like
// (RFC 9483 §4.3.3). KeySpec holds KeySpecAlgorithm and KeySpecRSA elements.
type CertReqTemplate struct {
	Template CertTemplate
	KeySpec  Attributes
}

// CertReqTemplate returns the answer to certReqTemplate; nil without requirements.
func (l Infos) CertReqTemplate() (t *CertReqTemplate, found bool, err error) {
	return optionalInfo(l, OIDCertReqTemplate, "certReqTemplate", readCertReqTemplate)
}

func readCertReqTemplate(r *in) *CertReqTemplate {
	s := r.seq("CertReqTemplateContent")
	t := &CertReqTemplate{Template: readTemplate(&s)}
	if s.has(asn1.SEQUENCE) {
		t.KeySpec = oneOrMore(&s, "keySpec", readAttribute)
	}
	s.end("CertReqTemplateContent")
	return t
}

// Info makes the answer to certReqTemplate; of a nil template, the question or the
// answer that nothing is required.
func (t *CertReqTemplate) Info() (Info, error) {
	if t == nil {
		return Info{Type: OIDCertReqTemplate}, nil
	}
	return makeInfo(OIDCertReqTemplate, func(b *out) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			addTemplate(b, &t.Template)
			if len(t.KeySpec) > 0 {
				addList(b, t.KeySpec, addAttribute)
			}
		})
	})
}

//	CRLStatus ::= SEQUENCE {
//	    source       CRLSource,
//	    thisUpdate   Time OPTIONAL }
//	CRLSource ::= CHOICE {
//	    dpn          [0] DistributionPointName,
//	    issuer       [1] GeneralNames }
//	DistributionPointName ::= CHOICE {
//	    fullName                [0] GeneralNames,               -- IMPLICIT
//	    nameRelativeToCRLIssuer [1] RelativeDistinguishedName } -- IMPLICIT

// CRLStatus says which CRL the sender wants, and which it has (RFC 9483 §4.3.4).
// One of the first three fields is set.
type CRLStatus struct {
	FullName   []GeneralName // distribution point
	Relative   []byte        // distribution point: what [1] IMPLICIT contains
	Issuer     []GeneralName
	ThisUpdate Time // of the CRL at hand; zero when absent
}

// CRLStatusList returns the CRLs that a genm asks for.
func (l Infos) CRLStatusList() (list []CRLStatus, found bool, err error) {
	return infoOf(l, OIDCRLStatusList, "crlStatusList", func(r *in) []CRLStatus {
		return oneOrMore(r, "crlStatusList", readCRLStatus)
	})
}

func readCRLStatus(r *in) CRLStatus {
	s := r.seq("CRLStatus")
	var v CRLStatus
	if s.has(context(0)) {
		dpn := s.sub(context(0), "dpn")
		if dpn.has(context(0)) {
			names := dpn.sub(context(0), "fullName")
			v.FullName = readAll(&names, "fullName", readGeneralName)
			if len(v.FullName) == 0 {
				dpn.fail("fullName")
			}
		} else {
			v.Relative = octetsOf(dpn.sub(context(1), "nameRelativeToCRLIssuer").s)
		}
		dpn.end("dpn")
	} else {
		e := s.sub(context(1), "issuer")
		v.Issuer = oneOrMore(&e, "issuer", readGeneralName)
		e.end("issuer")
	}
	if !s.s.Empty() {
		v.ThisUpdate = s.anyTime("thisUpdate")
	}
	s.end("CRLStatus")
	return v
}

// CRLStatusList makes the question for newer CRLs.
func CRLStatusList(list ...CRLStatus) (Info, error) {
	return listInfo(OIDCRLStatusList, list, func(b *out, v CRLStatus) {
		b.AddASN1(asn1.SEQUENCE, func(b *out) {
			switch {
			case v.FullName != nil:
				addExplicit(b, 0, func(b *out) {
					addExplicit(b, 0, func(b *out) {
						for _, n := range v.FullName {
							addGeneralName(b, n)
						}
					})
				})
			case v.Relative != nil:
				addExplicit(b, 0, func(b *out) { addExplicit(b, 1, func(b *out) { b.AddBytes(v.Relative) }) })
			default:
				addExplicit(b, 1, func(b *out) { addList(b, v.Issuer, addGeneralName) })
			}
			switch t := v.ThisUpdate; {
			case t.At.IsZero():
			case t.Generalized || t.At.UTC().Year() > 2049:
				addTime(b, t.At.Truncate(time.Second))
			default:
				b.AddASN1UTCTime(t.At.UTC())
			}
		})
	})
}

// CRLs returns the CRLs of a genp in DER. None where there is nothing newer.
func (l Infos) CRLs() (crls [][]byte, found bool, err error) {
	return optionalInfo(l, OIDCRLs, "crls", func(r *in) [][]byte { return oneOrMore(r, "crls", readCert) })
}

// CRLs makes the answer to crlStatusList; without CRLs, that there is nothing newer.
func CRLs(crls ...[]byte) (Info, error) {
	return listInfo(OIDCRLs, crls, func(b *out, c []byte) { addRaw(b, c, "CRL") })
}

// Algorithms returns the value of signKeyPairTypes or encKeyPairTypes, by type.
func (l Infos) Algorithms(oid encasn1.ObjectIdentifier) (list []Algorithm, found bool, err error) {
	return optionalInfo(l, oid, "algorithms", func(r *in) []Algorithm { return oneOrMore(r, "algorithms", readAlgorithm) })
}

// SignKeyPairTypes makes the answer to signKeyPairTypes: the algorithms of
// signature keys that the CA certifies, the best first; without any, the question.
func SignKeyPairTypes(list ...Algorithm) (Info, error) {
	return listInfo(OIDSignKeyPairTypes, list, addAlgorithm)
}

// EncKeyPairTypes is like [SignKeyPairTypes], for keys that encrypt or agree on keys.
func EncKeyPairTypes(list ...Algorithm) (Info, error) {
	return listInfo(OIDEncKeyPairTypes, list, addAlgorithm)
}

// PreferredSymmAlg returns the symmetric algorithm that the CA prefers.
func (l Infos) PreferredSymmAlg() (alg Algorithm, found bool, err error) {
	return optionalInfo(l, OIDPreferredSymmAlg, "preferredSymmAlg", readAlgorithm)
}

// PreferredSymmAlg makes the answer to preferredSymmAlg.
func PreferredSymmAlg(alg Algorithm) Info { return Info{OIDPreferredSymmAlg, alg.DER()} }

// UnsupportedOIDs makes the list of what was asked for and is not known (RFC 9810 §5.3.19.7).
func UnsupportedOIDs(list ...encasn1.ObjectIdentifier) (Info, error) {
	return listInfo(OIDUnsupportedOIDs, list, func(b *out, oid encasn1.ObjectIdentifier) { b.AddASN1ObjectIdentifier(oid) })
}

// UnsupportedOIDs returns what the sender did not know.
func (l Infos) UnsupportedOIDs() (list []encasn1.ObjectIdentifier, found bool, err error) {
	return infoOf(l, OIDUnsupportedOIDs, "unsupportedOIDs", func(r *in) []encasn1.ObjectIdentifier {
		return oneOrMore(r, "unsupportedOIDs", func(r *in) encasn1.ObjectIdentifier { return r.oid("OBJECT IDENTIFIER") })
	})
}

// CurrentCRL returns the CRL of a genp in DER.
func (l Infos) CurrentCRL() (crl []byte, found bool, err error) {
	return optionalInfo(l, OIDCurrentCRL, "currentCRL", readCert)
}

// CurrentCRL makes the answer to currentCRL; of nil, the question.
func CurrentCRL(crl []byte) Info { return Info{OIDCurrentCRL, crl} }

// optionalInfo is infoOf for types whose value may be absent, which gives the zero value.
func optionalInfo[T any](l Infos, oid encasn1.ObjectIdentifier, what string, read func(*in) T) (v T, found bool, err error) {
	if info, found := l.Get(oid); found && info.Value == nil {
		return v, true, nil
	}
	return infoOf(l, oid, what, read)
}

func makeInfo(oid encasn1.ObjectIdentifier, f func(*out)) (Info, error) {
	raw, err := encode(512, f)
	if err != nil {
		return Info{}, fmt.Errorf("%s: %w", oidName(oid), err)
	}
	return Info{oid, raw}, nil
}

func listInfo[T any](oid encasn1.ObjectIdentifier, list []T, add func(*out, T)) (Info, error) {
	if len(list) == 0 {
		return Info{Type: oid}, nil
	}
	return makeInfo(oid, func(b *out) { addList(b, list, add) })
}
