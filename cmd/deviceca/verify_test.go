package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/deviceca/deviceca/ocsp"
	"github.com/deviceca/deviceca/policy"
)

// want fails unless the verdict is good, or says what it should.
func want(t *testing.T, v Verdict, says string) {
	t.Helper()
	if says == "" && !v.Good || says != "" && (v.Good || !strings.Contains(v.Verdict, says)) {
		t.Errorf("good: %t, %s; want %q", v.Good, v.Verdict, says)
	}
}

// The status of each certificate of the path counts, not the leaf's alone.
func TestVerifyWholePath(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	issuing := l.ca("issuing", root, l.ecKey(), nil)
	lamp := l.device("lamp", issuing, nil)
	chain, roots := l.certs("chain.pem", lamp, issuing), l.certs("root.crt", root)
	base := []string{"--cert", chain, "--roots", roots}
	write := func(name string, raw []byte) string { return l.write(name, raw) }
	goodPack := write("good.cbor", l.pack(issuing, 1))
	rootGood := write("root-good.crl", l.crl(root, nil))
	rootBad := write("root-bad.crl", l.crl(root, nil, issuing))
	issuingGood := write("issuing.crl", l.crl(issuing, nil))
	leafGood := write("leaf.der", l.ocsp(issuing, lamp, xocsp.Good, nil))
	caGood := write("ca-good.der", l.ocsp(root, issuing, xocsp.Good, nil))
	caBad := write("ca-bad.der", l.ocsp(root, issuing, xocsp.Revoked, nil))
	rootOld := write("root-old.crl", l.crl(root, func(c *x509.RevocationList) {
		c.ThisUpdate, c.NextUpdate = l.now.Add(-3*time.Hour), l.now.Add(-time.Hour)
	}))
	forged := write("forged.crl", l.crl(&member{root.Certificate, l.ecKey()}, nil))
	both := write("both.pem", slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l.crl(issuing, nil)}),
		pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l.crl(root, nil, issuing)})))
	const revoked = "of the CAs above it, CN=issuing is revoked, says the "
	for _, tt := range []struct {
		name    string
		args    []string
		says    string // "" is good
		checked bool   // the issuing CA, too
		unused  string
	}{
		{"leaf alone", []string{"--pack", goodPack}, "", false, ""},
		{"leaf alone, all demanded", []string{"--pack", goodPack, "--require-status", "all"}, "nothing given tells the status of CN=issuing", false, ""},
		{"pack and the root's CRL", []string{"--pack", goodPack, "--crl", rootGood}, "", true, ""},
		{"the same, all demanded", []string{"--pack", goodPack, "--crl", rootGood, "--require-status", "all"}, "", true, ""},
		{"CA on the root's CRL", []string{"--pack", goodPack, "--crl", rootBad}, revoked + "CRL (cACompromise)", true, ""},
		{"CA on it, unknown allowed", []string{"--pack", goodPack, "--crl", rootBad, "--status-unknown", "allow"}, revoked, true, ""},
		{"two CRLs", []string{"--crl", issuingGood, "--crl", rootBad}, revoked, true, ""},
		{"two CRLs in one file", []string{"--crl", both}, revoked, true, ""},
		{"two answers", []string{"--staple", leafGood, "--staple", caGood}, "", true, ""},
		{"answer about the CA", []string{"--staple", leafGood, "--staple", caBad}, revoked + "staple", true, ""},
		{"revoked in one, good in another", []string{"--staple", leafGood, "--staple", caGood, "--crl", rootBad}, revoked + "CRL", true, ""},
		{"root's CRL ended", []string{"--pack", goodPack, "--crl", rootOld}, "of the CAs above it, CN=issuing: its status is unknown, which is denied", true, ""},
		{"root's CRL ended, grace", []string{"--pack", goodPack, "--crl", rootOld, "--status-unknown", "grace", "--grace", "2h"}, "", true, ""},
		{"root's CRL ended, a newer one beside", []string{"--pack", goodPack, "--crl", rootOld, "--crl", rootGood}, "", true, ""},
		{"older beside a newer that revokes", []string{"--pack", goodPack, "--crl", rootOld, "--crl", rootBad}, revoked, true, ""},
		{"forged root's CRL", []string{"--pack", goodPack, "--crl", forged}, "its signature is wrong", false, ""},
		{"the root's CRL alone", []string{"--crl", rootGood}, "nothing given tells its status", true, ""},
		{"a stranger's CRL", []string{"--pack", goodPack, "--crl", write("x.crl", l.crl(l.ca("other", nil, l.ecKey(), nil), nil))}, "", false, "it is of another CA or key of it, CN=other"},
		{"a stranger's pack", []string{"--crl", issuingGood, "--pack", write("x.cbor", l.pack(l.ca("other", nil, l.ecKey(), nil), 1))}, "", false, "it is of another CA"},
		{"an answer about another", []string{"--crl", issuingGood, "--staple", write("x.der", l.ocsp(issuing, l.device("b", issuing, nil), xocsp.Good, nil))}, "", false, "another certificate"},
		{"a damaged CRL", []string{"--pack", goodPack, "--crl", write("y.crl", []byte("-----BEGIN X509 CRL-----\n"))}, "1 of 1 PEM blocks cannot be read", false, ""},
		{"a delta that follows no pack", []string{"--pack", goodPack, "--delta", goodPack}, "--delta", false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := l.verify(append(base, tt.args...)...)
			want(t, v, tt.says)
			if v.Good && (len(v.NotChecked) == 0) != tt.checked {
				t.Errorf("not checked: %v", v.NotChecked)
			}
			if used := strings.Join(v.NotUsed, ";"); tt.unused == "" && used != "" || !strings.Contains(used, tt.unused) {
				t.Errorf("not used: %q, want %q", used, tt.unused)
			}
		})
	}
	code, out, _ := l.run(append([]string{"verify", "--pack", goodPack}, base...)...)
	if code != exitDone || !strings.Contains(out, "not checked  the status of CN=issuing: give the CRL of its issuer") {
		t.Errorf("exit %d: %s", code, out)
	}
	if code, _, errs := l.run(append([]string{"verify", "--require-status", "some"}, base...)...); code != exitUsage || !strings.Contains(errs, "neither leaf nor all") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// A CA that was certified twice is good if one of the two ways is.
