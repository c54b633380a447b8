package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

// general answers genm (RFC 9483 §4.3, RFC 9810 §5.3.19). It changes nothing and
// spends nothing, so no transaction is kept.
func (x *exchange) general(ctx context.Context, b *cmp.General) ([]byte, error) {
	if err := x.Authority.MayActFor(ctx, x.requester, ca.Deed{Act: ca.ActAsk, Approvers: x.approvers}); err != nil {
		return nil, err
	}
	if len(b.Infos) == 0 {
		return x.everything()
	}
	var infos cmp.Infos
	var unknown []asn1.ObjectIdentifier
	for _, asked := range b.Infos {
		info, known, err := x.inform(ctx, asked)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = append(unknown, asked.Type)
			continue
		}
		infos = append(infos, info)
	}
	if len(unknown) > 0 {
		info, err := cmp.UnsupportedOIDs(unknown...)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return x.send(&cmp.General{Response: true, Infos: infos})
}

// inform answers one question; known is false for what is not offered.
func (x *exchange) inform(ctx context.Context, asked cmp.Info) (answer cmp.Info, known bool, err error) {
	known = true
	if err := checkInfoValue(asked); err != nil {
		return answer, known, err
	}
	switch {
	case asked.Type.Equal(cmp.OIDCACerts):
		answer, err = cmp.CACerts(x.Authority.Anchors()...)
	case asked.Type.Equal(cmp.OIDRootCACert):
		var update *cmp.RootCAKeyUpdate
		if update, err = x.rootUpdate(asked); err == nil {
			answer, err = update.Info()
		}
	case asked.Type.Equal(cmp.OIDCertReqTemplate):
		var template *cmp.CertReqTemplate
		if template, err = x.template(); err == nil {
			answer, err = template.Info()
		}
	case asked.Type.Equal(cmp.OIDSignKeyPairTypes):
		var profile policy.Profile
		if profile, err = x.profileFor(); err == nil {
			answer, err = cmp.SignKeyPairTypes(keyAlgorithms(signingKeys(profile))...)
		}
	case asked.Type.Equal(cmp.OIDEncKeyPairTypes):
		var profile policy.Profile
		if profile, err = x.profileFor(); err == nil {
			answer, err = cmp.EncKeyPairTypes(keyAlgorithms(encryptionKeys(profile))...)
		}
	case asked.Type.Equal(cmp.OIDPreferredSymmAlg):
		answer = cmp.PreferredSymmAlg(cmp.Algorithm{OID: oidAES256CBC})
	case asked.Type.Equal(cmp.OIDCAProtEncCert):
		answer = cmp.Info{Type: cmp.OIDCAProtEncCert} // there is none: nothing is encrypted for this CA
	case asked.Type.Equal(cmp.OIDSuppLangTags):
		answer, err = language(asked)
	case asked.Type.Equal(cmp.OIDCRLStatusList) && x.Lists != nil:
		answer, err = x.crls(ctx, asked)
	case asked.Type.Equal(cmp.OIDCurrentCRL) && x.Lists != nil:
		answer, err = x.currentCRL(ctx)
	default:
		known = false
	}
	return answer, known, err
}

// valueless are the questions that RFC 9810 §5.3.19 and RFC 9483 §4.3 have without an infoValue.
var valueless = []asn1.ObjectIdentifier{cmp.OIDCAProtEncCert, cmp.OIDSignKeyPairTypes, cmp.OIDEncKeyPairTypes, cmp.OIDPreferredSymmAlg,
	cmp.OIDCurrentCRL, cmp.OIDCACerts, cmp.OIDCertReqTemplate}

// checkInfoValue checks that a question has a value where it must have one, and has none where it must not.
func checkInfoValue(asked cmp.Info) error {
	switch {
	case asked.Value != nil && slices.ContainsFunc(valueless, asked.Type.Equal):
		return refuse(cmp.BadRequest, "RFC 9483 §4.3", "the question %s has an infoValue, and must have none", asked.Type)
	case asked.Value == nil && asked.Type.Equal(cmp.OIDCRLStatusList):
		return refuse(cmp.BadRequest, "RFC 9483 §4.3.4", "crlStatusList has no infoValue: say which CRL is asked for")
	}
	return nil
}

// everything answers a genm without questions: what a requester may want to know
// before it asks for a certificate (RFC 9810 Appendix D.5).
func (x *exchange) everything() ([]byte, error) {
	infos := cmp.Infos{cmp.PreferredSymmAlg(cmp.Algorithm{OID: oidAES256CBC})}
	// Whose profile is not known here is told the rest.
	if profile, err := x.profileFor(); err == nil {
		for _, ask := range []func() (cmp.Info, error){
			func() (cmp.Info, error) { return cmp.SignKeyPairTypes(keyAlgorithms(signingKeys(profile))...) },
			func() (cmp.Info, error) { return cmp.EncKeyPairTypes(keyAlgorithms(encryptionKeys(profile))...) },
		} {
			info, err := ask()
			if err != nil {
				return nil, err
			}
			if info.Value != nil {
				infos = append(infos, info)
			}
		}
	}
	return x.send(&cmp.General{Response: true, Infos: infos})
}

