package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Requests of an address that is refused often take turns; others pass by.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		noisy := netip.MustParseAddr("192.0.2.1")
		proxy := netip.MustParsePrefix("192.0.2.9/32")
		turns := newTurns(func(a netip.Addr) bool { return a == noisy || proxy.Contains(a) }, []netip.Prefix{proxy})
		inside, most := map[string]int{}, map[string]int{}
		release := make(chan bool)
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			host := netip.MustParseAddrPort(r.RemoteAddr).Addr().String()
			inside[host]++
			most[host] = max(most[host], inside[host])
			<-release
			inside[host]--
		})
		status := map[string]map[int]int{}
		ask := func(host string) {
			go func() {
				r := httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)
				r.RemoteAddr = host + ":4711"
				w := httptest.NewRecorder()
				turns.serve(handler, w, r)
				if status[host] == nil {
					status[host] = map[int]int{}
				}
				status[host][w.Code]++
				if w.Code == 503 && w.Header().Get("Retry-After") != "10" {
					t.Errorf("503 with Retry-After %q", w.Header().Get("Retry-After"))
				}
			}()
			synctest.Wait()
		}
		for range 80 {
			ask("192.0.2.1")
		}
		for _, host := range []string{"192.0.2.2", "192.0.2.9"} {
			for range 5 {
				ask(host)
			}
		}
		close(release)
		time.Sleep(10 * turnRest)
		if n := status["192.0.2.1"][200]; n < 10 || n > 11 {
			t.Errorf("%d requests were served in 10 rests", n)
		}
		time.Sleep(turnWait)
		if got := fmt.Sprint(most); got != "map[192.0.2.1:1 192.0.2.2:5 192.0.2.9:5]" {
			t.Errorf("at once: %s", got)
		}
		// One inside and 64 waiting; the rest is told to come back.
		if got := fmt.Sprint(status); got != "map[192.0.2.1:map[200:65 503:15] 192.0.2.2:map[200:5] 192.0.2.9:map[200:5]]" {
			t.Errorf("answers: %s", got)
		}
	})
}