func TestVerifyCrossCertificates(t *testing.T) {
	l := newLab(t)
	one, two := l.ca("root 1", nil, l.ecKey(), nil), l.ca("root 2", nil, l.ecKey(), nil)
	key := l.ecKey()
	under1, under2 := l.ca("issuing", one, key, nil), l.ca("issuing", two, key, nil)
	lamp := l.device("lamp", under1, nil)
	chain, pack := l.certs("chain.pem", lamp, under1, under2), l.write("p.cbor", l.pack(under1, 1))
	both, bad1, bad2 := l.certs("roots.pem", one, two), l.write("1.crl", l.crl(one, nil, under1)), l.write("2.crl", l.crl(two, nil, under2))
	base := []string{"--cert", chain, "--roots", both, "--pack", pack}
	v := l.verify(append(base, "--crl", bad1)...)
	want(t, v, "")
	if !slices.Contains(v.Chain, "CN=root 2") {
		t.Errorf("chain %v", v.Chain)
	}
	v = l.verify(append(base, "--crl", bad2)...)
	want(t, v, "")
	if !slices.Contains(v.Chain, "CN=root 1") {
		t.Errorf("chain %v", v.Chain)
	}
	want(t, l.verify(append(base, "--crl", bad1, "--crl", bad2)...), "CN=issuing is revoked")

	// A path whose CAs are known to be good goes before one that was not looked at.
	v = l.verify(append(base, "--crl", l.write("g.crl", l.crl(two, nil)))...)
	if want(t, v, ""); len(v.NotChecked) > 0 || !slices.Contains(v.Chain, "CN=root 2") {
		t.Errorf("chain %v, not checked %v", v.Chain, v.NotChecked)
	}

	// A root that was certified by another is a CA on the path like any.
	cross := l.ca("root 2", one, two.key, nil)
	lamp = l.device("lamp", under2, nil)
	v = l.verify("--cert", l.certs("c.pem", lamp, under2, cross), "--roots", l.certs("r1.pem", one), "--pack", pack,
		"--crl", l.write("2g.crl", l.crl(two, nil)), "--crl", l.write("1b.crl", l.crl(one, nil, cross)))
	want(t, v, "of the CAs above it, CN=root 2 is revoked")
}

