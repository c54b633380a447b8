package pack

import (
	"bytes"
	"crypto/rand"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/veraison/go-cose"
)

// TestOtherCOSE has an independent COSE library verify packs and deltas, and sign a pack that is taken here.
func TestOtherCOSE(t *testing.T) {
	algs := map[string]cose.Algorithm{"ES256": cose.AlgorithmES256, "ES384": cose.AlgorithmES384, "EdDSA": cose.AlgorithmEdDSA, "PS256": cose.AlgorithmPS256}
	for name, key := range keys(t) {
		t.Run(name, func(t *testing.T) {
			c := newCA(t, key)
			st := must[*State](t)(NewState(c.header(1, 1, 0, 1000), slices.Values([]uint64{3, 999})))
			next := must[*State](t)(st.Next(c.header(1, 2, 0, 1000), revocations(4)))
			full, delta := must[[]byte](t)(st.Sign(c.sign, Hash{})), must[[]byte](t)(st.Delta(next, c.sign))
			verifier := must[cose.Verifier](t)(cose.NewVerifier(algs[name], key.Public()))
			hash := st.Hash()
			for what, m := range map[string]struct{ data, aad []byte }{"pack": {full, nil}, "delta": {delta, hash[:]}} {
				var msg cose.Sign1Message
				if err := msg.UnmarshalCBOR(m.data); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if err := msg.Verify(m.aad, verifier); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				if err := msg.Verify([]byte("something else"), verifier); err == nil {
					t.Errorf("%s verifies with other external data", what)
				}
				if alg, err := msg.Headers.Protected.Algorithm(); alg != algs[name] || err != nil {
					t.Errorf("%s: algorithm %v, %v", what, alg, err)
				}
			}

			msg := cose.Sign1Message{Payload: st.appendPack(nil, Hash{}), Headers: cose.Headers{Protected: cose.ProtectedHeader{
				cose.HeaderLabelAlgorithm:   algs[name],
				cose.HeaderLabelContentType: contentType,
				cose.HeaderLabelKeyID:       keyID(c.cert),
			}}}
			if err := msg.Sign(rand.Reader, nil, must[cose.Signer](t)(cose.NewSigner(algs[name], key))); err != nil {
				t.Fatal(err)
			}
			p, err := Verify(must[[]byte](t)(msg.MarshalCBOR()), c.options())
			if err != nil || p.Hash() != st.Hash() {
				t.Errorf("their pack: %v", err)
			}
		})
	}
}

// TestOtherCBOR has an independent CBOR library find the payload deterministic, and read out of it what was put in.
func TestOtherCBOR(t *testing.T) {
	strict := must[cbor.DecMode](t)(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode())
	deterministic := must[cbor.EncMode](t)(cbor.CoreDetEncOptions().EncMode())
	c := newCA(t, testKey("issuer"))
	signer, _ := c.delegate(t, testKey("delegate"), delegateTemplate())
	for _, h := range []Header{c.header(0, 0, 0, 0), c.header(23, 24, 255, 256), c.header(65535, 65536, 1<<32-1, 1<<32), c.header(1<<32, 1<<33, 1<<47, 1<<47)} {
		h.ThisUpdate, h.NextUpdate = epochStart, epochStart.Add(week)
		st := must[*State](t)(NewState(h, slices.Values([]uint64{})))
		data := must[[]byte](t)(st.Sign(signer, Hash{9}))
		var msg cbor.Tag
		if err := strict.Unmarshal(data, &msg); err != nil {
			t.Fatal(err)
		}
		if again := must[[]byte](t)(deterministic.Marshal(msg)); !bytes.Equal(again, data) {
			t.Errorf("envelope is not deterministic:\n%x\n%x", data, again)
		}
		for _, part := range msg.Content.([]any)[:3:3] {
			inner, ok := part.([]byte)
			if !ok {
				continue // the empty unprotected header
			}
			var v any
			if err := strict.Unmarshal(inner, &v); err != nil {
				t.Fatal(err)
			}
			if again := must[[]byte](t)(deterministic.Marshal(v)); !bytes.Equal(again, inner) {
				t.Errorf("not deterministic:\n%x\n%x", inner, again)
			}
			if fields, ok := v.([]any); ok && (fields[2] != h.Epoch || fields[3] != h.Sequence || fields[6] != h.First || fields[7] != h.Size) {
				t.Errorf("%v", fields)
			}
		}
	}
}
