package cmp

import (
	"bytes"
	"io"
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
			MAC:    MACPolicy{MaxIterations: 200},
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
			_ = q.VerifyPOP(POPRules{Sender: CommonName("me"), Secret: []byte("x"), MAC: MACPolicy{MaxIterations: 200}})
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
	if seeds < 10 {
		f.Fatalf("only %d seeds", seeds)
	}
	policy := MACPolicy{MaxIterations: 1000}
	f.Fuzz(func(t *testing.T, params []byte, pbmac1 bool) {
		alg := Algorithm{OID: oidPBM, Params: params}
		if pbmac1 {
			alg.OID = oidPBMAC1
		}
		p, err := policy.ParseMACParams(alg)
		if err != nil {
			return
		}
		if p.Iterations < 100 || p.Iterations > 1000 || len(p.Salt) > maxSalt || p.KeyLength > 256 || !p.OWF.Available() || !p.MAC.Available() {
			t.Fatalf("out of bounds: %+v", p)
		}
		k := must[*MAC](t)(NewMAC(nil, []byte("x"), p))
		q, err := policy.ParseMACParams(k.alg)
		if err != nil || q.Iterations != p.Iterations || !bytes.Equal(q.Salt, p.Salt) || q.OWF != p.OWF || q.MAC != p.MAC {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}
