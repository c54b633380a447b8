package server_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// lists are CRLs by URI, and by the name of their CA.
type lists map[string][]byte

// Newer is part of server.Lists.
func (l lists) Newer(_ context.Context, uri, issuer string, since time.Time, limit int64) ([]byte, error) {
	raw := l[uri+issuer]
	if raw == nil {
		return nil, nil
	}
	list, err := x509.ParseRevocationList(raw)
	switch {
	case err != nil || !list.ThisUpdate.After(since):
		return nil, err
	case int64(len(raw)) > limit:
		return nil, server.ErrTooLong
	}
	return raw, nil
}

// crl makes a list of the issuing CA with so many entries.
func (e *env) crl(thisUpdate time.Time, entries int) []byte {
	e.t.Helper()
	issuing, _ := e.core.CACert("issuing")
	list := &x509.RevocationList{Number: big.NewInt(7), ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(time.Hour)}
	for i := range entries {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i + 1)), RevocationTime: thisUpdate})
	}
	return must[[]byte](e.t)(x509.CreateRevocationList(rand.Reader, list, must[*x509.Certificate](e.t)(x509.ParseCertificate(issuing)), e.keys["issuing-1"]))
}

// RFC 9483 §4.3.4, RFC 9810 §5.3.19.6.
func TestCRLs(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	now := time.Now().UTC().Truncate(time.Second)
	whole, part, long := e.crl(now, 3), e.crl(now.Add(-time.Hour), 1), e.crl(now, 120_000)
	point := own.crt.CRLDistributionPoints[0]
	e.server.Lists = lists{point: part, "issuing-1": whole, "http://ca.test:8080/crl/long.crl": long}
	uri := func(since time.Time, uris ...string) cmp.CRLStatus {
		v := cmp.CRLStatus{ThisUpdate: cmp.Time{At: since}}
		for _, u := range uris {
			v.FullName = append(v.FullName, cmp.URIName(u))
		}
		return v
	}
	issuer := func(since time.Time, dn []byte) cmp.CRLStatus {
		return cmp.CRLStatus{Issuer: []cmp.GeneralName{cmp.DirectoryName(dn)}, ThisUpdate: cmp.Time{At: since, Generalized: true}}
	}
	for _, c := range []struct {
		name  string
		asked []cmp.CRLStatus
		want  [][]byte
		fails cmp.FailInfo
	}{
		{"distribution point, none at hand", []cmp.CRLStatus{uri(time.Time{}, point)}, [][]byte{part}, 0},
		{"distribution point, an older one at hand", []cmp.CRLStatus{uri(now.Add(-2*time.Hour), point)}, [][]byte{part}, 0},
		{"distribution point, the same at hand", []cmp.CRLStatus{uri(now.Add(-time.Hour), point)}, nil, 0},
		{"distribution point, a newer one at hand", []cmp.CRLStatus{uri(now, point)}, nil, 0},
		{"the second name of a distribution point", []cmp.CRLStatus{uri(time.Time{}, "ldap://elsewhere", point)}, [][]byte{part}, 0},
		{"a distribution point elsewhere", []cmp.CRLStatus{uri(time.Time{}, "http://elsewhere/crl/issuing-1.crl")}, nil, 0},
		{"a name relative to the issuer", []cmp.CRLStatus{{Relative: name("x")[2:]}}, nil, 0},
		{"issuer", []cmp.CRLStatus{issuer(now.Add(-time.Second), own.crt.RawIssuer)}, [][]byte{whole}, 0},
		{"issuer, the same at hand", []cmp.CRLStatus{issuer(now, own.crt.RawIssuer)}, nil, 0},
		{"issuer that is none of ours", []cmp.CRLStatus{issuer(time.Time{}, name("CA"))}, nil, 0},
		{"two sources", []cmp.CRLStatus{uri(time.Time{}, point), issuer(now, own.crt.RawIssuer), issuer(time.Time{}, own.crt.RawIssuer)}, [][]byte{part, whole}, 0},
		{"more than an answer holds", []cmp.CRLStatus{uri(time.Time{}, "http://ca.test:8080/crl/long.crl"), uri(time.Time{}, "http://ca.test:8080/crl/long.crl")}, nil, cmp.BadRequest},
		{"no source", nil, nil, cmp.BadRequest},
	} {
		question := must[cmp.Info](t)(cmp.CRLStatusList(c.asked...))
		answer := e.ask(e.message(&cmp.General{Infos: cmp.Infos{question}}), own)
		if c.fails != 0 {
			if got := status(answer).FailInfo; got != c.fails {
				t.Errorf("%s: %s", c.name, got)
			}
			continue
		}
		b, ok := answer.Body.(*cmp.General)
		if !ok {
			t.Errorf("%s: %v", c.name, status(answer))
			continue
		}
		got, found, err := b.Infos.CRLs()
		if err != nil || !found || len(b.Infos) != 1 || len(got) != len(c.want) {
			t.Errorf("%s: %d CRLs, %v", c.name, len(got), err)
			continue
		}
		for i := range got {
			if !bytes.Equal(got[i], c.want[i]) {
				t.Errorf("%s: CRL %d is another", c.name, i)
			}
		}
	}
	answer := e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.CurrentCRL(nil)}}), own)
	if crl, _, err := answer.Body.(*cmp.General).Infos.CurrentCRL(); err != nil || !bytes.Equal(crl, whole) {
		t.Errorf("RFC 9810 §5.3.19.6 currentCRL: %d octets, %v", len(crl), err)
	}
}