// No signature with SHA-1, and none by a key below 2048 bits, counts in status or paths.
func TestVerifyWeakSignatures(t *testing.T) {
	l := newLab(t)
	key := l.rsaKey(2048)
	root := l.ca("root", nil, key, nil)
	issuing := l.ca("issuing", root, l.rsaKey(2048), nil)
	lamp := l.device("lamp", issuing, nil)
	base := []string{"--cert", l.certs("chain.pem", lamp, issuing), "--roots", l.certs("root.crt", root)}
	responder := func(edit func(*x509.Certificate)) *member {
		return l.device("responder", issuing, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
			if edit != nil {
				edit(c)
			}
		})
	}
	weakRoot := l.ca("weak root", nil, l.rsaKey(1024), nil)
	weakIssuing := l.ca("weak issuing", root, l.rsaKey(1024), nil)
	sha1Issuing := l.ca("sha1 issuing", root, l.ecKey(), func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA })
	sha1List := func(c *x509.RevocationList) { c.SignatureAlgorithm = x509.SHA1WithRSA }
	const due = "SHA-256 or better is due"
	for _, tt := range []struct {
		name string
		args []string
		says string
	}{
		{"CRL with SHA-256", []string{"--crl", l.write("a", l.crl(issuing, nil))}, ""},
		{"CRL with SHA-1", []string{"--crl", l.write("b", l.crl(issuing, sha1List))}, due},
		{"delta with SHA-1", []string{"--crl", l.write("c", l.crl(issuing, nil)), "--crl-delta", l.write("d", l.crl(issuing, func(c *x509.RevocationList) {
			sha1List(c)
			c.Number = big.NewInt(8)
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 7}}}
		}))}, due},
		{"the root's CRL with SHA-1", []string{"--crl", l.write("e", l.crl(issuing, nil)), "--crl", l.write("f", l.crl(root, sha1List))}, due},
		{"answer with SHA-256", []string{"--staple", l.write("g", l.ocsp(issuing, lamp, xocsp.Good, nil))}, ""},
		{"answer with SHA-1", []string{"--staple", l.write("h", l.ocsp(issuing, lamp, xocsp.Good, func(r *xocsp.Response) { r.SignatureAlgorithm = x509.SHA1WithRSA }))}, due},
		{"responder's certificate with SHA-1", []string{"--staple", l.write("i", l.ocspBy(issuing, responder(func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }), lamp, xocsp.Good, nil))}, due},
		{"responder", []string{"--staple", l.write("j", l.ocspBy(issuing, responder(nil), lamp, xocsp.Good, nil))}, ""},
		{"responder that is a CA", []string{"--staple", l.write("k", l.ocspBy(issuing, responder(func(c *x509.Certificate) {
			c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		}), lamp, xocsp.Good, nil))}, "the responder's certificate is a CA's"},
		{"responder for another purpose", []string{"--staple", l.write("l", l.ocspBy(issuing, lamp, lamp, xocsp.Good, nil))}, "not for OCSP signing"},
		{"responder that has expired", []string{"--staple", l.write("m", l.ocspBy(issuing, responder(func(c *x509.Certificate) { c.NotAfter = l.now.Add(-time.Second) }), lamp, xocsp.Good, nil))}, "expired"},
		{"responder that may be revoked", []string{"--staple", l.write("n", l.ocspBy(issuing, responder(func(c *x509.Certificate) { c.OCSPServer = []string{"http://ca.example/ocsp"} }), lamp, xocsp.Good, nil))}, "lacks ocsp-nocheck"},
		{"issuing CA of 1024 bits", []string{"--cert", l.certs("w1", l.device("x", weakIssuing, nil), weakIssuing)}, "CN=weak issuing is not used: its key is RSA of 1024 bits"},
		{"root of 1024 bits", []string{"--cert", l.certs("w2", l.device("x", weakRoot, nil)), "--roots", l.certs("w3", weakRoot)}, "RSA of 1024 bits"},
		{"issuing CA signed with SHA-1", []string{"--cert", l.certs("w4", l.device("x", sha1Issuing, nil), sha1Issuing)}, due},
	} {
		t.Run(tt.name, func(t *testing.T) { want(t, l.verify(append(base, tt.args...)...), tt.says) })
	}
	code, _, errs := l.run("crl", "verify", l.write("z", l.crl(issuing, sha1List)), "--issuer", l.certs("i.crt", issuing))
	if code != exitFailed || !strings.Contains(errs, due) {
		t.Errorf("exit %d: %s", code, errs)
	}
}

