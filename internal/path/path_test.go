package path

import (
	"archive/zip"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"
)

func parsePEM(t *testing.T, text string) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	return c
}

// The cases of x509-limbo on name constraints and path lengths. Two of them ask for more than
// is done here: constraints that are not critical, or begin with a period, are obeyed, and not refused.
func TestLimbo(t *testing.T) {
	lenient := map[string]bool{"rfc5280::nc::permitted-dns-match-noncritical": true, "rfc5280::nc::invalid-dnsname-leading-period": true}
	f, err := os.Open("testdata/limbo.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		ID       string
		Trusted  []string `json:"trusted_certs"`
		Between  []string `json:"untrusted_intermediates"`
		Peer     string   `json:"peer_certificate"`
		Expected string   `json:"expected_result"`
	}
	if err := json.NewDecoder(unzipped).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 50 {
		t.Fatalf("only %d cases", len(cases))
	}
	for _, tt := range cases {
		t.Run(tt.ID, func(t *testing.T) {
			o := Options{Now: time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)}
			unreadable := false
			var trusted, between []*x509.Certificate
			take := func(text string) *x509.Certificate {
				c := parsePEM(t, text)
				unreadable = unreadable || c == nil
				return c
			}
			for _, text := range tt.Trusted {
				trusted = append(trusted, take(text))
			}
			for _, text := range tt.Between {
				between = append(between, take(text))
			}
			leaf := take(tt.Peer)
			var err error
			if !unreadable { // else crypto/x509 has refused it, which is as good
				o.Anchors = Anchors(trusted)
				_, err = Verify(leaf, between, o)
			}
			good := err == nil && !unreadable
			if want := tt.Expected == "SUCCESS" || lenient[tt.ID]; good != want {
				t.Errorf("good: %t, want %t; %v", good, want, err)
			}
		})
	}
}

// PKITS on signatures, validity, name chaining, basic constraints, key usage and name constraints. What only a
// CRL tells is not for this package.
func TestPKITS(t *testing.T) {
	archive, err := zip.OpenReader("testdata/pkits.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	file := func(name string) []byte {
		f, err := archive.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		raw, err := io.ReadAll(f)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var cases []struct {
		Name           string
		CertPath       []string
		ShouldValidate bool
	}
	if err := json.Unmarshal(file("vectors.json"), &cases); err != nil {
		t.Fatal(err)
	}
	otherwise := map[string]bool{
		"4.1.4 Valid DSA Signatures Test4": true, // DSA is not accepted
	}
	seen := 0
	for _, tt := range cases {
		section := strings.Split(tt.Name, ".")[1]
		if !strings.Contains(" 1 2 3 6 13 ", " "+section+" ") {
			continue
		}
		var certs []*x509.Certificate
		for _, name := range tt.CertPath {
			c, err := x509.ParseCertificate(file("certs/" + name))
			if err != nil {
				break // DSA parameters that are inherited
			}
			certs = append(certs, c)
		}
		if len(certs) < len(tt.CertPath) {
			continue
		}
		seen++
		t.Run(tt.Name, func(t *testing.T) {
			last := len(certs) - 1
			paths, err := Verify(certs[last], certs[1:last], Options{Anchors: Anchors(certs[:1]), Now: time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC)})
			if want := tt.ShouldValidate && !otherwise[tt.Name]; (err == nil) != want {
				t.Fatalf("%v, want good: %t", err, want)
			}
			if err == nil && (paths[0][0] != certs[last] || paths[0][len(paths[0])-1] != certs[0]) {
				t.Error("the path is not of the certificates that were given")
			}
		})
	}
	if seen < 70 {
		t.Errorf("only %d cases", seen)
	}
}

// authority makes certificates, one below the other.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serials int64

func (a *authority) issue(t *testing.T, key crypto.Signer, edit func(*x509.Certificate)) *authority {
	t.Helper()
	serials++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serials), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{byte(serials)}}
	edit(tmpl)
	parent, by := tmpl, key
	if a != nil {
		parent, by = a.cert, a.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}
}

func ecKey(t *testing.T) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func rsaKey(t *testing.T, bits int) crypto.Signer {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func named(cn string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject.CommonName = cn }
}

func device(c *x509.Certificate) {
	c.Subject.CommonName, c.IsCA, c.KeyUsage = "lamp", false, x509.KeyUsageDigitalSignature
}

