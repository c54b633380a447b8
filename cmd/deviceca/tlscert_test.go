package main

import (
	"crypto/x509"
	"testing"
	"time"
)

// A certificate of the server's own is renewed at half of its life, and where it begins in the future.
func TestFresh(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		from time.Duration
		want bool
	}{{time.Hour, false}, {time.Second, false}, {0, true}, {-time.Minute, true}, {-11 * time.Hour, true}, {-12 * time.Hour, false}, {-25 * time.Hour, false}} {
		cert := &x509.Certificate{NotBefore: now.Add(c.from), NotAfter: now.Add(c.from + 24*time.Hour)}
		if got := fresh(cert, 24*time.Hour, now); got != c.want {
			t.Errorf("begun %s ago: %v, want %v", -c.from, got, c.want)
		}
	}
}
