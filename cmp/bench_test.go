package cmp

import (
	"crypto/x509"
	"io"
	"testing"
)

func benchRequest(b *testing.B, p Protector) []byte {
	q := &CertReqMsg{Template: CertTemplate{Subject: commonNameDN("device-1")}}
	if err := q.SignPOP(hierarchy().ec.key, POPAuth{}); err != nil {
		b.Fatal(err)
	}
	m := NewRequest(&CertRequests{Of: IR, Requests: []*CertReqMsg{q}}, HeaderOptions{Recipient: CommonName("CA"), Time: noon, Infos: Infos{ImplicitConfirm()}})
	if err := m.Protect(p); err != nil {
		b.Fatal(err)
	}
	return m.Raw()
}

func benchMAC(b *testing.B) *MAC {
	return must[*MAC](b)(NewMAC([]byte("device-1"), []byte("secret"), MACParams{Iterations: 500}))
}

func benchSigner(b *testing.B) *Signer {
	h := hierarchy()
	return must[*Signer](b)(NewSigner(h.ec.key, h.ec.cert, SignerOptions{Chain: []*x509.Certificate{h.issuing.cert}}))
}

func BenchmarkParse(b *testing.B) {
	raw := benchRequest(b, benchMAC(b))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMarshal(b *testing.B) {
	m := must[*Message](b)(Parse(benchRequest(b, benchMAC(b))))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Marshal(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBaseline is the one signature check that nothing can do without.
func BenchmarkBaseline(b *testing.B) {
	h := hierarchy()
	sig, _, err := signatureFor(h.ec.key.Public(), false)
	if err != nil {
		b.Fatal(err)
	}
	msg := make([]byte, 512)
	signed := must[[]byte](b)(sig.sign(h.ec.key, msg))
	for b.Loop() {
		if err := sig.verify(h.ec.cert.PublicKey, msg, signed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseVerify(b *testing.B) {
	mac, signer := benchMAC(b), benchSigner(b)
	roots := x509.NewCertPool()
	roots.AddCert(hierarchy().issuing.cert)
	o := VerifyOptions{
		Secret: func([]byte) ([]byte, error) { return []byte("secret"), nil },
		Trust:  TrustRoots(roots, at(noon)),
	}
	run := func(name string, raw []byte, verify func(*Message) error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m, err := Parse(raw)
				if err != nil {
					b.Fatal(err)
				}
				if err := verify(m); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	whole := func(m *Message) error { _, err := m.Verify(o); return err }
	run("pbm-500", benchRequest(b, mac), whole)
	run("pbm-derived", benchRequest(b, mac), mac.Verify)
	run("p256-chain", benchRequest(b, signer), whole)
	run("p256-key", benchRequest(b, signer), func(m *Message) error { return m.VerifyKey(hierarchy().ec.cert.PublicKey) })
	run("pop-p256", benchRequest(b, mac), func(m *Message) error {
		return m.Body.(*CertRequests).Requests[0].VerifyPOP(POPRules{})
	})
}

func BenchmarkReply(b *testing.B) {
	mac, signer := benchMAC(b), benchSigner(b)
	req := must[*Message](b)(Parse(benchRequest(b, mac)))
	cert := hierarchy().ec.cert.Raw
	for name, p := range map[string]Protector{"pbm": mac, "p256": signer} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m := Reply(req, &CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{Certificate: cert}}}}, noon)
				if err := m.Protect(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDescribe(b *testing.B) {
	m := must[*Message](b)(Parse(benchRequest(b, benchSigner(b))))
	for b.Loop() {
		if err := m.Describe(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
