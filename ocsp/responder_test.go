package ocsp

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/deviceca/deviceca/ca"
)

func TestStatuses(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	good, held, plain := c.issue(1), c.issue(2), c.issue(3)
	c.revoke(held, 7, 6)
	c.revoke(plain, 8, 0)
	near := good // same index, other random octets
	near[18] ^= 1
	foreign := newCA(t, "foreign", time.Now)
	tests := []struct {
		name   string
		in     []byte
		status ResponseStatus
		want   []CertStatus
	}{
		{"good", request(t, c, SHA1, nil, good.Big()), Successful, []CertStatus{Good}},
		{"good, SHA-256", request(t, c, SHA256, nil, good.Big()), Successful, []CertStatus{Good}},
		{"good, nonce", request(t, c, SHA256, make([]byte, 32), good.Big()), Successful, []CertStatus{Good}},
		{"on hold", request(t, c, SHA1, nil, held.Big()), Successful, []CertStatus{Revoked}},
		{"revoked, nonce", request(t, c, SHA1, make([]byte, 1), plain.Big()), Successful, []CertStatus{Revoked}},
		{"never issued, index in range", request(t, c, SHA1, nil, near.Big()), Successful, []CertStatus{Unknown}},
		{"never issued, nonce", request(t, c, SHA1, make([]byte, 128), near.Big()), Successful, []CertStatus{Unknown}},
		{"another form of serial", request(t, c, SHA1, nil, big.NewInt(5)), Successful, []CertStatus{Unknown}},
		{"negative serial", request(t, c, SHA1, nil, big.NewInt(-5)), Successful, []CertStatus{Unknown}},
		{"several", request(t, c, SHA1, nil, good.Big(), held.Big(), near.Big(), good.Big()), Successful, []CertStatus{Good, Revoked, Unknown, Good}},
		{"sixteen", request(t, c, SHA1, nil, bigs(good, 16)...), Successful, make([]CertStatus, 16)},
		{"seventeen", request(t, c, SHA1, nil, bigs(good, 17)...), Unauthorized, nil},
		{"10,000", request(t, c, SHA1, nil, bigs(good, 10000)...), MalformedRequest, nil},
		{"foreign issuer", request(t, foreign, SHA1, nil, good.Big()), Unauthorized, nil},
		{"unknown hash", read(t, "rustcrypto", "sha512-certid-ocsp-req.der"), Unauthorized, nil},
		{"empty", nil, MalformedRequest, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp := ask(t, r, c, tt.in)
			if resp.Status != tt.status || len(resp.Responses) != len(tt.want) {
				t.Fatalf("%s with %d answers", resp.Status, len(resp.Responses))
			}
			if tt.status != Successful {
				return
			}
			q, err := ParseRequest(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(resp.Nonce, q.Nonce) {
				t.Errorf("nonce %x, asked %x", resp.Nonce, q.Nonce)
			}
			for i, s := range resp.Responses {
				if s.Status != tt.want[i] || !bytes.Equal(s.ID.Raw, q.IDs()[i].Raw) {
					t.Errorf("answer %d: %s about %x", i, s.Status, s.ID.Raw)
				}
			}
			// x/crypto reads the same.
			one := resp.Responses[0]
			x, err := xocsp.ParseResponseForCert(resp.Raw, &certWithSerial(one.ID.SerialNumber()).Certificate, c.cert)
			if err != nil {
				t.Fatal(err)
			}
			if CertStatus(x.Status) != one.Status || !x.ThisUpdate.Equal(one.ThisUpdate) || !x.NextUpdate.Equal(one.NextUpdate) ||
				!x.RevokedAt.Equal(one.RevokedAt) || x.RevocationReason != one.Reason {
				t.Errorf("x/crypto reads %+v", x)
			}
		})
	}
	if got := ask(t, r, c, request(t, c, SHA1, nil, held.Big())).Find(c.cert, held.Big()); got == nil || got.Reason != 6 {
		t.Errorf("on hold: %+v", got)
	}
}

func bigs(s ca.Serial, n int) (all []*big.Int) {
	for range n {
		all = append(all, s.Big())
	}
	return all
}

