package server_test

import (
	"bytes"
	"net/http/httptest"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/deviceca/deviceca/cmp"
	"github.com/deviceca/deviceca/cmp/server"
)

// cpu is what this process has used.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkServer is the handler over the real core and ledger with 32 clients,
// HTTP left out: transactions, their messages made beforehand.
func BenchmarkServer(b *testing.B) {
	for _, c := range []struct {
		name   string
		of     cmp.BodyType
		signed bool
	}{{"kur, signature, implicit", cmp.KUR, true}, {"ir, PBM, implicit", cmp.IR, false}} {
		b.Run(c.name, func(b *testing.B) {
			e := newEnv(b)
			key := newKey(b)
			p := e.register("lamp-1", 1_000_000)
			if c.signed {
				own := e.certificate(e.ask(e.message(requests(cmp.IR, crmf(b, "lamp-1", key, nil)), cmp.ImplicitConfirm()), p))
				p = party{id: "lamp-1", key: key, crt: own}
			}
			messages := make(chan []byte, b.N)
			for range b.N {
				// A key of its own for each: by credential, the same one would get the same certificate.
				messages <- e.protected(e.message(requests(c.of, crmf(b, "lamp-1", newKey(b), nil)), cmp.ImplicitConfirm()), p)
			}
			close(messages)
			runtime.GC()
			commits, used := e.store.Stats().Commits, cpu(b)
			b.ResetTimer()
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					for raw := range messages {
						r := httptest.NewRequest("POST", server.Prefix, bytes.NewReader(raw))
						r.Header.Set("Content-Type", "application/pkixcmp")
						w := httptest.NewRecorder()
						e.server.ServeHTTP(w, r)
						if m, err := cmp.Parse(w.Body.Bytes()); err != nil || !status(m).Status.Granted() || m.Body.Type() == cmp.ErrorMsg {
							b.Error(err, status(m))
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/(cpu(b)-used).Seconds(), "tx/cpu-s")
			b.ReportMetric(float64(e.store.Stats().Commits-commits)/float64(b.N), "commits/tx")
		})
	}
}
