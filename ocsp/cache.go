package ocsp

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/deviceca/deviceca/ca"
)

// key addresses one pre-signed answer: issuer (4 octets), form of the CertID
// (1), serial (19).
type key [24]byte

func makeKey(v *variant, serial []byte) (k key) {
	k[0], k[1], k[2], k[3] = byte(v.issuer.number>>24), byte(v.issuer.number>>16), byte(v.issuer.number>>8), byte(v.issuer.number)
	k[4] = v.form
	copy(k[5:], serial)
	return k
}

func (k *key) serial() ca.Serial { return ca.Serial(k[5:]) }

// window is the time that answers signed in one second by one credential share.
type window struct {
	signed       int64 // Unix seconds
	thisUpdate   int64 // before signed, if answers are backdated
	nextUpdate   int64
	lastModified [1]string // as header values
	expires      [1]string
	certs        []byte // the end of each response
	control      atomic.Pointer[cacheControl]
}

// cacheControl is the Cache-Control field of a window's answers, good for one second.
type cacheControl struct {
	second int64
	header [1]string
}

// entry is a pre-signed answer. It is never changed, only replaced.
//
// At a million certificates the octets of an entry count. The responder's
// certificate, two thirds of an answer, and the time strings are shared
// through the window. With P-256 and a SHA-1 CertID there remain about 290 octets for the rest of the
// response, 80 for the ETag, 80 here, and 100 in slot and map: 0.55 kB
// (BenchmarkMemory measures it).
type entry struct {
	head       []byte // the response but for window.certs
	window     *window
	etag       [1]string
	revocation *ca.Revocation
	refresh    int64 // Unix seconds from when on it is signed again
	until      int64 // Unix seconds from when on it is not given out
}

// cache holds a bounded number of answers in shards, each a ring that is
// evicted by the clock algorithm: an answer that was asked for since the hand
// last passed stays.
type cache struct {
	shards [256]shard
}

type shard struct {
	mu     sync.Mutex
	index  map[key]int32
	slots  []slot
	limit  int
	hand   int
	flight map[key]*flight
	// drops counts invalidations, so that an answer whose making began before
	// one is not kept after it.
	drops uint64
}

type slot struct {
	key  key
	used bool
	*entry
}

// flight is an answer in the making, that others wait for.
type flight struct {
	done  chan struct{}
	entry *entry
	err   error
}

func newCache(entries int) *cache {
	c := new(cache)
	for i := range c.shards {
		c.shards[i] = shard{index: map[key]int32{}, flight: map[key]*flight{}, limit: max(entries/len(c.shards), 1)}
	}
	return c
}

// shard chooses by the last octet of the serial, which is random; only serials
// that were issued are kept, so nobody outside can crowd one shard.
func (c *cache) shard(k *key) *shard { return &c.shards[k[len(k)-1]] }

func (c *cache) get(k *key) *entry {
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.index[*k]; ok {
		s.slots[i].used = true
		return s.slots[i].entry
	}
	return nil
}

// land ends a flight: its answer, if there is one, is kept, and those who wait
// get it. It is false, and nothing happens, if something was dropped since
// drops was read: then what was made may be out of date.
func (s *shard) land(k key, f *flight, drops uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drops != drops {
		return false
	}
	if f.err == nil {
		s.put(k, f.entry)
	}
	delete(s.flight, k)
	close(f.done)
	return true
}

// put keeps e; s.mu is held.
func (s *shard) put(k key, e *entry) {
	if i, ok := s.index[k]; ok {
		s.slots[i].entry = e
		return
	}
	i := int32(len(s.slots))
	if len(s.slots) < s.limit {
		s.slots = append(s.slots, slot{})
	} else {
		for s.slots[s.hand].used {
			s.slots[s.hand].used = false
			s.hand = (s.hand + 1) % len(s.slots)
		}
		i = int32(s.hand)
		s.hand = (s.hand + 1) % len(s.slots)
		delete(s.index, s.slots[i].key)
	}
	s.slots[i] = slot{key: k, entry: e}
	s.index[k] = i
}

// drop forgets k and reports whether it was there.
func (s *shard) drop(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops++
	i, ok := s.index[k]
	if !ok {
		return false
	}
	// The last slot moves into the gap, so that slots stay dense.
	last := int32(len(s.slots) - 1)
	if i != last {
		s.slots[i] = s.slots[last]
		s.index[s.slots[i].key] = i
	}
	s.slots[last] = slot{}
	s.slots = s.slots[:last]
	s.hand = min(s.hand, max(len(s.slots)-1, 0))
	delete(s.index, k)
	return true
}

// due lists what is to be signed again at now.
func (s *shard) due(now time.Time) (keys []key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if s.slots[i].refresh <= now.Unix() || s.slots[i].window.ahead(now) {
			keys = append(keys, s.slots[i].key)
		}
	}
	return keys
}

func (c *cache) len() (n int) {
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].slots)
		c.shards[i].mu.Unlock()
	}
	return n
}
