package acme_test

import (
	"bytes"
	"testing"
)

// From the directory to a certificate, by binding alone.
func TestOrder(t *testing.T) {
	e := newEnv(t)
	var dir struct {
		NewNonce, NewAccount, NewOrder, RevokeCert, KeyChange, RenewalInfo string
		Meta                                                               struct {
			ExternalAccountRequired bool
			Profiles                map[string]string
		}
	}
	e.get("/directory").want(200).json(&dir)
	if dir.NewOrder != e.url("/new-order") || !dir.Meta.ExternalAccountRequired || len(dir.Meta.Profiles) != 3 {
		t.Errorf("directory %+v", dir)
	}
	a := e.device("lamp-1")
	o := a.ordered(pid("lamp-1"))
	if o.Status != "ready" || o.Profile != "device" || len(o.Authorizations) != 1 {
		t.Fatalf("order %+v", o)
	}
	if authz := a.authorization(o.Authorizations[0]); authz.Status != "valid" || authz.Identifier != pid("lamp-1") {
		t.Errorf("authorization %+v", authz)
	}
	key := newKey(t)
	done := readOrder(a.finalize(o, csr(t, key, "lamp-1", pid("lamp-1"))).want(200))
	if done.Status != "valid" || done.url != o.url {
		t.Fatalf("finalized: %+v", done)
	}
	chain := a.chain(done.Certificate)
	if chain[0].Subject.CommonName != "lamp-1" || !bytes.Equal(chain[0].RawSubjectPublicKeyInfo, publicKey(t, key)) {
		t.Errorf("certificate of %s", chain[0].Subject)
	}
	if again := a.fetchOrder(o.url); again.Status != "valid" || again.Certificate != done.Certificate {
		t.Errorf("fetched again: %+v", again)
	}
}