// A signature with SHA-1, or by an RSA key below 2048 bits, is good for nothing anywhere on a path.
func TestWeak(t *testing.T) {
	key, rsa2048, rsa1024 := ecKey(t), rsaKey(t, 2048), rsaKey(t, 1024)
	sha1 := func(edit func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) { edit(c); c.SignatureAlgorithm = x509.SHA1WithRSA }
	}
	strongRoot := (*authority)(nil).issue(t, rsa2048, named("root"))
	weakRoot := (*authority)(nil).issue(t, rsa1024, named("weak root"))
	sha1Root := (*authority)(nil).issue(t, rsa2048, sha1(named("old root")))
	middle := strongRoot.issue(t, key, named("middle"))
	sha1Middle := strongRoot.issue(t, key, sha1(named("sha1 middle")))
	weakMiddle := strongRoot.issue(t, rsa1024, named("weak middle"))
	for _, tt := range []struct {
		name         string
		leaf         *authority
		root, middle *authority
		says         string // "" accepts
	}{
		{"strong", middle.issue(t, key, device), strongRoot, middle, ""},
		{"anchor signed with SHA-1", sha1Root.issue(t, key, device), sha1Root, nil, ""},
		{"leaf signed with SHA-1", strongRoot.issue(t, key, sha1(device)), strongRoot, nil, "signed with SHA1-RSA: SHA-256 or better is due"},
		{"CA signed with SHA-1", sha1Middle.issue(t, key, device), strongRoot, sha1Middle, "CN=sha1 middle is not used: it is signed with SHA1-RSA"},
		{"CA of 1024 bits", weakMiddle.issue(t, key, device), strongRoot, weakMiddle, "CN=weak middle is not used: its key is RSA of 1024 bits: 2048 to 8192"},
		{"anchor of 1024 bits", weakRoot.issue(t, key, device), weakRoot, nil, "RSA of 1024 bits"},
		{"leaf of 1024 bits", middle.issue(t, rsa1024, device), strongRoot, middle, "RSA of 1024 bits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Anchors: Anchors([]*x509.Certificate{tt.root.cert}), Now: time.Now()}
			var between []*x509.Certificate
			if tt.middle != nil {
				between = append(between, tt.middle.cert)
			}
			_, err := Verify(tt.leaf.cert, between, o)
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// No signature is verified with the key of a stranger: what a search from the leaf up would go
// through, a hundred ways, is left out before.
func TestStrangersKeysVerifyNothing(t *testing.T) {
	root := (*authority)(nil).issue(t, ecKey(t), named("root"))
	factory := root.issue(t, ecKey(t), named("factory"))
	line := factory.issue(t, ecKey(t), named("line"))
	lamp := line.issue(t, ecKey(t), device)
	thief := ecKey(t)
	// It says that it is of the root, and has the factory's name.
	lookalike := *root.cert
	lookalike.PublicKey = thief.Public()
	pretender := (&authority{&lookalike, thief}).issue(t, thief, named("factory"))
	mesh := []*x509.Certificate{pretender.cert}
	for range 30 {
		mesh = append(mesh, pretender.issue(t, thief, named("factory")).cert)
	}
	forged := pretender.issue(t, ecKey(t), device)
	for _, tt := range []struct {
		name    string
		leaf    *authority
		between []*x509.Certificate
		reached int
		good    bool
	}{
		{"genuine", lamp, []*x509.Certificate{factory.cert, line.cert}, 2, true},
		{"genuine among others", lamp, append([]*x509.Certificate{line.cert, factory.cert}, mesh...), 2, true},
		{"a gap", lamp, []*x509.Certificate{line.cert}, 0, false},
		{"a mesh", forged, mesh, 0, false},
		{"a mesh beside a genuine CA", forged, append(mesh, factory.cert), 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()}
			chain := NewChain(append([]*x509.Certificate{tt.leaf.cert}, tt.between...))
			_, reached, err := chain.reach(o.Anchors)
			if (err == nil) != tt.good || len(reached) != tt.reached {
				t.Errorf("reached %d, want %d; %v", len(reached), tt.reached, err)
			}
			if _, err := chain.Verify(o); (err == nil) != tt.good {
				t.Error(err)
			}
		})
	}
}

// ext marshals an extension's value.
func ext(t *testing.T, oid asn1.ObjectIdentifier, critical bool, value any) pkix.Extension {
	t.Helper()
	raw, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oid, Critical: critical, Value: raw}
}

