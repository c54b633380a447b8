package ca_test

import (
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/device"
)

// anyNames gives the default profile all forms of name, as freely as patterns can.
func anyNames(source string) string {
	return strings.Replace(source, "    san: [dns, uri, permanent-identifier, hardware-module]   # forms that may be asked for: the device's own ID, no more\n", `    san: [dns, uri, ip, email, permanent-identifier, hardware-module]
    names:
      dns: ["*", "*.*", "*.*.*", '\*.example.com', "{device.id}"]
      uri: ["{device.id}", "x:{device.id}", "x:/{device.id}", "https://{device.id}/", "https://{device.id}:8443/{device.id}", "urn:dev:{device.id}"]
      ip: ["0.0.0.0/0", "::/0"]
      email: ["{device.id}@example.com", "x@{device.id}"]
`, 1)
}

// askedFor makes a request for names and a key, by a device of its own with a credential.
func (a *authority) askedFor(id string, key any, names ca.Names) (ca.Request, bool) {
	a.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	g, err := a.AddDevice(a.t.Context(), device.Device{ID: id, Level: "software"}, 1000, 0, "admin:test")
	if ca.KindOf(err) == ca.Malformed && err != nil {
		return ca.Request{}, false // no device ID
	}
	if err != nil {
		a.t.Fatal(err)
	}
	requester, err := a.AuthenticateSecret(a.t.Context(), g.Reference, g.Secret, netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		a.t.Fatal(err)
	}
	return ca.Request{Protocol: "est", Requester: requester, PublicKey: key, SPKI: spki, Names: names}, true
}

// FuzzEnrollNames: whatever names and keys a client asks for, it gets a certificate or a refusal that is its own
// fault, and the lint of all certificates finds nothing.
func FuzzEnrollNames(f *testing.F) {
	for _, seed := range []struct{ id, form, value string }{
		{"pump-1", "dns", "pump-1"}, {"pump-1", "dns", "xn--bcher-kva.example"}, {"pump-2", "dns", "xn--zzzzzzz-.example"},
		{"pump-3", "dns", "xn--"}, {"pump-3", "dns", "XN--A-.b"}, {"pump-3", "dns", "xn--a-ecp.ru"}, {"pump-3", "dns", "xn--53ha.example"}, {"pump-3", "dns", "a--b.c"},
		{"pump-4", "dns", "*.example.com"}, {"pump-4", "dns", "*"}, {"pump-4", "dns", "-a.b"}, {"pump-4", "dns", "a_b.c"}, {"pump-4", "dns", "1.2.3"}, {"pump-4", "dns", "r3---sn"},
		{"p:80", "uri", "https://p:80/"}, {"p:x", "uri", "https://p:x/"}, {"a::b", "uri", "a::b"}, {"p_1", "uri", "https://p_1/"}, {"-", "uri", "x:-"}, {"..", "uri", "x:/.."}, {"x", "uri", "https://X:8443/x"},
		{".a", "email", ".a@example.com"}, {"a..b", "email", "a..b@example.com"}, {"a:b", "email", "a:b@example.com"}, {"xn--a", "email", "x@xn--a"},
		{"pump-5", "ip", "::"}, {"pump-5", "ip", "0.0.0.0"}, {"pump-5", "permanent-identifier", "pump-5"}, {"pump-5", "hardware-module", "pump-5/2.25.329800735698586629295641978511506172918"},
		{"pump-6", "hardware-module", "pump-6"}, {"pump-6", "hardware-module", "pump-6/x"}, {"pump-6", "permanent-identifier", "pump-6/x"}, {"pump-6", "other", "GeneralName [8]"}, {"pump-2", "dns", "xn--zzzzzzz.example"},
	} {
		f.Add(seed.id, seed.form, seed.value)
	}
	a := newAuthority(f, anyNames)
	seen := map[string]ca.Request{}
	f.Fuzz(func(t *testing.T, id, form, value string) {
		a.t = t
		names := ca.Names{Subject: []ca.Attribute{{Attr: "cn", Value: id}}, SANs: []ca.SAN{{Form: form, Value: value}, {Form: form, Value: strings.ToUpper(value)}}}
		r, known := seen[device.Fold(id)]
		if !known {
			if r, known = a.askedFor(id, newKey(t).Public(), names); !known {
				t.Skip("no device ID")
			}
			seen[device.Fold(id)] = r
		}
		for _, sans := range [][]ca.SAN{names.SANs[:1], names.SANs} {
			r.Names = ca.Names{Subject: names.Subject, SANs: sans}
			issued, err := a.Enroll(t.Context(), r)
			if ca.KindOf(err) == ca.Internal && err != nil {
				t.Errorf("%s %q for %q: %v", form, value, id, err)
			}
			if err == nil {
				if _, err := x509.ParseCertificate(issued.Certificate.DER); err != nil {
					t.Errorf("%s %q for %q: Go cannot read the certificate: %v", form, value, id, err)
				}
			}
		}
		if n := a.Stats().LintFindings; n != 0 {
			t.Fatalf("%s %q for %q: a lint finds fault", form, value, id)
		}
	})
}