// RFC 9483 §4.3.
func TestGeneral(t *testing.T) {
	e := newEnv(t)
	own := e.enrolled("lamp-1")
	ask := func(infos ...cmp.Info) cmp.Infos {
		t.Helper()
		answer := e.ask(e.message(&cmp.General{Infos: infos}), own)
		b, ok := answer.Body.(*cmp.General)
		if !ok || !b.Response {
			t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
		}
		return b.Infos
	}
	question := must[cmp.Info](t)(cmp.CACerts())
	certs, found, err := ask(question).CACerts()
	if err != nil || !found || len(certs) != 3 {
		t.Errorf("§4.3.1 caCerts: %d, %v", len(certs), err)
	}
	root, _ := e.core.CACert("root")
	if update, found, err := ask(cmp.RootCACert(root)).RootCAKeyUpdate(); err != nil || !found || update != nil {
		t.Errorf("§4.3.2 rootCaCert of the newest: %v %v %v", update, found, err)
	}
	if update, _, err := ask(cmp.RootCACert(own.crt.Raw)).RootCAKeyUpdate(); err != nil || update != nil {
		t.Errorf("§4.3.2 rootCaCert of what is no root of ours: %v %v", update, err)
	}
	template, found, err := ask(must[cmp.Info](t)((*cmp.CertReqTemplate)(nil).Info())).CertReqTemplate()
	if err != nil || !found || template == nil || !cmp.SameName(template.Template.Subject, name("lamp-1")) || len(template.KeySpec) == 0 {
		t.Errorf("§4.3.3 certReqTemplate: %+v %v", template, err)
	}
	if list, found, err := ask(must[cmp.Info](t)(cmp.SignKeyPairTypes())).Algorithms(cmp.OIDSignKeyPairTypes); err != nil || !found || len(list) == 0 {
		t.Errorf("RFC 9810 §5.3.19.2 signKeyPairTypes: %v %v", list, err)
	}
	// Without key usages for it there is no key for encryption; the symmetric algorithm is that of EnvelopedData.
	if list, found, err := ask(must[cmp.Info](t)(cmp.EncKeyPairTypes())).Algorithms(cmp.OIDEncKeyPairTypes); err != nil || !found || len(list) != 0 {
		t.Errorf("RFC 9810 §5.3.19.3 encKeyPairTypes of a profile that signs: %v %v", list, err)
	}
	if alg, _, err := ask(cmp.Info{Type: cmp.OIDPreferredSymmAlg}).PreferredSymmAlg(); err != nil || alg.OID.String() != "2.16.840.1.101.3.4.1.42" {
		t.Errorf("RFC 9810 §5.3.19.4 preferredSymmAlg: %v %v", alg, err)
	}
	if info, found := ask(cmp.Info{Type: cmp.OIDCAProtEncCert}).Get(cmp.OIDCAProtEncCert); !found || info.Value != nil {
		t.Errorf("RFC 9810 §5.3.19.1 caProtEncCert: %v", info)
	}
	if tags, _, err := ask(cmp.SupportedLangTags("de", "en-GB")).SupportedLangTags(); err != nil || len(tags) != 1 || tags[0] != "en-GB" {
		t.Errorf("RFC 9810 §5.3.19.13 suppLangTags: %v %v", tags, err)
	}
	if got := status(e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.SupportedLangTags("de")}}), own)).FailInfo; got != cmp.BadRequest {
		t.Errorf("RFC 9810 §5.3.19.13 a language that is not written here: %s", got)
	}
	if _, found := ask().Get(cmp.OIDSignKeyPairTypes); !found {
		t.Error("RFC 9810 Appendix D.5: nothing is told to who asks for everything")
	}
	unknown := ask(cmp.CurrentCRL(nil), question)
	if list, _, err := unknown.UnsupportedOIDs(); err != nil || len(list) != 1 || !list[0].Equal(cmp.OIDCurrentCRL) || len(unknown) != 2 {
		t.Errorf("RFC 9810 §5.3.19.7 unsupportedOIDs: %v %v", list, err)
	}
}
