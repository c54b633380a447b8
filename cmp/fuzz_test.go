package cmp

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"io"
	"math/big"
	"testing"
)

// FuzzMessage: nothing makes Parse, Describe or Verify panic, and what parses
// encodes to the same octets.
func FuzzMessage(f *testing.F) {
	seeds := 0
	for _, raw := range messageVectors(f) {
		f.Add(raw)
		seeds++
	}
	for _, m := range sampleMessages(f) {
		f.Add(m.Raw())
		seeds++
	}
	for _, m := range envelopeMessages(f) {
		f.Add(m.Raw())
	}
	for content := range times {
		f.Add(withTime(f, content))
	}
	if seeds < 50 {
		f.Fatalf("only %d seeds", seeds)
	}
	cert := certificate(f, "openssl-vfy/server.crt")
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse(raw)
		if err != nil {
			checkInfo(t, err, BadDataFormat)
			return
		}
		again, err := m.Marshal()
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("encoded anew as\n%x\nwas\n%x, %v", again, raw, err)
		}
		if err := m.Describe(io.Discard); err != nil {
			t.Fatal(err)
		}
		_, _ = m.Verify(VerifyOptions{ // whatever it says, it must not panic
			Secret: func([]byte) ([]byte, error) { return []byte("x"), nil },
			MAC:    MACPolicy{MaxWork: 200},
			Trust:  TrustRoots(nil, at(noon)),
		})
		_ = m.VerifyCertificate(cert)
		if reply := Reply(m, &Confirm{}, noon); must[[]byte](t)(reply.Marshal()) == nil {
			t.Fatal("no answer possible")
		}
	})
}

// FuzzCRMF is FuzzMessage for CertReqMessages alone, with their controls and
// proofs of possession.
func FuzzCRMF(f *testing.F) {
	f.Add(vector(f, "rustcrypto-crmf/certreqmsgs.bin"))
	for _, body := range sampleBodies(f) {
		if q, ok := body.(*CertRequests); ok {
			f.Add(must[[]byte](f)(encode(0, func(b *out) { addList(b, q.Requests, addCertReqMsg) })))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := ParseCertReqMessages(raw)
		if err != nil {
			checkInfo(t, err, BadDataFormat)
			return
		}
		again, err := encode(0, func(b *out) { addList(b, list, addCertReqMsg) })
		if err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("encoded anew as\n%x\nwas\n%x, %v", again, raw, err)
		}
		for _, q := range list {
			_ = q.VerifyPOP(POPRules{Sender: CommonName("me"), Secret: []byte("x"), MAC: MACPolicy{MaxWork: 200}})
			_, _, _ = q.Controls.OldCertID()
			p := &printer{w: io.Discard}
			if p.request(q); p.err != nil {
				t.Fatal(p.err)
			}
		}
	})
}

