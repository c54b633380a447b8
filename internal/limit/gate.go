package limit

import (
	"context"
	"errors"
	"sync"
)

// ErrBusy is returned by [Gate.Enter] where as many wait already as may.
var ErrBusy = errors.New("too much of this work is waiting already")

// Gate lets a bounded number of callers work at once. Callers that wait take turns by
// key: a key with a thousand callers waiting delays another key's caller by one turn, not by a thousand.
// Safe for concurrent use.
type Gate struct {
	mu      sync.Mutex
	o       GateOptions
	working map[string]int             // callers inside, by key
	total   int                        // sum of working
	queues  map[string][]chan struct{} // callers waiting, by key, in the order of arrival
	turns   []string                   // keys of queues, in the order of their turns
	waiting int
}

// GateOptions bound a gate. Every field must be positive.
type GateOptions struct {
	Inside       int // callers that work at once
	InsidePerKey int // of one key
	Queue        int // callers that wait
	QueuePerKey  int // of one key
}

// NewGate makes an open gate.
func NewGate(o GateOptions) *Gate {
	return &Gate{o: o, working: map[string]int{}, queues: map[string][]chan struct{}{}}
}

// Enter waits for a place inside. The caller calls leave, once, when its work is done.
//
// Errors: ErrBusy if the queue of the key is full, or the whole queue and this key waits already
// (where it does not, the newest caller of the longest queue makes room and gets ErrBusy);
// the context's error if that ends first.
func (g *Gate) Enter(ctx context.Context, key string) (leave func(), err error) {
	g.mu.Lock()
	if g.waiting == 0 && g.mayWork(key) {
		g.begin(key)
		g.mu.Unlock()
		return g.leaver(key), nil
	}
	if !g.makeRoom(key) {
		g.mu.Unlock()
		return nil, ErrBusy
	}
	turn := make(chan struct{}, 1) // a value lets in, closing turns away
	if len(g.queues[key]) == 0 {
		g.turns = append(g.turns, key)
	}
	g.queues[key] = append(g.queues[key], turn)
	g.waiting++
	g.admit() // those who wait may be of keys that have their share inside
	g.mu.Unlock()

	select {
	case _, in := <-turn:
		if !in {
			return nil, ErrBusy
		}
		return g.leaver(key), nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.drop(key, turn) {
		return nil, context.Cause(ctx)
	}
	if _, in := <-turn; in { // let in at the same moment
		g.end(key)
	}
	return nil, context.Cause(ctx)
}

func (g *Gate) leaver(key string) func() {
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.end(key)
	})
}

func (g *Gate) mayWork(key string) bool {
	return g.total < g.o.Inside && g.working[key] < g.o.InsidePerKey
}

func (g *Gate) begin(key string) {
	g.working[key]++
	g.total++
}

func (g *Gate) end(key string) {
	if g.working[key]--; g.working[key] == 0 {
		delete(g.working, key)
	}
	g.total--
	g.admit()
}

// admit lets in who may, turn by turn.
func (g *Gate) admit() {
	for i := 0; i < len(g.turns) && g.total < g.o.Inside; {
		key := g.turns[i]
		if !g.mayWork(key) {
			i++
			continue
		}
		turn := g.queues[key][0]
		g.queues[key] = g.queues[key][1:]
		g.waiting--
		g.turns = append(g.turns[:i], g.turns[i+1:]...)
		if len(g.queues[key]) > 0 {
			g.turns = append(g.turns, key)
		} else {
			delete(g.queues, key)
		}
		g.begin(key)
		turn <- struct{}{}
	}
}

// makeRoom reports whether one more caller of key may wait. In a full queue a key that
// does not wait yet takes the place of the newest caller of the longest queue.
func (g *Gate) makeRoom(key string) bool {
	if len(g.queues[key]) >= g.o.QueuePerKey {
		return false
	}
	if g.waiting < g.o.Queue {
		return true
	}
	if len(g.queues[key]) > 0 {
		return false
	}
	longest := ""
	for k, q := range g.queues {
		if longest == "" || len(q) > len(g.queues[longest]) {
			longest = k
		}
	}
	q := g.queues[longest]
	if len(q) < 2 {
		return false
	}
	last := q[len(q)-1]
	g.drop(longest, last)
	close(last)
	return true
}

// drop takes a caller out of its queue; false if it is not there any more.
func (g *Gate) drop(key string, turn chan struct{}) bool {
	q := g.queues[key]
	for i, t := range q {
		if t != turn {
			continue
		}
		g.queues[key] = append(q[:i], q[i+1:]...)
		g.waiting--
		if len(g.queues[key]) == 0 {
			delete(g.queues, key)
			for j, k := range g.turns {
				if k == key {
					g.turns = append(g.turns[:j], g.turns[j+1:]...)
					break
				}
			}
		}
		return true
	}
	return false
}
