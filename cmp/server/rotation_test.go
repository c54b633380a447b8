package server_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"reflect"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
)

func (e *env) hierarchy(root string) ca.Hierarchy {
	return ca.Hierarchy{Organization: "Test", URL: "http://ca.test:8080", Root: root, Now: e.now()}
}

func (e *env) take(r ca.IssuerRecord) {
	e.t.Helper()
	if err := e.core.Take(e.t.Context(), r, "admin:test"); err != nil {
		e.t.Fatal(err)
	}
}

// rotateIssuing makes the next issuing generation under a root.
func (e *env) rotateIssuing(rootName string, root []byte) string {
	e.t.Helper()
	name, generation := e.core.Next("issuing")
	key := newKey(e.t)
	e.keys[name] = key
	e.take(ca.IssuerRecord{Name: name, Role: "issuing", Generation: generation, Key: name,
		Cert: must[[]byte](e.t)(ca.NewSubordinate(root, e.keys[rootName], "issuing", generation, key.Public(), e.hierarchy(rootName)))})
	return name
}

// rotateRoot makes root-2, and the certificates that lead from either root to the other.
func (e *env) rotateRoot() []byte {
	e.t.Helper()
	e.keys["root-2"] = newKey(e.t)
	root := must[[]byte](e.t)(ca.NewRoot(e.keys["root-2"], 2, e.hierarchy("root-2")))
	e.take(ca.IssuerRecord{Name: "root-2", Role: "root", Generation: 2, Cert: root})
	for name, c := range map[string]struct {
		subject, parent []byte
		signer          string
	}{"root-2-by-root-1": {root, e.root, "root-1"}, "root-1-by-root-2": {e.root, root, "root-2"}} {
		e.take(ca.IssuerRecord{Name: name, Role: "cross", Generation: 2,
			Cert: must[[]byte](e.t)(ca.NewCross(c.subject, c.parent, e.keys[c.signer], e.hierarchy(c.signer)))})
	}
	return root
}

// TestRotation: the signer follows the CAs at once; clients of the old generation,
// and clients of either root, go on.
func TestRotation(t *testing.T) {
	e := newEnv(t, withProfiles)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go e.server.Run(ctx)
	old, lamp := e.enrolled("lamp-1"), e.register("lamp-2", 9)
	kur := func(p party) *cmp.Message {
		t.Helper()
		return e.ask(e.message(requests(cmp.KUR, crmf(t, "lamp-1", newKey(t), nil)), cmp.ImplicitConfirm()), p)
	}
	// signedBelow waits until answers are signed by a delegate of that CA, with these many certificates above it.
	signedBelow := func(name string, above int) *cmp.Message {
		t.Helper()
		issuer, _ := e.core.CACert(name)
		ski := must[*x509.Certificate](t)(x509.ParseCertificate(issuer)).SubjectKeyId
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			answer := e.ask(e.message(&cmp.General{Infos: cmp.Infos{must[cmp.Info](t)(cmp.CACerts())}}), old)
			signer := must[*x509.Certificate](t)(x509.ParseCertificate(answer.ExtraCerts[0]))
			if bytes.Equal(signer.AuthorityKeyId, ski) && len(answer.ExtraCerts) == 1+above {
				return answer
			}
			if time.Now().After(deadline) {
				t.Fatalf("signed below %x with %d certificates, not by a delegate of %s", signer.AuthorityKeyId, len(answer.ExtraCerts), name)
			}
		}
	}
	signedBelow("issuing-1", 1)
	e.opened(e.ask(e.message(requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), lamp), lamp)
	before := kur(old)
	if name := e.rotateIssuing("root-1", e.root); name != "issuing-2" {
		t.Fatal(name)
	}
	signedBelow("issuing-2", 1)
	after := kur(old) // verified against the root alone
	if cert := e.certificate(after); cert.Issuer.CommonName == e.certificate(before).Issuer.CommonName {
		t.Errorf("after the rotation issued by %s", cert.Issuer)
	}

	// A new root: the answers carry the way to it, and a client that trusts it alone is content.
	root := e.rotateRoot()
	signedBelow("issuing-2", 2)
	both := e.roots
	e.roots = x509.NewCertPool()
	e.roots.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(root)))
	kur(old)
	e.opened(e.ask(e.message(requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), lamp), lamp)
	e.rotateIssuing("root-2", root)
	answer := signedBelow("issuing-3", 2)
	for _, roots := range []*x509.CertPool{both, e.roots} {
		if _, err := answer.Verify(cmp.VerifyOptions{Trust: cmp.TrustRoots(roots, e.now)}); err != nil {
			t.Error(err)
		}
	}
	// Keys are made by who leads to the new root as well (e.roots holds no other).
	e.opened(e.ask(e.message(requests(cmp.IR, noKey("lamp-2", nil)), cmp.CertProfile("made-ec"), cmp.ImplicitConfirm()), lamp), lamp)
	// And whoever asks what follows the old root is told, with both ways.
	update, _, err := e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.RootCACert(e.root)}}), old).Body.(*cmp.General).Infos.RootCAKeyUpdate()
	unnamed, _, _ := e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.RootCACert(nil)}}), old).Body.(*cmp.General).Infos.RootCAKeyUpdate()
	if !reflect.DeepEqual(unnamed, update) {
		t.Errorf("RFC 9483 §4.3.2 rootCaCert without a value is about the root before: %+v", unnamed)
	}
	if err != nil || update == nil || !bytes.Equal(update.NewWithNew, root) || update.NewWithOld == nil || update.OldWithNew == nil {
		t.Errorf("RFC 9483 §4.3.2 rootCaKeyUpdate: %+v, %v", update, err)
	}
	// A device that missed a whole rotation is led on step by step: there is no certificate from the first root to the third.
	e.keys["root-3"] = newKey(t)
	third := must[[]byte](t)(ca.NewRoot(e.keys["root-3"], 3, e.hierarchy("root-3")))
	e.take(ca.IssuerRecord{Name: "root-3-by-root-2", Role: "cross", Generation: 3, Cert: must[[]byte](t)(ca.NewCross(third, root, e.keys["root-2"], e.hierarchy("root-2")))})
	e.take(ca.IssuerRecord{Name: "root-3", Role: "root", Generation: 3, Cert: third})
	for _, step := range []struct{ from, to []byte }{{e.root, root}, {root, third}, {third, nil}} {
		update, _, err := e.ask(e.message(&cmp.General{Infos: cmp.Infos{cmp.RootCACert(step.from)}}), old).Body.(*cmp.General).Infos.RootCAKeyUpdate()
		if err != nil || (update == nil) != (step.to == nil) || update != nil && (!bytes.Equal(update.NewWithNew, step.to) || update.NewWithOld == nil) {
			t.Errorf("RFC 9483 §4.3.2 rootCaKeyUpdate, step by step: %+v, %v", update, err)
		}
	}
	// What the old generation issued no longer counts when that is revoked.
	if err := e.core.RevokeCA(t.Context(), "issuing-1", 1, "admin:test"); err != nil {
		t.Fatal(err)
	}
	if got := status(kur(old)).FailInfo; got != cmp.SignerNotTrusted {
		t.Errorf("by a certificate of a revoked CA: %s", got)
	}
}
