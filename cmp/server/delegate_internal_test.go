package server

import (
	"crypto/x509"
	"testing"
	"time"
)

// The CA's own certificates are made anew at half of their life, and where they begin in the future.
func TestDue(t *testing.T) {
	now := time.Now()
	s := &Server{Options: Options{Now: func() time.Time { return now }}}
	for _, c := range []struct {
		from time.Duration
		want bool
	}{{time.Second, true}, {0, false}, {-delegateLife/2 + time.Second, false}, {-delegateLife / 2, true}} {
		if got := s.due(&x509.Certificate{NotBefore: now.Add(c.from), NotAfter: now.Add(c.from + delegateLife)}); got != c.want {
			t.Errorf("begun %s ago: %v, want %v", -c.from, got, c.want)
		}
	}
}
