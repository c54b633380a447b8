package pack

import (
	"bytes"
	"crypto"
	"encoding/asn1"
	"errors"
	"io"
	"math/big"
	"runtime"
	"slices"
	"testing"
)

// element is one item of a payload, and how to write it.
type element func([]byte) []byte

func num(n uint64) element     { return func(b []byte) []byte { return appendUint(b, n) } }
func str(s []byte) element     { return func(b []byte) []byte { return appendBytes(b, s) } }
func octets(s ...byte) element { return func(b []byte) []byte { return append(b, s...) } }

func array(elements []element) []byte {
	b := appendHead(nil, majorArray, uint64(len(elements)))
	for _, e := range elements {
		b = e(b)
	}
	return b
}

// replaced is elements with one of them changed.
func replaced(elements []element, i int, e element) []element {
	elements = slices.Clone(elements)
	elements[i] = e
	return elements
}

func TestPackRefuses(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	other := newCA(t, testKey("other"))
	issuer := IssuerHash(c.cert)
	otherIssuer := IssuerHash(other.cert)
	from := uint64(epochStart.Unix())
	// One revoked index, 12 of [0, 100): gap 12, k 3.
	good := []element{num(1), str(issuer[:]), num(1), num(1), num(from), num(from + 3600), num(0), num(100), str(nil), num(3), num(1), str([]byte{0b10100000})}
	if _, err := Verify(c.raw(t, contentType, nil, array(good)), c.options()); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		payload []byte
		want    error
	}{
		{"empty", nil, ErrMalformed},
		{"not an array", []byte{0xa0}, ErrMalformed},
		{"an element missing", array(good[:11]), ErrMalformed},
		{"an element too many", array(append(slices.Clone(good), num(0))), ErrMalformed},
		{"an octet too many", append(array(good), 0), ErrMalformed},
		{"indefinite array", append(append([]byte{0x9f}, array(good)[1:]...), 0xff), ErrMalformed},
		{"kind of a delta", array(replaced(good, 0, num(2))), ErrMalformed},
		{"kind unknown", array(replaced(good, 0, num(3))), ErrMalformed},
		{"kind as text", array(replaced(good, 0, octets(0x61, '1'))), ErrMalformed},
		{"integer not shortest, 8 bits", array(replaced(good, 2, octets(0x18, 1))), ErrMalformed},
		{"integer not shortest, 16 bits", array(replaced(good, 2, octets(0x19, 0, 0xff))), ErrMalformed},
		{"integer not shortest, 32 bits", array(replaced(good, 2, octets(0x1a, 0, 0, 0xff, 0xff))), ErrMalformed},
		{"integer not shortest, 64 bits", array(replaced(good, 2, octets(0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff))), ErrMalformed},
		{"reserved length", array(replaced(good, 2, octets(0x1c))), ErrMalformed},
		{"negative", array(replaced(good, 2, octets(0x20))), ErrMalformed},
		{"float", array(replaced(good, 4, octets(0xf9, 0x3c, 0))), ErrMalformed},
		{"null", array(replaced(good, 8, octets(0xf6))), ErrMalformed},
		{"issuer short", array(replaced(good, 1, str(issuer[:31]))), ErrMalformed},
		{"issuer of another", array(replaced(good, 1, str(otherIssuer[:]))), ErrIssuer},
		{"issuer zero", array(replaced(good, 1, str(make([]byte, 32)))), ErrMalformed},
		{"epoch above 2^63-1", array(replaced(good, 2, num(1<<63))), ErrMalformed},
		{"sequence above 2^63-1", array(replaced(good, 3, num(1<<64-1))), ErrMalformed},
		{"time in year 10000", array(replaced(good, 5, num(maxTime+1))), ErrMalformed},
		{"times equal", array(replaced(good, 5, num(from))), ErrMalformed},
		{"first above 48 bits", array(replaced(good, 6, num(MaxIndex+2))), ErrMalformed},
		{"universe above 48 bits", array(replaced(good, 6, num(MaxIndex-98))), ErrMalformed},
		{"size above 48 bits", array(replaced(good, 7, num(1<<63))), ErrMalformed},
		{"base of 31 octets", array(replaced(good, 8, str(make([]byte, 31)))), ErrMalformed},
		{"base zero", array(replaced(good, 8, str(make([]byte, 32)))), ErrMalformed},
		{"parameter not the shortest", array(append(slices.Clone(good[:9]), num(4), num(1), str([]byte{0b01100000}))), ErrMalformed},
		{"parameter above 47", array(replaced(good, 9, num(48))), ErrMalformed},
		{"parameter without indices", array(append(slices.Clone(good[:9]), num(1), num(0), str(nil))), ErrMalformed},
		{"count too low", array(replaced(good, 10, num(0))), ErrMalformed},
		{"count too high", array(replaced(good, 10, num(2))), ErrMalformed},
		{"count absurd", array(replaced(good, 10, num(1<<40))), ErrLimit},
		{"index at the end", array(replaced(good, 7, num(12))), ErrMalformed},
		{"padding", array(replaced(good, 11, str([]byte{0b10100001}))), ErrMalformed},
		{"set too long", array(replaced(good, 11, str([]byte{0b10100000, 0}))), ErrMalformed},
		{"set longer than the input", array(replaced(good, 11, octets(0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))), ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Verify(c.raw(t, contentType, nil, tc.payload), c.options()); !errors.Is(err, tc.want) {
				t.Fatal(err)
			}
		})
	}
}