// FuzzPBMParams: parameters of strangers are refused, or within the bounds and the
// same after a round trip in all that counts.
func FuzzPBMParams(f *testing.F) {
	seeds := 0
	for name := range vectorTypes {
		if m := parseVector(f, name); m.UsesMAC() {
			f.Add(m.Header.ProtectionAlg.Params, false)
			seeds++
		}
	}
	f.Add(must[*MAC](f)(NewMAC(nil, nil, MACParams{Kind: PBMAC1})).alg.Params, true)
	for _, length := range []int{256, 1<<31 - 1} { // of 13 blocks, and of a hundred million
		long := must[Algorithm](f)(MACParams{Kind: PBMAC1, OWF: crypto.SHA1, MAC: crypto.SHA1, Iterations: 100_000, KeyLength: length}.algorithm())
		f.Add(long.Params, true)
	}
	if seeds < 10 {
		f.Fatalf("only %d seeds", seeds)
	}
	policy := MACPolicy{MaxWork: 1000}
	f.Fuzz(func(t *testing.T, params []byte, pbmac1 bool) {
		alg := Algorithm{OID: oidPBM, Params: params}
		if pbmac1 {
			alg.OID = oidPBMAC1
		}
		p, err := policy.ParseMACParams(alg)
		if err != nil {
			return
		}
		if p.Iterations < 100 || p.Work() > 1000 || len(p.Salt) > maxSalt || p.KeyLength > 64 || !p.OWF.Available() || !p.MAC.Available() {
			t.Fatalf("out of bounds: %+v", p)
		}
		k := must[*MAC](t)(NewMAC(nil, []byte("x"), p))
		q, err := policy.ParseMACParams(k.alg)
		if err != nil || q.Iterations != p.Iterations || !bytes.Equal(q.Salt, p.Salt) || q.OWF != p.OWF || q.MAC != p.MAC {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// envelopeMessages hold what is encrypted to the RSA key of the hierarchy, or to "secret".
func envelopeMessages(t testing.TB) (all []*Message) {
	to := must[Recipient](t)(ToKey(hierarchy().rsa.key.Public(), 0))
	vault := holder(t, hierarchy().rsa.key, x509.KeyUsageKeyEncipherment, nil).cert.Raw
	for _, body := range []Body{
		&CertRequests{Of: IR, Requests: []*CertReqMsg{{Template: CertTemplate{Subject: nullDN, PublicKey: KeyToGenerate(Algorithm{OID: oidEd25519})}}}},
		&Challenges{List: []Challenge{must[Challenge](t)(NewChallenge(CommonName("ref"), to))}},
		&ChallengeAnswers{List: []*big.Int{big.NewInt(1)}},
		&CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{EncryptedCert: must[*EncryptedKey](t)(SealCertificate(vault))}}}},
		&CertResponses{Of: IP, Responses: []CertResponse{{KeyPair: &KeyPair{Certificate: vault,
			PrivateKey: must[*EncryptedKey](t)(authority(t).SealKey(hierarchy().ed.key, ToSecret([]byte("secret")), noon))}}}},
	} {
		m := NewRequest(body, HeaderOptions{Time: noon})
		if err := m.Protect(must[*MAC](t)(NewMAC([]byte("ref"), []byte("secret"), MACParams{Iterations: 100}))); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

// FuzzOpen: whatever an answer holds, opening it does not panic, and hands out
// nothing but what was to be there.
func FuzzOpen(f *testing.F) {
	for _, m := range envelopeMessages(f) {
		f.Add(m.Raw())
	}
	own, secret := must[Opener](f)(WithKey(hierarchy().rsa.key)), WithSecret([]byte("secret"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := Parse(raw)
		if err != nil {
			return
		}
		switch b := m.Body.(type) {
		case *Challenges:
			for _, c := range b.List {
				if n, err := c.Open(own, m.Header.Sender); err == nil && n == nil {
					t.Error("opened to no number")
				}
			}
		case *CertResponses:
			for _, r := range b.Responses {
				if r.KeyPair == nil {
					continue
				}
				if k := r.KeyPair.EncryptedCert; k != nil {
					if cert, err := k.OpenCertificate(own); err == nil && !hierarchy().rsa.cert.PublicKey.(*rsa.PublicKey).Equal(cert.PublicKey) {
						t.Error("another key's certificate came out")
					}
				}
				if k := r.KeyPair.PrivateKey; k != nil {
					if key, err := k.OpenKey(secret, nil); err == nil && key == nil {
						t.Error("opened to no key")
					}
				}
			}
		}
	})
}

// FuzzPKCS10: whatever a p10cr holds, taking it apart does not panic, and what is taken out was in it.
func FuzzPKCS10(f *testing.F) {
	for _, asked := range [][]pkix.Extension{nil, {{Id: oidReasonCode, Value: []byte{10, 1, 1}}, {Id: encasn1.ObjectIdentifier{2, 25, 1 << 30}, Critical: true}}} {
		csr := must[[]byte](f)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: asked}, hierarchy().ec.key))
		f.Add(csr)
		f.Add(bytes.Replace(csr, []byte{2, 1, 0}, []byte{2, 1, 1}, 1))
		f.Add(bytes.Replace(csr, derExtensionRequest, []byte{6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 0xff, 0x7f}, 1)) // an arc of two octets
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		info, err := (&PKCS10{Request: raw}).Info()
		if err != nil {
			checkInfo(t, err, BadDataFormat)
			return
		}
		for _, e := range info.Extensions {
			if !bytes.Contains(raw, e.Value) {
				t.Errorf("%x is not in the request", e.Value)
			}
		}
	})
}