// What zlint refuses is refused always, by our own checks, and says why.
func TestRefusedNames(t *testing.T) {
	a := newAuthority(t, anyNames)
	r, _ := a.askedFor("pump-7", newKey(t).Public(), ca.Names{})
	for _, c := range []struct{ form, value, says string }{
		{"dns", "xn--a-ecp.example", `the label "xn--a-ecp" begins with xn-- and is no internationalized label`},
		{"dns", "10.0.0.1", "it is an IP address"},
		{"dns", "a..b", "empty label"},
		{"uri", "https://pump_7/", "neither a host name nor an address"},
		{"email", "pump..7@example.com", "not a mailbox"},
		{"hardware-module", "pump-7", "SERIAL/TYPE"},
	} {
		r.Names.SANs = []ca.SAN{{Form: c.form, Value: c.value}}
		a.refused(r, ca.Denied, c.says)
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	a := newAuthority(t, nil)
	p, err := rand.Prime(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	q := new(big.Int).Add(p, big.NewInt(2))
	for !q.ProbablyPrime(8) {
		q.Add(q, big.NewInt(2))
	}
	for name, c := range map[string]struct {
		key  any
		says string
	}{
		"close":       {&rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}, "Fermat"},
		"divisible":   {&rsa.PublicKey{N: new(big.Int).Mul(new(big.Int).Mul(p, p), big.NewInt(641)), E: 65537}, "prime factor"},
		"small-order": {ed25519.PublicKey(append([]byte{1}, make([]byte, 31)...)), "small order"},
	} {
		r, ok := a.askedFor(name, c.key, ca.Names{})
		if !ok {
			t.Fatal(name)
		}
		a.refused(r, ca.BadKey, c.says)
	}
	if n := a.Stats().LintFindings; n != 0 {
		t.Errorf("%d lint findings", n)
	}
}

// The same name again, anywhere in the list and in any case that makes no difference, is issued once.
func TestRepeatedNames(t *testing.T) {
	a := newAuthority(t, anyNames)
	r, _ := a.askedFor("pump-7", newKey(t).Public(), ca.Names{SANs: []ca.SAN{
		{Form: "dns", Value: "pump-7"}, {Form: "uri", Value: "urn:dev:pump-7"}, {Form: "dns", Value: "PUMP-7"}, {Form: "uri", Value: "URN:DEV:pump-7"},
		{Form: "dns", Value: "pump-7"}, {Form: "email", Value: "pump-7@example.com"}, {Form: "email", Value: "pump-7@EXAMPLE.com"}}})
	cert := parse(t, a.enroll(r).Certificate.DER)
	if len(cert.DNSNames) != 1 || len(cert.URIs) != 1 || len(cert.EmailAddresses) != 1 {
		t.Errorf("dns %q, uri %q, email %q: want one of each", cert.DNSNames, cert.URIs, cert.EmailAddresses)
	}
}

// The default policy gives a device its own hardware module name, whose type it does not know.
func TestHardwareModule(t *testing.T) {
	a := newAuthority(t, nil)
	requester, _ := a.grant("pump-7", "software", 2)
	otherName := func(serial string) []byte {
		module := seq(oid("1.3.6.1.4.1.55555.2"), tlv(cbasn1.OCTET_STRING, []byte(serial)))
		name := tlv(cbasn1.Tag(0).ContextSpecific().Constructed(), oid("1.3.6.1.5.5.7.8.4"), tlv(cbasn1.Tag(0).ContextSpecific().Constructed(), module))
		return oddCSR{subject: rdn("2.5.4.3", cbasn1.UTF8String, "pump-7"), attributes: attributes(attribute(extensionRequest, seq(seq(oid("2.5.29.17"), tlv(cbasn1.OCTET_STRING, seq(name))))))}.der(t)
	}
	issued := a.enroll(a.request(requester, otherName("pump-7")))
	cert := parse(t, issued.Certificate.DER)
	var san []byte
	for _, e := range cert.Extensions {
		if e.Id.String() == "2.5.29.17" {
			san = e.Value
		}
	}
	if names, err := ca.ParseNames(cert.RawSubject, san); err != nil || len(names.SANs) != 1 || names.SANs[0].Value != "pump-7/1.3.6.1.4.1.55555.2" {
		t.Errorf("%+v, %v", names, err)
	}
	a.refused(a.request(requester, otherName("pump-8")), ca.Denied, "is not one that device pump-7 may have")
}

// What no certificate can have is the client's error.
func TestPeriodAskedFor(t *testing.T) {
	a := newAuthority(t, nil)
	now := a.clock.Now()
	requester, _ := a.grant("pump-7", "software", 9)
	for _, c := range []struct {
		name                string
		notBefore, notAfter time.Time
		says                string // "" is granted
	}{
		{"past", time.Time{}, now.Add(-time.Hour), "has passed"},
		{"now", time.Time{}, now, "has passed"},
		{"inverted", now.Add(-time.Minute), now.Add(-2 * time.Minute), "not later than notBefore"},
		{"future", now.Add(time.Hour), now.Add(2 * time.Hour), "still to come"},
		{"soon", time.Time{}, now.Add(time.Minute), ""},
		{"backdated", now.Add(-time.Minute), now.Add(time.Hour), ""},
	} {
		r := a.request(requester, newCSR(t, newKey(t), named("pump-7")))
		r.NotBefore, r.NotAfter = c.notBefore, c.notAfter
		if c.says != "" {
			a.refused(r, ca.Denied, c.says)
			continue
		}
		if cert := parse(t, a.enroll(r).Certificate.DER); !cert.NotAfter.Equal(c.notAfter) {
			t.Errorf("%s: until %s, want %s", c.name, cert.NotAfter, c.notAfter)
		}
	}
}

// A serialNumber is a PrintableString, which has no underscore: the device is told, and it is no fault of ours.
func TestSubjectThatCannotBeEncoded(t *testing.T) {
	a := newAuthority(t, func(s string) string {
		return strings.Replace(s, `subject: {cn: "{device.id}"}`, `subject: {serialnumber: "{device.id}"}`, 1)
	})
	r, _ := a.askedFor("pump_7", newKey(t).Public(), ca.Names{})
	a.refused(r, ca.Denied, "a character that the attribute cannot have")
}

// Whose key anyone can factor, nobody acts for others with it.
func TestWeakKeysVouchForNobody(t *testing.T) {
	a := newAuthority(t, nil)
	signer := ecKey(t, elliptic.P256())
	weak := &rsa.PublicKey{N: new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1)), E: 65537} // divisible by 3
	ra := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "line-1"}, KeyUsage: x509.KeyUsageDigitalSignature,
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 28}}, NotBefore: a.clock.Now().Add(-time.Hour), NotAfter: a.clock.Now().Add(24 * time.Hour)}
	issuer := sign(t, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, NotBefore: ra.NotBefore, NotAfter: ra.NotAfter}, nil, signer.Public(), signer)
	if _, err := a.AddRA(t.Context(), ca.RA{Name: "line-1", Cert: sign(t, ra, issuer, weak, signer).Raw, Names: []string{"*"}, Levels: []string{"software"}}, "admin:test"); ca.KindOf(err) != ca.Malformed || !contains(err.Error(), "prime factor below") {
		t.Errorf("a registration authority: %v", err)
	}
	anchor := *ra
	anchor.IsCA, anchor.BasicConstraintsValid, anchor.KeyUsage, anchor.UnknownExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
	if _, err := a.AddManufacturer(t.Context(), ca.Manufacturer{Name: "maker", Level: "software", Anchors: [][]byte{sign(t, &anchor, issuer, weak, signer).Raw}}, "admin:test"); ca.KindOf(err) != ca.Malformed || !contains(err.Error(), "prime factor below") {
		t.Errorf("a manufacturer: %v", err)
	}
}
