package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		want string // of the error; "" none
	}{
		"defaults":         {nil, ""},
		"two parts":        {[]string{"-only", "renew,sign"}, ""},
		"unknown part":     {[]string{"-only", "renew,dance"}, `no part "dance"`},
		"no connections":   {[]string{"-connections", "0"}, "1 to 512"},
		"many rounds":      {[]string{"-rounds", "51"}, "1 to 50"},
		"no time":          {[]string{"-duration", "1ms"}, "200ms to 1m"},
		"an argument":      {[]string{"renew"}, "only flags"},
		"hours of loading": {[]string{"-duration", "1h"}, "200ms to 1m"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parseOptions(test.args)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("%+v, %v; want %q", o, err, test.want)
			}
		})
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(test.of); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.of, got, test.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var o outcome
	if o.quantile(0.99) != 0 {
		t.Error("no latencies have a quantile")
	}
	for i := range 100 {
		o.latencies = append(o.latencies, time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 0, 0.5: 50, 0.99: 99, 1: 99} {
		if got := o.quantile(q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

// counting is a TLS server that counts connections and requests, and refuses after some.
func counting(t *testing.T, refuseAfter int64) (target, *atomic.Int64, *atomic.Int64) {
	var connections, requests atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if n := requests.Add(1); refuseAfter > 0 && n > refuseAfter {
			http.Error(w, "enough", http.StatusForbidden)
		}
	}))
	s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { connections.Add(1); return nil, nil }}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return target{s.Listener.Addr().String(), roots}, &connections, &requests
}

func TestLoad(t *testing.T) {
	nothing := func() error { return nil }
	for name, test := range map[string]struct {
		connection  string
		connections func(requests int) int
		resumed     func(requests int) int
	}{
		"kept alive":     {keptAlive, func(int) int { return 3 }, func(int) int { return 0 }},
		"new connection": {fresh, func(n int) int { return n }, func(int) int { return 0 }},
		"resumed":        {resumed, func(n int) int { return n }, func(n int) int { return n - 3 }},
	} {
		t.Run(name, func(t *testing.T) {
			target, connections, requests := counting(t, 0)
			f := &fleet{target: target, ids: []string{"a", "b", "c"}, certs: make([]*tls.Certificate, 3)}
			members, err := f.newKeys("/enroll", 30)
			if err != nil {
				t.Fatal(err)
			}
			w := work{target: target, connection: test.connection, devices: members, limit: time.Minute}
			o, err := w.run(t.Context(), nothing, nothing)
			if err != nil {
				t.Fatal(err)
			}
			n := int(requests.Load())
			if o.done != n || n == 0 || len(o.latencies) != n || !o.short {
				t.Errorf("%+v after %d requests", o, n)
			}
			if got := int(connections.Load()); got != test.connections(n) || o.resumed != test.resumed(n) {
				t.Errorf("%d requests took %d connections, %d resumed", n, got, o.resumed)
			}
		})
	}
}

func TestLoadStops(t *testing.T) {
	nothing := func() error { return nil }
	members := func(t target) []*member {
		return []*member{{requests: [][]byte{encodeRequest(t.addr, "/enroll", []byte("csr"), "")}, again: true}}
	}
	t.Run("at a refusal", func(t *testing.T) {
		target, _, requests := counting(t, 5)
		w := work{target: target, connection: keptAlive, devices: members(target), limit: time.Minute}
		if _, err := w.run(t.Context(), nothing, nothing); err == nil || !strings.Contains(err.Error(), "enough") || requests.Load() != 6 {
			t.Errorf("%d requests, %v", requests.Load(), err)
		}
	})
	t.Run("when the time is over", func(t *testing.T) {
		target, _, _ := counting(t, 0)
		w := work{target: target, connection: keptAlive, devices: members(target), limit: 50 * time.Millisecond}
		if o, err := w.run(t.Context(), nothing, nothing); err != nil || o.done == 0 || o.took < w.limit || o.short {
			t.Errorf("%+v, %v", o, err)
		}
	})
	t.Run("when told", func(t *testing.T) {
		target, _, _ := counting(t, 0)
		ctx, cancel := context.WithCancel(t.Context())
		w := work{target: target, connection: keptAlive, devices: members(target), limit: time.Minute}
		if _, err := w.run(ctx, func() error { cancel(); return nil }, nothing); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestEncodeRequest(t *testing.T) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(encodeRequest("127.0.0.1:1", estPath+"simpleenroll", []byte("csr"), "Basic eA=="))))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != "Y3Ny" || r.URL.Path != "/.well-known/est/simpleenroll" || r.Header.Get("Authorization") != "Basic eA==" {
		t.Errorf("%v %q %v", r, body, err)
	}
}

func TestReport(t *testing.T) {
	r := newReport(options{connections: 32, duration: time.Second, rounds: 3})
	for i, pair := range [][2]float64{{200, 100}, {300, 100}, {900, 300}} {
		r.add(renewLoad, sample{PerCPUSecond: pair[0], PerSecond: 10, Signatures: 1, Commits: 0.1})
		r.add(peerLoad, sample{PerCPUSecond: pair[1], PerSecond: 20})
		r.add(bindingLoad, sample{PerCPUSecond: 2 * pair[0], RoundTrips: 4})
		r.add(pebbleLoad, sample{PerCPUSecond: pair[1]})
		r.Verify = append(r.Verify, []float64{1e6 / 60, 1, 1e9}[i])
		for _, n := range signingGoroutines {
			r.Signing[n] = append(r.Signing[n], signing{Goroutines: n, BarePerCPUSecond: 1e6 / 53, Ratio: 0.99})
		}
	}
	if got := r.ceiling(); got < 4149 || got > 4150 {
		t.Errorf("on the quiet machine the ceiling is %v, want 1/241 µs", got)
	}
	for name, want := range map[string][]string{
		"text":     {"renewal, new key, kept-alive mTLS", "300", "per CPU-second", "3.00", "0.990"},
		"markdown": {"| " + renewLoad + " | 10 | 300 |", "| " + peerLoad + " | 20 | 100 | – |", "|---|---:|", "| 3.00 |", "| 0.50 |", "| 600 | 4.00 | 1103 | 0.54 | 6.00 | – | – |"},
	} {
		var out strings.Builder
		if err := r.write(&out, name == "markdown"); err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s does not hold %q:\n%s", name, part, out.String())
			}
		}
	}
	file := t.TempDir() + "/out.json"
	if err := r.save(file); err != nil {
		t.Fatal(err)
	}
	var again report
	if raw, err := os.ReadFile(file); err != nil || json.Unmarshal(raw, &again) != nil || len(again.Loads[renewLoad]) != 3 {
		t.Errorf("the JSON does not hold every sample:\n%s", raw)
	}
}
