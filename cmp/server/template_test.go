package server_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// A notAfter that has passed is the device's error, not ours.
func TestNotAfterThatPassed(t *testing.T) {
	e := newEnv(t)
	lamp := e.register("lamp-1", 1)
	request := crmf(t, "lamp-1", newKey(t), func(r *cmp.CertReqMsg) {
		r.Template.Validity = &cmp.OptionalValidity{NotAfter: cmp.Time{At: e.now().Add(-time.Hour)}}
	})
	got := status(e.ask(e.message(requests(cmp.IR, request)), lamp))
	if got.Status != cmp.Rejection || got.FailInfo == cmp.SystemFailure || !strings.Contains(strings.Join(got.Text, " "), "has passed") {
		t.Errorf("got %+v", got)
	}
}

// An algorithm that is not accepted is badAlg: nothing is said of the signature.
func TestAlgorithmOfPKCS10(t *testing.T) {
	e := newEnv(t)
	csr := must[[]byte](t)(os.ReadFile("../../ca/testdata/csr/bad_algorithm.der.csr"))
	got := status(e.ask(e.message(&cmp.PKCS10{Request: csr}), e.register("lamp-1", 1)))
	if got.Status != cmp.Rejection || got.FailInfo != cmp.BadAlg || !strings.Contains(strings.Join(got.Text, " "), "SHA-1") {
		t.Errorf("got %+v", got)
	}
}
