package est_test

import (
	"crypto"
	"crypto/x509"
	"testing"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// A device that lost the answer to its renewal, or could not keep it, repeats it and gets the same certificate, over
// each path and with a new signature by its key. With the new certificate it renews anew, with the same key too.
func TestRenewalRepeated(t *testing.T) {
	s := newService(t)
	lamp := s.register(t, "lamp-1", 1)
	renew := func(path string, cert *x509.Certificate, of, next crypto.Signer) *x509.Certificate {
		t.Helper()
		return s.do(t, call{path: path, as: &identity{&ca.Certificate{DER: cert.Raw}, of}, body: base64Body(newCSR(t, next, "lamp-1"))}).certs(t)[0]
	}
	key, next := newKey(t), newKey(t)
	own := s.do(t, call{path: "simpleenroll", user: lamp.Reference, pass: lamp.Secret, body: base64Body(newCSR(t, key, "lamp-1"))}).certs(t)[0]
	first := renew("simplereenroll", own, key, next)
	for _, path := range []string{"simplereenroll", "simpleenroll"} {
		if !renew(path, own, key, next).Equal(first) {
			t.Errorf("%s: a second certificate", path)
		}
	}
	if n := s.core.Stats().Issued; n != 2 {
		t.Errorf("%d certificates issued, want 2", n)
	}
	second := renew("simplereenroll", first, next, next)
	if second.Equal(first) || !renew("simplereenroll", first, next, next).Equal(second) {
		t.Error("the new certificate was not renewed once")
	}
	s.late.Add(int64(time.Hour))
	if renew("simplereenroll", first, next, next).Equal(second) {
		t.Error("an hour later the request is still answered with the same certificate")
	}
}
