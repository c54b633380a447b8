package stacktest

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

func TestLostReply(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	g := h.addDevice("lamp-1")
	csr := newCSR(t, newKey(t), "lamp-1")
	body := base64.StdEncoding.EncodeToString(csr)
	conn := h.raw(t)
	if _, err := io.WriteString(conn, head(g)+fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body))+body); err != nil {
		t.Fatal(err)
	}
	conn.Close() // without a look at the answer
	time.Sleep(200 * time.Millisecond)
	made := h.ledger() // the certificate was made, or the request dropped; both are right
	lamp := h.device(g)
	var first string
	for i := range 3 {
		a, err := lamp.enroll(csr)
		if err != nil || a.status != http.StatusOK {
			t.Fatalf("asking again: %d %q %v", a.status, a.body, err)
		}
		if i == 0 {
			first = a.serial()
		}
		if a.serial() != first {
			t.Errorf("another certificate, %s, instead of %s", a.serial(), first)
		}
	}
	for serial := range made.certs {
		if serial != first {
			t.Errorf("%s was made for the lost reply, and %s handed out", serial, first)
		}
	}
	t.Run("after a restart", func(t *testing.T) {
		h.kill()
		h.start()
		if a, err := h.device(g).enroll(csr); err != nil || a.status != http.StatusOK || a.serial() != first {
			t.Errorf("got %d %q %v", a.status, a.body, err)
		}
	})
	after := h.ledger()
	if len(after.certs) != 1 || after.used[g.Reference] != 1 {
		t.Errorf("%d certificates, %d uses", len(after.certs), after.used[g.Reference])
	}
	t.Run("other requests are no repetition", func(t *testing.T) {
		before := h.ledger()
		a, err := h.device(g).enroll(newCSR(t, newKey(t), "lamp-1"))
		refused(t, h, before, a, err, 401, "no uses left")
		a, err = h.device(g).do(request{path: "/.well-known/est/gateway/simpleenroll", body: encoded(csr)})
		refused(t, h, before, a, err, 401, "no uses left")
	})
	t.Run("a revoked certificate is not handed out again", func(t *testing.T) {
		h.run("cert", "revoke", first, "--reason", "keyCompromise", "--home", h.dir)
		before := h.ledger()
		a, err := h.device(g).enroll(csr)
		refused(t, h, before, a, err, 401, "no uses left")
	})
}

// TestParallelRepetitions sends one request on many connections at once.
func TestParallelRepetitions(t *testing.T) {
	t.Parallel()
	h := newHome(t)
	const parallel = 32
	for _, uses := range []string{"1", "2", "40"} {
		t.Run(uses+" uses", func(t *testing.T) {
			id := "lamp-" + uses
			g := h.addDevice(id, "--uses", uses)
			csr := newCSR(t, newKey(t), id)
			var all sync.WaitGroup
			serials := make([]string, parallel)
			ready := make(chan struct{})
			for i := range parallel {
				d := h.device(g) // a connection of its own
				all.Go(func() {
					<-ready
					a, err := d.enroll(csr)
					if err != nil || a.status != http.StatusOK {
						t.Errorf("got %d %q %v", a.status, a.body, err)
						return
					}
					serials[i] = a.serial()
				})
			}
			close(ready)
			all.Wait()
			for _, serial := range serials[1:] {
				if serial != serials[0] {
					t.Errorf("several certificates for one request: %s and %s", serials[0], serial)
					break
				}
			}
			after := h.ledger()
			if n := after.by(g.Reference); n != 1 || after.used[g.Reference] != 1 {
				t.Errorf("%d certificates, %d uses spent", n, after.used[g.Reference])
			}
		})
	}
}