// language chooses English, which is what we write (RFC 9810 §5.3.19.13).
func language(asked cmp.Info) (cmp.Info, error) {
	tags, _, err := cmp.Infos{asked}.SupportedLangTags()
	if err != nil {
		return cmp.Info{}, err
	}
	for _, tag := range tags {
		if primary, _, _ := strings.Cut(tag, "-"); strings.EqualFold(primary, "en") {
			return cmp.SupportedLangTags(tag), nil
		}
	}
	return cmp.Info{}, refuse(cmp.BadRequest, "RFC 9810 §5.3.19.13", "none of the languages offered is written here: offer en")
}

// rootUpdate says what follows a root (RFC 9483 §4.3.2): the newest root that a certificate leads to from it, and the
// certificates that lead between the two. It is nil if there is no such update: the root asked about is the newest, or none
// of ours. Without an infoValue it is about the root before the newest. After several rotations a device asks again about what it got.
func (x *exchange) rootUpdate(asked cmp.Info) (update *cmp.RootCAKeyUpdate, err error) {
	old, _, err := cmp.Infos{asked}.RootCACert()
	if err != nil {
		return nil, err
	}
	records, role := x.Authority.Issuers(), "root"
	if i := slices.IndexFunc(records, func(r ca.IssuerRecord) bool { return r.IsRoot() && bytes.Equal(r.Cert, old) }); i >= 0 {
		role = records[i].Role
	}
	roots := slices.DeleteFunc(slices.Clone(records), func(r ca.IssuerRecord) bool { return r.Role != role }) // oldest first
	if old == nil && len(roots) > 1 {
		old = roots[len(roots)-2].Cert
	}
	if old == nil {
		return nil, nil
	}
	for _, r := range roots {
		if bytes.Equal(r.Cert, old) {
			update = nil // what follows comes after it
			continue
		}
		if r.Revoked != nil {
			continue
		}
		next, err := between(old, r.Cert, records, x.Now())
		if err != nil {
			return nil, err
		}
		if next.NewWithOld != nil { // which is REQUIRED, and without which the new root would have to be believed
			update = next
		}
	}
	return update, nil
}

// between is an update from one root to another, with the certificates that lead between them as far as there are such
// and they are valid.
func between(old, newest []byte, records []ca.IssuerRecord, at time.Time) (*cmp.RootCAKeyUpdate, error) {
	update := &cmp.RootCAKeyUpdate{NewWithNew: newest}
	now, err := x509.ParseCertificate(newest)
	if err != nil {
		return nil, err
	}
	was, err := x509.ParseCertificate(old)
	if err != nil {
		return nil, refuse(cmp.BadDataFormat, "RFC 9483 §4.3.2", "the root certificate asked about cannot be read")
	}
	for _, r := range records {
		c, err := x509.ParseCertificate(r.Cert)
		if r.Role != "cross" || err != nil || !at.Before(c.NotAfter) {
			continue
		}
		if bytes.Equal(c.RawSubjectPublicKeyInfo, now.RawSubjectPublicKeyInfo) && bytes.Equal(c.RawIssuer, was.RawSubject) {
			update.NewWithOld = r.Cert
		}
		if bytes.Equal(c.RawSubjectPublicKeyInfo, was.RawSubjectPublicKeyInfo) && bytes.Equal(c.RawIssuer, now.RawSubject) {
			update.OldWithNew = r.Cert
		}
	}
	return update, nil
}

// profileFor is the profile that the message is about.
func (x *exchange) profileFor() (policy.Profile, error) {
	name, err := x.profileAsked()
	if err != nil {
		return policy.Profile{}, err
	}
	if old := x.requester.Certificate; name == "" && old != nil {
		name = old.Profile
	}
	return x.Authority.ProfileFor(x.requester, name)
}

// template says what a request should look like (RFC 9483 §4.3.3): the device's
// name, and which keys.
func (x *exchange) template() (*cmp.CertReqTemplate, error) {
	profile, err := x.profileFor()
	if err != nil {
		return nil, err
	}
	t := &cmp.CertReqTemplate{}
	if id := x.requester.Device; id != "" {
		subject := pkix.Name{CommonName: id}.ToRDNSequence()
		if t.Template.Subject, err = asn1.Marshal(subject); err != nil {
			return nil, err
		}
	}
	for _, key := range profile.Keys {
		if bits, ok := strings.CutPrefix(key, "rsa-"); ok {
			if n, err := strconv.Atoi(bits); err == nil {
				t.KeySpec = append(t.KeySpec, cmp.KeySpecRSA(n))
			}
		}
	}
	for _, a := range keyAlgorithms(profile.Keys) {
		if !a.OID.Equal(oidRSA) {
			t.KeySpec = append(t.KeySpec, cmp.KeySpecAlgorithm(a))
		}
	}
	return t, nil
}
