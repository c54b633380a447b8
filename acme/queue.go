package acme

import (
	"context"
	"sync"
	"time"

	"github.com/deviceca/deviceca/ca"
	"github.com/deviceca/deviceca/internal/limit"
)

// Bounds of the challenges that are validated. A validation takes as long as its target lets it, up to 10 s: so each
// account has a share, and accounts take turns.
const (
	validating           = 64
	validatingPerAccount = 4
	waiting              = 4096 // more are found in the ledger when there is room
	waitingPerAccount    = 256
	// lookEvery is how often the ledger is asked for challenges that nobody validates.
	lookEvery = 15 * time.Second
)

// job is a challenge to validate: the one of an authorization that is processing.
type job struct {
	authorization, account int64
	thumbprint             [32]byte // of the key that asked; zero for the account's present one
}

// queue holds the challenges that wait for their turn, and those that are being validated.
type queue struct {
	gate *limit.Gate

	mu      sync.Mutex
	ctx     context.Context // of Server.Run; nil while it does not run
	workers sync.WaitGroup
	taken   map[int64]bool // authorizations
	waiting map[int64]int  // how many of each account are taken
}

func newQueue() *queue {
	return &queue{taken: map[int64]bool{}, waiting: map[int64]int{},
		gate: limit.NewGate(limit.GateOptions{Inside: validating, InsidePerKey: validatingPerAccount, Queue: waiting, QueuePerKey: waitingPerAccount})}
}

// room refuses an account that has as many challenges waiting as it may.
func (q *queue) room(account int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiting[account] < waitingPerAccount {
		return nil
	}
	p := problem("rateLimited", "%d challenges of this account wait to be validated: say that this one is met when some of them are done", waitingPerAccount)
	p.retryAfter = lookEvery
	return p
}

// begin takes a job, unless it is taken already or nothing runs.
func (q *queue) begin(j job) (context.Context, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ctx == nil || q.ctx.Err() != nil || q.taken[j.authorization] || q.waiting[j.account] >= waitingPerAccount {
		return nil, false
	}
	q.taken[j.authorization] = true
	q.waiting[j.account]++
	q.workers.Add(1)
	return q.ctx, true
}

func (q *queue) end(j job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.taken, j.authorization)
	if q.waiting[j.account]--; q.waiting[j.account] <= 0 {
		delete(q.waiting, j.account)
	}
	q.workers.Done()
}

// run lets jobs begin until stop is called, which waits for those that have begun.
func (q *queue) run(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	q.mu.Lock()
	q.ctx = ctx
	q.mu.Unlock()
	return func() {
		cancel()
		q.mu.Lock() // after which none begins
		q.ctx = nil
		q.mu.Unlock()
		q.workers.Wait()
	}
}

// submit has a challenge validated in its turn. One for which there is no room stays in the
// ledger, where resume finds it.
func (s *Server) submit(j job) {
	ctx, mine := s.queue.begin(j)
	if !mine {
		return
	}
	go func() {
		defer s.queue.end(j)
		leave, err := s.queue.gate.Enter(ctx, ca.AccountActor(j.account))
		if err != nil {
			return // no room, or the server stops: the ledger has it
		}
		defer leave()
		if err := s.validate(ctx, j); err != nil && ctx.Err() == nil {
			s.Logger.Error("a challenge could not be validated; trying again", "protocol", "acme", "authorization", j.authorization, "err", err)
		}
	}()
}

// resume finds challenges that are being validated by nobody: from before a restart, or for which there was no room.
func (s *Server) resume(ctx context.Context) error {
	for after := int64(0); ; {
		page, err := s.Ledger.BusyAuthorizations(ctx, after, 500)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, a := range page {
			after = a.ID
			s.submit(job{authorization: a.ID, account: a.Account})
		}
	}
}
