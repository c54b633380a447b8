package cmp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log"
	"math/big"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// A device that has a reference and a secret asks for its first certificate; a CA
// checks the request and answers (RFC 9483 §4.1.5). The messages would travel by
// HTTP POST as application/pkixcmp (RFC 9811).
func Example() {
	// The device.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	subject := must(cmp.CommonName("pump-17").Directory())
	req := &cmp.CertReqMsg{Template: cmp.CertTemplate{Subject: subject}}
	if err := req.SignPOP(key, cmp.POPAuth{}); err != nil {
		log.Fatal(err)
	}
	mac, err := cmp.NewMAC([]byte("ref-1"), []byte("correct horse"), cmp.MACParams{})
	if err != nil {
		log.Fatal(err)
	}
	ir := cmp.NewRequest(&cmp.CertRequests{Of: cmp.IR, Requests: []*cmp.CertReqMsg{req}}, cmp.HeaderOptions{
		Time:  time.Now(),
		Infos: cmp.Infos{cmp.ImplicitConfirm(), cmp.CertProfile("device")},
	})
	if err := ir.Protect(mac); err != nil {
		log.Fatal(err)
	}

	ip, err := answer(ir.Raw())
	if err != nil {
		log.Fatal(err)
	}

	// The device again: the answer is about its request, by who knows the secret.
	m, err := cmp.Parse(ip)
	if err != nil {
		log.Fatal(err)
	}
	_, err = m.Verify(cmp.VerifyOptions{
		Header: cmp.HeaderRules{TransactionID: ir.Header.TransactionID, RecipNonces: [][]byte{ir.Header.SenderNonce}},
		Secret: func([]byte) ([]byte, error) { return []byte("correct horse"), nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	r := m.Body.(*cmp.CertResponses).Responses[0]
	cert, err := x509.ParseCertificate(r.KeyPair.Certificate)
	if err != nil {
		log.Fatal(err)
	}
	confirmed, err := m.Header.GeneralInfo.ImplicitConfirm()
	fmt.Println(m.Body.Type(), r.Status, cert.Subject, confirmed, err)
	// Output: ip accepted CN=pump-17 true <nil>
}

// answer is a CA without policy.
func answer(raw []byte) ([]byte, error) {
	m, err := cmp.Parse(raw)
	if err != nil {
		return nil, err
	}
	by, err := m.Verify(cmp.VerifyOptions{
		Header: cmp.HeaderRules{First: true, TimeWindow: 5 * time.Minute},
		Secret: func(reference []byte) ([]byte, error) {
			if string(reference) == "ref-1" {
				return []byte("correct horse"), nil
			}
			return []byte(rand.Text()), nil // an unknown reference looks like a wrong secret
		},
	})
	if err != nil {
		return nil, err
	}
	req := m.Body.(*cmp.CertRequests).Requests[0]
	if err := req.VerifyPOP(cmp.POPRules{Sender: m.Header.Sender}); err != nil {
		return nil, err
	}
	cert, err := issue(req.Template)
	if err != nil {
		return nil, err
	}
	ip := cmp.Reply(m, &cmp.CertResponses{Of: m.Body.Type().Reply(), Responses: []cmp.CertResponse{{
		CertReqID: req.ID,
		Status:    cmp.StatusInfo{Status: cmp.Accepted},
		KeyPair:   &cmp.KeyPair{Certificate: cert},
	}}}, time.Now())
	ip.Header.GeneralInfo = cmp.Infos{cmp.ImplicitConfirm()}
	if err := ip.Protect(by.MAC); err != nil {
		return nil, err
	}
	return ip.Raw(), nil
}

func issue(t cmp.CertTemplate) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(t.PublicKey)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: t.Subject,
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, ca, pub, key)
}

// An error says what to answer, and which rule was broken.
func ExampleError() {
	m := cmp.NewRequest(&cmp.Confirm{}, cmp.HeaderOptions{})
	m.Header.Version = 1
	_, err := m.Verify(cmp.VerifyOptions{})
	if e, ok := errors.AsType[*cmp.Error](err); ok {
		fmt.Println(e.Info, "by", e.Section)
	}
	reply := cmp.ReplyError(m, err, time.Time{})
	fmt.Println("pvno", reply.Header.Version, reply.Body.Type(), reply.Body.(*cmp.ErrorBody).Status)
	// Output:
	// unsupportedVersion by RFC 9810 §7
	// pvno 2 error rejection (unsupportedVersion) "pvno 1 is not 2 or 3"
}

// What a CA offers is asked for by genm (RFC 9483 §4.3).
func ExampleInfos() {
	question := cmp.NewRequest(&cmp.General{Infos: cmp.Infos{{Type: cmp.OIDCertReqTemplate}}}, cmp.HeaderOptions{})

	template := &cmp.CertReqTemplate{KeySpec: cmp.Attributes{cmp.KeySpecRSA(3072)}}
	info, err := template.Info()
	if err != nil {
		log.Fatal(err)
	}
	reply := cmp.Reply(question, &cmp.General{Response: true, Infos: cmp.Infos{info}}, time.Time{})

	got, found, err := reply.Body.(*cmp.General).Infos.CertReqTemplate()
	_, rsaBits, _ := got.KeySpec.KeySpecs()
	fmt.Println(reply.Body.Type(), found, rsaBits, err)
	// Output: genp true [3072] <nil>
}

// A device says yes to its certificate (RFC 9483 §4.1.1).
func ExampleConfirmation() {
	issued, err := selfSigned()
	if err != nil {
		log.Fatal(err)
	}
	ip := cmp.NewRequest(&cmp.CertResponses{Of: cmp.IP}, cmp.HeaderOptions{})
	status, err := cmp.Confirmation(issued, 0, nil)
	if err != nil {
		log.Fatal(err)
	}
	conf := cmp.Reply(ip, &cmp.Confirmations{List: []cmp.CertStatus{status}}, time.Time{})

	fmt.Println(conf.Body.Type(), status.Accepted(), status.Matches(issued))
	// Output: certConf true <nil>
}

// A registration authority approves of a device's message: the one around it has the
// same transactionID (RFC 9483 §5.2.2.1). A batch has its own (§5.2.2.2).
func ExampleNewNested() {
	mac, err := cmp.NewMAC([]byte("ref-1"), []byte("correct horse"), cmp.MACParams{})
	if err != nil {
		log.Fatal(err)
	}
	one, other := cmp.NewRequest(&cmp.General{}, cmp.HeaderOptions{}), cmp.NewRequest(&cmp.General{}, cmp.HeaderOptions{})
	for _, m := range []*cmp.Message{one, other} {
		if err := m.Protect(mac); err != nil {
			log.Fatal(err)
		}
	}
	approved := cmp.NewNested(cmp.HeaderOptions{Time: time.Now()}, one)
	batch := cmp.NewNested(cmp.HeaderOptions{Time: time.Now()}, one, other)
	same := func(m *cmp.Message) bool { return string(m.Header.TransactionID) == string(one.Header.TransactionID) }
	fmt.Println(approved.Body.Type(), same(approved), same(batch))
	// Output: nested true false
}

func selfSigned() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1)}
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

func must(dn []byte, ok bool) []byte {
	if !ok {
		log.Fatal("not a directory name")
	}
	return dn
}
