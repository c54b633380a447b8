package policy

import (
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"strconv"
	"sync"
)

const (
	minRSABits = 2048
	maxRSABits = 8192 // checking a signature costs the square of the size
	// minRSAExponent is the fourth Fermat number, which all software can make. RFC 8017 §3.1 allows 3 and
	// above; small exponents have turned careless padding checks into forgeries.
	minRSAExponent = 65537
)

// rsaAlgorithm vets an RSA key. Besides size and exponent it looks for moduli that anyone can
// factor or whose generator is known to be broken. It costs 0.1 ms for 2048 bits and 0.4 ms for 8192, on
// one core of a small server (BenchmarkKeyAlgorithmRSA).
func rsaAlgorithm(k *rsa.PublicKey) (string, error) {
	size := k.N.BitLen()
	switch {
	case k.N.Sign() <= 0:
		return "", errors.New("the RSA modulus is not a positive number (RFC 8017 §3.1); make a new key")
	case size < minRSABits:
		return "", fmt.Errorf("an RSA key of %d bits is too short; make one of at least %d", size, minRSABits)
	case size > maxRSABits:
		return "", fmt.Errorf("an RSA key of %d bits is too long; make one of at most %d", size, maxRSABits)
	case k.N.Bit(0) == 0:
		return "", errors.New("the RSA modulus is even, so it is no RSA key (RFC 8017 §3.1); make a new one")
	case k.E < minRSAExponent || k.E%2 == 0:
		return "", fmt.Errorf("the RSA exponent %d is not accepted; use %d", k.E, minRSAExponent)
	}
	if err := CheckFactors(k.N); err != nil {
		return "", err
	}
	return "rsa-" + strconv.Itoa(size), nil
}

// CheckFactors looks for what lets anyone factor an odd RSA modulus of at most 8192 bits. The error does not show the factors.
func CheckFactors(n *big.Int) error {
	switch {
	case hasSmallFactor(n):
		return fmt.Errorf("the RSA modulus has a prime factor below %d, so that anyone can factor it; make a new key with sound software", smallPrimeBound)
	case isROCA(n):
		return errors.New("the RSA modulus has the fingerprint of the generator with CVE-2017-15361 (ROCA), whose keys can be factored; make a new key with other software or firmware")
	case hasClosePrimes(n):
		return errors.New("the primes of the RSA modulus lie so close together that Fermat's method factors it; make a new key with sound software")
	}
	return nil
}

// smallPrimeBound is how far trial division goes.
const smallPrimeBound = 1 << 16

// smallPrimes are the odd primes below smallPrimeBound, and primorial their product, 94,000 bits.
var smallPrimes, primorial = sync.OnceValue(func() []uint64 {
	var composite [smallPrimeBound]bool
	var primes []uint64
	for n := uint64(3); n < smallPrimeBound; n += 2 {
		if composite[n] {
			continue
		}
		primes = append(primes, n)
		for m := n * n; m < smallPrimeBound; m += 2 * n {
			composite[m] = true
		}
	}
	return primes
}), sync.OnceValue(func() *big.Int {
	// Multiplied as a tree: neighbours are of one size.
	var level []*big.Int
	for _, p := range smallPrimes() {
		level = append(level, new(big.Int).SetUint64(p))
	}
	for len(level) > 1 {
		var next []*big.Int
		for ; len(level) > 1; level = level[2:] {
			next = append(next, new(big.Int).Mul(level[0], level[1]))
		}
		level = append(next, level...)
	}
	return level[0]
})

// hasSmallFactor is trial division by all odd primes below smallPrimeBound at once: a common factor
// with their product.
func hasSmallFactor(n *big.Int) bool {
	rest := new(big.Int).Mod(primorial(), n)
	return rest.GCD(nil, nil, rest, n).Cmp(one) != 0
}

var one = big.NewInt(1)

