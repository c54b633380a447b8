package server

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strconv"
	"strings"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/policy"
)

// general answers genm (RFC 9483 §4.3, RFC 9810 §5.3.19). It changes nothing and
// spends nothing, so no transaction is kept.
func (x *exchange) general(ctx context.Context, b *cmp.General) ([]byte, error) {
	var infos cmp.Infos
	var unknown []asn1.ObjectIdentifier
	for _, asked := range b.Infos {
		info, known, err := x.inform(asked)
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
func (x *exchange) inform(asked cmp.Info) (answer cmp.Info, known bool, err error) {
	known = true
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
			answer, err = cmp.SignKeyPairTypes(keyAlgorithms(profile.Keys)...)
		}
	default:
		known = false
	}
	return answer, known, err
}

// rootUpdate says what follows a root (RFC 9483 §4.3.2): the newest root and the
// certificates that lead between the two; nil if the one asked about is the newest.
func (x *exchange) rootUpdate(asked cmp.Info) (*cmp.RootCAKeyUpdate, error) {
	old, _, err := cmp.Infos{asked}.RootCACert()
	if err != nil {
		return nil, err
	}
	var newest *ca.IssuerRecord
	records := x.Authority.Issuers()
	for i, r := range records {
		if r.Role == "root" && r.Revoked == nil && (newest == nil || newest.Generation < r.Generation) {
			newest = &records[i]
		}
	}
	if newest == nil || bytes.Equal(newest.Cert, old) {
		return nil, nil
	}
	update := &cmp.RootCAKeyUpdate{NewWithNew: newest.Cert}
	if old == nil {
		return update, nil
	}
	now, err := x509.ParseCertificate(newest.Cert)
	if err != nil {
		return nil, err
	}
	was, err := x509.ParseCertificate(old)
	if err != nil {
		return nil, refuse(cmp.BadDataFormat, "RFC 9483 §4.3.2", "the root certificate asked about cannot be read")
	}
	for _, r := range records {
		c, err := x509.ParseCertificate(r.Cert)
		if r.Role != "cross" || err != nil {
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

var (
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
	curves     = map[string]asn1.ObjectIdentifier{
		"ecdsa-p256": {1, 2, 840, 10045, 3, 1, 7}, "ecdsa-p384": {1, 3, 132, 0, 34}, "ecdsa-p521": {1, 3, 132, 0, 35}}
)

// keyAlgorithms are the algorithms of keys, by policy's names, each once.
func keyAlgorithms(keys []string) (list []cmp.Algorithm) {
	rsa := false
	for _, key := range keys {
		switch curve, ok := curves[key]; {
		case ok:
			params, _ := asn1.Marshal(curve)
			list = append(list, cmp.Algorithm{OID: oidEC, Params: params})
		case key == "ed25519":
			list = append(list, cmp.Algorithm{OID: oidEd25519})
		case strings.HasPrefix(key, "rsa-") && !rsa:
			rsa = true
			list = append(list, cmp.Algorithm{OID: oidRSA, Params: []byte{5, 0}})
		}
	}
	return list
}