type general struct{ Base asn1.RawValue }

type limits struct {
	Permitted []general `asn1:"optional,omitempty,tag:0"`
	Excluded  []general `asn1:"optional,omitempty,tag:1"`
}

func name(tag int, text string) general {
	return general{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(text)}}
}

func directory(t *testing.T, n pkix.Name) general {
	t.Helper()
	raw, err := asn1.Marshal(n.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return general{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: raw}}
}

// Each form of name, permitted and excluded (RFC 5280 §4.2.1.10).
func TestNameConstraints(t *testing.T) {
	acme := directory(t, pkix.Name{Organization: []string{"Acme"}})
	other := general{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: []byte("\x06\x03\x2a\x03\x04\xa0\x03\x0c\x01x")}}
	registered := name(8, "\x2a\x03\x04")
	emailAddress := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	subject := pkix.Name{Organization: []string{"Acme"}, CommonName: "lamp"}
	for _, tt := range []struct {
		name     string
		limits   limits
		critical bool
		subject  pkix.Name
		san      []general
		says     string // "" accepts
	}{
		{"directory permitted", limits{Permitted: []general{acme}}, true, subject, nil, ""},
		{"directory permitted, case and space apart", limits{Permitted: []general{acme}}, true, pkix.Name{Organization: []string{" ACME "}}, nil, ""},
		{"directory not permitted", limits{Permitted: []general{acme}}, true, pkix.Name{Organization: []string{"Evil"}}, nil, "is not permitted"},
		{"directory not permitted, not critical", limits{Permitted: []general{acme}}, false, pkix.Name{Organization: []string{"Evil"}}, nil, "is not permitted"},
		{"directory excluded", limits{Excluded: []general{acme}}, true, subject, nil, `"Acme, lamp" is excluded`},
		{"directory excluded, not critical", limits{Excluded: []general{acme}}, false, subject, nil, "is excluded"},
		{"directory excluded in SAN", limits{Excluded: []general{acme}}, false, pkix.Name{CommonName: "x"}, []general{directory(t, subject)}, "is excluded"},
		{"directory not permitted in SAN", limits{Permitted: []general{acme}}, true, subject, []general{directory(t, pkix.Name{CommonName: "x"})}, "is not permitted"},
		{"no subject", limits{Permitted: []general{acme}}, true, pkix.Name{}, []general{name(2, "a.example")}, ""},
		{"DNS permitted", limits{Permitted: []general{name(2, "example")}}, true, subject, []general{name(2, "A.Example")}, ""},
		{"DNS not permitted", limits{Permitted: []general{name(2, "example")}}, true, subject, []general{name(2, "badexample")}, "is not permitted"},
		{"DNS excluded", limits{Excluded: []general{name(2, "example")}}, true, subject, []general{name(2, "example")}, "is excluded"},
		{"wildcard over an exclusion", limits{Excluded: []general{name(2, "b.example")}}, true, subject, []general{name(2, "*.example")}, "is excluded"},
		{"wildcard over a permission", limits{Permitted: []general{name(2, "b.example")}}, true, subject, []general{name(2, "*.example")}, "is not permitted"},
		{"IP permitted", limits{Permitted: []general{name(7, "\x0a\x00\x00\x00\xff\x00\x00\x00")}}, true, subject, []general{name(7, "\x0a\x01\x02\x03")}, ""},
		{"IP not permitted", limits{Permitted: []general{name(7, "\x0a\x00\x00\x00\xff\x00\x00\x00")}}, true, subject, []general{name(7, "\x0b\x01\x02\x03")}, "11.1.2.3 is not permitted"},
		{"IP of the other family", limits{Permitted: []general{name(7, "\x0a\x00\x00\x00\xff\x00\x00\x00")}}, true, subject, []general{name(7, strings.Repeat("\x01", 16))}, "is not permitted"},
		{"mailbox permitted at its host", limits{Permitted: []general{name(1, "example.com")}}, true, subject, []general{name(1, "a@example.com")}, ""},
		{"mailbox at a host below", limits{Permitted: []general{name(1, "example.com")}}, true, subject, []general{name(1, "a@b.example.com")}, "is not permitted"},
		{"mailbox in a domain", limits{Excluded: []general{name(1, ".example.com")}}, true, subject, []general{name(1, "a@b.example.com")}, "is excluded"},
		{"emailAddress in the subject", limits{Excluded: []general{name(1, "evil.com")}}, true,
			pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{{Type: emailAddress, Value: "a@evil.com"}}}, nil, "is excluded"},
		{"URI permitted", limits{Permitted: []general{name(6, ".example.com")}}, true, subject, []general{name(6, "http://a.example.com/x")}, ""},
		{"URI of the host itself", limits{Permitted: []general{name(6, ".example.com")}}, true, subject, []general{name(6, "http://example.com/x")}, "is not permitted"},
		{"URI without a host", limits{Excluded: []general{name(6, ".example.com")}}, true, subject, []general{name(6, "urn:x:y")}, "URI"},
		{"otherName", limits{Excluded: []general{other}}, true, subject, []general{other}, "form otherName, which is constrained and cannot be compared"},
		{"otherName, not critical", limits{Permitted: []general{other}}, false, subject, []general{other}, "form otherName"},
		{"otherName constrained, and none there", limits{Excluded: []general{other}}, true, subject, []general{name(2, "a.example")}, ""},
		{"registeredID", limits{Excluded: []general{registered}}, true, subject, []general{registered}, "form registeredID"},
		{"another form", limits{Permitted: []general{name(2, "example")}}, true, subject, []general{name(1, "a@b.c")}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := (*authority)(nil).issue(t, ecKey(t), named("root"))
			middle := root.issue(t, ecKey(t), func(c *x509.Certificate) {
				c.Subject.CommonName = "middle"
				c.ExtraExtensions = []pkix.Extension{ext(t, oidNameConstraints, tt.critical, tt.limits)}
			})
			leaf := middle.issue(t, ecKey(t), func(c *x509.Certificate) {
				device(c)
				c.Subject = tt.subject
				if tt.san != nil {
					raw := make([]asn1.RawValue, len(tt.san))
					for i, n := range tt.san {
						raw[i] = n.Base
					}
					c.ExtraExtensions = []pkix.Extension{ext(t, oidSubjectAltName, len(tt.subject.ToRDNSequence()) == 0, raw)}
				}
			})
			_, err := Verify(leaf.cert, []*x509.Certificate{middle.cert}, Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()})
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

