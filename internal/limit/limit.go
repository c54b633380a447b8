// Package limit bounds what one client may cause, so that a client which exceeds its
// share is refused by itself and all others go on.
//
//   - [Buckets] are token buckets by key, in a table of bounded size: how often.
//   - [Gate] lets a bounded number of callers work at once, and lets waiting keys take turns: how much at once.
//
// Both live in the memory of one process. A restart fills every bucket.
package limit

import (
	"container/list"
	"sync"
	"time"
)

// Rate is how fast a token bucket drains and fills.
type Rate struct {
	Burst int           // tokens of a full bucket; 0 or less: no limit
	Every time.Duration // one token comes back each Every; 0 or less: at once, which is no limit either
}

// PerMinute is the rate of a bucket with n tokens that is full again after a minute.
func PerMinute(n int) Rate {
	if n <= 0 {
		return Rate{}
	}
	return Rate{Burst: n, Every: time.Minute / time.Duration(n)}
}

func (r Rate) unlimited() bool { return r.Burst <= 0 || r.Every <= 0 }

// Buckets are token buckets by key, each of which is always used with the same rate. The zero value is not usable; see [NewBuckets]. Safe for concurrent use.
//
// The table holds a bounded number of keys. When it is full, the key that was asked for
// longest ago is forgotten, as if its bucket were full: the table never refuses a new
// key. Give each kind of key a table of its own: then whoever can make up many
// keys of one kind empties no bucket of another.
type Buckets struct {
	mu    sync.Mutex
	max   int
	byKey map[string]*list.Element // of *bucket
	used  *list.List               // most recently used first
}

// bucket is the state of the generic cell rate algorithm: the time at which it is full again.
type bucket struct {
	key  string
	full time.Time
}

// NewBuckets makes a table of at most max keys, each about 0.2 kB and the key.
func NewBuckets(max int) *Buckets {
	return &Buckets{max: max, byKey: map[string]*list.Element{}, used: list.New()}
}

// Take takes a token from the bucket of key. It returns 0, or how long to wait
// until there is one; then nothing was taken.
func (b *Buckets) Take(key string, rate Rate, now time.Time) (wait time.Duration) {
	return b.do(key, rate, now, true)
}

// Wait is what Take would return. It takes nothing.
func (b *Buckets) Wait(key string, rate Rate, now time.Time) time.Duration {
	return b.do(key, rate, now, false)
}

func (b *Buckets) do(key string, rate Rate, now time.Time, take bool) time.Duration {
	if rate.unlimited() {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	full := now
	e, known := b.byKey[key]
	if known && take {
		b.used.MoveToFront(e) // refused or not: who goes on trying is not forgotten
	}
	// No bucket is emptier than empty: what says so is of a clock that was set back, or of a
	// rate that was lower, and counts as full. Taken as empty it would stay empty until the old time comes.
	capacity := rate.Every * time.Duration(rate.Burst)
	if known && e.Value.(*bucket).full.After(now) && e.Value.(*bucket).full.Sub(now) <= capacity {
		full = e.Value.(*bucket).full
	}
	if wait := full.Sub(now) - rate.Every*time.Duration(rate.Burst-1); wait > 0 {
		return wait
	}
	if !take {
		return 0
	}
	full = full.Add(rate.Every)
	if known {
		e.Value.(*bucket).full = full
		return 0
	}
	for len(b.byKey) >= b.max {
		b.forget(b.used.Back())
	}
	b.byKey[key] = b.used.PushFront(&bucket{key, full})
	return 0
}

// Return gives a token back that Take took and that was not used after all.
func (b *Buckets) Return(key string, rate Rate) {
	if rate.unlimited() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, known := b.byKey[key]; known {
		e.Value.(*bucket).full = e.Value.(*bucket).full.Add(-rate.Every)
	}
}

// Len is the number of keys in the table.
func (b *Buckets) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.byKey)
}

func (b *Buckets) forget(e *list.Element) {
	delete(b.byKey, e.Value.(*bucket).key)
	b.used.Remove(e)
}
