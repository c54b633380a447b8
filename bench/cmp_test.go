package main

import (
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
)

// The bound by hand, on the quiet machine: a token signature of 53 µs, verifications of
// 60, commits of 25, signatures of 27 and derivations of 50.
func TestLeast(t *testing.T) {
	for want, l := range map[float64]cmpLoad{
		53 + 60 + 60 + 25 + 50:      {of: cmp.IR},
		53 + 60 + 60 + 2*(25+50):    {of: cmp.IR, confirm: true},
		53 + 60 + 60 + 25 + 60 + 27: {of: cmp.KUR, signed: true},
		53 + 60 + 60 + 2*(25+60+27): {of: cmp.IR, signed: true, confirm: true},
	} {
		if got := l.least(1e6/53, 1e6/60, 1e6/50) * 1e6; got < want-0.01 || got > want+0.01 {
			t.Errorf("%+v: %.2f µs, want %.2f", l, got, want)
		}
	}
	for _, l := range cmpLoads {
		if peer, ok := l.peer(); ok && (!peer.mock || l.mock || peer.signed != l.signed || peer.confirm != l.confirm) {
			t.Errorf("%+v is compared with %+v", l, peer)
		}
	}
}

// A transaction goes on for as long as its member says, over plain HTTP, and what
// CMP refuses ends the load though HTTP says 200.
func TestTransactions(t *testing.T) {
	mac, err := newMAC("ref", "secret")
	if err != nil {
		t.Fatal(err)
	}
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{}
	template.SerialNumber = big.NewInt(1)
	cert, err := certify(template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	var refuse atomic.Bool
	var confirmed atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		m, err := cmp.Parse(raw)
		if err != nil {
			t.Error(err)
			return
		}
		var body cmp.Body = &cmp.CertResponses{Of: cmp.IP, Responses: []cmp.CertResponse{{KeyPair: &cmp.KeyPair{Certificate: cert.Raw}}}}
		if b, ok := m.Body.(*cmp.Confirmations); ok {
			if err := b.List[0].Matches(cert.Raw); err != nil || mac.Verify(m) != nil {
				t.Errorf("a wrong certConf: %v", err)
			}
			confirmed.Add(1)
			body = &cmp.Confirm{}
		} else if refuse.Load() {
			body = &cmp.ErrorBody{Status: cmp.StatusInfo{Status: cmp.Rejection, FailInfo: cmp.BadRequest, Text: []string{"enough"}}}
		}
		answer := cmp.Reply(m, body, time.Now())
		if err := answer.Protect(mac); err != nil {
			t.Error(err)
		}
		w.Write(answer.Raw())
	}))
	defer server.Close()
	to := target{addr: server.Listener.Addr().String()}
	l := cmpLoad{of: cmp.IR, confirm: true}
	request, err := l.request(to, "bench-1", mac)
	if err != nil {
		t.Fatal(err)
	}
	nothing := func() error { return nil }
	w := work{target: to, connection: keptAlive, limit: 100 * time.Millisecond,
		devices: []*member{{requests: [][]byte{request}, again: true, follow: l.follow(to, mac)}}}
	o, err := w.run(t.Context(), nothing, nothing)
	if err != nil || o.done == 0 || int64(o.done) != confirmed.Load() {
		t.Fatalf("%d transactions, %d confirmed, %v", o.done, confirmed.Load(), err)
	}
	implicit := cmpLoad{of: cmp.IR}
	w.devices[0].follow = implicit.follow(to, mac)
	if _, err := w.run(t.Context(), nothing, nothing); err == nil || !strings.Contains(err.Error(), "implicitConfirm") {
		t.Errorf("implicitConfirm that was not granted: %v", err)
	}
	refuse.Store(true)
	if _, err := w.run(t.Context(), nothing, nothing); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Errorf("a refusal: %v", err)
	}
}

func TestReportCMP(t *testing.T) {
	r := newReport(options{connections: 32, duration: time.Second, rounds: 1})
	r.add(cmpLoads[0].name, sample{PerCPUSecond: 2000})
	r.add(cmpLoads[1].name, sample{PerCPUSecond: 1000})
	r.Verify, r.Derive = []float64{1e6 / 60}, []float64{1e6 / 50}
	r.Signing[1] = []signing{{Goroutines: 1, BarePerCPUSecond: 1e6 / 53}}
	var out strings.Builder
	if err := r.write(&out, true); err != nil || !strings.Contains(out.String(), "| "+cmpLoads[0].name+" | 2000 | 4032 | 0.50 | 2.00 |") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
