package stacktest

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// atOnce runs n requests at the same time and returns the answers.
func atOnce(t *testing.T, n int, one func(i int) (answer, error)) []answer {
	t.Helper()
	got := make([]answer, n)
	var all sync.WaitGroup
	ready := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-ready
			var err error
			if got[i], err = one(i); err != nil {
				t.Error(err)
			}
		})
	}
	close(ready)
	all.Wait()
	return got
}

// count counts answers by status, and shows those of neither.
func count(t *testing.T, got []answer, ok, refused int, says string) (issued int) {
	t.Helper()
	for _, a := range got {
		switch {
		case a.status == ok:
			issued++
		case a.status != refused || !strings.Contains(a.body, says):
			t.Errorf("got %d %q", a.status, a.body)
		}
	}
	return issued
}

func TestRaces(t *testing.T) {
	t.Parallel()
	h := newHome(t, "DEVICECA_LIMITS_CERTIFICATES_PER_DEVICE=0") // one device enrols until it is retired
	const parallel = 24
	t.Run("more requests than uses", func(t *testing.T) {
		g := h.addGroup("lamp-*", "7")
		csrs := make([][]byte, parallel)
		for i := range csrs {
			csrs[i] = newCSR(t, newKey(t), fmt.Sprintf("lamp-%d", i))
		}
		got := atOnce(t, parallel, func(i int) (answer, error) { return h.device(g).enroll(csrs[i]) })
		after := h.ledger()
		if n := count(t, got, 200, 401, "no uses left"); n != 7 || after.by(g.Reference) != 7 || after.used[g.Reference] != 7 {
			t.Errorf("%d were answered, %d certificates are there, %d of 7 uses spent", n, after.by(g.Reference), after.used[g.Reference])
		}
		if n := len(h.devices()); n != 7 {
			t.Errorf("%d devices entered the inventory", n)
		}
	})
	t.Run("one key for many devices", func(t *testing.T) {
		g := h.addGroup("bulb-*", "100")
		key := newKey(t)
		got := atOnce(t, parallel, func(i int) (answer, error) {
			return h.device(g).enroll(newCSR(t, key, fmt.Sprintf("bulb-%d", i)))
		})
		after := h.ledger()
		if n := count(t, got, 200, 400, "key"); n != 1 || after.by(g.Reference) != 1 || after.used[g.Reference] != 1 {
			t.Errorf("%d were answered, %d certificates are there, %d uses spent", n, after.by(g.Reference), after.used[g.Reference])
		}
	})
	t.Run("one device in many spellings", func(t *testing.T) {
		g := h.addGroup("spot-*", "100")
		spell := []string{"spot-a", "SPOT-A", "Spot-a", "spot-A"}
		got := atOnce(t, parallel, func(i int) (answer, error) {
			return h.device(g).enroll(newCSR(t, newKey(t), spell[i%len(spell)]))
		})
		count(t, got, 200, 403, "spot")
		n := 0
		for id := range h.devices() {
			if strings.EqualFold(id, "spot-a") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d devices", n)
		}
	})
	t.Run("retired while it enrols", func(t *testing.T) {
		g := h.addDevice("tube-1", "--uses", "100000")
		cert, key := h.device(g).mustEnroll(t, "tube-1")
		done := make(chan struct{})
		var all sync.WaitGroup
		for i := range 8 {
			d := h.device(g)
			if i%2 == 0 {
				d = h.owner(cert, key)
			}
			all.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					a, err := d.enroll(newCSR(t, newKey(t), "tube-1"))
					if err != nil || a.status != http.StatusOK && a.status != http.StatusForbidden && a.status != http.StatusUnauthorized {
						t.Errorf("got %d %q %v", a.status, a.body, err)
					}
				}
			})
		}
		time.Sleep(300 * time.Millisecond)
		h.run("device", "retire", "tube-1", "--home", h.dir)
		after := read[[]certificate](h, "cert", "list", "--device", "tube-1")
		time.Sleep(100 * time.Millisecond)
		close(done)
		all.Wait()
		if len(after) < 3 {
			t.Errorf("%d certificates before it was retired: this test shows nothing", len(after))
		}
		if valid := read[[]certificate](h, "cert", "list", "--device", "tube-1", "--valid"); len(valid) > 0 {
			t.Errorf("%d certificates of a retired device are valid", len(valid))
		}
		if more := read[[]certificate](h, "cert", "list", "--device", "tube-1"); len(more) != len(after) {
			t.Errorf("%d certificates were issued after it was retired", len(more)-len(after))
		}
	})
	h.auditHolds()
}
