package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// site is a CA's publications by hand: each path with what it serves.
type listSite struct {
	t     *testing.T
	files map[string][]byte
	asked []string
	url   string
}

type testAuthority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newListSite(t *testing.T) *listSite {
	s := &listSite{t: t, files: map[string][]byte{}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked = append(s.asked, r.URL.Path)
		raw, ok := s.files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "max-age=90, public")
		w.Write(raw)
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// authority makes a CA below by, or a root.
func authority(t *testing.T, name string, by *testAuthority, extensions ...pkix.Extension) *testAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certified(t, name, key, by, extensions...)
}

func certified(t *testing.T, name string, key *ecdsa.PrivateKey, by *testAuthority, extensions ...pkix.Extension) *testAuthority {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"A  Company"}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, ExtraExtensions: extensions}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &testAuthority{key, cert}
}

func (c *testAuthority) crl(t *testing.T, number int64, ends time.Time) []byte {
	t.Helper()
	raw, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: ends}, c.cert, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestFetchRefuses(t *testing.T) {
	s, dir := newListSite(t), t.TempDir()
	root, other := authority(t, "Root CA", nil), authority(t, "Other Root", nil)
	one, foreign := authority(t, "Issuing CA 1", root), authority(t, "Issuing CA 2", other)
	tomorrow := time.Now().Add(24 * time.Hour)
	s.files = map[string][]byte{
		"/ca/index.json":    []byte(`{"cas":[{"name":"root-1"},{"name":"issuing-1"},{"name":"issuing-2"},{"name":"quarantine-1"},{"name":"../../x"}],"bundles":{}}`),
		"/ca/root-1.crt":    root.cert.Raw,
		"/ca/issuing-1.crt": one.cert.Raw, "/ca/issuing-2.crt": foreign.cert.Raw,
		"/crl/issuing-1.crl": one.crl(t, 5, tomorrow), "/crl/issuing-2.crl": foreign.crl(t, 5, tomorrow),
	}
	f := crlFetcher{base: s.url, dir: dir, anchors: []*x509.Certificate{root.cert}, now: time.Now, etags: map[string]string{}, ages: map[string]time.Duration{}}
	fetch := func() *fetchReport {
		t.Helper()
		r, err := f.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := fetch()
	if len(r.Lists) != 1 || r.Lists[0].Name != "issuing-1" || !r.Changed || !slices.Equal(r.Missing, []string{"root-1"}) {
		t.Errorf("%+v", r)
	}
	if len(r.Faults) != 1 || !strings.Contains(r.Faults[0], "issuing-2: its certificate does not lead to --roots") {
		t.Error(r.Faults)
	}
	if _, err := os.Stat(filepath.Join(dir, "issuing-2.crt")); err == nil {
		t.Error("a foreign CA was kept")
	}
	if got := f.wait(r); got != 90*time.Second {
		t.Errorf("next fetch in %s: the server allows 90 s", got)
	}
	list := func() string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, "issuing-1.crl"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	good := list()
	stranger := certified(t, "Issuing CA 1", foreign.key, other)
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"older":         {one.crl(t, 4, tomorrow), "older than 5"},
		"ended":         {one.crl(t, 6, time.Now().Add(-time.Second)), "it ended"},
		"another signs": {stranger.crl(t, 6, tomorrow), "CRL is not to be used"},
		"another's":     {root.crl(t, 6, tomorrow), "another CA issued it"},
		"no list":       {[]byte("<html>"), "malformed"},
		"not there":     {nil, ""},
	} {
		s.files["/crl/issuing-1.crl"] = c.raw
		if c.raw == nil {
			delete(s.files, "/crl/issuing-1.crl")
		}
		r := fetch()
		if r.Changed || list() != good || len(r.Faults) != 2 || !strings.Contains(strings.Join(r.Faults, "\n"), c.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	s.files["/crl/issuing-1.crl"] = one.crl(t, 6, tomorrow)
	if r := fetch(); !r.Changed || list() == good {
		t.Errorf("a newer list: %+v", r)
	}
	// An index that leaves a CA out takes its list from nobody.
	s.files["/ca/index.json"] = []byte(`{"cas":[{"name":"root-1"}]}`)
	delete(s.files, "/crl/issuing-1.crl")
	if r := fetch(); r.Changed || len(r.Lists) != 1 || len(r.Faults) != 0 {
		t.Errorf("a CA that the index does not name: %+v", r)
	}
}

// A CA leads to the anchors by the rules that `verify` has: Go passes over constraints on directory names.
func TestFetchHoldsToNameConstraints(t *testing.T) {
	name, err := asn1.Marshal(pkix.Name{Organization: []string{"a company"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	type subtree struct {
		Base asn1.RawValue
	}
	value, err := asn1.Marshal(struct {
		Excluded []subtree `asn1:"tag:1"`
	}{[]subtree{{asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, constraints := range [][]pkix.Extension{nil, {{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Value: value}}} {
		s, dir := newListSite(t), t.TempDir()
		root := authority(t, "Root CA", nil, constraints...)
		one := authority(t, "Issuing CA 1", root)
		s.files = map[string][]byte{"/ca/index.json": []byte(`{"cas":[{"name":"issuing-1"}]}`), "/ca/issuing-1.crt": one.cert.Raw,
			"/crl/issuing-1.crl": one.crl(t, 5, time.Now().Add(time.Hour))}
		f := crlFetcher{base: s.url, dir: dir, anchors: []*x509.Certificate{root.cert}, now: time.Now, etags: map[string]string{}, ages: map[string]time.Duration{}}
		r, err := f.fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		refused := len(r.Faults) == 1 && strings.Contains(r.Faults[0], "issuing-1: its certificate does not lead to --roots")
		if excluded := constraints != nil; refused != excluded || (len(r.Lists) == 1) == excluded {
			t.Errorf("excluded %t: %+v", excluded, r)
		}
	}
}

// After a roll-over of the root, whoever trusts the old one gets the lists of the new one and of what is below it.
func TestFetchRootRollOver(t *testing.T) {
	s, dir := newListSite(t), t.TempDir()
	old, next := authority(t, "Root CA", nil), authority(t, "Root CA 2", nil)
	cross := certified(t, "Root CA 2", next.key, old)
	two := authority(t, "Issuing CA 2", next)
	tomorrow := time.Now().Add(24 * time.Hour)
	s.files = map[string][]byte{
		"/ca/index.json": []byte(`{"cas":[{"name":"root-1"},{"name":"root-2"},{"name":"root-2-by-1"},{"name":"issuing-2"}]}`),
		"/ca/root-1.crt": old.cert.Raw, "/ca/root-2.crt": next.cert.Raw, "/ca/root-2-by-1.crt": cross.cert.Raw, "/ca/issuing-2.crt": two.cert.Raw,
		"/crl/root-1.crl": old.crl(t, 1, tomorrow), "/crl/root-2.crl": next.crl(t, 1, tomorrow), "/crl/issuing-2.crl": two.crl(t, 1, tomorrow),
	}
	f := crlFetcher{base: s.url, dir: dir, anchors: []*x509.Certificate{old.cert}, now: time.Now, etags: map[string]string{}, ages: map[string]time.Duration{}}
	r, err := f.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Lists) != 3 || len(r.Faults) != 0 {
		t.Errorf("%+v", r)
	}
	if slices.Contains(s.asked, "/crl/root-2-by-1.crl") {
		t.Error("a cross certificate has no list of its own")
	}
}

// --then that fails is run again, though nothing has changed since.
func TestFetchThen(t *testing.T) {
	s, dir := newListSite(t), t.TempDir()
	root := authority(t, "Root CA", nil)
	s.files = map[string][]byte{"/ca/index.json": []byte(`{"cas":[{"name":"root-1"}]}`), "/ca/root-1.crt": root.cert.Raw, "/crl/root-1.crl": root.crl(t, 1, time.Now().Add(time.Hour))}
	ran := filepath.Join(dir, "ran")
	f := crlFetcher{base: s.url, dir: filepath.Join(dir, "d"), anchors: []*x509.Certificate{root.cert}, now: time.Now, etags: map[string]string{}, ages: map[string]time.Duration{},
		then: "echo x >> " + ran + "; test -e " + dir + "/ready"}
	if _, err := f.fetch(context.Background()); err == nil || !strings.Contains(err.Error(), "the lists were written") {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := f.fetch(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if raw, err := os.ReadFile(ran); err != nil || string(raw) != "x\nx\n" {
		t.Errorf("%q, %v", raw, err)
	}
}

// The names in hashed/ are those that openssl gives, whatever the strings in the name.
func TestNameHash(t *testing.T) {
	for _, name := range []string{"/CN=Root CA", "/O=A  Company /CN=  deviceca\tIssuing CA 1", "/C=DE/O=Müller GmbH/CN=Straße", "/DC=org/DC=EXAMPLE/CN=x/emailAddress=A@B.example", "/CN=a+OU=b"} {
		dir := t.TempDir()
		args := []string{"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", dir + "/key", "-out", dir + "/cert", "-utf8", "-multivalue-rdn", "-subj", name}
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		want, err := exec.Command("openssl", "x509", "-in", dir+"/cert", "-noout", "-subject_hash").Output()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(dir + "/cert")
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(raw)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := nameHash(cert.RawSubject); err != nil || got != strings.TrimSpace(string(want)) {
			t.Errorf("%s: %s, %v; openssl says %s", name, got, err, want)
		}
	}
	for _, raw := range [][]byte{nil, {0x30}, {0x30, 2, 0x31, 1}, []byte("x")} {
		if _, err := nameHash(raw); err == nil && raw != nil {
			t.Errorf("%x has a hash", raw)
		}
	}
}
