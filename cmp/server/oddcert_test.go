package server_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"testing"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/internal/der"
	"github.com/deviceca/deviceca/internal/dertest"
)

// An IDevID that crypto/x509 refuses signs an ir, alone and with its factory's certificate; as an
// extra beside a good protection it is in nobody's way.
func TestOddIDevID(t *testing.T) {
	e := newEnv(t)
	makerKey := newKey(t)
	root := issue(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Maker"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil, makerKey.Public(), makerKey)
	must[*ca.Manufacturer](t)(e.core.AddManufacturer(t.Context(), ca.Manufacturer{Name: "maker", Level: "software", Anchors: [][]byte{root.Raw}}, "admin:test"))
	strong := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	for i, o := range dertest.Oddities {
		t.Run(o.Name, func(t *testing.T) {
			var key crypto.Signer = newKey(t)
			if o.RSA {
				key = strong
			}
			id := fmt.Sprintf("station-%d", i)
			c := dertest.Device(root, id, key.Public())
			o.Edit(c)
			odd := must[*x509.Certificate](t)(der.Certificate(c.Sign(t, makerKey)))
			ir := func() *cmp.Message {
				return e.message(requests(cmp.IR, crmf(t, id, newKey(t), nil)), cmp.ImplicitConfirm())
			}
			if cert := e.certificate(e.ask(ir(), party{id: id, key: key, crt: odd})); cert.Subject.CommonName != id {
				t.Errorf("subject %s", cert.Subject)
			}
			forged := must[*x509.Certificate](t)(der.Certificate(c.Sign(t, newKey(t))))
			if got := status(e.ask(ir(), party{id: id, key: key, crt: forged})).FailInfo; got != cmp.SignerNotTrusted {
				t.Errorf("a forgery: %s", got)
			}
			beside := ir()
			beside.ExtraCerts = [][]byte{odd.Raw}
			device := e.register(fmt.Sprintf("lamp-%d", i), 1)
			beside.Body = requests(cmp.IR, crmf(t, device.id, newKey(t), nil))
			if cert := e.certificate(e.ask(beside, device)); cert.Subject.CommonName != device.id {
				t.Errorf("subject %s", cert.Subject)
			}
		})
	}
}