// noRevAvail is for end entities whose status is published nowhere (RFC 9608 §3).
func TestNoRevAvail(t *testing.T) {
	noRev := pkix.Extension{Id: oidNoRevAvail, Value: []byte{5, 0}}
	root := (*authority)(nil).issue(t, ecKey(t), named("root"))
	for _, tt := range []struct {
		name string
		edit func(*x509.Certificate)
		says string
	}{
		{"alone", func(c *x509.Certificate) {}, ""},
		{"with a CRL", func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://ca.example/x.crl"} }, "where its status is published"},
		{"with OCSP", func(c *x509.Certificate) { c.OCSPServer = []string{"http://ca.example/ocsp"} }, "where its status is published"},
		{"of a CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }, "is a CA's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			leaf := root.issue(t, ecKey(t), func(c *x509.Certificate) {
				device(c)
				c.ExtraExtensions = []pkix.Extension{noRev}
				tt.edit(c)
			})
			_, err := Verify(leaf.cert, nil, Options{Anchors: Anchors([]*x509.Certificate{root.cert}), Now: time.Now()})
			if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
				t.Errorf("%v, want %q", err, tt.says)
			}
		})
	}
}

func FuzzConstraints(f *testing.F) {
	f.Add([]byte("\x30\x0a\xa1\x08\x30\x06\xa0\x04\x06\x02\x2a\x03"), []byte("\x30\x00"))
	f.Add([]byte("\x30\x0d\xa0\x0b\x30\x09\x82\x07example"), []byte("\x30\x09\x31\x07\x30\x05\x06\x01\x2a\x0c\x00"))
	f.Add([]byte("\x30\x0f\xa0\x0d\x30\x0b\x82\x07example\x80\x01\x01"), []byte("\x30\x00"))
	f.Fuzz(func(t *testing.T, value, subject []byte) {
		c, err := parseConstraints(value)
		names, nameErr := namesOf(&x509.Certificate{RawSubject: subject, Extensions: []pkix.Extension{{Id: oidSubjectAltName, Value: value}}})
		if err != nil || nameErr != nil {
			return
		}
		budget := maxComparisons
		c.allow(names, &budget)
	})
}