// What is listed is revoked, whatever the certificate says of its status (RFC 9608).
func TestVerifyNoRevAvail(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	issuing := l.ca("issuing", root, l.ecKey(), nil)
	noRev := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 56}, Value: []byte{5, 0}}
	lamp := l.device("lamp", issuing, func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{noRev} })
	crooked := l.device("lamp", issuing, func(c *x509.Certificate) {
		c.ExtraExtensions, c.OCSPServer = []pkix.Extension{noRev}, []string{"http://ca.example/ocsp"}
	})
	base := []string{"--cert", l.certs("chain.pem", lamp, issuing), "--roots", l.certs("root.crt", root)}
	v := l.verify(base...)
	if want(t, v, ""); v.Status != "not published" {
		t.Errorf("status %s", v.Status)
	}
	if v := l.verify(append(base, "--crl", l.write("good.crl", l.crl(issuing, nil)))...); !v.Good || v.Status != "good" {
		t.Errorf("%+v", v)
	}
	for _, args := range [][]string{
		{"--crl", l.write("bad.crl", l.crl(issuing, nil, lamp))},
		{"--pack", l.write("bad.cbor", l.pack(issuing, 1, lamp))},
		{"--staple", l.write("bad.der", l.ocsp(issuing, lamp, xocsp.Revoked, nil))},
		{"--crl", l.write("stale.crl", l.crl(issuing, func(c *x509.RevocationList) {
			c.ThisUpdate, c.NextUpdate = l.now.Add(-3*time.Hour), l.now.Add(-time.Hour)
		}, lamp))},
	} {
		v := l.verify(append(base, args...)...)
		if want(t, v, "CN=lamp is revoked, says the"); v.Status != "revoked" {
			t.Errorf("%s: status %s", args, v.Status)
		}
	}
	want(t, l.verify(append(base, "--crl", l.write("root.crl", l.crl(root, nil, issuing)))...), "CN=issuing is revoked")
	want(t, l.verify("--cert", l.certs("x.pem", crooked, issuing), "--roots", base[3]), "where its status is published")
}

// A list tells of what its scope holds, and of nothing else.
func TestVerifyScopes(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	issuing := l.ca("issuing", root, l.ecKey(), nil)
	const url = "http://ca.example/0.crl"
	lamp := l.device("lamp", issuing, func(c *x509.Certificate) { c.CRLDistributionPoints = []string{url} })
	base := []string{"--cert", l.certs("chain.pem", lamp, issuing), "--roots", l.certs("root.crt", root)}
	point := func(body ...byte) func(*x509.RevocationList) {
		return func(c *x509.RevocationList) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, byte(len(body))}, body...)}}
		}
	}
	fullName := func(tag byte, name string) []byte {
		n := byte(len(name))
		return append([]byte{0xa0, n + 4, 0xa0, n + 2, tag, n}, name...)
	}
	issuerName := string(issuing.RawSubject)
	for i, tt := range []struct {
		name string
		idp  []byte
		says string
	}{
		{"its URL", fullName(0x86, url), ""},
		{"another URL", fullName(0x86, "http://ca.example/1.crl"), "nothing given tells its status"},
		{"a directoryName", fullName(0xa4, "\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01x"), "nothing given tells its status"},
		{"its issuer's name", fullName(0xa4, issuerName), ""},
		{"a name relative to the issuer", []byte("\xa0\x0c\xa1\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01x"), "nothing given tells its status"},
		{"users only", []byte{0x81, 1, 0xff}, ""},
		{"CAs only", []byte{0x82, 1, 0xff}, "nothing given tells its status"},
		{"some reasons only", []byte{0x83, 2, 6, 0x40}, "for some reasons only"},
		{"indirect", []byte{0x84, 1, 0xff}, "indirect"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := l.write(fmt.Sprintf("%d.crl", i), l.crl(issuing, point(tt.idp...)))
			want(t, l.verify(append(base, "--crl", file)...), tt.says)
		})
	}
	delta := func(c *x509.RevocationList) {
		c.Number = big.NewInt(8)
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 7}}}
	}
	alone := l.write("delta.crl", l.crl(issuing, delta))
	v := l.verify(append(base, "--crl-delta", alone)...)
	if want(t, v, "nothing given tells its status"); !strings.Contains(strings.Join(v.NotUsed, ""), "no complete CRL that it completes") {
		t.Errorf("%v", v.NotUsed)
	}
	complete := l.write("complete.crl", l.crl(issuing, nil))
	want(t, l.verify(append(base, "--crl", complete, "--crl", alone)...), "")
	want(t, l.verify(append(base, "--crl", complete, "--crl", l.write("d2.crl", l.crl(issuing, delta, lamp)))...), "is revoked")
	noSign := l.ca("no lists", root, l.ecKey(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })
	x := l.device("x", noSign, nil)
	signer := &member{new(x509.Certificate), noSign.key}
	*signer.Certificate = *noSign.Certificate
	signer.KeyUsage |= x509.KeyUsageCRLSign
	want(t, l.verify("--cert", l.certs("x.pem", x, noSign), "--roots", base[3], "--crl", l.write("ns.crl", l.crl(signer, nil))), "may not sign CRLs")
}

