package cmp

import (
	"bytes"
	"crypto/x509"
	"testing"
)

// TestRAForwards: RFC 9483 §5.2.2.1 and §5.2.3, the original message inside a
// nested message or in origPKIMessage still verifies, over its own octets.
func TestRAForwards(t *testing.T) {
	h := hierarchy()
	roots := x509.NewCertPool()
	roots.AddCert(h.root.cert)
	ra := must[*Signer](t)(NewSigner(h.rsa.key, h.rsa.cert, SignerOptions{Chain: []*x509.Certificate{h.issuing.cert}}))
	device := must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{}))
	trust := VerifyOptions{Trust: TrustRoots(roots, at(noon))}

	q := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device")}}
	if err := q.SignPOP(h.ec.key, POPAuth{}); err != nil {
		t.Fatal(err)
	}
	original := NewRequest(&CertRequests{Of: IR, Requests: []*CertReqMsg{q}}, HeaderOptions{Time: noon})
	if err := original.Protect(device); err != nil {
		t.Fatal(err)
	}
	sent := original.Raw()

	t.Run("adding protection", func(t *testing.T) {
		nested := NewNested(HeaderOptions{}, must[*Message](t)(Parse(sent)))
		if err := nested.Protect(ra); err != nil {
			t.Fatal(err)
		}
		m := must[*Message](t)(Parse(nested.Raw()))
		if _, err := m.Verify(trust); err != nil {
			t.Fatal(err)
		}
		inner := m.Body.(*NestedMessages).Messages[0]
		if !bytes.Equal(inner.Raw(), sent) {
			t.Error("the inner message has changed")
		}
		if _, err := inner.VerifyMAC([]byte("secret"), MACPolicy{}); err != nil {
			t.Error(err)
		}
		checkInfo(t, inner.Body.(*CertRequests).Requests[0].VerifyPOP(POPRules{}), 0)
	})

	t.Run("replacing protection", func(t *testing.T) {
		m := must[*Message](t)(Parse(sent))
		m.Header.GeneralInfo = m.Header.GeneralInfo.With(OrigPKIMessage(m))
		if err := m.Protect(ra); err != nil {
			t.Fatal(err)
		}
		got := must[*Message](t)(Parse(m.Raw()))
		if _, err := got.Verify(trust); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Header.TransactionID, original.Header.TransactionID) || !bytes.Equal(got.Header.SenderNonce, original.Header.SenderNonce) {
			t.Error("transactionID or senderNonce has changed")
		}
		checkInfo(t, got.Body.(*CertRequests).Requests[0].VerifyPOP(POPRules{}), 0)
		list, found, err := got.Header.GeneralInfo.OrigPKIMessage(Limits{})
		if err != nil || !found || !bytes.Equal(list[0].Raw(), sent) {
			t.Fatalf("origPKIMessage: %t, %v", found, err)
		}
		if _, err := list[0].VerifyMAC([]byte("secret"), MACPolicy{}); err != nil {
			t.Error(err)
		}
	})
}
