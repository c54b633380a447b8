package pack

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// entropy is the least octets that tell apart all sets of n out of size: log2 of the binomial coefficient, over 8.
func entropy(size, n uint64) float64 {
	lg := func(x uint64) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
	return (lg(size) - lg(n) - lg(size-n)) / math.Ln2 / 8
}

// sample returns exactly n of size offsets, ascending.
func sample(r *rand.Rand, size, n uint64) []uint64 {
	seen := make(map[uint64]bool, n)
	for uint64(len(seen)) < n {
		seen[r.Uint64N(size)] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestSizes(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	for _, size := range []uint64{1_000_000, 10_000_000} {
		n := size / 100
		first := size * 3 // as after some epochs
		revoked := sample(rand.New(rand.NewPCG(size, 1)), size, n)
		for i := range revoked {
			revoked[i] += first
		}
		st := must[*State](t)(NewState(c.header(100, 100_000, first, size), slices.Values(revoked)))
		data := must[[]byte](t)(st.Sign(c.sign, Hash{1}))
		each := float64(len(data)) / float64(n)
		t.Logf("1 %% of %d: %d octets, %.3f for each revoked; entropy bound %.0f", size, len(data), each, entropy(size, n))
		if each > 1.1 || float64(len(data)) > 1.03*entropy(size, n) {
			t.Errorf("1 %% of %d takes %d octets, %.3f for each", size, len(data), each)
		}
	}
}

func TestDeltaSizes(t *testing.T) {
	c := newCA(t, testKey("issuer"))
	worst, sum, runs := 0, 0, 20
	for seed := range runs {
		r := rand.New(rand.NewPCG(uint64(seed), 2))
		first, size := uint64(3_000_000), uint64(1_000_000)
		var revoked, fresh []uint64
		for _, x := range sample(r, size, 10_100) {
			if r.Uint64N(101) == 0 && len(fresh) < 100 {
				fresh = append(fresh, first+x)
			} else {
				revoked = append(revoked, first+x)
			}
		}
		for len(fresh) < 100 { // make up the hundred out of the others
			i := r.IntN(len(revoked))
			fresh = append(fresh, revoked[i])
			revoked = slices.Delete(revoked, i, i+1)
		}
		st := must[*State](t)(NewState(c.header(100, 100_000, first, size), slices.Values(revoked)))
		// A day later, and 3,000 certificates more.
		h := c.header(100, 100_024, first, size+3000)
		delta := must[[]byte](t)(st.Delta(must[*State](t)(st.Next(h, revocations(fresh...))), c.sign))
		n := len(delta) - 2 - 64 // the signature with its head
		worst, sum = max(worst, n), sum+n
	}
	t.Logf("100 of 1M: %d octets on average, at most %d, entropy bound %.0f", sum/runs, worst, entropy(1_000_000, 100))
	if worst > 250 {
		t.Errorf("a day's delta takes %d octets without its signature", worst)
	}
}

type shape struct {
	size    uint64
	density float64
}

func (s shape) String() string { return fmt.Sprintf("%dM/%.3g%%", s.size/1_000_000, s.density*100) }

func (s shape) state(b *testing.B, c *ca) *State {
	n := uint64(float64(s.size) * s.density)
	revoked := sample(rand.New(rand.NewPCG(s.size, n)), s.size, n)
	return must[*State](b)(NewState(c.header(1, 1, 0, s.size), slices.Values(revoked)))
}

var shapes = []shape{
	{1_000_000, 0.0001}, {1_000_000, 0.01}, {1_000_000, 0.1},
	{10_000_000, 0.0001}, {10_000_000, 0.001}, {10_000_000, 0.01}, {10_000_000, 0.1},
}

// BenchmarkBuild goes from revoked indices to a signed pack.
func BenchmarkBuild(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range shapes {
		b.Run(s.String(), func(b *testing.B) {
			revoked := slices.Collect(s.state(b, c).All())
			var data []byte
			b.ReportAllocs()
			for b.Loop() {
				st := must[*State](b)(NewState(c.header(1, 1, 0, s.size), slices.Values(revoked)))
				data = must[[]byte](b)(st.Sign(c.sign, Hash{}))
			}
			n := uint64(len(revoked))
			b.ReportMetric(float64(len(data)), "B")
			b.ReportMetric(float64(len(data))/float64(n), "B/revoked")
			b.ReportMetric(entropy(s.size, n), "B-entropy")
		})
	}
}

// BenchmarkLoad verifies a pack and makes it ready for look-ups.
func BenchmarkLoad(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range shapes {
		b.Run(s.String(), func(b *testing.B) {
			data := must[[]byte](b)(s.state(b, c).Sign(c.sign, Hash{}))
			b.ReportAllocs()
			for b.Loop() {
				must[*Pack](b)(Verify(data, c.options()))
			}
		})
	}
}

// BenchmarkStatus looks random serials up.
func BenchmarkStatus(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range shapes {
		b.Run(s.String(), func(b *testing.B) {
			p := must[*Pack](b)(Verify(must[[]byte](b)(s.state(b, c).Sign(c.sign, Hash{})), c.options()))
			now := p.Header().ThisUpdate.Add(time.Minute)
			serials := randomSerials(s.size)
			for i := 0; b.Loop(); i++ {
				if _, err := p.Status(serials[i%len(serials)], now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func randomSerials(size uint64) [][]byte {
	r := rand.New(rand.NewPCG(5, 6))
	serials := make([][]byte, 4096)
	for i := range serials {
		serials[i] = serialOf(r.Uint64N(size))
	}
	return serials
}

// BenchmarkScan looks random serials up in the coded set itself, from its start or from the skip index that
// docs/revocation-pack.md describes for small devices: no memory but the pack, and the index.
func BenchmarkScan(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range shapes {
		st := s.state(b, c)
		k := riceParameter(st.All())
		coded := encodeRice(nil, k, st.All())
		serials := randomSerials(s.size)
		for _, every := range []int{0, 64, 1024} {
			name := fmt.Sprintf("%s/skip %d", s, every)
			if every == 0 {
				name = s.String() + "/from the start"
			}
			b.Run(name, func(b *testing.B) {
				skips := skipIndex(coded, k, st.Revoked(), every)
				for i := 0; b.Loop(); i++ {
					index, _ := Index(serials[i%len(serials)])
					if scan(coded, k, st.Revoked(), skips, every, index) != (st.Index(index) == Revoked) {
						b.Fatal("another answer")
					}
				}
				b.ReportMetric(float64(len(skips)*16), "B-index")
			})
		}
	}
}

// skip says that the code from bit on is that of an index at or above next.
type skip struct{ next, bit uint64 }

func skipIndex(coded []byte, k uint, count uint64, every int) []skip {
	skips := []skip{{}}
	r := bitReader{in: coded}
	var next uint64
	for i := range count {
		if every > 0 && i > 0 && i%uint64(every) == 0 {
			skips = append(skips, skip{next, uint64(r.pos)*8 - uint64(r.n)})
		}
		q, _ := r.unary()
		low, _ := r.take(k)
		next += q<<k + low + 1
	}
	return skips
}

func scan(coded []byte, k uint, count uint64, skips []skip, every int, index uint64) bool {
	i, found := slices.BinarySearchFunc(skips, index, func(s skip, x uint64) int {
		if s.next <= x {
			return -1
		}
		return 1
	})
	if !found {
		i--
	}
	r := bitReader{in: coded, pos: int(skips[i].bit / 8)}
	r.take(uint(skips[i].bit % 8))
	next := skips[i].next
	for range count - uint64(i*every) {
		q, _ := r.unary()
		low, _ := r.take(k)
		at := next + q<<k + low
		if at >= index {
			return at == index
		}
		next = at + 1
	}
	return false
}

// BenchmarkRevoke makes the next state with one revocation more, and its delta: what a publisher does within the second.
func BenchmarkRevoke(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range []shape{{10_000_000, 0.000001}, {10_000_000, 0.0001}, {10_000_000, 0.01}, {10_000_000, 0.1}} {
		b.Run(s.String(), func(b *testing.B) {
			st := s.state(b, c)
			var free uint64
			for st.Index(free) == Revoked {
				free++
			}
			for b.Loop() {
				next := must[*State](b)(st.Next(c.header(1, 2, 0, s.size), revocations(free)))
				must[[]byte](b)(st.Delta(next, c.sign))
			}
		})
	}
}

// BenchmarkApply takes a day's delta of 0.01 % in.
func BenchmarkApply(b *testing.B) {
	c := newCA(b, testKey("issuer"))
	for _, s := range []shape{{1_000_000, 0.01}, {10_000_000, 0.01}} {
		b.Run(s.String(), func(b *testing.B) {
			st := s.state(b, c)
			p := must[*Pack](b)(Verify(must[[]byte](b)(st.Sign(c.sign, Hash{})), c.options()))
			fresh := sample(rand.New(rand.NewPCG(8, 9)), s.size, s.size/10_000)
			next := must[*State](b)(st.Next(c.header(1, 2, 0, s.size), revocations(fresh...)))
			delta := must[[]byte](b)(st.Delta(next, c.sign))
			for b.Loop() {
				must[*Pack](b)(p.Apply(delta))
			}
			b.ReportMetric(float64(len(delta)), "B")
		})
	}
}