// A quarantine certificate is for remediation, and for nobody who does not ask for that.
func TestVerifyPurposes(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	issuing := l.ca("issuing", root, l.ecKey(), nil)
	var remediation asn1.ObjectIdentifier
	for _, arc := range strings.Split(policy.RemediationEKU, ".") {
		var n int
		fmt.Sscan(arc, &n)
		remediation = append(remediation, n)
	}
	confined := func(c *x509.Certificate) {
		c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{remediation}
	}
	quarantine := l.ca("quarantine", root, l.ecKey(), confined)
	lamp, sick := l.device("lamp", issuing, nil), l.device("sick", quarantine, confined)
	escaped := l.device("escaped", quarantine, nil)
	roots := l.certs("root.crt", root)
	for _, tt := range []struct {
		purpose string
		leaf    *member
		by      *member
		says    string
	}{
		{"clientAuth", lamp, issuing, ""},
		{"1.3.6.1.5.5.7.3.2", lamp, issuing, ""},
		{"any", lamp, issuing, ""},
		{"serverAuth", lamp, issuing, "the chain: "},
		{"1.3.6.1.5.5.7.3.1", lamp, issuing, "the chain: "},
		{"remediation", lamp, issuing, "is not for purpose"},
		{"clientAuth", sick, quarantine, "the chain: "},
		{"any", sick, quarantine, "it is a quarantine certificate"},
		{"any", escaped, quarantine, "it is a quarantine certificate"},
		{"clientAuth", escaped, quarantine, "the chain: "},
		{"remediation", sick, quarantine, ""},
		{policy.RemediationEKU, sick, quarantine, ""},
	} {
		t.Run(tt.purpose+" "+tt.leaf.Subject.CommonName, func(t *testing.T) {
			v := l.verify("--cert", l.certs("x.pem", tt.leaf, tt.by), "--roots", roots, "--purpose", tt.purpose, "--status-unknown", "allow")
			want(t, v, tt.says)
		})
	}
}

// A floor only rises, whoever else verifies at the same time.
func TestVerifyFloor(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	const many = 24
	floor := l.dir + "/floor.json"
	roots := l.certs("root.crt", root)
	type one struct{ chain, pack string }
	var all []one
	for i := range many {
		issuing := l.ca(fmt.Sprintf("issuing %d", i), root, l.ecKey(), nil)
		lamp := l.device("lamp", issuing, nil)
		all = append(all, one{l.certs(fmt.Sprintf("%d.pem", i), lamp, issuing), l.write(fmt.Sprintf("%d.cbor", i), l.pack(issuing, 5))})
	}
	var wait sync.WaitGroup
	for _, x := range all {
		wait.Go(func() {
			if code, out, errs := l.run("verify", "--cert", x.chain, "--roots", roots, "--pack", x.pack, "--floor-file", floor); code != exitDone {
				t.Errorf("exit %d: %s%s", code, out, errs)
			}
		})
	}
	wait.Wait()
	floors, err := readFloors(floor)
	if err != nil || len(floors) != many {
		t.Errorf("%d floors of %d: %v", len(floors), many, err)
	}

	issuing := l.ca("issuing", root, l.ecKey(), nil)
	chain := l.certs("c.pem", l.device("lamp", issuing, nil), issuing)
	older, newer := l.write("older.cbor", l.pack(issuing, 5)), l.write("newer.cbor", l.pack(issuing, 6))
	base := []string{"--cert", chain, "--roots", roots, "--floor-file", floor}
	want(t, l.verify(append(base, "--pack", newer)...), "")
	want(t, l.verify(append(base, "--pack", older)...), "rolled back")
	want(t, l.verify(append(base, "--pack", older, "--pack", newer)...), "") // of several the newest counts
	for _, content := range []string{"null", "", "{"} {
		l.must(os.WriteFile(floor, []byte(content), 0o644))
		want(t, l.verify(append(base, "--pack", newer)...), "the floor file")
	}
}

