package stacktest

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"
)

// load is devices that enrol, each once and then the next, as fast as the
// server lets them, and what they received.
type load struct {
	t     *testing.T
	h     *home
	group grant
	end   chan struct{}
	wg    sync.WaitGroup

	mu       sync.Mutex
	received map[string]string // serial: device
	statuses map[int]int       // answers by status; 0 is none
	slowest  time.Duration
	open     []pending // requests whose answer never came
	faults   []string
}

// pending is a request without an answer.
type pending struct {
	id  string
	csr []byte
}

// startLoad runs n clients until stop.
func startLoad(t *testing.T, h *home, group grant, prefix string, n int) *load {
	l := &load{t: t, h: h, group: group, end: make(chan struct{}), received: map[string]string{}, statuses: map[int]int{}}
	for i := range n {
		d := h.device(group)
		l.wg.Go(func() {
			for j := 0; ; j++ {
				select {
				case <-l.end:
					return
				default:
				}
				l.one(d, fmt.Sprintf("%s-%d-%d", prefix, i, j))
			}
		})
	}
	return l
}

// one enrols one device; a client that is refused or cut off waits a little.
func (l *load) one(d *dev, id string) {
	csr := newCSR(l.t, newKey(l.t), id)
	began := time.Now()
	a, err := d.enroll(csr)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slowest = max(l.slowest, time.Since(began))
	l.statuses[a.status]++
	switch {
	case err != nil:
		l.open = append(l.open, pending{id, csr})
	case a.status == http.StatusOK:
		if before, twice := l.received[a.serial()]; twice {
			l.faults = append(l.faults, fmt.Sprintf("serial %s came to %s and to %s", a.serial(), before, id))
		}
		l.received[a.serial()] = id
		return
	case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
	default:
		l.faults = append(l.faults, fmt.Sprintf("%s got %d %q", id, a.status, a.body))
	}
	l.mu.Unlock()
	time.Sleep(30 * time.Millisecond)
	l.mu.Lock()
}

// got is how many answers of a status there were so far.
func (l *load) got(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statuses[status]
}

// stop ends the load and reports what no client should have seen.
func (l *load) stop() {
	l.t.Helper()
	close(l.end)
	l.wg.Wait()
	for _, fault := range l.faults {
		l.t.Error(fault)
	}
}

// checkLedger demands that every certificate received is in the ledger, under
// its device, and that the credential lost one use for each certificate that it brought.
func (l *load) checkLedger() ledger {
	l.t.Helper()
	have := l.h.ledger()
	for serial, id := range l.received {
		if got, ok := have.certs[serial]; !ok || got.Device != id {
			l.t.Errorf("%s received %s, and the ledger has %q for it", id, serial, got.Device)
		}
	}
	if by, used := have.by(l.group.Reference), have.used[l.group.Reference]; by != used {
		l.t.Errorf("the credential brought %d certificates and lost %d uses", by, used)
	}
	return have
}
