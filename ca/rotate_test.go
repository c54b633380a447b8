package ca_test

import (
	"crypto/elliptic"
	"crypto/x509"
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

// Devices that trust either root go on working through a roll-over.
func TestRotateRoot(t *testing.T) {
	a := newAuthority(t, nil)
	r, _ := a.grant("lamp-1", "software", 9)
	h := ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Now: a.clock.Now()}
	newRootKey := ecKey(t, elliptic.P256())
	a.rootKeys["root-2"] = newRootKey
	der, err := ca.NewRoot(newRootKey, 2, h)
	if err != nil {
		t.Fatal(err)
	}
	newRoot := parse(t, der)
	cross := func(name, signer string, subject, parent *x509.Certificate) {
		h.Root = signer
		cert, err := ca.NewCross(subject.Raw, parent.Raw, a.rootKeys[signer], h)
		if err != nil {
			t.Fatal(err)
		}
		a.take(ca.IssuerRecord{Name: name, Role: "cross", Generation: 2, Key: name, Cert: cert})
	}
	cross("root-2-by-1", "root-1", newRoot, a.root)
	cross("root-1-by-2", "root-2", a.root, newRoot)
	a.take(ca.IssuerRecord{Name: "root-2", Role: "root", Generation: 2, Key: "root-2", Cert: der})

	under := func(what string) {
		t.Helper()
		issued := a.enroll(a.request(r, newCSR(t, newKey(t), named("lamp-1"))))
		for name, root := range map[string]*x509.Certificate{"the old root": a.root, "the new root": newRoot} {
			if err := a.chains(issued, root); err != nil {
				t.Errorf("%s, trusting %s alone: %v", what, name, err)
			}
		}
	}
	under("issued below the old root")
	a.rotate(newRoot, "root-2")
	under("issued below the new root")
	for _, name := range []string{"root-1", "root-2", "root-2-by-1", "root-1-by-2"} {
		if !a.handsOut(name) {
			t.Errorf("cacerts leaves %s out", name)
		}
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
