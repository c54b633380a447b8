package ca_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// rotate makes the next issuing generation under the root given.
func (a *authority) rotate(root *x509.Certificate, rootName string) string {
	a.t.Helper()
	name, generation := a.Next("issuing")
	key := ecKey(a.t, elliptic.P256())
	a.keys[name] = key
	cert, err := ca.NewSubordinate(root.Raw, a.rootKeys[rootName], "issuing", generation, key.Public(),
		ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Root: rootName, Now: a.clock.Now()})
	if err != nil {
		a.t.Fatal(err)
	}
	a.take(ca.IssuerRecord{Name: name, Role: "issuing", Generation: generation, Key: name, Cert: cert})
	return name
}

func (a *authority) take(r ca.IssuerRecord) {
	a.t.Helper()
	if err := a.Take(a.t.Context(), r, "admin:test"); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) handsOut(name string) bool {
	der, _ := a.CACert(name)
	return slices.ContainsFunc(a.Anchors(), func(c []byte) bool { return string(c) == string(der) })
}

// The certificate chains to root with what a server or device would send along.
func (a *authority) chains(issued *ca.Issued, root *x509.Certificate) error {
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, der := range issued.Chain {
		inter.AddCert(parse(a.t, der))
	}
	_, err := parse(a.t, issued.Certificate.DER).Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, CurrentTime: a.clock.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err
}

func TestRotateIssuing(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 9)
	before := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	if name := a.rotate(a.root, "root-1"); name != "issuing-2" {
		t.Fatalf("the next generation is %s", name)
	}
	// A device with the old generation's certificate renews, and gets the new one's.
	after := a.enroll(a.request(a.byCertificate(before.Certificate.DER), newCSR(t, newKey(t), named("lamp-1"))))
	if after.Certificate.Issuer != "issuing-2" || a.Named("issuing") != "issuing-2" {
		t.Errorf("issued by %s", after.Certificate.Issuer)
	}
	if err := a.chains(after, a.root); err != nil {
		t.Error(err)
	}
	if err := a.RevokeCA(t.Context(), "issuing-2", 1, "admin:test"); ca.KindOf(err) != ca.Conflict {
		t.Errorf("revoking the newest: %v", err)
	}
	// Both are handed out until the old one's last certificate has expired.
	if !a.handsOut("issuing-1") || !a.handsOut("issuing-2") {
		t.Error("a live generation is not handed out")
	}
	a.clock.Add(25 * time.Hour)
	if a.handsOut("issuing-1") || !a.handsOut("issuing-2") {
		t.Error("the old generation is still handed out, or the new one is not")
	}
	a.reopen()
	if a.handsOut("issuing-1") || a.Named("issuing") != "issuing-2" {
		t.Error("it comes back after a restart")
	}
}

func TestRevokeCA(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 9)
	old := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
	a.rotate(a.root, "root-1")
	for name, kind := range map[string]ca.Kind{"issuing-9": ca.NotFound, "issuing": ca.NotFound, "root-1": ca.Denied, "quarantine-1": ca.Conflict} {
		if err := a.RevokeCA(t.Context(), name, 1, "admin:test"); ca.KindOf(err) != kind {
			t.Errorf("revoking %s: %v, want %v", name, err, kind)
		}
	}
	if err := a.RevokeCA(t.Context(), "issuing-1", ca.ReasonKeyCompromise, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.AuthenticateCertificate(t.Context(), []*x509.Certificate{parse(t, old.Certificate.DER)}); ca.KindOf(err) != ca.Unauthenticated {
		t.Errorf("a revoked CA's certificate: %v", err)
	}
	if a.handsOut("issuing-1") {
		t.Error("cacerts still has the revoked CA")
	}
	a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1")))) // with the credential it goes on
}

