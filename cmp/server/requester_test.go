package server_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

// issue makes a certificate of somebody else's CA; a nil parent makes it self-signed.
func issue(t testing.TB, c, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().AddDate(20, 0, 0)
	c.KeyUsage |= x509.KeyUsageDigitalSignature
	if parent == nil {
		parent = c
	}
	return must[*x509.Certificate](t)(x509.ParseCertificate(must[[]byte](t)(x509.CreateCertificate(rand.Reader, c, parent, pub, by))))
}

// RFC 9483 §4.1.1: an ir signed with a manufacturer's certificate, as 3GPP base stations send it.
func TestManufacturer(t *testing.T) {
	e := newEnv(t)
	makerKey, deviceKey := newKey(t), newKey(t)
	root := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	idevid := func(serial string) party {
		return party{id: serial, key: deviceKey, crt: issue(t, &x509.Certificate{Subject: pkix.Name{Organization: []string{"Maker"}, SerialNumber: serial}}, root, deviceKey.Public(), makerKey)}
	}
	station := idevid("station-1")
	ir := func(of cmp.BodyType, cn string) *cmp.Message {
		return e.message(requests(of, crmf(t, cn, newKey(t), nil)), cmp.ImplicitConfirm())
	}
	if got := status(e.ask(ir(cmp.IR, "station-1"), station)).FailInfo; got != cmp.SignerNotTrusted {
		t.Errorf("of a manufacturer that is not registered: %s", got)
	}
	if _, err := e.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "maker", Level: "software", Anchors: [][]byte{root.Raw}}, "admin:test"); err != nil {
		t.Fatal(err)
	}
	first := e.ask(ir(cmp.IR, "station-1"), station)
	if cert := e.certificate(first); cert.Subject.CommonName != "station-1" {
		t.Errorf("subject %s", cert.Subject)
	}
	// RFC 9483 §4.1.1, §3.3: the root comes along in caPubs, and last in extraCerts. It is not for cr.
	if pubs := first.Body.(*cmp.CertResponses).CAPubs; len(pubs) != 1 || !bytes.Equal(pubs[0], e.root) || !bytes.Equal(first.ExtraCerts[len(first.ExtraCerts)-1], e.root) {
		t.Errorf("%d caPubs, %d extraCerts", len(pubs), len(first.ExtraCerts))
	}
	known := e.ask(ir(cmp.CR, "station-1"), station)
	if pubs := known.Body.(*cmp.CertResponses).CAPubs; pubs != nil || slices.ContainsFunc(known.ExtraCerts, func(c []byte) bool { return bytes.Equal(c, e.root) }) {
		t.Errorf("cr: %d caPubs", len(pubs))
	}
	// OpenSSL puts the issuer of the signer's certificate into the template.
	for _, of := range []cmp.BodyType{cmp.IR, cmp.CR} {
		m := e.message(requests(of, crmf(t, "station-1", newKey(t), func(r *cmp.CertReqMsg) { r.Template.Issuer = root.RawSubject })), cmp.ImplicitConfirm())
		if got := status(e.ask(m, station)); got.Status != cmp.GrantedWithMods || !strings.Contains(got.Text[0], "the issuer is CN=Test Issuing CA 1") {
			t.Errorf("%s with the IDevID's issuer: %v", of, got)
		}
	}
	// And the subject.
	for _, of := range []cmp.BodyType{cmp.IR, cmp.CR} {
		m := e.message(requests(of, crmf(t, "", newKey(t), func(r *cmp.CertReqMsg) { r.Template.Subject = station.crt.RawSubject })), cmp.ImplicitConfirm())
		answer := e.ask(m, station)
		if got := status(answer); got.Status != cmp.GrantedWithMods || got.Text[0] != "the subject is CN=station-1" {
			t.Errorf("%s with the IDevID's subject: %v", of, got)
		} else if cert := e.certificate(answer); cert.Subject.String() != "CN=station-1" {
			t.Errorf("%s with the IDevID's subject: certificate for %s", of, cert.Subject)
		}
	}
	for _, other := range []*x509.Certificate{idevid("station-2").crt, root} {
		m := e.message(requests(cmp.IR, crmf(t, "", newKey(t), func(r *cmp.CertReqMsg) { r.Template.Subject = other.RawSubject })), cmp.ImplicitConfirm())
		if got := status(e.ask(m, station)).FailInfo; got != cmp.NotAuthorized {
			t.Errorf("ir with the subject %s of another certificate: %s", other.Subject, got)
		}
	}
	if got := status(e.ask(ir(cmp.IR, "station-2"), station)).FailInfo; got != cmp.NotAuthorized {
		t.Errorf("another device's name: %s", got)
	}
	if got := status(e.ask(ir(cmp.KUR, "station-1"), station)).FailInfo; got != cmp.NotAuthorized {
		t.Errorf("RFC 9483 §4.1.3 kur by what it does not renew: %s", got)
	}
	if got := status(e.ask(e.message(&cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(station.crt.RawIssuer, station.crt.SerialNumber, 1)}}), station)).FailInfo; got != cmp.BadCertID {
		t.Errorf("rr of what we did not issue: %s", got)
	}
}

// registerRA makes a registration authority for devices of level software.
func (e *env) registerRA(name string, globs ...string) party {
	e.t.Helper()
	key := newKey(e.t)
	ra := party{id: name, key: key, crt: issue(e.t, &x509.Certificate{Subject: pkix.Name{CommonName: name},
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}}, nil, key.Public(), key)}
	if _, err := e.core.AddRA(e.t.Context(), ca.RA{Name: name, Cert: ra.crt.Raw, Names: globs, Levels: []string{"software"}}, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
	return ra
}

// RFC 9483 §5.2.3: a registration authority that replaces the protection speaks for its devices.
func TestRA(t *testing.T) {
	e := newEnv(t)
	ra := e.registerRA("line-1", "lamp-*")
	verified := func(r *cmp.CertReqMsg) { r.POP = &cmp.POP{Method: cmp.RAVerified} }
	for _, c := range []struct {
		name, id string
		of       cmp.BodyType
		change   func(*cmp.CertReqMsg)
		want     cmp.FailInfo
	}{
		{"with the device's proof", "lamp-1", cmp.IR, nil, 0},
		{"raVerified", "lamp-2", cmp.CR, verified, 0},
		{"not its device", "gate-1", cmp.CR, verified, cmp.NotAuthorized},
		{"kur", "lamp-1", cmp.KUR, nil, cmp.NotAuthorized},
	} {
		answer := e.ask(e.message(requests(c.of, crmf(t, c.id, newKey(t), c.change)), cmp.ImplicitConfirm()), ra)
		if got := status(answer); got.FailInfo != c.want || got.Status.Granted() != (c.want == 0) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	// RFC 9483 §5.3.2: it revokes for its devices, and for no others.
	for id, want := range map[string]cmp.FailInfo{"lamp-3": 0, "gate-3": cmp.BadCertID} {
		target := e.enrolled(id)
		answer := e.ask(e.message(&cmp.Revocations{List: []cmp.Revocation{cmp.RevokeCert(target.crt.RawIssuer, target.crt.SerialNumber, 1)}}), ra)
		if got := status(answer).FailInfo; got != want || e.revoked(target.crt) != (want == 0) {
			t.Errorf("rr for %s: %s", id, got)
		}
	}
}