// An answer does not replace a newer one about the same certificate.
func TestStapleKeepsTheNewer(t *testing.T) {
	l := newLab(t)
	issuing := l.ca("issuing", nil, l.ecKey(), nil)
	var answer []byte
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(answer) }))
	defer responder.Close()
	lamp := l.device("lamp", issuing, func(c *x509.Certificate) { c.OCSPServer = []string{responder.URL} })
	chain, out := l.certs("chain.pem", lamp, issuing), l.dir+"/staple.der"
	at := func(ago time.Duration, status int) []byte {
		return l.ocsp(issuing, lamp, status, func(r *xocsp.Response) { r.ThisUpdate = l.now.Add(-ago) })
	}
	older, newer, revoked := at(time.Hour, xocsp.Good), at(time.Minute, xocsp.Good), at(time.Second, xocsp.Revoked)
	stale := l.ocsp(issuing, lamp, xocsp.Good, func(r *xocsp.Response) { r.ThisUpdate, r.NextUpdate = l.now.Add(-3*time.Hour), l.now.Add(-2*time.Hour) })
	other := l.ocsp(issuing, l.device("x", issuing, nil), xocsp.Good, nil)
	forged := l.ocsp(&member{issuing.Certificate, l.ecKey()}, lamp, xocsp.Good, nil)
	for _, tt := range []struct {
		name         string
		held, answer []byte
		code         int
		kept         bool
	}{
		{"first", nil, newer, exitDone, false},
		{"newer", older, newer, exitDone, false},
		{"the same", newer, newer, exitDone, false},
		{"older", newer, older, exitFailed, true},
		{"good, older than revoked", revoked, newer, exitFailed, true},
		{"revoked, newer than good", newer, revoked, exitFailed, false},
		{"held one has ended", stale, older, exitDone, false},
		{"held one is another's", other, older, exitDone, false},
		{"held one is forged", forged, older, exitDone, false},
		{"held one is garbage", []byte("x"), older, exitDone, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			os.Remove(out)
			if tt.held != nil {
				l.write("staple.der", tt.held)
			}
			answer = tt.answer
			code, _, errs := l.run("ocsp", "staple", "--cert", chain, "--out", out)
			got, err := os.ReadFile(out)
			if err != nil || code != tt.code || tt.kept != slices.Equal(got, tt.held) && tt.name != "the same" {
				t.Errorf("exit %d, kept: %t; %s", code, slices.Equal(got, tt.held), errs)
			}
			if tt.kept && !strings.Contains(errs, "is older than that in") {
				t.Errorf("%s", errs)
			}
		})
	}
	now := time.Now()
	x, y := &ocsp.SingleResponse{ThisUpdate: now}, &ocsp.SingleResponse{ThisUpdate: now}
	if !olderAnswer(&ocsp.Response{ProducedAt: now}, x, &ocsp.Response{ProducedAt: now.Add(time.Second)}, y) {
		t.Error("producedAt does not decide between equals")
	}
}

// Files as tools write them: text around the PEM, byte order marks, UTF-16. What cannot be read
// is refused and not passed over: the certificate after it is another one.
func TestVerifyFilesOfOtherTools(t *testing.T) {
	l := newLab(t)
	root := l.ca("root", nil, l.ecKey(), nil)
	issuing := l.ca("issuing", root, l.ecKey(), nil)
	lamp := l.device("lamp", issuing, nil)
	read := func(file string) string {
		raw, err := os.ReadFile(file)
		l.must(err)
		return string(raw)
	}
	chain, roots := read(l.certs("chain.pem", lamp, issuing)), read(l.certs("root.crt", root))
	list := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: l.crl(issuing, nil)}))
	var wide []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + chain)) {
		wide = binary.LittleEndian.AppendUint16(wide, unit)
	}
	for name, text := range map[string]string{
		"mark": "\ufeff" + chain, "text": "Certificate:\n    Data:\n" + chain + "that was it\n", "CRLF": strings.ReplaceAll(chain, "\n", "\r\n"), "UTF-16": string(wide),
	} {
		t.Run(name, func(t *testing.T) {
			v := l.verify("--cert", l.write("a", []byte(text)), "--roots", l.write("b", []byte("\ufeff# ours\n"+roots)), "--crl", l.write("c", []byte("\ufeffCRL:\n"+list+"end")))
			if want(t, v, ""); v.Subject != "CN=lamp" {
				t.Errorf("%s was judged", v.Subject)
			}
		})
	}
	damaged := strings.Replace(chain, "\n", "\n*", 1)
	code, out, errs := l.run("verify", "--cert", l.write("a", []byte(damaged)), "--roots", l.write("b", []byte(roots)))
	if code != exitFailed || !strings.Contains(errs, "1 of 2 PEM blocks cannot be read") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}
