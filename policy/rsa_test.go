package policy

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	"strconv"
	"strings"
	"testing"
)

func prime(t testing.TB, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nextPrime is the first prime after n.
func nextPrime(n *big.Int) *big.Int {
	p := new(big.Int).Add(n, big.NewInt(2))
	for !p.ProbablyPrime(8) {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// rocaModulus is made as the broken generator did: each prime is k·M + (65537^a mod M).
func rocaModulus(t testing.TB) *big.Int {
	t.Helper()
	m := big.NewInt(2) // of the first 126 primes, as for 2048-bit keys
	for _, p := range smallPrimes()[:125] {
		m.Mul(m, new(big.Int).SetUint64(p))
	}
	one := func() *big.Int {
		for {
			a, err := rand.Int(rand.Reader, m)
			if err != nil {
				t.Fatal(err)
			}
			// Any k of the right size: whether the result is prime does not change the fingerprint.
			k, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(1023-m.BitLen())))
			if err != nil {
				t.Fatal(err)
			}
			k.SetBit(k, 1024-m.BitLen(), 1)
			p := k.Mul(k, m).Add(k, a.Exp(big.NewInt(65537), a, m))
			if p.BitLen() == 1024 {
				return p
			}
		}
	}
	n := one()
	for {
		if product := new(big.Int).Mul(n, one()); product.BitLen() == 2048 && product.Bit(0) == 1 && !hasSmallFactor(product) {
			return product
		}
		n = one()
	}
}

func TestWeakRSA(t *testing.T) {
	p := prime(t, 1024)
	times := func(a, b *big.Int) *big.Int { return new(big.Int).Mul(a, b) }
	q := prime(t, 1024)
	sound := times(p, q)
	small := func(factor int64) *big.Int { return times(big.NewInt(factor), sound) }
	far := new(big.Int).Add(p, new(big.Int).Lsh(one, 517)) // b is about 2^516: a lies some hundred above the root
	for _, c := range []struct {
		name string
		n    *big.Int
		e    int
		want string // part of the error; "" for none
	}{
		{"sound", sound, 65537, ""},
		{"larger exponent", sound, 65539, ""},
		{"exponent 3", sound, 3, "exponent 3"},
		{"even exponent", sound, 65538, "exponent 65538"},
		{"negative exponent", sound, -65537, "exponent -65537"},
		{"even", small(2), 65537, "even"},
		{"negative", new(big.Int).Neg(sound), 65537, "positive"},
		{"factor 3", small(3), 65537, "below 65536"},
		{"largest factor looked for", small(65521), 65537, "below 65536"},
		{"first factor not looked for", small(65537), 65537, ""},
		{"neighbours", times(p, nextPrime(p)), 65537, "Fermat"},
		{"a square", times(p, p), 65537, "Fermat"},
		{"primes that differ in their lower half", times(p, nextPrime(far)), 65537, "Fermat"},
		{"ROCA", rocaModulus(t), 65537, "CVE-2017-15361"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := KeyAlgorithm(&rsa.PublicKey{N: c.n, E: c.e})
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), c.n.String()) || strings.Contains(err.Error(), p.String())) {
				t.Errorf("the error shows the key: %v", err)
			}
		})
	}
}

// Anyone can sign for a key of small order, so a signature proves nothing.
func TestSmallOrderEd25519(t *testing.T) {
	key := make(ed25519.PublicKey, ed25519.PublicKeySize)
	key[0] = 1 // the neutral element
	signature := make([]byte, ed25519.SignatureSize)
	signature[0] = 1 // R the neutral element too, S zero
	if !ed25519.Verify(key, []byte("any message"), signature) {
		t.Fatal("the forged signature does not verify, so this test shows nothing")
	}
	for _, sign := range []byte{0, 0x80} {
		key[31] = sign
		if _, err := KeyAlgorithm(key); err == nil || !strings.Contains(err.Error(), "small order") {
			t.Errorf("got %v", err)
		}
	}
	sound, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if name, err := KeyAlgorithm(sound); err != nil || name != "ed25519" {
		t.Errorf("a sound key: %q, %v", name, err)
	}
}

// soundModulus has no factor that is looked for; whether it has two is not.
func soundModulus(t testing.TB, bits int) *big.Int {
	t.Helper()
	for {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(one, uint(bits-1)))
		if err != nil {
			t.Fatal(err)
		}
		if n.SetBit(n, bits-1, 1).SetBit(n, 0, 1); !hasSmallFactor(n) {
			return n
		}
	}
}

func BenchmarkKeyAlgorithmRSA(b *testing.B) {
	for _, bits := range []int{2048, 4096, 8192} {
		n := soundModulus(b, bits)
		b.Run(strconv.Itoa(bits), func(b *testing.B) {
			for b.Loop() {
				KeyAlgorithm(&rsa.PublicKey{N: n, E: 65537})
			}
		})
	}
}
