//go:build cgo

package keys_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/deviceca/deviceca/internal/keys"
	"github.com/deviceca/deviceca/internal/keys/keystest"
)

// A token that allows fewer sessions than configured, and does not say so, makes callers wait: none fails.
func TestUnsaidSessionLimit(t *testing.T) {
	for _, limit := range []string{"2", "3", "8"} { // one of them holds the login
		t.Run(limit, func(t *testing.T) {
			proxy := newProxy(t)
			proxy.control(t, "C_OpenSession limit "+limit+"\nC_Sign block 18") // 24 ms: all at once
			p := open(t, proxy.uri, keys.Options{})
			k := generate(t, p)
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 4 {
						if err := sign(k); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			if err := p.Ping(t.Context()); err != nil {
				t.Error(err)
			}
			// The limit is learned: the token is not asked again and again.
			opened, _ := proxy.calls(t, "C_OpenSession")
			refused := strings.Count(strings.Join(opened, " "), "b1")
			if refused == 0 || refused > 8 {
				t.Errorf("C_OpenSession was refused %d times", refused)
			}
			began := time.Now()
			if err := p.Close(); err != nil || time.Since(began) > time.Second {
				t.Errorf("closed after %v: %v", time.Since(began), err)
			}
		})
	}
}

// While others have every session but the one that holds the login, callers wait, and go on as soon as there is one.
func TestOthersHaveTheSessions(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{Sessions: 2, Wait: time.Minute})
	k := generate(t, p)
	proxy.control(t, "C_Sign fail 21")
	if err := sign(k); err == nil { // and its session is closed
		t.Fatal("signed")
	}
	proxy.control(t, "C_OpenSession limit 1")
	done := make(chan error)
	for range 2 {
		go func() { done <- sign(k) }()
	}
	keystest.WaitFor(t, "the token refuses sessions", func() bool {
		opened, _ := proxy.calls(t, "C_OpenSession")
		return strings.Count(strings.Join(opened, " "), "b1") > 2
	})
	proxy.control(t, "")
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// They wait no longer than they may.
	short := open(t, proxy.uri, keys.Options{Sessions: 2, Wait: 100 * time.Millisecond})
	proxy.control(t, "C_OpenSession limit 0\nC_FindObjectsInit fail 21")
	for range 2 { // the first closes what session there is
		if _, err := short.Key(t.Context(), "k"); err == nil {
			t.Fatal("found")
		}
	}
	if _, err := short.Key(t.Context(), "k"); !isErr(err, keys.ErrUnavailable) {
		t.Errorf("without a session: %v", err)
	}
}

// One session alone is not enough, and the error says so.
func TestOneSession(t *testing.T) {
	proxy := newProxy(t)
	proxy.control(t, "C_OpenSession limit 1")
	p, err := keys.Open(t.Context(), proxy.uri, keys.Options{})
	if err == nil {
		p.Close()
	}
	if !isErr(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), "two are needed") {
		t.Errorf("opened: %v", err)
	}
}

// Sessions are opened one after the other: tpm2-pkcs11 gives two that are opened together one handle.
func TestOpenedOneByOne(t *testing.T) {
	proxy := newProxy(t)
	p := open(t, proxy.uri, keys.Options{})
	k := generate(t, p)
	proxy.control(t, "C_OpenSession alone 5\nC_OpenSession block 18\nC_CloseSession alone 5\nC_CloseSession block 18\nC_Sign block 60")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := sign(k); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for function, least := range map[string]int{"C_OpenSession": 3, "C_CloseSession": 0} {
		rvs, _ := proxy.calls(t, function)
		if len(rvs) < least || strings.Contains(strings.Join(rvs, " "), "5") {
			t.Errorf("%s: %v", function, rvs)
		}
	}
}