// A request that names two issuers of ours gets no answer for either.
func TestSpansIssuers(t *testing.T) {
	a, b := newCA(t, "issuing-1", time.Now), newCA(t, "issuing-2", time.Now)
	r := newResponder(t, a, nil)
	if err := r.AddIssuer(b.name, b.cert, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.AddIssuer("again", b.cert, nil); err == nil {
		t.Error("one issuer under two names")
	}
	list := append(request(t, a, SHA1, nil, big.NewInt(1))[6:], request(t, b, SHA1, nil, big.NewInt(1))[6:]...)
	if resp := ask(t, r, a, rawRequest(nil, nil, list, nil)); resp.Status != Unauthorized {
		t.Error(resp.Status)
	}
}

// Every cut and every flipped bit of a request gets a proper response.
func TestDamagedRequests(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, func(o *Options) { o.LiveRate = 1e6 })
	in := request(t, c, SHA256, []byte("0123456789abcdef"), c.issue(1).Big())
	for n := range in {
		if resp := ask(t, r, c, in[:n]); resp.Status != MalformedRequest {
			t.Errorf("first %d octets: %s", n, resp.Status)
		}
	}
	seen := map[ResponseStatus]int{}
	for i := range len(in) * 8 {
		flipped := bytes.Clone(in)
		flipped[i/8] ^= 1 << (i % 8)
		resp := ask(t, r, c, flipped)
		seen[resp.Status]++
		if resp.Status == Successful && resp.Responses[0].Status != Unknown && bytes.Equal(resp.Nonce, []byte("0123456789abcdef")) && resp.Responses[0].ID.SerialNumber().Cmp(serial(1).Big()) != 0 {
			t.Errorf("bit %d: %s for another serial", i, resp.Responses[0].Status)
		}
	}
	if seen[MalformedRequest] == 0 || seen[Unauthorized] == 0 || seen[Successful] == 0 || len(seen) != 3 {
		t.Errorf("statuses %v", seen)
	}
}

func TestAway(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	known, other := c.issue(1), c.issue(2)
	ask(t, r, c, request(t, c, SHA1, nil, known.Big()))
	for _, tt := range []struct {
		name string
		err  error
		want ResponseStatus
	}{
		{"database away", ca.Away("the database", errors.New("connection refused")), TryLater},
		{"fault", errors.New("a bug"), InternalError},
	} {
		c.setAway(tt.err)
		if resp := ask(t, r, c, request(t, c, SHA1, nil, other.Big())); resp.Status != tt.want {
			t.Errorf("%s: %s", tt.name, resp.Status)
		}
		if resp := ask(t, r, c, request(t, c, SHA1, nil, known.Big())); resp.Status != Successful {
			t.Errorf("%s, signed before: %s", tt.name, resp.Status)
		}
	}
	c.setAway(nil)
	if resp := ask(t, r, c, request(t, c, SHA1, nil, other.Big())); resp.Status != Successful {
		t.Errorf("back again: %s", resp.Status)
	}
}

// Once revocation is acknowledged and announced, nobody hears "good" any more,
// however many ask and however the ledger's reads interleave.
func TestInvalidate(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	for i := range uint64(50) {
		s := c.issue(i)
		in := request(t, c, SHA1, nil, s.Big())
		if i%2 == 0 {
			if err := r.Presign(t.Context(), c.name, s); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						r.Answer(context.Background(), in)
					}
				}
			})
		}
		c.revoke(s, int64(i+1), 1)
		if err := r.Invalidate(t.Context(), c.name, s); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, r, c, in).Responses[0]; got.Status != Revoked || got.Reason != 1 {
			t.Fatalf("after revocation: %+v", got)
		}
		close(stop)
		wg.Wait()
	}
}

// A status read before a revocation must not be kept after it.
func TestInvalidateDuringFill(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	s := c.issue(1)
	var once sync.Once
	c.onStatus = func() {
		once.Do(func() {
			c.revoke(s, 1, 4)
			if err := r.Invalidate(context.Background(), c.name, s); err != nil {
				t.Error(err)
			}
		})
	}
	if got := ask(t, r, c, request(t, c, SHA1, nil, s.Big())).Responses[0]; got.Status != Revoked {
		t.Error(got.Status)
	}
}

func TestOneSignatureForManyAskers(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	r := newResponder(t, c, nil)
	in := request(t, c, SHA1, nil, c.issue(1).Big())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() { r.Answer(context.Background(), in) })
	}
	wg.Wait()
	if s := r.Stats(); s.Filled != 1 || s.Presigned != 64 || c.issued != 1 {
		t.Errorf("%+v, %d responder certificates", s, c.issued)
	}
}

// Over its budget, a nonce is answered from what is there, without the nonce;
// what has no kept answer is told to try later; others notice nothing.
func TestLiveBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		r := newResponder(t, c, func(o *Options) { o.LiveRate, o.LiveAtOnce = 10, 1 })
		s := c.issue(1)
		nonce := request(t, c, SHA1, make([]byte, 16), s.Big())
		if resp := ask(t, r, c, nonce); resp.Nonce == nil {
			t.Fatal("no nonce within budget")
		}
		if resp := ask(t, r, c, nonce); resp.Status != Successful || resp.Nonce != nil {
			t.Errorf("over budget: %s, nonce %x", resp.Status, resp.Nonce)
		}
		if resp := ask(t, r, c, request(t, c, SHA1, nil, big.NewInt(9))); resp.Status != TryLater {
			t.Errorf("unknown over budget: %s", resp.Status)
		}
		if resp := ask(t, r, c, request(t, c, SHA1, nil, s.Big(), s.Big())); resp.Status != TryLater {
			t.Errorf("two over budget: %s", resp.Status)
		}
		if resp := ask(t, r, c, request(t, c, SHA1, nil, c.issue(2).Big())); resp.Status != Successful {
			t.Errorf("first ask, meanwhile: %s", resp.Status)
		}
		time.Sleep(150 * time.Millisecond)
		if resp := ask(t, r, c, nonce); resp.Nonce == nil {
			t.Error("no nonce after the pause")
		}
	})
}