func TestDeltaRefuses(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	h := c.header(1, 1, 0, 100)
	parent := must[*State](t)(NewState(h, slices.Values([]uint64{12, 50})))
	p := must[*Pack](t)(Verify(must[[]byte](t)(parent.Sign(c.sign, Hash{})), c.options()))
	next := must[*State](t)(parent.Next(c.header(1, 2, 0, 110), revocations(105)))
	hash, result := parent.Hash(), next.Hash()
	from, until := uint64(next.Header().ThisUpdate.Unix()), uint64(next.Header().NextUpdate.Unix())
	offsets := slices.Values([]uint64{105})
	k := riceParameter(offsets)
	good := []element{num(2), str(hash[:4]), num(0), num(2), num(from), num(until), num(0), num(10), str(result[:8]), num(uint64(k)), num(1), str(encodeRice(nil, k, offsets))}
	set := func(offsets ...uint64) []element {
		k := riceParameter(slices.Values(offsets))
		return []element{num(uint64(k)), num(uint64(len(offsets))), str(encodeRice(nil, k, slices.Values(offsets)))}
	}
	sealed := func(payload []byte) []byte { return c.raw(t, "", hash[:], payload) }
	if _, err := p.Apply(sealed(array(good))); err != nil {
		t.Fatal(err)
	}
	join := func(parts ...[]element) []byte { return array(slices.Concat(parts...)) }
	for _, tc := range []struct {
		name  string
		delta []byte
		want  error
	}{
		{"empty", sealed(nil), ErrMalformed},
		{"13 elements", sealed(join(good, []element{num(0)})), ErrMalformed},
		{"kind of a pack", sealed(array(replaced(good, 0, num(1)))), ErrMalformed},
		{"prefix of another parent", sealed(array(replaced(good, 1, str(result[:4])))), ErrParent},
		{"prefix of 8 octets", sealed(array(replaced(good, 1, str(hash[:8])))), ErrMalformed},
		{"signed for another parent with the same prefix", c.raw(t, "", append(hash[:31:31], hash[31]^1), array(good)), ErrSignature},
		{"signed for no parent", c.raw(t, "", nil, array(good)), ErrSignature},
		{"content type of a pack", c.raw(t, contentType, hash[:], array(good)), ErrMalformed},
		{"epoch beyond 2^63-1", sealed(array(replaced(good, 2, num(1<<63-1)))), ErrMalformed},
		{"epoch other than signed", sealed(array(replaced(good, 2, num(1)))), ErrResult},
		{"same sequence", sealed(array(replaced(good, 3, num(1)))), ErrOrder},
		{"thisUpdate before the parent's", sealed(array(replaced(good, 4, num(1000)))), ErrOrder},
		{"nextUpdate before thisUpdate", sealed(array(replaced(good, 5, num(from)))), ErrMalformed},
		{"nextUpdate other than signed", sealed(array(replaced(good, 5, num(until+1)))), ErrResult},
		{"first rises within the epoch", sealed(array(replaced(good, 6, num(1)))), ErrOrder},
		{"first beyond the end", sealed(array(replaced(good, 6, num(111)))), ErrMalformed},
		{"end beyond 48 bits", sealed(array(replaced(good, 7, num(MaxIndex)))), ErrMalformed},
		{"end other than signed", sealed(array(replaced(good, 7, num(9)))), ErrResult},
		{"result other", sealed(array(replaced(good, 8, str(hash[:8])))), ErrResult},
		{"added not in the universe", sealed(array(replaced(good, 7, num(5)))), ErrMalformed},
		{"added again", sealed(join(good[:9], set(12, 105))), ErrResult},
		{"removed but not there", sealed(join(good, set(13))), ErrResult},
		{"added and removed", sealed(join(good, set(105))), ErrResult},
		{"removed empty", sealed(join(good, set())), ErrMalformed},
		{"count absurd", sealed(array(replaced(good, 10, num(1<<40)))), ErrLimit},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if q, err := p.Apply(tc.delta); !errors.Is(err, tc.want) || q != nil {
				t.Fatal(err)
			}
		})
	}
	if p.Hash() != hash || p.Revoked() != 2 {
		t.Error("refused deltas changed the pack")
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	st := must[*State](t)(NewState(c.header(1, 1, 0, 100), slices.Values([]uint64{12})))
	payload := st.appendPack(nil, Hash{})
	kid := appendBytes([]byte{headerKid}, keyID(c.cert))
	alg := []byte{headerAlg, 0x27}
	media := appendText([]byte{headerContentType}, contentType)
	header := func(n byte, parts ...[]byte) []byte {
		return c.reseal(t, envelope{protected: append([]byte{0xa0 | n}, slices.Concat(parts...)...), payload: payload}, nil)
	}
	good := header(3, alg, media, kid)
	if _, err := Verify(good, c.options()); err != nil {
		t.Fatal(err)
	}
	protected := append([]byte{0xa3}, slices.Concat(alg, media, kid)...)
	swap := func(old, new []byte) []byte {
		if bytes.Count(good, old) != 1 {
			t.Fatalf("%x not found once", old)
		}
		return bytes.Replace(good, old, new, 1)
	}
	for _, tc := range []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, ErrMalformed},
		{"no tag", good[1:], ErrMalformed},
		{"tag of COSE_Sign", append([]byte{0xd8, 98}, good[1:]...), ErrMalformed},
		{"three elements", append([]byte{0xd2, 0x83}, good[2:]...), ErrMalformed},
		{"protected header empty", c.reseal(t, envelope{payload: payload}, nil), ErrMalformed},
		{"unprotected header", swap(append(bytes.Clone(kid), 0xa0), append(bytes.Clone(kid), 0xa1, 4, 0x40)), ErrMalformed},
		{"payload detached", swap(appendBytes(nil, payload), []byte{0xf6}), ErrMalformed},
		{"no alg", header(2, media, kid), ErrMalformed},
		{"no content type", header(2, alg, kid), ErrMalformed},
		{"no kid", header(2, alg, media), ErrMalformed},
		{"wrong order", header(3, alg, kid, media), ErrMalformed},
		{"alg twice", header(4, alg, alg, media, kid), ErrMalformed},
		{"parameter unknown", header(4, alg, media, kid, []byte{0x18, 34, 0x40}), ErrMalformed},
		{"crit", header(4, alg, []byte{2, 0x81, 1}, media, kid), ErrMalformed},
		{"map longer than said", header(2, alg, media, kid), ErrMalformed},
		{"octets after the map", header(3, alg, media, kid, []byte{0}), ErrMalformed},
		{"other content type", header(3, alg, appendText([]byte{3}, "application/cwt"), kid), ErrMalformed},
		{"alg of P-256", header(3, []byte{1, 0x26}, media, kid), ErrSignature},
		{"alg unknown", header(3, []byte{1, 0x3a, 0, 1, 0, 0}, media, kid), ErrMalformed},
		{"alg positive", header(3, []byte{1, 7}, media, kid), ErrMalformed},
		{"kid of another", header(3, alg, media, appendBytes([]byte{4}, make([]byte, 8))), ErrSigner},
		{"kid short", header(3, alg, media, appendBytes([]byte{4}, keyID(c.cert)[:7])), ErrMalformed},
		{"x5chain empty", header(4, alg, media, kid, []byte{0x18, 33, 0x40}), ErrMalformed},
		{"x5chain an array", header(4, alg, media, kid, []byte{0x18, 33, 0x80}), ErrMalformed},
		{"x5chain no certificate", header(4, alg, media, kid, []byte{0x18, 33, 0x41, 0x30}), ErrSigner},
		{"x5chain above its limit", header(4, alg, media, kid, appendBytes([]byte{0x18, 33}, make([]byte, maxCertificate+1))), ErrMalformed},
		{"x5chain of the issuer", header(4, alg, media, kid, appendBytes([]byte{0x18, 33}, c.cert.Raw)), ErrSigner},
		{"signature empty", envelope{protected: protected, payload: payload}.bytes(), ErrSignature},
		{"signature short", envelope{protected: protected, payload: payload, signature: make([]byte, 63)}.bytes(), ErrSignature},
		{"signature long", envelope{protected: protected, payload: payload, signature: make([]byte, 65)}.bytes(), ErrSignature},
		{"signature zero", envelope{protected: protected, payload: payload, signature: make([]byte, 64)}.bytes(), ErrSignature},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if p, err := Verify(tc.data, c.options()); !errors.Is(err, tc.want) || p != nil {
				t.Fatal(err)
			}
		})
	}
	for name, o := range map[string]Options{
		"no issuer":               {},
		"issuer with another key": {Issuer: newCA(t, testKey("other")).cert},
		"issuer that is no CA":    {Issuer: certificate(t, delegateTemplate(), c.cert, c.key.Public(), c.key)},
	} {
		if _, err := Verify(good, o); !errors.Is(err, ErrSigner) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (e envelope) bytes() []byte { return e.append(nil) }

// failingKey gives signatures that it should not.
type failingKey struct {
	crypto.Signer
	sig []byte
	err error
}

func (k failingKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return k.sig, k.err }

func TestSignerIsDistrusted(t *testing.T) {
	broken := errors.New("token is away")
	for name, key := range keys(t) {
		c := newCA(t, key)
		st := must[*State](t)(NewState(c.header(1, 1, 0, 10), slices.Values([]uint64{3})))
		zero := make([]byte, 64)
		der := must[[]byte](t)(asn1.Marshal(struct{ R, S *big.Int }{big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 400)}))
		for what, f := range map[string]failingKey{"error": {key, nil, broken}, "nothing": {key, nil, nil}, "zero": {key, zero, nil}, "oversized": {key, der, nil}} {
			s := must[*Signer](t)(NewSigner(c.cert, f, nil))
			if out, err := st.Sign(s, Hash{}); err == nil || out != nil || what == "error" && !errors.Is(err, broken) {
				t.Errorf("%s %s: %v", name, what, err)
			}
		}
	}
}