// rocaPrimes are the primes that tell: modulo each of them 65537 generates a proper subgroup. The broken
// generator's primes are k·M + (65537^a mod M), where M is a product of the first primes, so that primes
// and moduli alike lie in the subgroup modulo each (Nemec et al., "The Return of Coppersmith's Attack").
// Another modulus does with a probability of 2^-28.
var rocaPrimes = sync.OnceValue(func() []rocaPrime {
	var found []rocaPrime
	for _, p := range smallPrimes() {
		if p > 167 { // the largest prime in M of keys of 512 to 960 bits; longer keys have more
			break
		}
		group := make([]bool, p)
		order := uint64(0)
		for x := uint64(1); !group[x]; x = x * minRSAExponent % p {
			group[x] = true
			order++
		}
		if order < p-1 {
			found = append(found, rocaPrime{p, group})
		}
	}
	return found
})

type rocaPrime struct {
	p     uint64
	group []bool // the powers of 65537 modulo p
}

func isROCA(n *big.Int) bool {
	for _, r := range rocaPrimes() {
		if !r.group[modWord(n, r.p)] {
			return false
		}
	}
	return true
}

// modWord is n mod m.
func modWord(n *big.Int, m uint64) (rest uint64) {
	words := n.Bits()
	for i := len(words) - 1; i >= 0; i-- {
		if bits.UintSize == 64 {
			_, rest = bits.Div64(rest, uint64(words[i]), m)
		} else {
			rest = (rest<<32 | uint64(words[i])) % m
		}
	}
	return rest
}

// fermatRounds is how many numbers from the root of the modulus on are tried.
// Primes that differ in their upper half alone by chance are never found by that many, or by any number that could be tried.
const fermatRounds = 1000

// sieve are moduli by which squares are told from most other numbers; their product fits in 32 bits.
var sieve = sync.OnceValue(func() (all []squares) {
	for _, m := range []uint64{63, 65, 11, 17, 19, 23} {
		s := squares{m, make([]bool, m)}
		for x := range m {
			s.square[x*x%m] = true
		}
		all = append(all, s)
	}
	return all
})

type squares struct {
	modulus uint64
	square  []bool
}

const sieveProduct = 63 * 65 * 11 * 17 * 19 * 23

// hasClosePrimes tries Fermat's method: n = a²-b² = (a+b)(a-b), for the first a above the root of n.
// Most a²-n are seen to be no square by their remainders, so that few roots are taken.
func hasClosePrimes(n *big.Int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) == 0 {
		return true
	}
	a.Add(a, one)
	b2 := new(big.Int).Mul(a, a)
	b2.Sub(b2, n)
	aRest, rest := modWord(a, sieveProduct), modWord(b2, sieveProduct)
	low, aLow := low64(b2), low64(a)
	var at, root, square big.Int
	for i := range uint64(fermatRounds) {
		if maybeSquare(low, rest) {
			// b² of this round is (a+i)²-n.
			at.Add(a, at.SetUint64(i))
			at.Mul(&at, &at).Sub(&at, n)
			root.Sqrt(&at)
			if square.Mul(&root, &root).Cmp(&at) == 0 {
				return true
			}
		}
		low += 2*(aLow+i) + 1
		rest = (rest + 2*(aRest+i) + 1) % sieveProduct
	}
	return false
}

func maybeSquare(low, rest uint64) bool {
	if 1<<(low&63)&squaresMod64 == 0 {
		return false
	}
	for _, s := range sieve() {
		if !s.square[rest%s.modulus] {
			return false
		}
	}
	return true
}

// squaresMod64 has a bit for each of 0, 1, 4, 9, 16, 17, 25, 33, 36, 41, 49, 57.
const squaresMod64 uint64 = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57

// low64 is n mod 2^64.
func low64(n *big.Int) (low uint64) {
	for i, word := range n.Bits() {
		if i*bits.UintSize >= 64 {
			break
		}
		low |= uint64(word) << (i * bits.UintSize)
	}
	return low
}