// nextRoot makes a root and the certificates that lead between it and the one before.
func (a *authority) nextRoot(generation int, before *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	name, old := fmt.Sprintf("root-%d", generation), fmt.Sprintf("root-%d", generation-1)
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: a.clock.Now()}
	a.rootKeys[name] = ecKey(a.t, elliptic.P256())
	der, err := ca.NewRoot(a.rootKeys[name], generation, h)
	if err != nil {
		a.t.Fatal(err)
	}
	root := parse(a.t, der)
	cross := func(name, signer string, subject, parent *x509.Certificate) {
		h.Root = signer
		cert, err := ca.NewCross(subject.Raw, parent.Raw, a.rootKeys[signer], h)
		if err != nil {
			a.t.Fatal(err)
		}
		a.take(ca.IssuerRecord{Name: name, Role: "cross", Generation: generation, Key: name, Cert: cert})
	}
	cross(name+"-by-"+old, old, root, before)
	cross(old+"-by-"+name, name, before, root)
	a.take(ca.IssuerRecord{Name: name, Role: "root", Generation: generation, Key: name, Cert: der})
	return root
}

// Who trusts any one root accepts what is issued below any other, through two roll-overs: over the chain that goes along,
// and over ACME's default chain.
func TestRotateRoot(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 9)
	trusted := map[string]*x509.Certificate{"root-1": a.root}
	under := func(what string) {
		t.Helper()
		issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
		for name, root := range trusted {
			if err := a.chains(issued, root); err != nil {
				t.Errorf("%s, trusting %s alone: %v", what, name, err)
			}
		}
		for _, chain := range a.Chains(issued.Certificate.Issuer) {
			for i, der := range chain[1:] {
				if err := parse(t, chain[i]).CheckSignatureFrom(parse(t, der)); err != nil {
					t.Errorf("%s: certificate %d of a chain does not certify the one before: %v", what, i+1, err)
				}
			}
		}
	}
	trusted["root-2"] = a.nextRoot(2, a.root)
	under("issued below the old root")
	a.rotate(trusted["root-2"], "root-2")
	under("issued below the new root")
	for _, name := range []string{"root-1", "root-2", "root-2-by-root-1", "root-1-by-root-2"} {
		if !a.handsOut(name) {
			t.Errorf("cacerts leaves %s out", name)
		}
	}
	trusted["root-3"] = a.nextRoot(3, trusted["root-2"])
	under("below the second of three")
	a.rotate(trusted["root-3"], "root-3")
	under("below the third of three")
	if longest := a.Chains("issuing-3")[0]; len(longest) != 3 {
		t.Errorf("the default chain passes by %d roots, not by all three", len(longest)-1)
	}
	if live := a.Live("root"); len(live) != 3 || string(live[0]) != string(trusted["root-3"].Raw) || string(live[2]) != string(a.root.Raw) {
		t.Errorf("%d roots are live, or not the newest first", len(live))
	}

	// With the old root ends what leads to it.
	a.clock.Add(a.root.NotAfter.Sub(a.clock.Now()) - time.Second)
	if n := len(a.Chain("issuing-3")); n < 3 {
		t.Errorf("a second before the old root's end %d certificates", n)
	}
	a.clock.Add(2 * time.Second)
	if n := len(a.Chain("issuing-3")); n != 1 {
		t.Errorf("after the old roots' end there are %d certificates in the chain", n)
	}
}

func TestTakeRefuses(t *testing.T) {
	a := newAuthority(t, nil)
	h := ca.Hierarchy{Organization: "Else", URL: "http://else", Now: a.clock.Now()}
	strangerKey, key := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	stranger, err := ca.NewRoot(strangerKey, 1, h)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.NewSubordinate(stranger, strangerKey, "issuing", 2, key.Public(), h)
	if err != nil {
		t.Fatal(err)
	}
	a.keys["issuing-2"] = key
	if err := a.Take(t.Context(), ca.IssuerRecord{Name: "issuing-2", Role: "issuing", Generation: 2, Key: "issuing-2", Cert: cert}, "admin:test"); ca.KindOf(err) != ca.Malformed {
		t.Errorf("a certificate of a strange root: %v", err)
	}
	if a.Named("issuing") != "issuing-1" {
		t.Error("it is in force")
	}
}