// Run signs again before half of the life is over, through outages, and asks
// nobody else to wait; nothing is ever given out past its time.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCA(t, "issuing-1", time.Now)
		c.life = 36 * time.Hour // so that renewal happens too
		r := newResponder(t, c, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		var in [][]byte
		for i := range uint64(40) {
			s := c.issue(i)
			in = append(in, request(t, c, SHA1, nil, s.Big()))
			if err := r.Presign(ctx, c.name, s); err != nil {
				t.Fatal(err)
			}
		}
		for hour := range 96 {
			time.Sleep(time.Hour)
			away := hour >= 40 && hour < 44
			c.setAway(nil)
			if away {
				c.setAway(ca.Away("the database", nil))
			}
			for _, q := range in {
				one := ask(t, r, c, q).Responses[0]
				age, life := time.Since(one.ThisUpdate), one.NextUpdate.Sub(one.ThisUpdate)
				if age > life/2 && (hour < 40 || hour > 44) {
					t.Fatalf("hour %d: an answer of %s, life %s", hour, age, life)
				}
			}
		}
		if s := r.Stats(); s.Live != 0 || s.Failed != 0 || s.Entries != 40 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRetention(t *testing.T) {
	for _, retention := range []time.Duration{0, 30 * 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c := newCA(t, "issuing-1", time.Now)
			r := newResponder(t, c, func(o *Options) { o.Retention = retention })
			s := c.issue(1)
			end := c.status[s].NotAfter
			in := request(t, c, SHA1, nil, s.Big())
			time.Sleep(time.Until(end) - time.Minute)
			one := ask(t, r, c, in).Responses[0]
			if retention == 0 != one.ArchiveCutoff.IsZero() || retention > 0 && one.ThisUpdate.Sub(one.ArchiveCutoff) != retention {
				t.Errorf("cutoff %s", one.ArchiveCutoff)
			}
			time.Sleep(2*time.Minute + retention)
			for _, q := range [][]byte{in, request(t, c, SHA1, make([]byte, 16), s.Big()), request(t, c, SHA1, nil, s.Big(), s.Big())} {
				if resp := ask(t, r, c, q); resp.Status != Unauthorized {
					t.Errorf("past retention of %s: %s", retention, resp.Status)
				}
			}
		})
	}
}

// sharedCache is a Cache in memory.
type sharedCache struct {
	mu   sync.Mutex
	kept map[SharedKey][]byte
}

func (s *sharedCache) Get(_ context.Context, k SharedKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[k], nil
}

func (s *sharedCache) Put(_ context.Context, k SharedKey, response []byte, _ time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[k] = response
	return nil
}

func TestShared(t *testing.T) {
	c := newCA(t, "issuing-1", time.Now)
	shared := &sharedCache{kept: map[SharedKey][]byte{}}
	with := func(o *Options) { o.Shared = shared }
	a, b := newResponder(t, c, with), newResponder(t, c, with)
	s := c.issue(1)
	in := request(t, c, SHA1, nil, s.Big())
	if first, second := a.Answer(t.Context(), in), b.Answer(t.Context(), in); !bytes.Equal(first, second) || c.issued != 1 {
		t.Error("the second server signed for itself")
	}
	// The second server learns of a revocation from the ledger, whatever the cache holds.
	c.revoke(s, 3, 1)
	if err := b.Invalidate(t.Context(), c.name, s); err != nil {
		t.Fatal(err)
	}
	if one := ask(t, b, c, in).Responses[0]; one.Status != Revoked {
		t.Error(one.Status)
	}
	// Garbage in the cache is signed over.
	s = c.issue(2)
	for k := range shared.kept {
		k.Serial, k.State = s, 0
		shared.kept[k] = []byte("garbage")
	}
	if one := ask(t, a, c, request(t, c, SHA1, nil, s.Big())).Responses[0]; one.Status != Good {
		t.Error(one.Status)
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(256 * 4) // four to a shard
	w := &window{}
	put := func(n byte) key {
		k := key{5: n}
		s := c.shard(&k)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.put(k, &entry{window: w})
		return k
	}
	first := put(0)
	for n := byte(1); n < 100; n++ {
		if c.get(&first) == nil {
			t.Fatalf("evicted in use, after %d", n)
		}
		put(n)
	}
	if n := c.len(); n != 4 {
		t.Errorf("%d entries", n)
	}
	s := c.shard(&first)
	if !s.drop(first) || s.drop(first) || c.get(&first) != nil || c.len() != 3 {
		t.Error("not dropped")
	}
	for k, i := range s.index {
		if s.slots[i].key != k {
			t.Error("index and slots disagree")
		}
	}
}