// TestLimits checks that what input claims allocates nothing that its octets do not account for.
func TestLimits(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	st := must[*State](t)(NewState(c.header(1, 1, 0, MaxIndex+1), slices.Values([]uint64{1, MaxIndex})))
	data := must[[]byte](t)(st.Sign(c.sign, Hash{}))
	next := must[*State](t)(st.Next(c.header(1, 2, 0, MaxIndex+1), revocations(5)))
	delta := must[[]byte](t)(st.Delta(next, c.sign))
	with := func(l Limits) Options { return Options{Issuer: c.cert, Limits: l} }
	if _, err := Verify(data, with(Limits{Bytes: len(data), Revoked: 2})); err != nil {
		t.Error(err)
	}
	if _, err := Verify(data, with(Limits{Bytes: len(data) - 1})); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	if _, err := Verify(data, with(Limits{Revoked: 1})); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	if _, err := Verify(data, with(Limits{Revoked: 2}), delta); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}
	p := must[*Pack](t)(Verify(data, with(Limits{Bytes: len(delta) + 10_000})))
	if _, err := p.Apply(append(delta, make([]byte, 10_001)...)); !errors.Is(err, ErrLimit) {
		t.Error(err)
	}

	issuer := IssuerHash(c.cert)
	from := uint64(epochStart.Unix())
	claim := array([]element{num(1), str(issuer[:]), num(1), num(1), num(from), num(from + 1), num(0), num(MaxIndex + 1), str(nil), num(0), num(4 << 20), str([]byte{0})})
	hostile := c.raw(t, contentType, nil, claim)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Verify(hostile, c.options()); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("%d octets allocated for a pack of %d", got, len(hostile))
	}
}
