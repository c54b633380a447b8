package server_test

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// TestOperations leads a device through its life over CMP alone (RFC 9483 §4.1, §4.2).
func TestOperations(t *testing.T) {
	e := newEnv(t)
	for _, c := range []struct {
		name     string
		of       cmp.BodyType // p10cr without a CRMF
		signed   bool
		implicit bool
	}{
		{"RFC 9483 §4.1.1 ir, MAC, certConf", cmp.IR, false, false},
		{"RFC 9483 §4.1.5 ir, MAC, implicitConfirm", cmp.IR, false, true},
		{"RFC 9483 §4.1.1 ir, own certificate", cmp.IR, true, false},
		{"RFC 9483 §4.1.2 cr, own certificate", cmp.CR, true, false},
		{"RFC 9483 §4.1.2 cr, MAC", cmp.CR, false, false},
		{"RFC 9483 §4.1.3 kur, certConf", cmp.KUR, true, false},
		{"RFC 9483 §4.1.3 kur, implicitConfirm", cmp.KUR, true, true},
		{"RFC 9483 §4.1.4 p10cr, MAC", cmp.P10CR, false, false},
		{"RFC 9483 §4.1.4 p10cr, own certificate", cmp.P10CR, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.t = t
			id := "lamp-" + time.Now().Format("150405.000000000")
			p := e.register(id, 2)
			if c.signed {
				key := newKey(t)
				p = party{id: id, key: key, crt: e.certificate(e.ask(e.message(requests(cmp.IR, crmf(t, id, key, nil)), cmp.ImplicitConfirm()), p))}
			}
			key := newKey(t)
			body := requests(c.of, crmf(t, id, key, nil))
			reqID := int64(0)
			if c.of == cmp.P10CR {
				csr := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id}}, key))
				body, reqID = &cmp.PKCS10{Request: csr}, -1
			}
			m := e.message(body)
			if c.implicit {
				m.Header.GeneralInfo = cmp.Infos{cmp.ImplicitConfirm()}
			}
			answer := e.ask(m, p)
			if answer.Body.Type() != c.of.Reply() || status(answer).Status != cmp.Accepted {
				t.Fatalf("%s: %v", answer.Body.Type(), status(answer))
			}
			responses := answer.Body.(*cmp.CertResponses)
			if got := responses.Responses[0].CertReqID; got != reqID {
				t.Errorf("certReqId %d, want %d", got, reqID)
			}
			if wants := !c.signed && c.of == cmp.IR; (len(responses.CAPubs) == 1) != wants {
				t.Errorf("%d certificates in caPubs", len(responses.CAPubs))
			}
			cert := e.certificate(answer)
			others := x509.NewCertPool()
			for _, raw := range answer.ExtraCerts {
				others.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(raw)))
			}
			if _, err := cert.Verify(x509.VerifyOptions{Roots: e.roots, Intermediates: others, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Errorf("with extraCerts the certificate does not lead to the root: %v", err)
			}
			if cert.Subject.CommonName != id {
				t.Errorf("subject %s", cert.Subject)
			}
			granted := must[bool](t)(answer.Header.GeneralInfo.ImplicitConfirm())
			until, waits, err := answer.Header.GeneralInfo.ConfirmWaitTime()
			if err != nil || granted != c.implicit || waits == c.implicit {
				t.Fatalf("implicitConfirm %v, confirmWaitTime %s: %v", granted, until, err)
			}
			if c.implicit {
				return
			}
			conf := cmp.Reply(answer, &cmp.Confirmations{List: []cmp.CertStatus{must[cmp.CertStatus](t)(cmp.Confirmation(cert.Raw, reqID, nil))}}, e.now())
			if reply := e.ask(conf, p); reply.Body.Type() != cmp.PKIConf {
				t.Errorf("%s: %v", reply.Body.Type(), status(reply))
			}
		})
	}
}
